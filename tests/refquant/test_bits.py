import naive
import numpy as np
import pytest

from refquant import bits
from refquant.errors import RangeError, ShapeError

A, B, C, D, E, F, G, H = 1, 2, 3, 4, 5, 6, 7, 0


@pytest.mark.parametrize(
    "width, order, codes, ref",
    [
        (4, "low", [0xA, 0xB, 0xC, 0xD], [0xBA, 0xDC]),
        (4, "high", [0xA, 0xB, 0xC, 0xD], [0xAB, 0xCD]),
        (2, "low", [0, 1, 2, 3], [0b11100100]),
        (2, "high", [0, 1, 2, 3], [0b00011011]),
        (1, "low", [1, 0, 0, 0, 0, 0, 1, 1], [0b11000001]),
        (1, "high", [1, 0, 0, 0, 0, 0, 1, 1], [0b10000011]),
        (3, "low", [A, B, C, D, E, F, G, H], [0b11_010_001, 0b0_101_100_0, 0b000_111_11]),
        (3, "high", [A, B, C, D, E, F, G, H], [0b001_010_01, 0b1_100_101_1, 0b10_111_000]),
        (8, "low", [1, 255], [1, 255]),
        (4, "low", [7, 8, 9], [0x87, 0x09]),
        (4, "high", [7, 8, 9], [0x78, 0x90]),
    ],
)
def test_bytes_are_as_drawn(width, order, codes, ref):
    np.testing.assert_array_equal(bits.pack(np.array(codes, np.uint8), width, order), ref)


@pytest.mark.parametrize("order", bits.ORDERS)
@pytest.mark.parametrize("width", range(1, 9))
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 33])
def test_packing_equals_a_string_of_digits_and_comes_back(width, order, count):
    codes = np.random.default_rng([width, count]).integers(0, 2**width, (3, count), dtype=np.uint8)
    got = bits.pack(codes, width, order)
    assert got.dtype == np.uint8
    assert got.shape == (3, bits.packed_bytes(count, width))
    assert [row.tobytes() for row in got] == [naive.pack(row.tolist(), width, order) for row in codes]
    np.testing.assert_array_equal(bits.unpack(got, width, count, order), codes)


@pytest.mark.parametrize("order", bits.ORDERS)
@pytest.mark.parametrize("width", range(1, 9))
def test_signed_codes_come_back_with_their_sign(width, order):
    codes = np.arange(-(2 ** (width - 1)), 2 ** (width - 1)).astype(np.int8)
    data = bits.pack(codes, width, order)
    got = bits.unpack(data, width, len(codes), order, signed=True)
    assert got.dtype == np.int8
    np.testing.assert_array_equal(got, codes)
    assert data.tobytes() == naive.pack(codes.tolist(), width, order)


def test_arguments_are_not_changed_and_may_be_strided():
    codes = np.arange(32, dtype=np.uint8).reshape(4, 8)[:, ::2] & 7
    before = codes.copy()
    data = bits.pack(codes, 3)
    np.testing.assert_array_equal(codes, before)
    np.testing.assert_array_equal(bits.unpack(data, 3, 4), codes)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: bits.pack(np.array([16], np.uint8), 4), RangeError, r"codes in 16\.\.16, expected 0\.\.15 for 4 bits"),
        (lambda: bits.pack(np.array([-9], np.int8), 4), RangeError, r"expected -8\.\.15"),
        (lambda: bits.pack(np.array([1.0]), 4), ShapeError, "codes = float64 of 1 axes, expected an integer array"),
        (lambda: bits.pack(np.array(3), 4), ShapeError, "of 0 axes"),
        (lambda: bits.pack(np.array([1], np.uint8), 9), RangeError, "bits = 9, expected 1 to 8"),
        (lambda: bits.pack(np.array([1], np.uint8), 4, "middle"), RangeError, "order = 'middle', expected low or high"),
        (lambda: bits.unpack(np.zeros(3, np.uint8), 4, 4), ShapeError, r"expected uint8 \(\.\.\., 2\) for 4 codes"),
        (lambda: bits.unpack(np.zeros(2, np.int8), 4, 4), ShapeError, "data = int8"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
