"""What every observer promises, and what each of them finds."""

import doctest

import numpy as np
import pytest

import refquant
from refquant import groups, metrics, observers
from refquant.errors import NonFiniteError, QuantError, RangeError, SchemeError, ShapeError
from refquant.groups import Granularity
from refquant.observers import Entropy, Histogram, MeanSquaredError, MinMax, MovingAverage, Percentile
from refquant.observers.magnitudes import Magnitudes
from refquant.observers.mean_squared_error import SEARCHES, best_range
from refquant.schemes import parse

CHANNEL1 = Granularity("channel", axis=1)
ALL = {
    "min-max": MinMax,
    "moving average": MovingAverage,
    "histogram": Histogram,
    "percentile": Percentile,
    "percentile, modelopt": lambda: Percentile(dialect="modelopt"),
    "entropy": lambda: Entropy(bins=512),
    "entropy, modelopt": lambda: Entropy(bins=512, dialect="modelopt"),
    "mse": lambda: MeanSquaredError("int4"),
}


def batches(count: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((16, 32)) * (1 + 0.3 * i)).astype(np.float32) for i in range(count)]


def fed(observer, data):
    for batch in data:
        observer.update(batch)
    return observer


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_every_observer_answers_with_a_range_that_quantizes_its_data(make):
    data = batches()
    observer = fed(make(), data)
    lo, hi = observer.ranges()
    assert lo.dtype == hi.dtype == np.float32 and lo.shape == hi.shape == () and lo < 0 < hi
    for scheme in ("int8", "uint8", "int4"):
        scale, zero_point = observer.affine(scheme)
        rule = parse(scheme).rule
        assert zero_point is None if rule.symmetric else zero_point.dtype == np.uint8
        q = refquant.quantize(data[0], scheme, scale=scale, zero_point=zero_point)
        assert q.scale == scale
        assert metrics.sqnr_db(data[0], q.dequantize()) > (20 if rule.bits == 8 else 8)


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_an_observer_refuses_bad_batches_and_to_answer_without_data(make):
    observer = make()
    with pytest.raises(QuantError, match="batches = 0"):
        observer.ranges()
    with pytest.raises(NonFiniteError, match="nan"):
        observer.update(np.array([1.0, np.nan]))
    with pytest.raises(ShapeError, match="at least one value"):
        observer.update(np.zeros((0, 3)))
    with pytest.raises(QuantError, match="batches = 0"):
        observer.ranges()
    fed(observer, batches(1))
    with pytest.raises(SchemeError, match=r"linear|range"):
        observer.affine("nf4")


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_constant_and_zero_data_have_a_range(make):
    for value in (0.0, 2.5, -1.0):
        lo, hi = fed(make(), [np.full((4, 8), value, np.float32)]).ranges()
        slack = 0.07 * abs(value)  # the modelopt dialect and MSE may clip
        assert lo - slack <= value <= hi + slack and np.isfinite([lo, hi]).all()


@pytest.mark.parametrize("name", ["min-max", "percentile", "entropy"])
def test_exact_merging_gives_what_one_observer_of_all_data_has_in_any_split(name):
    data = batches(6)
    data[4] *= 1000
    whole = fed(ALL[name](), data)
    for order in ([0, 1, 2, 3, 4, 5], [4, 2, 0, 1, 5, 3]):
        merged = ALL[name]()
        for part in (order[:2], order[2:5], order[5:], []):
            merged.merge(fed(ALL[name](), [data[i] for i in part]))
        assert merged.ranges() == whole.ranges()


def test_min_max_by_channel_is_the_minimum_and_maximum_of_each():
    data = batches()
    lo, hi = fed(MinMax(CHANNEL1), data).ranges()
    stacked = np.concatenate(data)
    np.testing.assert_array_equal(lo, stacked.min(axis=0, keepdims=True))
    np.testing.assert_array_equal(hi, stacked.max(axis=0, keepdims=True))
    scale, zero_point = fed(MinMax(CHANNEL1), data).affine("uint8")
    assert scale.shape == zero_point.shape == (1, 32)
    ref = refquant.quantize(stacked, "uint8-channel1")
    np.testing.assert_array_equal(scale, ref.scale)
    np.testing.assert_array_equal(zero_point, ref.zero_point)
    with pytest.raises(ShapeError, match=r"expected \(1, 32\)"):
        fed(MinMax(CHANNEL1), data).update(np.ones((4, 8)))


