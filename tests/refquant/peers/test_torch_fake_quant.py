"""Fake quantization against torch: forward values and gradients."""

import warnings

import numpy as np
import pytest

from refquant import fake_quant


@pytest.fixture
def torch(peer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peer("torch")


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((40, 30)).astype(np.float32), rng.standard_normal((40, 30)).astype(np.float32)


@pytest.mark.parametrize("scale, zero_point, qmin, qmax", [(0.25, 0, -8, 7), (0.07, 9, 0, 15), (0.013, -3, -128, 127)])
def test_forward_and_backward_equal_torch_but_for_ties(torch, scale, zero_point, qmin, qmax):
    x, dy = data()
    leaf = torch.tensor(x, requires_grad=True)
    ref = torch.fake_quantize_per_tensor_affine(leaf, scale, zero_point, qmin, qmax)
    ref.backward(torch.tensor(dy))
    s = np.float32(scale)
    got = fake_quant.fake_quantize(x, s, zero_point, qmin, qmax)
    quotient = x / s
    near_tie = np.abs(np.abs(quotient - np.trunc(quotient)) - 0.5) < 1e-4  # torch multiplies by 1 / scale
    np.testing.assert_array_equal(got[~near_tie], ref.detach().numpy()[~near_tie])
    dx = fake_quant.fake_quantize_backward(dy, x, s, zero_point, qmin, qmax)
    np.testing.assert_array_equal(dx[~near_tie], leaf.grad.numpy()[~near_tie])


@pytest.mark.parametrize("zero_point", [0, 5])
@pytest.mark.parametrize("scaled", [False, True])
def test_learned_scale_and_offset_equal_torchs_learnable_fake_quantize(torch, peer, zero_point, scaled):
    x, dy = data(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ao, learnable = peer("torch.ao.quantization"), peer("torch.ao.quantization._learnable_fake_quantize")
        module = learnable._LearnableFakeQuantize(
            ao.MinMaxObserver, 0, 15, 0.21, float(zero_point), use_grad_scaling=scaled, dtype=torch.quint8
        ).enable_param_learning()
        leaf = torch.tensor(x, requires_grad=True)
        ref = module(leaf)
        ref.backward(torch.tensor(dy))
    s, g = np.float32(0.21), fake_quant.lsq_gradient_scale(x.size, 15) if scaled else 1.0
    offset = np.float32(-zero_point) * s
    np.testing.assert_allclose(fake_quant.lsq_plus(x, s, offset, 0, 15), ref.detach().numpy(), atol=1e-6)
    dx, ds, db = fake_quant.lsq_plus_backward(dy, x, s, offset, 0, 15, g)
    np.testing.assert_array_equal(dx, leaf.grad.numpy())
    # x^ = (q - z) s in torch and q s + b here, b = -z s: by the chain rule ds' = ds - z db and dz = -s db
    assert float(ds - zero_point * db) == pytest.approx(module.scale.grad.item(), rel=1e-4)
    assert float(-s * db) == pytest.approx(module.zero_point.grad.item(), rel=1e-4)
