"""Known disagreements between implementations that no single module owns: both sides, as bytes and values."""

import numpy as np
import pytest

from refquant import bits, gguf, quantize


def test_nibbles_come_high_first_or_low_first_and_mixing_them_swaps_neighbours():
    codes = np.arange(16, dtype=np.uint8)
    low, high = bits.pack(codes, 4, "low"), bits.pack(codes, 4, "high")
    assert low[:2].tolist() == [0x10, 0x32]  # GPTQ, compressed-tensors, ONNX, MXFP4 and NVFP4 files, quanto
    assert high[:2].tolist() == [0x01, 0x23]  # bitsandbytes, modelopt int4, DeepSpeed
    wrong = bits.unpack(high, 4, 16, "low")
    np.testing.assert_array_equal(wrong.reshape(-1, 2)[:, ::-1].ravel(), codes)


def test_ggml_and_quanto_and_hqq_pair_values_that_are_not_neighbours():
    x = np.arange(-8, 24, dtype=np.float32)[None]
    block = gguf.quantize(x, "Q4_0")[0]
    ref = quantize(x, "int4-g32-signedmax-f16").codes[0] + 8
    assert (block[2] & 15, block[2] >> 4) == (ref[0], ref[16])  # byte 0 of the codes: values 0 and 16
    rows = np.arange(8, dtype=np.uint8).reshape(4, 2)  # two slabs of two rows
    hqq, quanto = rows[:2] << 4 | rows[2:], rows[:2] | rows[2:] << 4
    assert (hqq[0, 0], quanto[0, 0]) == (0x04, 0x40)


@pytest.mark.parametrize("amax", [1e-6, 3e-6])
def test_a_float16_scale_of_ggml_vanishes_while_its_codes_do_not(amax):
    x = np.zeros((1, 32), np.float32)
    x[0, :2] = amax, -amax
    block = gguf.quantize(x, "Q8_0")[0]
    assert block[:2].view("<f2")[0] == 0  # amax / 127 is below 2^-25
    assert block[2:4].view(np.int8).tolist() == [127, -127]
    assert not gguf.dequantize(block[None], "Q8_0").any()
    ours = quantize(x, "int8-g32-restricted-f16")  # codes follow the scale that is stored
    assert not ours.codes.any()
    assert np.abs(quantize(x, "int8-g32-restricted").dequantize() - x).max() < amax / 100


def test_a_float16_scale_of_ggml_overflows_while_ours_is_refused():
    x = np.zeros((1, 32), np.float32)
    x[0, :2] = 1e7, -1e7
    block = gguf.quantize(x, "Q8_0")[0]
    assert np.isinf(block[:2].view("<f2")[0])
    decoded = gguf.dequantize(block[None], "Q8_0")[0]
    assert np.isinf(decoded[:2]).all()
    assert np.isnan(decoded[2:]).all()  # 0 * infinity
    with pytest.raises(ValueError, match="expected one that float16 holds"):
        quantize(x, "int8-g32-restricted-f16")
