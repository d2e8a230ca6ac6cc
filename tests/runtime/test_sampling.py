"""The sampler chain: llama.cpp's own cases, a scalar spelling, distributions, refusals, and speed."""

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import GGUFError, NonFiniteError, RangeError, ShapeError
from runtime import sampling
from runtime.sampling import Sampler

P4 = [0.1, 0.2, 0.3, 0.4]
OFF = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


def logarithms(probabilities) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(probabilities, np.float32))


def survivors(step, probabilities, parameter) -> list[float]:
    ids, logits = step(np.arange(len(probabilities)), logarithms(probabilities), parameter)
    assert ids.shape == logits.shape
    return sampling.softmax(logits).tolist()


# The numbers of llama.cpp's tests/test-sampling.cpp, whose tolerance is 1e-5.


@pytest.mark.parametrize(
    "k, ref", [(1, [1.0]), (3, [4 / 9, 3 / 9, 2 / 9]), (4, [0.4, 0.3, 0.2, 0.1]), (0, P4), (-1, P4)]
)
def test_top_k_agrees_with_llama_cpp(k, ref):
    assert survivors(sampling.top_k, P4, k) == pytest.approx(ref, abs=1e-5)


@pytest.mark.parametrize("p, ref", [(0, [1.0]), (0.7, [4 / 7, 3 / 7]), (0.8, [4 / 9, 3 / 9, 2 / 9]), (1.0, P4)])
def test_top_p_agrees_with_llama_cpp(p, ref):
    assert survivors(sampling.top_p, P4, p) == pytest.approx(ref, abs=1e-5)


@pytest.mark.parametrize(
    "p, kept", [(0.0, 4), (0.24, 4), (0.26, 3), (0.49, 3), (0.51, 2), (0.74, 2), (0.76, 1), (1.0, 1), (1.05, 1)]
)
def test_min_p_agrees_with_llama_cpp(p, kept):
    ref = [x / sum(P4[-kept:]) for x in P4[-kept:]]
    assert survivors(sampling.min_p, P4, p) == pytest.approx(ref, abs=1e-5)


@pytest.mark.parametrize(
    "history, repeat, frequency, presence, ref",
    [
        ([0], 50, 0, 0, [0, 0.25, 0.25, 0.25, 0.25]),
        ([0, 1, 2], 50, 0, 0, [0, 0, 0, 0.5, 0.5]),
        ([0, 1, 2, 0, 0], 50, 0, 0, [0, 0, 0, 0.5, 0.5]),
        ([0], 1, 5, 5, [0.000011, 0.249997, 0.249997, 0.249997, 0.249997]),
        ([0, 1, 2], 1, 5, 5, [0.000023, 0.000023, 0.000023, 0.499966, 0.499966]),
        ([0, 1, 2, 0, 0], 1, 5, 5, [0.0, 0.000023, 0.000023, 0.499977, 0.499977]),
    ],
)
def test_penalties_agree_with_llama_cpp(history, repeat, frequency, presence, ref):
    got = sampling.penalize(logarithms([0.2] * 5), history, repeat, frequency, presence)
    assert got.dtype == np.float32
    assert sampling.softmax(got).tolist() == pytest.approx(ref, abs=1e-5)


@pytest.mark.parametrize("temperature, ref", [(1.0, P4), (0.0, [1.0]), (-1.0, [1.0])])
def test_temperature_agrees_with_llama_cpp(temperature, ref):
    _, got = Sampler(**OFF | {"temperature": temperature}, seed=0).candidates(logarithms(P4))
    assert got.tolist() == pytest.approx(ref, abs=1e-5)


@pytest.mark.parametrize("queue", ["".join(q) for n in (1, 2, 3) for q in itertools.permutations("kpm", n)])
def test_steps_in_any_order_keep_the_largest_of_ten_thousand(queue):
    """Token i has weight i, so that every step must keep an unbroken run of ids that ends at the last one."""
    n, k, p, m = 10_000, 100, 0.8, 0.1
    ids, logits = np.arange(n), logarithms(np.arange(n))
    lowest = 0
    for step in queue:
        if step == "k":
            ids, logits = sampling.top_k(ids, logits, k)
            lowest = max(lowest, n - k)
        elif step == "p":
            ids, logits = sampling.top_p(ids, logits, p)
            target = math.ceil(np.float32(p) * sum(range(lowest, n)))
            sums = itertools.accumulate(range(n - 1, -1, -1))
            lowest = n - 1 - next(i for i, total in enumerate(sums) if total >= target)
        else:
            ids, logits = sampling.min_p(ids, logits, m)
            lowest = max(lowest, math.ceil(m * (n - 1)))
        assert sorted(ids.tolist()) == list(range(lowest, n))


# A second spelling of the chain, in scalars, without shortcuts.


