"""Microscaling and NVFP4 of torchao: scale bytes and codes, bit for bit."""

import numpy as np
import pytest
from small_float_blocks import blocks, next_to_powers

from refquant import bits, minifloat, quantize
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")
ELEMENTS = {
    "mxfp4": "float4_e2m1fn_x2",
    "mxfp6_e2m3": "fp6_e2m3",
    "mxfp6_e3m2": "fp6_e3m2",
    "mxfp8_e4m3": "float8_e4m3fn",
    "mxfp8_e5m2": "float8_e5m2",
}


@pytest.fixture
def torch(peer):
    peer("torchao")
    return peer("torch")


def to_mx(peer, torch, x, name, mode):
    module = peer("torchao.prototype.mx_formats.mx_tensor")
    element = ELEMENTS[name] if "fp6" in name else getattr(torch, ELEMENTS[name])
    scale, data = module.to_mx(torch.tensor(x), element, 32, module.ScaleCalculationMode[mode])
    data = data.view(torch.uint8).numpy()
    codes = bits.unpack(data, 4, x.shape[-1]) if name == "mxfp4" else data
    return scale.view(torch.uint8).numpy(), codes


def nvfp4(peer, torch, x, tensor_scale=None):
    module = peer("torchao.prototype.mx_formats.nvfp4_tensor")
    scale, data = module.nvfp4_quantize(torch.tensor(x), 16, tensor_scale)
    return scale.view(torch.uint8).numpy(), bits.unpack(data.view(torch.uint8).numpy(), 4, x.shape[-1])


@pytest.mark.parametrize("mode, dialect", [
    ("FLOOR", "torchao"), ("EVEN", "torchao-even"), ("CEIL", "torchao-ceil"), ("RCEIL", "torchao-rceil"),
])  # fmt: skip
@pytest.mark.parametrize("name", ELEMENTS)
def test_mx_equals_torchao(peer, torch, name, mode, dialect):
    for kind, x in (blocks(32) | {"next to powers": next_to_powers(32)}).items():
        q = quantize(x, f"{name}@{dialect}")
        scale, codes = to_mx(peer, torch, x, name, mode)
        np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e8m0"]), scale, err_msg=kind)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_mx_decodes_as_torchao(peer, torch):
    module = peer("torchao.prototype.mx_formats.mx_tensor")
    x = blocks(32)["random"]
    scale, data = module.to_mx(torch.tensor(x), torch.float4_e2m1fn_x2, 32)
    ref = module.to_dtype(data, scale, torch.float4_e2m1fn_x2, 32, torch.float32).numpy()
    np.testing.assert_array_equal(quantize(x, "mxfp4@torchao").dequantize(), ref)


def test_torchao_differs_from_the_specification_only_where_the_exponent_is_the_lowest(peer, torch):
    for x in blocks(32).values():
        scale, codes = to_mx(peer, torch, x, "mxfp4", "FLOOR")
        q = quantize(x, "mxfp4")
        np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e8m0"]), scale)
        np.testing.assert_array_equal(q.codes[scale[:, 0] > 0], codes[scale[:, 0] > 0])
    x = blocks(32)["subnormal"]
    assert (quantize(x, "mxfp4").codes != to_mx(peer, torch, x, "mxfp4", "FLOOR")[1]).any()


def test_nvfp4_equals_torchao(peer, torch):
    amax_to_scale = peer("torchao.prototype.mx_formats.nvfp4_tensor").per_tensor_amax_to_scale
    for kind, x in blocks(16).items():
        tensor = amax_to_scale(torch.tensor(x).abs().max())
        for dialect, ref in (("torchao", nvfp4(peer, torch, x, tensor)), ("torchao-local", nvfp4(peer, torch, x))):
            q = quantize(x, f"nvfp4@{dialect}")
            np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e4m3fn"]), ref[0], err_msg=kind)
            np.testing.assert_array_equal(q.codes, ref[1], err_msg=kind)
        assert quantize(x, "nvfp4@torchao").extras["tensor_scale"] == float(tensor)


def test_a_zero_tensor_is_nan_to_torchao_and_zero_here(peer, torch):
    x = np.zeros((1, 16), np.float32)
    scale, _ = nvfp4(peer, torch, x, torch.tensor(0.0))
    assert (scale & 0x7F == 0x7F).all()
    assert not quantize(x, "nvfp4@torchao").dequantize().any()


@pytest.mark.parametrize("granularity, block", [("token", (1, 32)), ("tensor", (-1, -1)), ("b16x16", (16, 16))])
@pytest.mark.parametrize("name", ["e4m3fn", "e5m2"])
def test_scaled_fp8_equals_torchao(peer, torch, name, granularity, block):
    primitives = peer("torchao.quantization.quant_primitives")
    dtype = getattr(torch, f"float8_{name}")
    x = blocks(32)["random"]
    block = [n if b < 0 else b for n, b in zip(x.shape, block)]
    scale = primitives._choose_scale_float8(torch.tensor(x), block, dtype)
    codes = primitives._quantize_affine_float8(torch.tensor(x), scale, dtype)
    q = quantize(x, f"fp8_{name}-{granularity}")
    np.testing.assert_array_equal(q.scale.ravel(), scale.numpy().ravel())
    np.testing.assert_array_equal(q.codes, codes.view(torch.uint8).numpy())


def test_a_zero_group_is_nan_to_torchao_and_zero_here(peer, torch):
    primitives = peer("torchao.quantization.quant_primitives")
    x = torch.zeros(1, 32)
    scale = primitives._choose_scale_float8(x, [1, 32])
    assert primitives._quantize_affine_float8(x, scale).isnan().all()
    assert not quantize(x.numpy(), "fp8_e4m3fn-token").dequantize().any()
