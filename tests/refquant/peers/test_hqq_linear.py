"""HQQ without its optimization: the multiplier, the float zero point and the codes bit for bit."""

import pytest
from peer_inputs import differing, matrix

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 64


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_groups_equal_ours(peer, bits):
    torch, hqq = peer("torch"), peer("hqq.core.quantize")
    x = torch.tensor(matrix(N))
    codes, meta = hqq.Quantizer.quantize(
        x, nbits=bits, group_size=N, optimize=False, axis=1, bitpack=False, device="cpu"
    )
    got = quantize(matrix(N), f"uint{bits}-g{N}@hqq")
    assert differing(N, meta["scale"].numpy(), got.scale) == {}
    assert differing(N, meta["zero"].numpy(), got.zero_point) == {}
    assert differing(N, codes.numpy(), got.codes) == {}
    meta["compute_dtype"] = torch.float32
    assert differing(N, hqq.Quantizer.dequantize(codes, meta).numpy(), got.dequantize()) == {}
