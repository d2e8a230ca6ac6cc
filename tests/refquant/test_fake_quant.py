"""Straight-through, LSQ, LSQ+ and PACT gradients against numerical differences, and a training loop that needs them."""

import numpy as np
import pytest

from refquant import fake_quant as fq
from refquant.errors import RangeError, ShapeError


@pytest.mark.parametrize("qmin, qmax", [(-4, 3), (0, 15)])
@pytest.mark.parametrize("inside", ["rounded", "unrounded"])
def test_lsq_plus_gradients_are_derivatives_with_the_residue_frozen(qmin, qmax, inside):
    rng = np.random.default_rng(qmax)
    s, b, h = 0.21, 0.13, 1e-6
    x, dy = rng.standard_normal((5, 400)), rng.standard_normal((5, 400))
    v = (x - b) / s
    residue = np.rint(v) - v
    at_an_end = (np.rint(v) == qmin) | (np.rint(v) == qmax)  # the clip has two derivatives there
    dy[at_an_end] = 0

    def loss(x, s, b):
        return np.sum(dy * (np.clip((x - b) / s + residue, qmin, qmax) * s + b))

    dx, ds, db = fq.lsq_plus_backward(dy, x, s, b, qmin, qmax, inside=inside)
    assert ds == pytest.approx((loss(x, s + h, b) - loss(x, s - h, b)) / (2 * h), rel=1e-5)
    assert db == pytest.approx((loss(x, s, b + h) - loss(x, s, b - h)) / (2 * h), rel=1e-5, abs=1e-5)
    for index in ((0, 0), (3, 77), (4, 399)):
        step = np.zeros_like(x)
        step[index] = h
        assert dx[index] == pytest.approx((loss(x + step, s, b) - loss(x - step, s, b)) / (2 * h), abs=1e-6)


def test_the_two_meanings_of_inside_part_in_the_half_step_beyond_each_end():
    x = np.array([[-2.4], [-2.6], [1.4], [1.6], [0.2]])
    rounded, unrounded = (
        [fq.lsq_backward(np.ones(1), value, 1.0, -2, 1, inside=how) for value in x] for how in ("rounded", "unrounded")
    )
    assert [float(dx[0]) for dx, _ in rounded] == [1, 0, 1, 0, 1]
    assert [float(dx[0]) for dx, _ in unrounded] == [0, 0, 0, 0, 1]
    np.testing.assert_allclose([ds for _, ds in rounded], [0.4, -2, -0.4, 1, -0.2])
    np.testing.assert_allclose([ds for _, ds in unrounded], [-2, -2, 1, 1, -0.2])


def test_outside_the_range_gradients_are_true_derivatives_of_the_forward_pass():
    x, dy, h = np.array([-9.0, 9.0, 30.0]), np.array([1.0, 2.0, -3.0]), 1e-6
    dx, ds, db = fq.lsq_plus_backward(dy, x, 0.5, 0.1, -4, 3)
    numeric = lambda a, b: np.sum(dy * (a - b)) / (2 * h)
    assert not dx.any()
    assert ds == pytest.approx(numeric(fq.lsq_plus(x, 0.5 + h, 0.1, -4, 3), fq.lsq_plus(x, 0.5 - h, 0.1, -4, 3)))
    assert db == pytest.approx(numeric(fq.lsq_plus(x, 0.5, 0.1 + h, -4, 3), fq.lsq_plus(x, 0.5, 0.1 - h, -4, 3)))


def test_lsq_has_the_three_cases_of_its_paper():
    x = np.array([-3.0, -0.3, 0.2, 0.55, 9.0])
    dx, ds = fq.lsq_backward(np.eye(5), np.tile(x, (5, 1)), np.full((5, 1), 0.5), -2, 1)
    np.testing.assert_array_equal(np.diagonal(dx), [0, 1, 1, 1, 0])
    np.testing.assert_allclose(ds[:, 0], [-2, -1 + 0.6, 0 - 0.4, 1 - 1.1, 1])
    assert fq.lsq_gradient_scale(400, 4) == 1 / 40
    assert fq.lsq_scale(np.array([1.0, -3.0]), 4) == 2.0


def test_pact_clips_rounds_and_sends_the_gradient_of_what_is_clipped_to_alpha():
    x, dy, h = np.array([-1.0, 0.3, 1.9, 2.0, 5.0]), np.array([1.0, 2.0, 3.0, 4.0, 5.0]), 1e-6
    np.testing.assert_allclose(fq.pact(x, 2.0, 2), [0, 0, 2, 2, 2])
    dx, dalpha = fq.pact_backward(dy, x, 2.0)
    np.testing.assert_array_equal(dx, [0, 2, 3, 0, 0])
    assert dalpha == 9
    far = np.array([5.0, 7.0])
    numeric = np.sum(fq.pact(far, 2 + h, 4) - fq.pact(far, 2 - h, 4)) / (2 * h)
    assert fq.pact_backward(np.ones(2), far, 2.0)[1] == pytest.approx(numeric)


