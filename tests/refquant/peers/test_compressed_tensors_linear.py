"""Linear formats of compressed-tensors: scales, zero points and codes bit for bit."""

import numpy as np
import pytest
from peer_inputs import differing, matrix

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 128


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_groups_equal_ours(peer, bits, symmetric):
    torch, quantization = peer("torch"), peer("compressed_tensors.quantization")
    find = peer("compressed_tensors.quantization.utils").calculate_qparams
    quantize_ = peer("compressed_tensors.quantization.lifecycle.forward").quantize
    args = quantization.QuantizationArgs(num_bits=bits, symmetric=symmetric, strategy="group", group_size=N)
    x = torch.tensor(matrix(N))
    scale, zero = find(x.amin(1, keepdim=True), x.amax(1, keepdim=True), args)
    codes = quantize_(x, scale, zero, args, dtype=torch.int8)
    got = quantize(matrix(N), f"int{bits}-g{N}{'' if symmetric else '-asym'}@compressed-tensors")
    assert differing(N, scale.numpy(), got.scale) == {}
    assert differing(N, codes.numpy(), got.codes) == {}
    if not symmetric:
        assert differing(N, zero.numpy(), got.zero_point) == {}


def test_bfloat16_models_have_bfloat16_scales_and_codes_by_the_stored_scale(peer):
    torch, quantization = peer("torch"), peer("compressed_tensors.quantization")
    find = peer("compressed_tensors.quantization.utils").calculate_qparams
    args = quantization.QuantizationArgs(
        num_bits=4, symmetric=True, strategy="group", group_size=N, scale_dtype="torch.bfloat16"
    )
    x = torch.tensor(matrix(N))
    scale, _ = find(x.amin(1, keepdim=True), x.amax(1, keepdim=True), args)
    got = quantize(matrix(N), f"int4-g{N}-bf16@compressed-tensors")
    zeros = {"zeros": 1, "negative zeros": 1}  # the eps of the scale's dtype: 2^-7 for bfloat16
    assert differing(N, scale.float().numpy(), got.scale) == zeros
    assert {float(scale[i, 0]) for i, row in enumerate(matrix(N)) if not row.any()} == {2.0**-7}


def test_rectangles_share_a_scale(peer):
    torch, quantization = peer("torch"), peer("compressed_tensors.quantization")
    quantize_ = peer("compressed_tensors.quantization.lifecycle.forward").quantize
    args = quantization.QuantizationArgs(num_bits=8, symmetric=True, strategy="block", block_structure=[4, 32])
    x = np.random.default_rng(1).standard_normal((16, 128), dtype=np.float32)
    got = quantize(x, "int8-b4x32@compressed-tensors")
    scale = torch.tensor(np.array(got.scale))
    codes = quantize_(torch.tensor(x), scale, torch.zeros_like(scale), args, dtype=torch.int8)
    np.testing.assert_array_equal(codes.numpy(), got.codes)