def scalar_chain(logits, history, temperature, k, p, m, repeat):
    penalized = [
        (float(np.float32(l / repeat if l > 0 else l * repeat)) if i in history else l) for i, l in enumerate(logits)
    ]
    ranked = sorted(range(len(penalized)), key=lambda i: (-penalized[i], i))
    ranked = ranked[:k] if k > 0 else ranked
    total = math.fsum(math.exp(penalized[i] - penalized[ranked[0]]) for i in ranked)
    if p < 1:
        running = 0.0
        for count, i in enumerate(ranked, 1):
            running += math.exp(penalized[i] - penalized[ranked[0]]) / total
            if running >= p:
                ranked = ranked[:count]
                break
    if m > 0:
        ranked = [i for i in ranked if penalized[i] >= penalized[ranked[0]] + math.log(m)]
    weights = {i: math.exp((penalized[i] - penalized[ranked[0]]) / temperature) for i in ranked}
    return {i: weight / math.fsum(weights.values()) for i, weight in weights.items()}


@given(
    logits=st.lists(st.integers(-40, 40), min_size=1, max_size=40),
    history=st.lists(st.integers(0, 39), max_size=8),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    k=st.integers(0, 45),
    p=st.sampled_from([0.0, 0.31, 0.83, 0.97, 1.0]),
    m=st.sampled_from([0.0, 0.07, 0.6, 1.0]),
    repeat=st.sampled_from([1.0, 1.3, 4.0]),
)
def test_the_chain_is_its_scalar_spelling(logits, history, temperature, k, p, m, repeat):
    logits = [l / 8 for l in logits]  # eighths make ties likely and are exact in float32
    history = [i for i in history if i < len(logits)]
    ref = scalar_chain(logits, history, temperature, k, p, m, repeat)
    sampler = Sampler(temperature, k, p, m, repeat, seed=1)
    ids, probability = sampler.candidates(np.array(logits, np.float32), history)
    assert dict(zip(ids.tolist(), probability.tolist())) == pytest.approx(ref, abs=1e-6)


def test_the_drawn_ids_follow_the_probabilities():
    sampler = Sampler(**OFF, seed=11)
    draws = 20_000
    counts = np.bincount([sampler.sample(logarithms(P4)) for _ in range(draws)], minlength=4)
    spread = np.sqrt(draws * np.array(P4) * (1 - np.array(P4)))
    assert np.all(np.abs(counts - draws * np.array(P4)) < 5 * spread), counts


def test_a_draw_takes_the_first_id_whose_cumulative_probability_exceeds_the_number():
    class Fixed:
        def __init__(self, u):
            self.random = lambda: u

    ids, probability = np.array([7, 8, 9, 3]), np.array([0.0, 0.5, 0.0, 0.5])
    got = [sampling.draw(ids, probability, Fixed(u)) for u in (0.0, 0.49, 0.5, math.nextafter(1, 0))]
    assert got == [8, 8, 3, 3]