def test_parameters_broadcast_and_their_gradients_have_their_shape():
    rng = np.random.default_rng(5)
    x, dy = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((4, 6)).astype(np.float32)
    s, b = np.array([[0.1], [0.2], [0.3], [0.4]], np.float32), rng.standard_normal(6).astype(np.float32)
    dx, ds, db = fq.lsq_plus_backward(dy, x, s, b, -4, 3)
    assert (dx.shape, ds.shape, db.shape) == ((4, 6), (4, 1), (6,)) and ds.dtype == np.float32
    for row in range(4):
        alone = fq.lsq_plus_backward(dy[row], x[row], float(s[row, 0]), b, -4, 3)
        np.testing.assert_array_equal(dx[row], alone[0])
        assert ds[row, 0] == pytest.approx(alone[1], rel=1e-6)


def test_fake_quantization_is_quantize_and_dequantize():
    x = np.linspace(-2, 2, 41, dtype=np.float32)
    got = fq.fake_quantize(x, np.float32(0.1), 3, 0, 15)
    np.testing.assert_array_equal(got, (np.clip(np.rint(x / np.float32(0.1)) + 3, 0, 15) - 3) * np.float32(0.1))
    passed = fq.fake_quantize_backward(np.ones_like(x), x, 0.1, 3, 0, 15)
    np.testing.assert_array_equal(passed != 0, (x >= -0.35) & (x <= 1.25))


@pytest.mark.parametrize("call, error, message", [
    (lambda x: fq.fake_quantize(x, 0.0, 0, 0, 1), RangeError, "smallest scale = 0.0"),
    (lambda x: fq.lsq(x.astype(np.float16), 1.0, 0, 1), RangeError, "x.dtype = float16"),
    (lambda x: fq.lsq(x, np.ones(7), 0, 1), ShapeError, r"\(7,\), expected one within \(3,\)"),
    (lambda x: fq.lsq_backward(x, x, 1.0, 0, 1, inside="near"), RangeError, "inside = 'near'"),
])  # fmt: skip
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones(3))


def train(bits: int | None, steps: int, start: list[np.ndarray], data) -> list[np.ndarray]:
    """Gradient descent on a two-layer regression; with bits, through LSQ scales that are learned as well."""
    x, y = data
    W1, W2 = (w.copy() for w in start[:2])
    qmin, qmax = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if bits else (0, 0)
    scales = [fq.lsq_scale(w, qmax) for w in (W1, W2)] if bits else []
    g = [fq.lsq_gradient_scale(w.size, qmax) for w in (W1, W2)] if bits else []
    for _ in range(steps):
        Q1, Q2 = (fq.lsq(w, s, qmin, qmax) for w, s in zip((W1, W2), scales)) if bits else (W1, W2)
        h = np.maximum(x @ Q1.T, 0)
        dy = 2 * (h @ Q2.T - y) / len(x)
        dQ2, dQ1 = dy.T @ h, ((dy @ Q2) * (h > 0)).T @ x
        if bits:
            dW1, ds1 = fq.lsq_backward(dQ1, W1, scales[0], qmin, qmax, g[0])
            dW2, ds2 = fq.lsq_backward(dQ2, W2, scales[1], qmin, qmax, g[1])
            scales = [np.maximum(s - 0.02 * d, 1e-4) for s, d in zip(scales, (ds1, ds2))]
        else:
            dW1, dW2 = dQ1, dQ2
        W1, W2 = W1 - 0.02 * dW1, W2 - 0.02 * dW2
    return [fq.lsq(w, s, qmin, qmax) for w, s in zip((W1, W2), scales)] if bits else [W1, W2]


def test_training_with_quantization_beats_rounding_after_training_at_three_bits():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((512, 8))
    truth = np.maximum(x @ rng.standard_normal((8, 16)), 0) @ rng.standard_normal((16, 1))
    data = x, truth / truth.std()
    start = [rng.standard_normal((32, 8)) / np.sqrt(8), rng.standard_normal((1, 32)) / np.sqrt(32)]
    trained = train(None, 1500, start, data)

    def loss(weights):
        return float(np.mean(np.square(np.maximum(x @ weights[0].T, 0) @ weights[1].T - data[1])))

    def rounded(w):  # the scale with the least error, so that PTQ is not beaten by a bad range alone
        tried = [fq.lsq(w, s, -4, 3) for s in np.abs(w).max() / np.linspace(1.5, 6, 40)]
        return min(tried, key=lambda q: np.square(q - w).sum())

    ptq = loss([rounded(w) for w in trained])
    qat = loss(train(3, 1500, trained, data))
    assert loss(trained) < 0.05 and ptq > 2 * loss(trained)
    assert qat < 0.5 * ptq
