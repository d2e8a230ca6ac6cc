"""The encoders of TQ1_0 and TQ2_0, Q1_0 and Q2_0: their scale rules, ties and corners."""

import numpy as np
import pytest

from refquant.gguf.formats import FORMATS, dequantize, quantize

TERNARY = ["TQ1_0", "TQ2_0"]


def decoded(name, *weights):
    """What these weights, then zeros, come back as: the first of them."""
    x = np.zeros(FORMATS[name].values, np.float32)
    x[: len(weights)] = weights
    return dequantize(quantize(x, name), name)[: len(weights)].tolist()


@pytest.mark.parametrize("name", TERNARY)
def test_ternary_weights_survive_a_round_trip(name):
    x = np.random.default_rng(1).integers(-1, 2, (100, 256)).astype(np.float32) * np.float32(0.75)
    np.testing.assert_array_equal(dequantize(quantize(x, name), name), x)


def test_tq1_0_stores_the_rounded_up_fraction_of_five_digits():
    x = np.zeros(256, np.float32)
    x[[0, 32, 64, 96, 128]] = [1, -1, 0, 1, -1]  # digits 2 0 1 2 0 of byte 0
    number = int("20120", 3)
    assert FORMATS["TQ1_0"].encode(x[None])[0]["qs"][0] == -(-256 * number // 243)
    assert FORMATS["TQ1_0"].encode(x[None])[0]["qh"][0] == -(-256 * int("11110", 3) // 243)  # the fifth digit is 0


@pytest.mark.parametrize("name", TERNARY)
def test_a_weight_of_half_the_largest_is_rounded_away_from_zero(name):
    assert decoded(name, 2, 1, -1, 0.999, -0.999, -2) == [2, 2, -2, 0, 0, -2]


@pytest.mark.parametrize("name, code", [("TQ1_0", 0), ("TQ2_0", 0), ("Q2_0", 0)])
def test_an_overflowing_reciprocal_leaves_no_weight(name, code):
    assert decoded(name, 2.0**-130, -(2.0**-130)) == [code, code]


def test_q1_0_keeps_signs_and_the_mean_magnitude():
    x = np.tile(np.array([1, -3, 0.0, -0.0], np.float32), 32)
    assert dequantize(quantize(x, "Q1_0"), "Q1_0")[:4].tolist() == [1, -1, 1, 1]
    assert FORMATS["Q1_0"].encode(x[None])[0]["qs"].tolist() == [0b11011101] * 16


def test_the_mean_of_q1_0_is_a_sum_in_order():
    x = np.full(128, 2.0**-20, np.float32)  # each too small for a sum of 128, all 127 together are not
    x[0] = 128 + 2.0**-4  # the mean is half-way from 1 to the next float16
    assert FORMATS["Q1_0"].encode(np.stack([x, x[::-1]]))["d"].tolist() == [1, 1 + 2.0**-10]


def test_q2_0_has_a_code_for_twice_the_scale_and_never_uses_it():
    x = np.random.default_rng(2).standard_normal((50, 64), dtype=np.float32)
    q = FORMATS["Q2_0"].encode(x)["qs"]
    codes = (q[..., None] >> np.arange(0, 8, 2, dtype=np.uint8)) & 3
    assert set(np.unique(codes)) == {0, 1, 2}
    assert decoded("Q2_0", 2, 1, -1, 0.999, -0.999, -2) == [2, 2, -2, 0, 0, -2]
