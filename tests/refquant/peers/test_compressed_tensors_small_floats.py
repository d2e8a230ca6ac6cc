"""MXFP4, MXFP8, NVFP4 and FP8 of compressed-tensors: scale bytes and codes, bit for bit."""

import numpy as np
import pytest
from small_float_blocks import blocks

from refquant import bits, minifloat, quantize
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def ct(peer):
    """What the compressor calls: parameters from ranges, then codes."""
    return {
        "torch": peer("torch"),
        "args": peer("compressed_tensors.quantization").QuantizationArgs,
        "utils": peer("compressed_tensors.quantization.utils"),
        "quantize": peer("compressed_tensors.quantization.lifecycle.forward").quantize,
        "pack": peer("compressed_tensors.compressors.nvfp4.helpers").pack_fp4_to_uint8,
        "mx_scale": peer("compressed_tensors.compressors.mx_utils").compress_mx_scale,
    }


def encoded(ct, x, args, global_scale=None):
    """(scale, codes) by compressed-tensors; codes of 4 bits unpacked."""
    torch = ct["torch"]
    x = torch.tensor(x)
    grouped = x.unflatten(-1, (-1, args.group_size)) if args.group_size else x.unsqueeze(1)
    scale, _ = ct["utils"].calculate_qparams(grouped.amin(-1), grouped.amax(-1), args, global_scale=global_scale)
    q = ct["quantize"](x, scale, None, args, global_scale=global_scale)
    if args.num_bits == 4:
        return scale, bits.unpack(ct["pack"](q).numpy(), 4, x.shape[-1])
    return scale, q.to(torch.float8_e4m3fn).view(torch.uint8).numpy()


@pytest.mark.parametrize("name, num_bits", [("mxfp4", 4), ("mxfp8_e4m3", 8)])
def test_mx_equals_compressed_tensors(ct, name, num_bits):
    uint8 = ct["torch"].uint8
    args = ct["args"](
        num_bits=num_bits, type="float", symmetric=True, strategy="group", group_size=32, scale_dtype=uint8,
        zp_dtype=uint8,
    )  # fmt: skip
    for kind, x in blocks(32).items():
        scale, codes = encoded(ct, x, args)
        q = quantize(x, f"{name}@compressed-tensors")
        got = minifloat.encode(q.scale, FORMATS["e8m0"])
        np.testing.assert_array_equal(got, ct["mx_scale"](scale, uint8).numpy(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_the_scale_of_mxfp8_looks_at_one_mantissa_bit_where_torchao_looks_at_three():
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 1.9
    ct, torchao = quantize(x, "mxfp8_e4m3@compressed-tensors"), quantize(x, "mxfp8_e4m3@torchao-even")
    assert (ct.scale, torchao.scale) == (2.0**-7, 2.0**-8)  # E4M3 has 448 = 1.75 * 2^8, so that 1.9 * 2^8 saturates


def test_nvfp4_equals_compressed_tensors(ct):
    e4m3 = ct["torch"].float8_e4m3fn
    args = ct["args"](
        num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16, scale_dtype=e4m3,
        zp_dtype=e4m3,
    )  # fmt: skip
    for kind, x in (blocks(16) | {"zero": np.zeros((4, 16), np.float32)}).items():
        t = ct["torch"].tensor(x)
        g = ct["utils"].generate_gparam(t.min(), t.max())
        scale, codes = encoded(ct, x, args, g)
        q = quantize(x, "nvfp4@compressed-tensors")
        assert q.extras["global_scale"] == float(g), kind
        np.testing.assert_array_equal(q.scale, scale.float().numpy(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_the_global_scale_is_a_reciprocal_times_2688_and_not_the_quotient(ct):
    amax = np.random.default_rng(0).uniform(1, 2, 1000).astype(np.float32)
    torch = ct["torch"]
    theirs = np.array([float(ct["utils"].generate_gparam(torch.tensor(-a), torch.tensor(a))) for a in amax])
    np.testing.assert_array_equal(theirs, np.float32(2688) * (np.float32(1) / amax))
    assert (theirs != np.float32(2688) / amax).any()


@pytest.mark.parametrize("strategy, granularity", [("channel", "channel"), ("group", "g32")])
def test_scaled_fp8_equals_compressed_tensors(ct, strategy, granularity):
    size = 32 if strategy == "group" else None
    args = ct["args"](num_bits=8, type="float", symmetric=True, strategy=strategy, group_size=size)
    for kind, x in blocks(32).items():
        if kind == "subnormal":  # the scale underflows to 0: ours stays 0, theirs becomes eps; both decode to about 0
            continue
        scale, codes = encoded(ct, x, args)
        q = quantize(x, f"fp8_e4m3fn-{granularity}@compressed-tensors")
        np.testing.assert_array_equal(q.scale, scale.numpy(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)