def test_a_moving_average_moves_by_a_hundredth():
    data = batches(3)
    lo = data[0].min()
    for batch in data[1:]:
        lo = lo + np.float32(0.01) * (batch.min() - lo)
    assert fed(MovingAverage(), data).ranges()[0] == lo
    assert fed(MovingAverage(constant=1.0), data).ranges()[0] == data[-1].min()


def test_moving_averages_merge_by_batches():
    a, b = fed(MovingAverage(), batches(3)), fed(MovingAverage(), batches(1, seed=1))
    ref = (3 * np.float64(a.ranges()[0]) + b.ranges()[0]) / 4
    a.merge(b)
    assert a.ranges()[0] == np.float32(ref) and a.batches == 4


def test_merged_histograms_stay_within_one_bin_of_the_data():
    data = batches(4)
    merged = Histogram(256)
    for half in (data[:2], data[2:]):
        merged.merge(fed(Histogram(256), half))
    values = np.sort(np.concatenate(data).ravel())
    assert merged.counts.sum() == values.size
    assert (merged.lo, merged.hi) == (values[0], values[-1])
    width = (float(values[-1]) - float(values[0])) / 256
    edges = float(values[0]) + width * np.arange(1, 257)
    cumulated = np.cumsum(merged.counts)
    widened = 3 * width  # each half widened once, then once more into the union
    assert (cumulated <= np.searchsorted(values, edges + widened, side="right")).all()
    assert (cumulated >= np.searchsorted(values, edges - widened)).all()


def test_the_histogram_gives_up_outliers_where_that_quantizes_better():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(100_000).astype(np.float32)
    x[:3] = [12, -11, 10]
    errors = [
        metrics.mse(x, refquant.quantize(x, "uint4", scale=s, zero_point=z).dequantize())
        for s, z in (fed(o, [x]).affine("uint4") for o in (Histogram(bits=4), MinMax()))
    ]
    assert errors[0] < 0.5 * errors[1]


def test_doubling_bins_count_like_one_histogram_made_at_the_end():
    data = [batch * np.float32(3.0**i) for i, batch in enumerate(batches(5))]
    m = fed(Magnitudes(64), data)
    values = np.abs(np.concatenate(data).astype(np.float64)).ravel()
    np.testing.assert_array_equal(m.counts, np.bincount((values / m.width).astype(int), minlength=64))
    assert m.largest == values.max() and m.negative and 32 * m.width <= values.max() < 64 * m.width


def test_appended_bins_keep_the_width_of_the_first_batch_and_merge_only_at_equal_width():
    data = batches(2)
    m = fed(Magnitudes(64, "appending"), [data[0], data[1] * 5])
    assert m.width == float(np.abs(data[0]).max()) / 64
    assert len(m.counts) == np.ceil(float(np.abs(data[1] * 5).max()) / m.width)
    m.merge(fed(Magnitudes(64, "appending"), [data[0]]))
    assert m.counts.sum() == 3 * data[0].size
    with pytest.raises(QuantError, match="growth='doubling'"):
        m.merge(fed(Magnitudes(64, "appending"), [data[1]]))


@pytest.mark.parametrize("share", [50.0, 99.0, 99.9, 100.0])
def test_a_percentile_covers_its_share_and_not_a_bin_more(share):
    x = np.concatenate(batches(8))
    observer = fed(Percentile(share), [x])
    lo, hi = observer.ranges()
    magnitudes = np.abs(x)
    assert lo == -hi and np.mean(magnitudes <= hi) >= share / 100
    assert np.mean(magnitudes <= hi - 2 * observer.magnitudes.width) < share / 100
    assert fed(Percentile(share), [magnitudes]).ranges()[0] == 0


