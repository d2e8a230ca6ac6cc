"""AutoAWQ's pseudo_quantize_tensor: scales, zero points and values bit for bit."""

import pytest
from peer_inputs import differing, matrix

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 128


@pytest.mark.parametrize("zero_point", [True, False])
def test_groups_equal_ours(peer, zero_point):
    torch = peer("torch")
    AwqQuantizer = peer("awq.quantize.quantizer").AwqQuantizer
    asked = AwqQuantizer.__new__(AwqQuantizer)  # only three of its fields are looked at
    asked.group_size, asked.w_bit, asked.zero_point = N, 4, zero_point
    values, scale, zero = asked.pseudo_quantize_tensor(torch.tensor(matrix(N)))
    got = quantize(matrix(N), f"{'uint4' if zero_point else 'int4'}-g{N}@awq")
    assert differing(N, scale.numpy(), got.scale) == {}
    if zero_point:
        assert differing(N, zero.numpy(), got.zero_point) == {}
    assert differing(N, values.numpy(), got.dequantize()) == {}
