"""SmoothQuant and its kin: the formulas by hand, the invariance that makes them legal, and what they are good for."""

import numpy as np
import pytest

import refquant
from refquant import smoothquant
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError


def layer(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 48)).astype(np.float32)
    X[:, 5] *= 60
    X[:, 30] = np.abs(X[:, 30]) * 40
    return rng.standard_normal((32, 48)).astype(np.float32), X


def w8a8_error(W, X, s) -> float:
    """Per-tensor inputs, per-channel weights: where outlier channels hurt."""
    Xq = refquant.quantize(X / s, "int8-tensor-restricted").dequantize()
    Wq = refquant.quantize(W * s, "int8-channel-restricted").dequantize()
    return float(np.mean(np.square((X @ W.T).astype(np.float64) - Xq @ Wq.T)))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.85, 1.0])
def test_the_scale_is_the_formula(alpha):
    W, X = layer()
    V, _ = layer(1)
    got = smoothquant.smooth_scale([W, V], X, alpha)
    for j in range(48):
        a = max(abs(float(x)) for x in X[:, j])
        w = max(abs(float(x)) for M in (W, V) for x in M[:, j])
        assert got[j] == pytest.approx(max(a**alpha / max(w, 1e-5) ** (1 - alpha), 1e-5), rel=1e-5)


def test_the_variant_of_llm_compressor_uses_ranges():
    W, X = layer()
    got = smoothquant.smooth_scale([W], X, 0.7, dialect="llm-compressor")
    ref = (X.max(0) - X.min(0)) ** 0.7 / (2 * np.abs(W).max(0)) ** 0.3
    np.testing.assert_allclose(got, ref, rtol=1e-5)
    mirrored = np.concatenate([X, -X])
    ratio = smoothquant.smooth_scale([W], mirrored, 0.7, "llm-compressor") / smoothquant.smooth_scale([W], X, 0.7)
    np.testing.assert_allclose(ratio, 2 ** (2 * 0.7 - 1), rtol=1e-5)


def test_dead_inputs_and_dead_weights_get_the_customs_of_each():
    W, X = layer()
    X[:, 3], W[:, 4] = 0, 0
    plain, other = (smoothquant.smooth_scale([W], X, 0.5, d) for d in smoothquant.DIALECTS)
    assert plain[3] == other[3] == np.float32(1e-5)
    assert plain[4] == pytest.approx((np.abs(X[:, 4]).max() / 1e-5) ** 0.5, rel=1e-5)
    assert other[4] == np.ptp(X[:, 4])


def test_the_product_is_unchanged_and_w8a8_gains():
    W, X = layer()
    s = smoothquant.smooth_scale([W], X)
    np.testing.assert_allclose((X / s) @ (W * s).T, X @ W.T, rtol=1e-4, atol=1e-3)
    assert w8a8_error(W, X, s) < 0.2 * w8a8_error(W, X, np.float32(1))


def test_as_a_method_it_stands_for_the_weights():
    W, X = layer()
    got = refquant.quantize(W, "int8-channel", method="smoothquant", calibration=X, alpha=0.5)
    s = smoothquant.smooth_scale([W], X)
    np.testing.assert_array_equal(got.codes, refquant.quantize(W * s, "int8-channel").codes)
    assert (np.abs(got.dequantize() - W) <= got.scale / 2 / s + 1e-5).all()


def test_log_equalization():
    got = smoothquant.log_equalization(np.array([0, 2, 6, 62], np.float32))
    np.testing.assert_allclose(got, [1e-5, 1, 2, 62 / 6], rtol=1e-6)


def test_gains_and_shifts_move_without_changing_the_function():
    W, X = layer()
    gain = np.random.default_rng(3).standard_normal(48).astype(np.float32)
    ones, (moved,) = smoothquant.migrate_gain(gain, [W])
    np.testing.assert_allclose((X * ones) @ moved.T, (X * gain) @ W.T, rtol=1e-4, atol=1e-3)
    bias = np.arange(32, dtype=np.float32)
    z, new = smoothquant.channel_shift(X, W, bias)
    np.testing.assert_allclose((X - z) @ W.T + new, X @ W.T + bias, rtol=1e-3, atol=2e-3)
    shifted = X - z
    np.testing.assert_allclose(shifted.max(0), -shifted.min(0), rtol=1e-4, atol=1e-4)


def test_the_outlier_scale_is_the_best_of_its_grid():
    W, X = layer()
    tried = {}
    s = smoothquant.outlier_scale(W, X, "int8-channel", "int8", steps=20, seen=lambda t, loss: tried.update({t: loss}))
    best = min(tried, key=tried.get)
    np.testing.assert_allclose(s, np.maximum(1, np.abs(X).max(0) / np.float32(best)), rtol=1e-6)
    assert len(tried) == 20
    assert tried[best] < 0.5 * tried[max(tried)]  # the largest t scales nothing
    assert (smoothquant.outlier_scale(W, np.zeros_like(X), "int8", "int8") == 1).all()


@pytest.mark.parametrize(
    "call, error",
    [
        (lambda W, X: smoothquant.smooth_scale([W], X, 1.5), RangeError),
        (lambda W, X: smoothquant.smooth_scale([W], X, 0.5, "nobody"), SchemeError),
        (lambda W, X: smoothquant.smooth_scale([], X), ShapeError),
        (lambda W, X: smoothquant.smooth_scale([W], X[:, 1:]), ShapeError),
        (lambda W, X: smoothquant.quantize(W, "int8", None), QuantError),
        (lambda W, X: smoothquant.log_equalization(-np.ones(2)), RangeError),
        (lambda W, X: smoothquant.migrate_gain(np.ones(3), [W]), ShapeError),
        (lambda W, X: smoothquant.outlier_scale(W, X, "int8", "int8", steps=0), RangeError),
    ],
)
def test_refusals(call, error):
    W, X = layer()
    with pytest.raises(error):
        call(W, X)