def naive_divergence(bins, i, levels):
    """Slides 37-39 of Migacz 2017, loop by loop."""
    P = [float(b) for b in bins[:i]]
    P[-1] += float(sum(bins[i:]))
    Q = [0.0] * i
    for level in range(levels):
        members = [k for k in range(i) if int(np.searchsorted(np.linspace(0, i, levels + 1), k, "right")) - 1 == level]
        occupied = [k for k in members if bins[k] > 0]
        for k in occupied:
            Q[k] = sum(float(bins[m]) for m in members) / len(occupied)
    if any(p > 0 and q == 0 for p, q in zip(P, Q)):
        return float("inf")
    P, Q = [p / sum(P) for p in P], [q / sum(Q) for q in Q]
    return sum(p * np.log(p / q) for p, q in zip(P, Q) if p > 0)


def test_entropy_finds_the_least_divergence_of_the_published_procedure():
    x = np.concatenate(batches(8))
    observer = fed(Entropy(bits=4, bins=64), [x])
    m = observer.magnitudes
    used = m.counts[: int(np.flatnonzero(m.counts)[-1]) + 1]
    divergence = [naive_divergence(used, i, 8) for i in range(8, len(used) + 1)]
    best = 8 + int(np.argmin(divergence))
    assert observer.ranges()[1] == np.float32(min((best + 0.5) * m.width, m.largest))


def test_mse_searches_do_not_lose_to_the_whole_range_in_their_own_norm():
    rows = np.random.default_rng(3).standard_t(4, (32, 128)).astype(np.float32)
    for name, search in SEARCHES.items():
        schemes = ["int4-channel", "int3-channel"] + ["uint4-channel"] * (not search.mirrored)
        for scheme in schemes:
            lo, hi = best_range(rows, parse(scheme).rule, search)
            ranges = (lo, hi), (rows.min(axis=1), rows.max(axis=1))
            errors = []
            for ends in ranges:
                scale, zero = observers.parameters.affine(*(e[:, None] for e in ends), scheme)
                x_hat = refquant.quantize(rows, scheme, scale=scale, zero_point=zero).dequantize()
                errors.append((np.abs(rows - x_hat).astype(np.float64) ** search.norm).sum())
            assert errors[0] < errors[1], (name, scheme)


def test_patience_ends_a_search_early():
    rows = np.random.default_rng(4).uniform(-1, 1, (8, 64)).astype(np.float32)
    eager, patient = (
        observers.mean_squared_error.Search(SEARCHES["gptq"].factors, 2.4, patience) for patience in (1, None)
    )
    rule = parse("int2-channel").rule
    assert (best_range(rows, rule, eager)[1] >= best_range(rows, rule, patient)[1]).all()
    MeanSquaredError("int4", groups.CHANNEL, eager).update(rows)


@pytest.mark.parametrize("make, error, message", [
    (lambda: MovingAverage(constant=0), RangeError, "constant = 0"),
    (lambda: Histogram(bins=1), RangeError, "bins, bits = 1, 8"),
    (lambda: Percentile(0), RangeError, "percentile = 0"),
    (lambda: Percentile(dialect="other"), RangeError, "dialect = 'other'"),
    (lambda: Entropy(bits=9), RangeError, "bits, bins = 9, 2048"),
    (lambda: MeanSquaredError("nf4"), SchemeError, "rule is not linear"),
    (lambda: MeanSquaredError("int1"), SchemeError, "rule is not linear"),
    (lambda: MeanSquaredError("int4", search="best"), RangeError, "search = 'best'"),
    (lambda: MinMax().merge(MinMax(CHANNEL1)), QuantError, "settings of the other observer"),
    (lambda: Histogram().merge(Histogram(64)), QuantError, "settings of the other observer"),
])  # fmt: skip
def test_refusals(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_the_example_of_the_package_runs():
    assert doctest.testmod(observers).failed == 0
