"""The encoders of MXFP4 and NVFP4: the scale rules, the ties, the corners."""

import math
from itertools import pairwise

import numpy as np
import pytest

from refquant.gguf.formats import FORMATS, dequantize, quantize

E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def mxfp4(*weights):
    """The block of these weights, then zeros."""
    return FORMATS["MXFP4"].encode(np.array([[*weights, *[0] * (32 - len(weights))]], np.float32))[0]


def nvfp4(*weights):
    """Four groups of 16: these weights, then zeros."""
    return FORMATS["NVFP4"].encode(np.array([[*weights, *[0] * (64 - len(weights))]], np.float32))[0]


def beside(k, ulps):
    """2^k moved by so many floats."""
    return (np.float32(2.0**k).view(np.int32) + np.int32(ulps)).view(np.float32)


@pytest.mark.parametrize("k", range(-125, 128))
def test_the_exponent_of_a_power_of_two_and_of_the_next_float(k):
    assert mxfp4(beside(k, 0))["e"] == mxfp4(-beside(k, 1))["e"] == k + 125


@pytest.mark.parametrize("k", range(-124, 128, 4))
def test_floats_below_a_power_count_as_it_while_their_rounded_logarithm_does(k):
    ulps = range(1, 60)
    got = [int(mxfp4(beside(k, -u))["e"]) - 125 for u in ulps]
    assert got == [math.floor(np.float32(math.log2(float(beside(k, -u))))) for u in ulps]
    assert got.count(k) <= 44


def test_44_floats_below_2_to_the_100_count_as_it():
    assert mxfp4(beside(100, -44))["e"] == 225
    assert mxfp4(beside(100, -45))["e"] == 224


def test_below_2_to_the_minus_125_the_exponent_wraps_and_the_codes_are_0():
    assert mxfp4(2.0**-125)["e"] == 0
    assert mxfp4(2.0**-126)["e"] == 255
    assert mxfp4(2.0**-149)["e"] == 232
    assert (mxfp4(2.0**-126, -(2.0**-127))["qs"] == 0).all()


def test_a_block_of_zeros():
    assert mxfp4().tobytes() == bytes(17)
    assert mxfp4(-0.0).tobytes() == bytes(17)
    assert nvfp4().tobytes() == bytes(36)


def test_the_largest_saturates_where_the_scale_of_mxfp4_is_a_power_of_two():
    x = np.array([7.99, -7.99, 6, 4.99, 5.01, *[0.0] * 27], np.float32)
    np.testing.assert_array_equal(dequantize(quantize(x, "MXFP4"), "MXFP4")[:5], [6, -6, 6, 4, 6])


def test_ties_go_to_the_smaller_magnitude_and_minus_zero_is_never_stored():
    ties = [(a + b) / 2 for a, b in pairwise(E2M1)]
    b = mxfp4(4, *ties, *(-t for t in ties))  # scale 1
    assert b["e"] == 127
    assert (b["qs"][:16] & 15).tolist() == [6, 0, 1, 2, 3, 4, 5, 6, 0, 9, 10, 11, 12, 13, 14, 0]
    assert mxfp4(4, -0.1)["qs"][1] & 15 == 0


def test_byte_j_holds_weights_j_and_16_more_in_mxfp4_and_8_more_in_nvfp4():
    assert mxfp4(4, *[0] * 15, 6)["qs"][0] == 0x76
    b = nvfp4(*[0] * 16, 6, *[0] * 7, -3)
    assert b["qs"][8] == 0xD7
    assert b["d"].tolist() == [0, 0x38, 0, 0]


@pytest.mark.parametrize(
    "scale, byte",
    [
        (2.0**-10, 1),  # half of the least is rounded up
        (0.99 * 2.0**-10, 0),
        (1.5 * 2.0**-9, 2),
        (7.5 * 2.0**-9, 7),  # subnormal scales stop below 2^-6
        (2.0**-6, 8),
        (1, 0x38),
        (1.0625, 0x39),  # a half is rounded up
        (1.062, 0x38),
        (1.9375, 0x40),
        (240, 0x77),
        (247.9, 0x77),
        (248, 0x7E),  # and not 256
        (300, 0x7E),
        (1e30, 0x7E),
    ],
)
def test_the_scale_of_nvfp4_is_the_largest_over_six_in_ue4m3(scale, byte):
    assert nvfp4(np.float32(6) * np.float32(scale))["d"][0] == byte


def test_scales_between_240_and_448_are_missing():
    x = np.zeros(64, np.float32)
    x[0] = 6 * 256
    assert dequantize(quantize(x, "NVFP4"), "NVFP4")[0] == 3 * 448
