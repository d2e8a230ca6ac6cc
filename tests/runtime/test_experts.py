"""Experts: routing, sorting and summing equal their twins bit for bit; each expert is multiplied with its rows only."""

import numpy as np
import pytest
from kernel_runner import assert_same_bits, run

from refquant.gguf import FORMATS, quantize
from runtime.kernels import PRODUCTS, activations, experts, gemm
from runtime.kernels.pack import GROUP, interleave_numpy
from runtime.mixture import MixtureRows
from runtime.products import product_record
from runtime.program import Program
from runtime.scratch import Form
from runtime.weights import Linear, padded
from runtime.workers import Crew


def routed(scores: np.ndarray, n_used: int, normalized: bool) -> tuple[np.ndarray, np.ndarray]:
    tokens, n = scores.shape
    wide = np.zeros((tokens, padded(n)), np.float32)
    wide[:, :n] = scores
    chosen, weights = np.zeros((tokens, n_used), np.int32), np.zeros((tokens, n_used), np.float32)
    run(experts.route, [wide, chosen, weights], [n, n_used, padded(n) * 4, normalized], tokens, tokens)
    return chosen, weights


def arranged(chosen: np.ndarray, n: int, sort: bool) -> tuple[np.ndarray, ...]:
    """Rows, tokens of the rows, firsts and experts of the segments."""
    tokens, n_used = chosen.shape
    segments = n if sort else n_used
    shapes = (chosen.size, chosen.size, segments + 1, segments)
    out = [np.full(shape, -7, np.int32) for shape in shapes]
    run(experts.arrange, [chosen, *out], [n, n_used, sort], 1, tokens)
    return tuple(out)


