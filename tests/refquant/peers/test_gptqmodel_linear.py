"""The scale of gptqmodel's quantizer: ranges, zero points and codes bit for bit."""

import numpy as np
import pytest
from peer_inputs import differing, matrix

from refquant import quantize

pytestmark = pytest.mark.filterwarnings("ignore")
N = 128


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_rows_equal_ours(peer, bits, symmetric):
    torch, quantizer = peer("torch"), peer("gptqmodel.quantization.quantizer")
    config = peer("gptqmodel.quantization.config").QuantizeConfig(bits=bits, group_size=N, sym=symmetric)
    found = quantizer.Quantizer(qcfg=config)
    found.configure(perchannel=True)
    x = torch.tensor(matrix(N))
    found.find_params(x, weight=True)
    scale, zero = found.scale.numpy(), found.zero.numpy()
    values = quantizer.quantize(x, found.scale, found.zero, int(found.maxq), False).numpy()
    got = quantize(matrix(N), f"uint{bits}-g{N}{'-sym' if symmetric else ''}@gptq")
    assert differing(N, scale, got.scale) == {}
    if not symmetric:
        assert differing(N, zero, got.zero_point) == {}
    assert differing(N, values, got.dequantize()) == {}
    as_signed = quantize(matrix(N), f"int{bits}-g{N}{'' if symmetric else '-asym'}@gptq")
    np.testing.assert_array_equal(as_signed.codes.astype(int) + (1 << (bits - 1)), got.codes)
