"""Bit planes."""

import numpy as np
import pytest

from refquant.gguf import planes


def test_a_byte_falls_apart_from_its_lowest_bits():
    data = np.array([0b11100100, 0b00011011], np.uint8)
    assert planes.split(data, 2).tolist() == [[0, 3], [1, 2], [2, 1], [3, 0]]
    assert planes.split(data, 4).tolist() == [[4, 11], [14, 1]]
    assert planes.split(data[:1], 1).ravel().tolist() == [0, 0, 1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_join_is_the_inverse_of_split(bits):
    data = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    codes = planes.split(data, bits)
    assert codes.dtype == np.uint8
    assert codes.shape == (4, 8, 8 // bits, 8)
    assert codes.max() == 2**bits - 1
    np.testing.assert_array_equal(planes.join(codes, bits), data)
