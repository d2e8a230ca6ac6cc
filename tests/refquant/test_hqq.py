"""HQQ: a scalar spelling of the solver, what each dialect keeps, and what it is good for."""

import numpy as np
import pytest

import refquant
from refquant import hqq
from refquant.errors import RangeError, SchemeError


def matrix(seed: int = 0, shape=(16, 128)) -> np.ndarray:
    """Heavy tails, for which zero points are worth moving."""
    return np.random.default_rng(seed).standard_t(4, shape).astype(np.float32)


def naive(W, group, bits, dialect, iterations=20):
    """Float64, a group at a time for z, the mean error over all: (codes, zero)."""
    w = W.astype(np.float64).reshape(-1, group)
    top = 2**bits - 1
    m = [min(top / (max(r) - min(r)), 2e4) for r in w]
    z = [-min(r) * f for r, f in zip(w, m)]
    beta, history = 10.0, []
    for _ in range(iterations):
        error, new = 0.0, []
        for r, f, zero in zip(w, m, z):
            total = 0.0
            for x in r:
                q = min(max(round(x * f + zero), 0), top)
                e = x - (q - zero) / f
                error += abs(e) / w.size
                size = max(abs(e) - abs(e) ** -0.3 / beta, 0) if e else 0.0
                total += q - (x - np.sign(e) * size) * f
            new.append(total / group)
        history.append((error, z))
        stop = len(history) > 1 and error >= min(e for e, _ in history[:-1])
        if stop:
            z = new if dialect == "last" else min(history, key=lambda pair: pair[0])[1]
            break
        z = new
        beta *= 1.0 if dialect == "last" else 1.01
    z = np.array(z)[:, None]
    return np.clip(np.rint(w * np.array(m)[:, None] + z), 0, top).reshape(W.shape), z


@pytest.mark.parametrize("dialect", ["last", "best"])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_solver_is_the_scalar_one(dialect, bits):
    W = matrix(shape=(4, 64))
    codes, zero = naive(W, 32, bits, dialect)
    got = hqq.quantize(W, f"uint{bits}-g32@hqq", dialect=dialect)
    np.testing.assert_allclose(got.zero_point.ravel(), zero.ravel(), rtol=1e-4)
    assert np.mean(got.codes != codes) < 0.01


def mean_error(W, q) -> float:
    return float(np.mean(np.abs(W - q.dequantize())))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_mean_error_never_rises_and_falls_on_heavy_tails(bits):
    for seed in range(3):
        W, scheme = matrix(seed), f"uint{bits}-g64@hqq"
        plain = mean_error(W, refquant.quantize(W, scheme))
        assert mean_error(W, hqq.quantize(W, scheme)) <= plain
    assert mean_error(W, hqq.quantize(W, scheme)) < 0.99 * plain


def test_the_default_keeps_the_least_error_of_all_dialects_with_its_constants():
    def errors(seed):
        rules = [hqq.Settings(keep, kappa=1.0) for keep in ("least", "best", "last")]
        return [mean_error(matrix(seed), hqq.quantize(matrix(seed), "uint4-g64@hqq", settings=r)) for r in rules]

    least, best, last = errors(0)  # the steps run out, and the last one made it worse
    assert least < best == last
    least, best, last = errors(2)  # a step made it worse: stopped
    assert least == best < last


def test_without_room_to_improve_it_is_plain_rounding():
    W = np.arange(64, dtype=np.float32).reshape(2, 32) % 16  # every weight is a level
    got = hqq.quantize(W, "uint4-g32@hqq")
    np.testing.assert_array_equal(got.codes, W)
    np.testing.assert_array_equal(got.dequantize(), W)


def test_flat_groups_decode_to_themselves_and_a_rounded_zero_starts_whole():
    W = matrix()
    W[0, :64] = 0
    W[1, :64] = 0.75
    got = hqq.quantize(W, "uint4-g64@hqq")
    assert got.scale[0, 0] == got.scale[1, 0] == 1
    assert (got.dequantize()[0, :64] == 0).all()
    rows = hqq.rows_of("test", W, "uint4-g64@hqq", ("float",))
    _, zero = hqq.start(rows, True)
    np.testing.assert_array_equal(zero, np.rint(zero))


def test_shrinking():
    x = np.array([-2, -0.1, 0, 0.05, 3], np.float32)
    ref = [np.sign(v) * max(abs(v) - abs(v) ** -0.3 / 10, 0) if v else 0 for v in x.tolist()]
    np.testing.assert_allclose(hqq.shrink(x, 10, np.float32(-0.3)), ref, atol=1e-6)


@pytest.mark.parametrize(
    "scheme, options, error",
    [
        ("uint4-g64", {}, SchemeError),
        ("int4-g64", {}, SchemeError),
        ("nf4", {}, SchemeError),
        ("uint4-g64@hqq", {"dialect": "first"}, SchemeError),
        ("uint4-g64@hqq", {"settings": hqq.Settings(norm=2.0)}, RangeError),
    ],
)
def test_refusals(scheme, options, error):
    with pytest.raises(error):
        hqq.quantize(matrix(), scheme, **options)
