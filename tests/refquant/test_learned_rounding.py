"""AdaRound, AutoRound, weighted rounding, EasyQuant, ZeroQuant: gradients against differences, losses against plain."""

import numpy as np
import pytest

import refquant
from refquant import adaround, autoround, easyquant, weighted_rounding, zeroquant
from refquant.adam import Adam
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.linear_rows import gram, output_error, rows_of


def layer(out: int = 16, n: int = 64, tokens: int = 256, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([out, n, tokens, seed])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    return rng.standard_normal((out, n)).astype(np.float32), (mixed * np.exp(rng.standard_normal(n))).astype(np.float32)


def error(W, got, X) -> float:
    return float(np.mean(np.square(X.astype(np.float64) @ (W - got).T)))


def slope(function, x: float, step: float = 1e-3) -> float:
    return (function(x + step) - function(x - step)) / (2 * step)


def test_adam_is_the_recurrence_of_the_paper():
    gradients = [0.5, -1.0, 0.25, 3.0]
    p, m, v = 1.0, 0.0, 0.0
    adam, got = Adam(0.1), np.array([1.0])
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p -= 0.1 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + 1e-8)
        got = adam.step(got, np.array([g]))
        assert got[0] == pytest.approx(p, rel=1e-12)


def test_the_output_error_and_its_gradient():
    W, X = layer()
    E = np.random.default_rng(1).standard_normal(W.shape).astype(np.float32)
    loss, gradient = output_error(E, gram(X))
    assert loss == pytest.approx(np.mean(np.square(X @ E.T), dtype=np.float64), rel=1e-4)

    def moved(amount):
        F = E.copy()
        F[3, 5] += amount
        return np.mean(np.square(X.astype(np.float64) @ F.T.astype(np.float64)))

    assert gradient[3, 5] == pytest.approx(slope(moved, 0.0, 1e-2), rel=1e-2)


