"""Codes in 32-bit words against one bit at a time."""

import naive_layouts as naive
import numpy as np
import pytest

from refquant.errors import RangeError, ShapeError
from refquant.layouts import words


def codes_of(bits: int, n: int, rows: int = 3) -> np.ndarray:
    return np.random.default_rng([bits, n]).integers(0, 1 << bits, (rows, n), dtype=np.uint8)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 31, 32, 33, 96, 100])
def test_a_stream_has_every_bit_where_the_naive_loop_puts_it(bits, n):
    codes = codes_of(bits, n)
    got = words.pack(codes, bits)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got.view(np.uint32), naive.stream(codes.tolist(), bits))
    np.testing.assert_array_equal(words.unpack(got, bits, n), codes)
    np.testing.assert_array_equal(words.unpack(got.view(np.uint32), bits, n), codes)


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("n", [1, 31, 32, 33, 100])
def test_aligned_words_leave_their_rest_empty(bits, n):
    codes = codes_of(bits, n)
    got = words.pack_aligned(codes, bits)
    np.testing.assert_array_equal(got.view(np.uint32), naive.aligned(codes.tolist(), bits))
    np.testing.assert_array_equal(words.unpack_aligned(got, bits, n), codes)


@pytest.mark.parametrize("bits", range(2, 9))
def test_planes_are_where_the_naive_loop_puts_them(bits):
    codes = codes_of(bits, 96)
    got = words.pack_planar(codes, bits)
    np.testing.assert_array_equal(got.view(np.uint32), naive.planar(codes.tolist(), bits))
    np.testing.assert_array_equal(words.unpack_planar(got, bits, 96), codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_widths_that_divide_32_have_one_packing(bits):
    codes = codes_of(bits, 64)
    np.testing.assert_array_equal(words.pack_planar(codes, bits), words.pack(codes, bits))
    np.testing.assert_array_equal(words.pack_aligned(codes, bits), words.pack(codes, bits))


def test_three_bits_are_split_as_the_drawing_says():
    codes = np.zeros((1, 32), np.uint8)
    codes[0, 10], codes[0, 21] = 0b101, 0b011  # k and v of the drawing
    got = words.pack(codes, 3).view(np.uint32)[0].tolist()
    assert got == [0b01 << 30, 1 | 1 << 31, 0b01]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: words.pack(np.array([[8]], np.uint8), 3), RangeError, "expected 0..7 for 3 bits"),
        (lambda: words.pack_aligned(np.array([[8]], np.uint8), 3), RangeError, "expected codes below 8"),
        (lambda: words.pack_planar(np.array([[8] * 32], np.uint8), 3), RangeError, "expected codes below 8"),
        (
            lambda: words.pack_planar(np.zeros((1, 33), np.uint8), 3),
            ShapeError,
            "33, expected a positive multiple of 32",
        ),
        (lambda: words.pack_planar(np.zeros((1, 32), np.uint8), 1), RangeError, "expected 2 to 8 for planes"),
        (lambda: words.unpack(np.zeros((1, 3), np.int32), 4, 32), ShapeError, r"\(1, 3\), expected int32 \(..., 4\)"),
        (lambda: words.unpack(np.zeros((1, 4), np.int64), 4, 32), ShapeError, "int64"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