@pytest.mark.parametrize("n, n_used", [(1, 1), (8, 2), (60, 4), (128, 8), (17, 17)])
@pytest.mark.parametrize("normalized", [True, False])
def test_routing_equals_the_twin(n, n_used, normalized):
    rng = np.random.default_rng([n, n_used])
    scores = rng.standard_normal((13, n), np.float32) * np.float32(5)
    scores[1] = 3  # all equal: the first ones
    scores[2] *= np.float32(1e4)  # most probabilities are 0
    scores[3, n // 2 :] = scores[3, 0]
    chosen, weights = routed(scores, n_used, normalized)
    ref_chosen, ref_weights = experts.route_numpy(scores, n_used, normalized)
    np.testing.assert_array_equal(chosen, ref_chosen)
    assert_same_bits(weights, ref_weights)
    np.testing.assert_array_equal(chosen[1], np.arange(n_used))
    if normalized:
        np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_score_that_is_no_number_shows_in_the_weights_and_not_in_the_experts(bad):
    scores = np.zeros((2, 6), np.float32)
    scores[0, 3] = bad
    with np.errstate(invalid="ignore"):
        chosen, weights = routed(scores, 4, True)
    assert ((chosen >= 0) & (chosen < 6)).all()
    assert np.isnan(weights[0]).all()
    assert np.isfinite(weights[1]).all()


@pytest.mark.parametrize("tokens, n, n_used", [(1, 4, 2), (9, 4, 2), (50, 60, 4), (5, 7, 7)])
def test_rows_are_sorted_by_expert_and_by_token(tokens, n, n_used):
    rng = np.random.default_rng([tokens, n])
    chosen = np.stack([rng.permutation(n)[:n_used] for _ in range(tokens)]).astype(np.int32)
    rows, sources, firsts, owners = arranged(chosen, n, sort=True)
    assert sorted(rows) == list(range(chosen.size))
    np.testing.assert_array_equal(owners, np.arange(n))
    counts = np.bincount(chosen.reshape(-1), minlength=n)
    np.testing.assert_array_equal(firsts, np.concatenate([[0], np.cumsum(counts)]))
    for i, row in enumerate(rows):
        assert sources[row] == i // n_used
        assert firsts[chosen.reshape(-1)[i]] <= row < firsts[chosen.reshape(-1)[i] + 1]
    for e in range(n):
        assert (np.diff(sources[firsts[e] : firsts[e + 1]]) > 0).all()


def test_the_rows_of_a_single_token_stay_in_order():
    chosen = np.array([[5, 1, 3]], np.int32)
    rows, sources, firsts, owners = arranged(chosen, 8, sort=False)
    assert (rows.tolist(), sources.tolist()) == ([0, 1, 2], [0, 0, 0])
    assert (firsts.tolist(), owners.tolist()) == ([0, 1, 2, 3], [5, 1, 3])


def test_gathering_copies_whole_rows_of_any_length():
    rng = np.random.default_rng(5)
    sources = rng.integers(0, 4, 11).astype(np.int32)
    a, b = rng.integers(0, 256, (4, 100), np.uint8), rng.integers(0, 256, (4, 64), np.uint8)
    to_a, to_b = np.zeros((11, 100), np.uint8), np.zeros((11, 64), np.uint8)
    run(experts.gather, [sources, a, to_a, b, to_b], [2, 100, 64], 11, 11)
    np.testing.assert_array_equal(to_a, a[sources])
    np.testing.assert_array_equal(to_b, b[sources])


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("n_used", [1, 3])
def test_the_weighed_sum_equals_the_twin(shared, n_used):
    rng = np.random.default_rng([shared, n_used])
    draw = lambda *shape: rng.standard_normal(shape, np.float32)
    tokens, n = 7, 64
    results, weights, y, gates = draw(tokens * n_used, n), draw(tokens, n_used), draw(tokens, n), draw(tokens, 32) * 9
    rows = rng.permutation(tokens * n_used).astype(np.int32)
    ref = experts.combine_numpy(
        results[rows].reshape(tokens, n_used, n), weights, y if shared else None, gates[:, 0].copy()
    )
    got = y.copy()
    run(experts.combine, [results, rows, weights, got, gates], [n_used, n * 4, shared, 128], tokens, tokens)
    assert_same_bits(got, ref)


@pytest.mark.parametrize("type_name, rows", [("F32", 40), ("F16", 32), ("Q8_0", 64), ("Q4_K", 96), ("Q6_K", 33)])
@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_row_is_multiplied_with_its_own_expert(type_name, rows, many, threads):
    n, count, n_used, tokens = 256, 5, 2, 23 if many else 1
    rng = np.random.default_rng([rows, many])
    fmt, product = FORMATS[type_name], PRODUCTS[type_name]
    w = rng.standard_normal((count, rows, n), np.float32)
    data = quantize(w.reshape(-1, n), type_name).view(np.uint8).reshape(count, rows, -1)
    full = np.zeros((count, padded(rows), data.shape[2]), np.uint8)
    full[:, :rows] = data
    packed = interleave_numpy(full.reshape(count * padded(rows), -1), fmt.block_bytes, product.fields)
    linear = Linear("w", type_name, rows, n, packed, None, count)
    assert linear.groups == padded(rows) // GROUP
    chosen = np.stack([rng.permutation(count - 1)[:n_used] for _ in range(tokens)]).astype(np.int32)  # one has no rows
    places, _, firsts, owners = arranged(chosen, count, sort=many)

    x = rng.standard_normal((tokens * n_used, n), np.float32)
    forms = encoded(x)
    y = np.full((len(x), padded(rows)), 7, np.float32)
    program, scratch = Program(), Scratch(firsts, owners, forms, threads)
    panels = np.zeros(threads * gemm.PANEL, np.uint8)
    MixtureRows(program, Sizes(count, n_used), scratch, panels, many).multiply(linear, x, y)
    crew = Crew(threads)
    try:
        crew.run(program.table(), 0, 1, tokens, 0)
    finally:
        crew.close()

    owner = np.empty(len(x), np.int64)
    owner[places] = chosen.reshape(-1)
    for row in range(len(x)):
        alone = np.zeros((1, padded(rows)), np.float32)
        own = Linear("w", type_name, rows, n, packed.reshape(count, -1)[owner[row]].copy(), None)
        one, panels = encoded(x[row : row + 1]), np.zeros(gemm.PANEL, np.uint8)
        kernel, buffers, numbers = product_record(own, x[row].copy(), alone, one, panels, many=False)
        run(kernel, buffers, numbers, own.groups)
        assert_same_bits(y[row, :rows], alone[0, :rows])


def encoded(x: np.ndarray) -> dict[int, Form]:
    """x (rows, n) in both 8-bit forms."""
    forms = {}
    for form, twin in ((activations.Q8_0, activations.q8_0_numpy), (activations.Q8_K, activations.q8_k_numpy)):
        forms[form], parts = Form(*x.shape, form), twin(x)
        for array, values in zip(forms[form].arrays, [*parts, activations.raised_numpy(parts[0])]):
            array[: values.size] = values.reshape(-1)
    return forms


class Scratch:
    """The part of a MixtureScratch that products read."""

    def __init__(self, firsts, owners, forms, threads):
        self.firsts, self.owners, self.forms = firsts, owners, forms
        self.records = np.zeros(threads * experts.RECORD, np.uint8)


class Sizes:
    """The part of a ModelConfig that products read."""

    def __init__(self, n_expert, n_used):
        self.mixture = self
        self.n_expert, self.n_used = n_expert, n_used