def test_a_seed_repeats_its_draws_and_another_seed_does_not():
    logits = np.random.default_rng(3).normal(size=500).astype(np.float32)
    runs = [
        [sampler.sample(logits) for _ in range(50)] for sampler in (Sampler(seed=5), Sampler(seed=5), Sampler(seed=6))
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_sampler_without_a_seed_says_which_one_it_drew():
    logits = np.zeros(1000, np.float32)
    first = Sampler(**OFF)
    again = Sampler(**OFF, seed=first.seed)
    assert [first.sample(logits) for _ in range(9)] == [again.sample(logits) for _ in range(9)]
    assert first.seed != Sampler(**OFF).seed


def test_top_p_stops_where_the_sum_is_reached_exactly():
    assert survivors(sampling.top_p, [0.25] * 4, 0.5) == [0.5, 0.5]


def test_greedy_takes_the_first_of_equal_logits_and_draws_nothing():
    sampler = Sampler(temperature=0, seed=1)
    assert sampler.sample(np.array([1, 3, 2, 3], np.float32)) == 1
    assert sampler._rng.random() == np.random.default_rng(1).random()


def test_equal_logits_at_the_border_of_top_k_keep_the_lowest_ids():
    logits = np.tile(np.float32([0, 1]), 1000)
    ids, _ = sampling.top_k(np.arange(2000), logits, 5)
    assert ids.tolist() == [1, 3, 5, 7, 9]


def test_greedy_obeys_the_repetition_penalty_within_the_last_tokens_only():
    logits = np.array([2.0, 1.9, -1.0], np.float32)
    assert Sampler(temperature=0, repeat_penalty=1.2).sample(logits, [0]) == 1
    assert Sampler(temperature=0, repeat_penalty=1.2, repeat_last_n=2).sample(logits, [0, 2, 2]) == 0
    assert Sampler(temperature=0, repeat_penalty=1.2, repeat_last_n=-1).sample(logits, [0, *[2] * 500]) == 1
    assert Sampler(temperature=0, repeat_penalty=1.2, repeat_last_n=0).sample(logits, [0]) == 0


def test_a_token_of_minus_infinity_is_never_drawn():
    logits = np.full(64, -np.inf, np.float32)
    logits[[5, 9]] = 0
    sampler = Sampler(**OFF, seed=2)
    assert {sampler.sample(logits) for _ in range(200)} == {5, 9}
    assert Sampler(top_k=40, seed=2).sample(logits) in {5, 9}


@pytest.mark.parametrize("temperature", [1e-45, 1e-300, 1e300])
def test_extreme_temperatures_stay_finite(temperature):
    _, probability = Sampler(temperature, seed=0).candidates(np.float32([-3e38, 1, 3e38]))
    assert np.isfinite(probability).all()
    assert probability.sum() == pytest.approx(1)


def test_arguments_are_not_changed():
    logits = np.random.default_rng(8).normal(size=300).astype(np.float32)
    before, history = logits.copy(), [1, 2, 3]
    Sampler(repeat_penalty=1.5, seed=1).sample(logits, history)
    np.testing.assert_array_equal(logits, before)
    assert history == [1, 2, 3]
    logits.flags.writeable = False
    Sampler(repeat_penalty=1.5, seed=1).sample(logits, np.array(history))


@pytest.mark.parametrize(
    "logits, error, message",
    [
        (np.float32([0, np.nan, 1]), NonFiniteError, r"logits\[1\] = nan"),
        (np.float32([0, 1, np.inf]), NonFiniteError, r"logits\[2\] = inf"),
        (np.float32([-np.inf, -np.inf]), NonFiniteError, "every logit is -inf"),
        (np.zeros((2, 3), np.float32), ShapeError, r"float32\(2, 3\), expected a float array \(n_vocab,\)"),
        (np.zeros(0, np.float32), ShapeError, r"\(0,\)"),
        (np.zeros(4, np.int64), ShapeError, "int64"),
    ],
)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logits_that_mean_nothing_are_refused(logits, error, message, temperature):
    with pytest.raises(error, match=message):
        Sampler(temperature).sample(logits)


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_history_of_another_vocabulary_is_refused(wrong):
    with pytest.raises(RangeError, match=rf"history holds id {wrong}, expected 0\.\.2"):
        Sampler(repeat_penalty=1.1).sample(np.zeros(3, np.float32), [1, wrong])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"temperature": math.nan}, "temperature = nan, expected a finite number"),
        ({"temperature": math.inf}, "temperature = inf"),
        ({"temperature": "hot"}, "temperature = 'hot'"),
        ({"temperature": True}, "temperature = True"),
        ({"top_k": 1.5}, "top_k = 1.5, expected an integer"),
        ({"top_p": 1.01}, r"top_p = 1.01, expected 0\.\.1"),
        ({"top_p": -0.1}, "top_p = -0.1"),
        ({"min_p": 2}, "min_p = 2"),
        ({"repeat_penalty": 0}, "repeat_penalty = 0, expected more than 0"),
        ({"repeat_penalty": -1.0}, "repeat_penalty = -1.0"),
        ({"repeat_last_n": -2}, "repeat_last_n = -2"),
        ({"seed": -1}, r"seed = -1, expected 0\.\.2"),
        ({"seed": 2**64}, "seed = 18446744073709551616"),
        ({"seed": 0.5}, "seed = 0.5, expected an integer"),
        ({"frequency_penalty": math.nan}, "frequency_penalty = nan"),
        ({"presence_penalty": math.inf}, "presence_penalty = inf"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(RangeError, match=message):
        Sampler(**settings)


def test_a_file_may_recommend_settings():
    metadata = {
        "general.sampling.temp": 0.6,
        "general.sampling.top_k": 20,
        "general.sampling.penalty_repeat": 1.05,
        "general.sampling.mirostat": 2,
        "general.name": "x",
    }
    got = sampling.recommended(metadata)
    assert got == {"temperature": 0.6, "top_k": 20, "repeat_penalty": 1.05}
    assert Sampler(**got).top_p == Sampler().top_p
    assert sampling.recommended({}) == {}


@pytest.mark.parametrize("value", [math.nan, "0.6", [1.0]])
def test_a_file_that_recommends_nonsense_is_named(value):
    with pytest.raises(GGUFError, match=r"general\.sampling\.temp = "):
        sampling.recommended({"general.sampling.temp": value})
    assert sampling.recommended({"general.sampling.temp": value}, given=["temperature"]) == {}


@pytest.mark.parametrize("settings", [{"temperature": 0}, {}, {"top_k": 0}, {"repeat_penalty": 1.1}])
def test_a_vocabulary_of_152_thousand_costs_a_few_milliseconds(settings):
    """The bound is a multiple of what a full sort of the same logits takes here, so that a slow machine passes too."""
    logits = np.random.default_rng(0).normal(0, 4, size=152_064).astype(np.float32)
    sampler = Sampler(**settings, seed=0)
    history = list(range(2000))

    def best(call):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    assert best(lambda: sampler.sample(logits, history)) < 2 * best(lambda: np.argsort(logits, kind="stable"))
