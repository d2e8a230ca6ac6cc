"""compressed-tensors: its compressors write our bytes and decode them to our values."""

import numpy as np
import pytest

from refquant.layouts import compressed_tensors as ct
from refquant.layouts import floating, microscaled
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear, middle

pytestmark = pytest.mark.filterwarnings("ignore")
OUTS, INS = 40, 192


def linear(bits: int, groups: int, symmetric: bool) -> Linear:
    rng = np.random.default_rng([bits, groups])
    scale = rng.uniform(0.01, 0.1, (OUTS, groups)).astype(np.float32)
    zero = middle(bits, scale.shape) if symmetric else rng.integers(0, 1 << bits, scale.shape).astype(np.int16)
    codes = rng.integers(0, 1 << bits, (OUTS, INS), dtype=np.uint8)
    return Linear(codes, scale, zero, bits, INS // groups, "float32")


def scheme(peer, activations=None, **weights):
    quantization = peer("compressed_tensors.quantization")
    args = quantization.QuantizationArgs
    return quantization.QuantizationScheme(
        targets=["Linear"], weights=args(**weights), input_activations=args(**activations) if activations else None
    )


def state(peer, ref: Linear) -> dict:
    torch = peer("torch")
    half = 1 << (ref.bits - 1)
    return {
        "weight": torch.tensor(ref.dequantize()),
        "weight_scale": torch.tensor(ref.scale),
        "weight_zero_point": torch.tensor((ref.zero_point - half).astype(np.int8)),
    }


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("symmetric", [True, False])
def test_pack_quantized_both_ways(peer, bits, groups, symmetric):
    compressor = peer("compressed_tensors.compressors").PackedQuantizationCompressor
    ref = linear(bits, groups, symmetric)
    kind = {"strategy": "channel"} if groups == 1 else {"strategy": "group", "group_size": INS // groups}
    said = scheme(peer, num_bits=bits, symmetric=symmetric, **kind)
    got = compressor.compress(state(peer, ref), said)
    ours = ct.pack_packed(ref)
    assert sorted(got) == sorted(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(got[name].numpy(), array, err_msg=name)
    torch = peer("torch")
    back = compressor.decompress({name: torch.tensor(np.array(array)) for name, array in ours.items()}, said)
    np.testing.assert_array_equal(back["weight"].numpy(), ref.dequantize())


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 33, 100])
def test_streams(peer, bits, n):
    torch, helpers = peer("torch"), peer("compressed_tensors.compressors.pack_quantized.helpers")
    codes = np.random.default_rng([bits, n]).integers(0, 1 << bits, (5, n))
    signed = torch.tensor((codes - (1 << (bits - 1))).astype(np.int8))
    np.testing.assert_array_equal(
        helpers.pack_to_int32(signed, bits).numpy(), ct.words.pack(codes.astype(np.uint8), bits)
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_int_quantized(peer, symmetric):
    compressor = peer("compressed_tensors.compressors").IntQuantizationCompressor
    ref = linear(8, 1, symmetric)
    got = compressor.compress(state(peer, ref), scheme(peer, num_bits=8, symmetric=symmetric, strategy="channel"))
    ours = ct.pack_int(ref)
    assert sorted(got) == sorted(ours)
    for name, array in ours.items():
        np.testing.assert_array_equal(got[name].numpy(), array, err_msg=name)


def test_nvfp4(peer):
    compressor, torch = peer("compressed_tensors.compressors").NVFP4PackedCompressor, peer("torch")
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 16, (OUTS, INS), dtype=np.uint8)
    codes[codes == 8] = 0  # -0 comes back as what the quantizer makes of it
    scale = rng.integers(0x38, 0x7F, (OUTS, INS // 16), dtype=np.uint8)
    ref = Floating(codes, "e2m1", scale, "e4m3fn", (1, 16), np.float32(2688 / 0.31), True)
    arrays = microscaled.pack_nvfp4(ref)
    tensors = {name: torch.tensor(np.array(array)) for name, array in arrays.items()}
    tensors["weight_scale"] = tensors["weight_scale"].view(torch.float8_e4m3fn)
    said = scheme(peer, num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16)
    helpers = peer("compressed_tensors.compressors.nvfp4.helpers")
    values = helpers.unpack_fp4_from_uint8(tensors["weight_packed"], OUTS, INS, dtype=torch.float32)
    np.testing.assert_array_equal(values.numpy(), floating.table("e2m1")[codes])
    np.testing.assert_array_equal(helpers.pack_fp4_to_uint8(values).numpy(), arrays["weight_packed"])
    got = compressor.decompress(dict(tensors), said)["weight"].float().numpy()
    # it computes in bfloat16, so that values agree to 8 bits and no further
    np.testing.assert_allclose(got, ref.dequantize(), rtol=2**-7)


def test_mx_scales(peer):
    torch, mx = peer("torch"), peer("compressed_tensors.compressors.mx_utils")
    exponents = torch.arange(1, 255, dtype=torch.uint8)
    scales = mx.decompress_mx_scale(exponents)
    np.testing.assert_array_equal(scales.float().numpy(), floating.table("e8m0")[1:255])
    np.testing.assert_array_equal(mx.compress_mx_scale(scales, torch.uint8).numpy(), exponents.numpy())
