"""Small floats of auto-round without its search: scales and values, bit for bit."""

import numpy as np
import pytest
from small_float_blocks import blocks, next_to_powers

from refquant import bits, minifloat, quantize
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")
TYPES = {
    "mxfp4": (4, "mx_fp"),
    "mxfp6_e2m3": (6, "mx_fp6e2m3"),
    "mxfp6_e3m2": (6, "mx_fp6e3m2"),
    "mxfp8_e4m3": (8, "mx_fp"),
    "mxfp8_e5m2": (8, "mx_fp8e5m2"),
    "mxint8": (8, "mx_int8"),
}


@pytest.mark.parametrize("dialect, function", [("auto-round", "quant_mx"), ("auto-round-rceil", "quant_mx_rceil")])
@pytest.mark.parametrize("name", TYPES)
def test_mx_equals_auto_round(peer, name, dialect, function):
    torch, module = peer("torch"), peer("auto_round.data_type.mxfp")
    num_bits, data_type = TYPES[name]
    for kind, x in (blocks(32) | {"next to powers": next_to_powers(32)}).items():
        values, exponent, _ = getattr(module, function)(torch.tensor(x), num_bits, 32, data_type=data_type)
        q = quantize(x, f"{name}@{dialect}")
        theirs, exponent = values.numpy(), exponent.numpy().ravel()
        underflown = np.isnan(exponent)  # amax / max is 0 there, and its ceil(log2(0)) is -infinity - -infinity
        assert (np.abs(x[underflown]).max(axis=1, initial=0) / np.float32(q.scheme.rule.max) == 0).all()
        np.testing.assert_array_equal(np.log2(q.scale.ravel())[~underflown], exponent[~underflown], err_msg=kind)
        np.testing.assert_array_equal(q.dequantize()[~underflown], theirs[~underflown], err_msg=kind)


def test_nvfp4_equals_auto_round(peer):
    torch, nvfp, packing = (
        peer("torch"),
        peer("auto_round.data_type.nvfp"),
        peer("auto_round.export.export_to_autoround.qlinear_fp"),
    )
    for kind, x in blocks(16).items():
        t = torch.tensor(x)
        _, scale, _ = nvfp.nv_fp4(t, group_size=16)
        g = nvfp.calculate_gparam(t)
        if not torch.isfinite(g):  # a tensor below 7.9e-36: every scale is 448 then, and every code 0
            assert kind == "subnormal"
            continue
        factor = nvfp.get_reciprocal(scale.reshape(-1, 1) * nvfp.get_reciprocal(g))
        codes = packing._pack_fp4_to_uint8(nvfp.cast_to_fp4((t.reshape(-1, 16) * factor).clamp(-6, 6)))
        q = quantize(x, "nvfp4@auto-round")
        assert q.extras["global_scale"] == float(g), kind
        np.testing.assert_array_equal(q.scale.ravel(), scale.numpy().ravel(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, bits.unpack(codes.numpy(), 4, 16).reshape(x.shape), err_msg=kind)


def test_a_zero_tensor_has_global_scale_0_in_auto_round_and_1_here(peer):
    torch, nvfp = peer("torch"), peer("auto_round.data_type.nvfp")
    x = np.zeros((1, 16), np.float32)
    assert nvfp.calculate_gparam(torch.tensor(x)) == 0
    q = quantize(x, "nvfp4@auto-round")
    assert q.extras["global_scale"] == 1
    assert (minifloat.encode(q.scale, FORMATS["e4m3fn"]) == nvfp.nv_fp4(torch.tensor(x))[1].numpy().ravel()).all()


@pytest.mark.parametrize("name, function", [("fp8_e4m3fn", "quant_fp8_sym"), ("fp8_e5m2", "quant_fp8_e5m2")])
def test_scaled_fp8_equals_auto_round(peer, name, function):
    torch, module = peer("torch"), peer("auto_round.data_type.fp8")
    for kind, x in blocks(32).items():
        values, scale, _ = getattr(module, function)(torch.tensor(x))
        q = quantize(x, f"{name}-token@auto-round")
        np.testing.assert_array_equal(q.scale.ravel(), scale.numpy().ravel(), err_msg=kind)
        np.testing.assert_array_equal(q.dequantize(), values.numpy(), err_msg=kind)
