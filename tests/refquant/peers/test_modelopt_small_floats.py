"""MXFP4, MXFP8 and NVFP4 of NVIDIA ModelOpt: scale bytes and codes, bit for bit."""

from types import SimpleNamespace

import numpy as np
import pytest
from small_float_blocks import blocks, next_to_powers

from refquant import bits, minifloat, quantize
from refquant.minifloat import FORMATS

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def qtensor(peer):
    peer("torch")
    return peer("modelopt.torch.quantization.qtensor")


def test_mxfp4_equals_modelopt(peer, qtensor):
    for kind, x in (blocks(32) | {"next to powers": next_to_powers(32), "-0": -np.zeros((2, 32), np.float32)}).items():
        packed, scale = qtensor.MXFP4QTensor.quantize(peer("torch").tensor(x), 32)
        q = quantize(x, "mxfp4@modelopt")
        np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e8m0"]), scale.numpy(), err_msg=kind)
        codes = bits.unpack(packed._quantized_data.numpy(), 4, 32)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_item_15_modelopt_writes_zeros_as_minus_zero_in_mxfp4(peer, qtensor):
    packed, _ = qtensor.MXFP4QTensor.quantize(peer("torch").zeros(1, 32), 32)
    assert (packed._quantized_data == 0x88).all()
    assert (quantize(np.zeros((1, 32)), "mxfp4@modelopt").codes == 8).all()
    assert not quantize(np.zeros((1, 32)), "mxfp4").codes.any()


def test_mxfp8_equals_modelopt(peer, qtensor):
    torch = peer("torch")
    for kind, x in (blocks(32) | {"next to powers": next_to_powers(32)}).items():
        data, scale = qtensor.MXFP8QTensor.quantize(torch.tensor(x))
        q = quantize(x, "mxfp8_e4m3@modelopt")
        np.testing.assert_array_equal(minifloat.encode(q.scale, FORMATS["e8m0"]), scale.numpy(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, data._quantized_data.view(torch.uint8).numpy(), err_msg=kind)


def test_nvfp4_equals_modelopt(peer, qtensor):
    torch = peer("torch")
    for kind, x in blocks(16).items():
        packed, scale, tensor = qtensor.NVFP4QTensor.quantize(torch.tensor(x), 16)
        q = quantize(x, "nvfp4@modelopt")
        assert q.extras["tensor_scale"] == float(tensor), kind
        got = minifloat.encode(q.scale, FORMATS["e4m3fn"])
        np.testing.assert_array_equal(got, scale.view(torch.uint8).numpy(), err_msg=kind)
        codes = bits.unpack(packed._quantized_data.numpy(), 4, 16)
        np.testing.assert_array_equal(q.codes, codes, err_msg=kind)


def test_static_nvfp4_scales_equal_those_of_modelopt(peer, qtensor):
    torch = peer("torch")
    for kind, x in blocks(16).items():
        t = torch.tensor(x)
        quantizer = SimpleNamespace(
            block_sizes={-1: 16}, global_amax=t.abs().max(), _amax=t.abs().amax(dim=-1), num_bits=(2, 1)
        )
        scale, tensor = qtensor.NVFP4QTensor.get_weights_scaling_factor_from_quantizer(quantizer, t)
        packed, *_ = qtensor.NVFP4QTensor.quantize(t, 16, scale, tensor)
        q = quantize(x, "nvfp4@modelopt-static")
        assert q.extras["tensor_scale"] == float(tensor), kind
        got = minifloat.encode(q.scale, FORMATS["e4m3fn"])
        np.testing.assert_array_equal(got, scale.view(torch.uint8).numpy(), err_msg=kind)
        np.testing.assert_array_equal(q.codes, bits.unpack(packed._quantized_data.numpy(), 4, 16), err_msg=kind)


def test_a_zero_tensor_is_nan_to_modelopt_and_zero_here(peer, qtensor):
    torch = peer("torch")
    _, scale, tensor = qtensor.NVFP4QTensor.quantize(torch.zeros(1, 16), 16)
    assert tensor == 0
    assert (scale.view(torch.uint8) & 0x7F == 0x7F).all()
    assert not quantize(np.zeros((1, 16), np.float32), "nvfp4@modelopt").dequantize().any()
