"""Linear formats of optimum-quanto: scales, shifts, codes and values bit for bit."""

import pytest
from peer_inputs import differing, matrix

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 128


def test_int8_channels_equal_ours(peer):
    torch, quanto = peer("torch"), peer("optimum.quanto")
    x = torch.tensor(matrix(N))
    scale = quanto.AbsmaxOptimizer()(x, quanto.qint8, 0)
    codes = torch.ops.quanto.quantize_symmetric(x, torch.int8, 0, scale)
    got = quantize(matrix(N), "int8-channel@quanto")
    assert differing(N, scale.numpy(), got.scale) == {}
    assert differing(N, codes.numpy(), got.codes) == {}


@pytest.mark.parametrize("bits", [2, 4])
def test_groups_with_a_float_shift_equal_ours(peer, bits):
    torch, quanto = peer("torch"), peer("optimum.quanto")
    x = torch.tensor(matrix(N))
    qtype = {2: quanto.qint2, 4: quanto.qint4}[bits]
    scale, shift = quanto.MaxOptimizer()(x, qtype, 0, N)
    weights = quanto.quantize_weight(x, qtype=qtype, axis=0, group_size=N, scale=scale, shift=shift, optimized=False)
    codes = torch.ops.quanto.quantize_affine(x, bits, 0, N, scale, shift).reshape(x.shape)
    got = quantize(matrix(N), f"uint{bits}-g{N}@quanto")
    assert differing(N, scale.numpy(), got.scale) == {}
    assert differing(N, -shift.numpy(), got.zero_point) == {}
    constant = {"zeros", "negative zeros", "constant", "constant, negative"}  # 0 / 0 there, 0 here
    assert differing(N, codes.numpy(), got.codes).keys() <= constant
    assert differing(N, weights.dequantize().numpy(), got.dequantize()) == {}