def test_the_slopes_of_the_soft_rounding():
    V = np.linspace(-2, 2, 9)
    h, by_V = adaround.soft(V)
    np.testing.assert_allclose(by_V, [slope(lambda v: adaround.soft(np.array(v))[0], v, 1e-5) for v in V], rtol=1e-4)
    np.testing.assert_allclose(
        adaround.soft(adaround.inverse(np.array([0.1, 0.5, 0.9])))[0], [0.1, 0.5, 0.9], rtol=1e-5
    )
    ref = [slope(lambda x: 1 - abs(2 * x - 1) ** 4, x, 1e-5) for x in h]
    np.testing.assert_allclose(adaround.regularizer_slope(h, 4), ref, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("scheme", ["int4-channel", "uint3-g32"])
def test_adaround_beats_rounding_and_moves_each_code_by_one_at_most(scheme):
    W, X = layer()
    plain = refquant.quantize(W, scheme)
    got = refquant.quantize(W, scheme, method="adaround", calibration=X, steps=300)
    assert error(W, got.dequantize(), X) < 0.85 * error(W, plain.dequantize(), X)
    np.testing.assert_array_equal(got.scale, plain.scale)
    assert np.abs(got.codes.astype(int) - plain.codes).max() == 1
    floor = np.floor((W.reshape(plain.scale.size, -1) / plain.scale.reshape(-1, 1)).reshape(W.shape))
    zero = np.broadcast_to(plain.zero_point, plain.scale.shape).astype(int)
    above = got.codes - np.repeat(zero, W.shape[1] // zero.shape[1], axis=1) - floor
    clipped = (got.codes == plain.scheme.rule.qmin) | (got.codes == plain.scheme.rule.qmax)
    assert np.isin(above[~clipped], [0, 1]).all()


@pytest.mark.parametrize("scheme", ["uint4-g32", "uint2-g64", "int4-g32-signedmax", "int3-channel"])
def test_autoround_beats_rounding_and_never_loses(scheme):
    W, X = layer()
    plain = error(W, refquant.quantize(W, scheme).dequantize(), X)
    got = refquant.quantize(W, scheme, method="autoround", calibration=X)
    assert error(W, got.dequantize(), X) < 0.95 * plain
    once = autoround.quantize(W, scheme, X, iterations=1)
    assert error(W, once.dequantize(), X) <= plain * 1.0001


@pytest.mark.parametrize("scheme", ["uint3-g32", "int3-g32-signedmax", "int3-g32"])
def test_the_gradients_of_autoround_are_those_of_the_straight_through_formula(scheme):
    """With rounding replaced by x + c, c held at what rounding did, the loss is smooth and has those slopes."""
    rng = np.random.default_rng(2)
    rows = rows_of("test", rng.standard_normal((3, 32)).astype(np.float32), scheme)
    v = rng.uniform(-0.4, 0.4, rows.values.shape).astype(np.float32)
    a, b = rng.uniform(0.6, 0.8, (2, 3, 1)).astype(np.float32)  # much is clipped
    now = autoround.qdq(rows, v, a, b)
    to_weight = rng.standard_normal(rows.values.shape).astype(np.float32)
    by_v, by_a, by_b = autoround.gradients(rows, now, to_weight, a)
    assert (~now.inside).any()
    w = rows.values.astype(np.float64)
    lo, hi = np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0)
    rule = rows.rule

    def scale_of(a, b):
        if not rule.symmetric:
            return (hi * b - lo * a) / (rule.qmax - rule.qmin)
        if rule.range_mode == "signedmax":
            return np.where(now.scale > 0, -lo * a, -hi * b) / 4
        return rows.scale * b

    def zero_of(a, s):
        return now.zero if rule.symmetric else rule.qmin - a * lo / s

    s0 = scale_of(a, b)
    rounded_zero = now.zero - zero_of(a, s0)
    rounded = now.codes - now.zero - (w / s0 + v)

    def loss(v, a, b):
        s = scale_of(a, b)
        zero = zero_of(a, s) + rounded_zero
        q = np.where(now.inside, w / s + v + rounded + zero, now.codes)
        return np.sum(to_weight * s * (q - zero))

    for group in range(3):
        for gradient, name in ((by_a, "a"), (by_b, "b")):

            def moved(x, group=group, name=name):
                values = {"a": a.astype(np.float64), "b": b.astype(np.float64)}
                values[name][group] += x
                return loss(v, **values)

            assert gradient[group, 0] == pytest.approx(slope(moved, 0.0, 1e-5), rel=2e-3, abs=2e-3)

    def moved_v(x):
        changed = v.astype(np.float64)
        changed[1, 7] += x
        return loss(changed, a, b)

    assert by_v[1, 7] == pytest.approx(slope(moved_v, 0.0, 1e-4), rel=1e-3, abs=1e-6)


def test_the_weighted_search_is_never_worse_than_the_format_in_its_own_measure():
    W, X = layer(n=128)
    q = weighted_rounding.importance(X)
    np.testing.assert_allclose(q, np.mean(X.astype(np.float64) ** 2, axis=0), rtol=1e-6)
    scheme = "int4-g32-signedmax"

    def measure(tensor):
        return float(np.sum(q * np.square(W - tensor.dequantize())))

    plain, own = refquant.quantize(W, scheme), weighted_rounding.quantize(W, scheme)
    weighted = refquant.quantize(W, scheme, method="weighted", calibration=X)
    peer = refquant.quantize(W, scheme, method="weighted@auto-round", calibration=X)
    assert measure(weighted) < 0.8 * measure(plain)
    assert measure(weighted) < measure(own)
    assert measure(peer) < 0.9 * measure(plain)
    assert np.mean(np.square(W - own.dequantize())) < np.mean(np.square(W - plain.dequantize()))


def test_the_weighted_search_by_brute_force():
    W, X = layer(out=2, n=32)
    q = weighted_rounding.importance(X).astype(np.float64)
    got = weighted_rounding.quantize(W, "int3-g32-signedmax", X)
    for row in range(2):
        w, losses = W[row].astype(np.float64), []
        peak = w[np.abs(w).argmax()]
        for shift in [0, *(-0.1 * k for k in range(-9, 10))]:
            codes = np.clip(np.rint(-(4 - shift) / peak * w), -4, 3)
            s = np.sum(q * w * codes) / np.sum(q * codes**2)
            losses.append((np.sum(q * (w - s * codes) ** 2), s))
        assert got.scale[row, 0] == pytest.approx(min(losses)[1], rel=1e-5)


def test_groups_of_zeros_and_unused_columns_are_no_trouble():
    W, X = layer()
    W[2], X[:, :32] = 0, 0
    for method in ("weighted", "autoround", "adaround", "easyquant", "zeroquant"):
        got = refquant.quantize(W, "int4-g32-signedmax", method=method, calibration=X).dequantize()
        assert np.isfinite(got).all(), method
        assert (got[2] == 0).all(), method


def test_easyquant_keeps_outliers_exactly_and_learns_a_better_range():
    rng = np.random.default_rng(4)
    W = rng.standard_normal((12, 256)).astype(np.float32)
    W[3, 17], W[5, 100] = 9, -20
    got = refquant.quantize(W, "int4-channel", method="easyquant")
    found = easyquant.outliers(W, 3)
    assert found[3, 17] and found[5, 100]
    assert 0 < found.mean() < 0.01
    decoded = got.dequantize()
    np.testing.assert_array_equal(decoded[found], W[found])
    assert got.extras["sparse_values"].size == found.sum()
    rest = np.where(found, 0, W).astype(np.float32)
    plain = refquant.quantize(rest, "int4-channel").dequantize()
    learned, fixed = (np.square(rest - np.where(found, 0, x)).sum(axis=1) for x in (decoded, plain))
    assert (learned <= fixed * 1.0001).all()
    assert learned.sum() < 0.97 * fixed.sum()
    assert easyquant.outliers(np.ones((2, 8), np.float32), 3).sum() == 0
    assert got.nbytes == refquant.quantize(W, "int4-channel").nbytes + 13 * 4 + found.sum() * 8


def test_zeroquant_distills_what_rounding_lost():
    W, X = layer()
    wanted = X @ W.T

    def loss(q):
        Xq = refquant.quantize(X, zeroquant.INPUTS).dequantize()
        return float(np.mean(np.square(wanted - Xq @ q.dequantize().T)))

    plain, got = zeroquant.quantize(W, "int4-g32", X, steps=0), zeroquant.quantize(W, "int4-g32", X, steps=100)
    np.testing.assert_array_equal(plain.codes, refquant.quantize(W, "int4-g32").codes)
    assert loss(got) < 0.95 * loss(plain)
    product = zeroquant.matmul(X, W, "int4-g32")
    assert loss(plain) == pytest.approx(float(np.mean(np.square(wanted - product))), rel=1e-5)
    exact = zeroquant.matmul(X, W, "F32", inputs=None)
    np.testing.assert_allclose(exact, wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda W, X: adaround.quantize(W, "nf4", X), SchemeError),
        (lambda W, X: adaround.quantize(W, "uint4-zfloat", X), SchemeError),
        (lambda W, X: adaround.quantize(W, "int4", X, steps=0), RangeError),
        (lambda W, X: autoround.quantize(W, "int4", X[:, 1:]), ShapeError),
        (lambda W, X: autoround.quantize(W, "int4", X, lr=-1), RangeError),
        (lambda W, X: weighted_rounding.quantize(W, "int4-g32", X), SchemeError),
        (lambda W, X: weighted_rounding.quantize(W, "int4-g32-signedmax", X, dialect="x"), SchemeError),
        (lambda W, X: easyquant.quantize(W, "uint4-g32"), SchemeError),
        (lambda W, X: easyquant.quantize(W, "int4-g32", deviations=0), RangeError),
        (lambda W, X: zeroquant.quantize(W, "int4-g32", X, steps=-1), RangeError),
    ],
)
def test_refusals(call, error):
    W, X = layer()
    with pytest.raises(error):
        call(W, X)
