"""Every decoder against ggml's C (digests), gguf-py, and the scalar decoders of naive_gguf."""

import json
from pathlib import Path

import ggml_cases
import gguf
import naive_gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refquant.gguf.formats import FORMATS, dequantize

DIGESTS = json.loads((Path(__file__).parent / "ggml_digests.json").read_text())["decode"]
NOT_IN_GGML = {"F32", "F64", "I8", "I16", "I32", "I64", "Q8_1"}  # no row decoder in its C
IN_GGUF_PY = sorted({"F32", "F16"} | {kind.name for kind in gguf.quants._type_traits})
BLOCKS = [f.name for f in FORMATS.values() if not f.is_scalar]


def some_blocks(name):
    """Any bytes, and next to them one byte repeated: all ones, all zeros, infinities, NaN."""
    size = FORMATS[name].block_bytes
    repeated = st.integers(0, 255).map(lambda byte: bytes([byte]) * size)
    return st.one_of(st.binary(min_size=size, max_size=size), repeated)


def decode_one(name, block):
    return dequantize(np.frombuffer(block, np.uint8), name)


def test_the_table_of_digests_has_every_type_that_ggml_decodes():
    assert set(DIGESTS) == set(FORMATS) - NOT_IN_GGML


@pytest.mark.parametrize("name", DIGESTS)
def test_decoded_bits_are_those_of_ggml(name):
    assert ggml_cases.digest(dequantize(ggml_cases.block_bytes(FORMATS[name]), name)) == DIGESTS[name]


@pytest.mark.parametrize("name", IN_GGUF_PY)
def test_decoded_bits_are_those_of_gguf_py(name):
    data = ggml_cases.block_bytes(FORMATS[name])
    with np.errstate(all="ignore"):
        ref = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
    got = dequantize(data, name)
    assert got.dtype == ref.dtype == np.float32
    np.testing.assert_array_equal(got.view(np.uint32), np.ascontiguousarray(ref).view(np.uint32))


def test_gguf_py_knows_all_but_the_types_named_here():
    assert set(FORMATS) - set(IN_GGUF_PY) == {"F64", "I8", "I16", "I32", "I64", "Q8_1", "Q8_K", "Q1_0", "Q2_0"}


@pytest.mark.parametrize("name", naive_gguf.DECODERS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_bytes_decode_as_the_scalar_decoder_says(name, data):
    block = data.draw(some_blocks(name))
    ref = np.array(naive_gguf.DECODERS[name](block), np.float32)
    got = decode_one(name, block)
    np.testing.assert_array_equal(got, ref)  # any NaN equals any NaN
    np.testing.assert_array_equal(np.signbit(got[got == 0]), np.signbit(ref[ref == 0]))


@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_decoders_are_total_and_quiet(name, data):
    fmt, block = FORMATS[name], data.draw(some_blocks(name))
    with np.errstate(all="raise"):
        got = fmt.decode(np.frombuffer(block, fmt.layout))
    assert got.dtype == np.float32
    assert got.shape == (1, fmt.values)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_decoders_take_blocks_of_any_shape(name, shape):
    fmt = FORMATS[name]
    blocks = ggml_cases.block_bytes(fmt)[:6].reshape(-1).view(fmt.layout)
    count = int(np.prod(shape))
    got = fmt.decode(blocks[:count].reshape(shape))
    assert got.dtype == np.float32
    assert got.shape == (*shape, fmt.values)
    np.testing.assert_array_equal(got.reshape(count, fmt.values), fmt.decode(blocks[:count]))


def test_zero_bytes_decode_to_zeros_or_to_what_the_codes_say():
    for name in BLOCKS:
        got = decode_one(name, bytes(FORMATS[name].block_bytes))
        np.testing.assert_array_equal(got, 0)  # every scale is 0; MXFP4 has scale 2^-128 and code 0


def test_mxfp4_scale_bytes_at_the_ends():
    codes = bytes([0x72]) + bytes(15)  # weight 0 is code 2 = 1.0, weight 16 is code 7 = 6.0
    for scale, unit in ((0, 2.0**-127), (1, 2.0**-126), (127, 1.0), (254, 2.0**127)):
        got = decode_one("MXFP4", bytes([scale]) + codes)
        assert got[0] == np.float32(unit)
        assert got[16] == (np.float32(6 * unit) if unit < 2.0**127 else np.inf)
    assert decode_one("MXFP4", bytes([255]) + codes)[0] == np.inf  # 2^128; OCP has NaN here


def test_nvfp4_scale_bytes_0_and_7f_are_zero_and_bit_7_is_ignored():
    codes = bytes([0x22]) * 32  # 1.0 everywhere
    got = decode_one("NVFP4", bytes([0x00, 0x7F, 0x38, 0xB8]) + codes).reshape(4, 16)
    np.testing.assert_array_equal(got, np.repeat([[0], [0], [1], [1]], 16, axis=1))
    assert decode_one("NVFP4", bytes([0xFF, 0x7E, 0x01, 0x08]) + codes)[::16].tolist() == [480, 448, 2**-9, 2**-6]


def test_every_byte_of_tq1_0_holds_five_digits():
    bytes_of_five = [-(-256 * n // 243) for n in range(243)]  # ceil(256 n / 243)
    for n, byte in enumerate(bytes_of_five):
        block = bytes([byte]) * 52 + b"\x00\x3c"  # d = 1
        got = decode_one("TQ1_0", block)
        digits = [n // 3 ** (4 - k) % 3 - 1 for k in range(5)]
        np.testing.assert_array_equal(got[:160], np.repeat(digits, 32))
        np.testing.assert_array_equal(got[240:], np.repeat(digits[:4], 4))


def test_q1_0_and_q2_0_read_bits_from_the_lowest():
    one = decode_one("Q1_0", b"\x00\x40" + bytes([0b00000101]) + bytes(15))
    assert one[:4].tolist() == [2, -2, 2, -2]
    two = decode_one("Q2_0", b"\x00\x40" + bytes([0b11100100]) + bytes(15))
    assert two[:5].tolist() == [-2, 0, 2, 4, -2]
