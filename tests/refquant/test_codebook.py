from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import rows, seeded

from refquant import codebook
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.groups import TENSOR, group

EIGHTS = codebook.Rule((-1.0, -0.5, -0.25, 0.0, 0.125, 0.375, 0.75, 1.0))  # exact in float32, so are its midpoints


@seeded
@given(row=rows(12))
def test_codes_and_scales_equal_exact_arithmetic(row):
    codes, scale = codebook.encode(row, EIGHTS, TENSOR)
    ref_codes, ref_scale = naive.codebook([float(v) for v in row], list(EIGHTS.levels))
    assert Fraction(float(scale)) == ref_scale
    assert codes.tolist() == ref_codes


def test_a_midpoint_takes_the_lower_code():
    x = codebook.midpoints(EIGHTS.table)
    np.testing.assert_array_equal(codebook.nearest(x, EIGHTS.table), range(7))
    above = np.nextafter(x, np.float32(2))
    np.testing.assert_array_equal(codebook.nearest(above, EIGHTS.table), range(1, 8))


@pytest.mark.parametrize("k", [2, 3, 16, 33, 256])
def test_counting_midpoints_equals_a_binary_search(k):
    levels = np.sort(np.random.default_rng(k).standard_normal(k, dtype=np.float32))
    bounds = codebook.midpoints(levels)
    x = np.concatenate([bounds, np.nextafter(bounds, np.float32(9)), levels, [np.inf, -np.inf, np.nan]])
    ref = np.searchsorted(bounds, np.where(np.isnan(x), -np.inf, x), side="left")
    got = codebook.nearest(x.astype(np.float32), levels)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, ref)


@pytest.mark.parametrize("spread", [1.0, 1e-3])  # 1e-3: bounds too close together for the table
@pytest.mark.parametrize("k", [64, 256])
def test_a_table_of_upper_halves_equals_a_binary_search(k, spread):
    levels = np.float32(1 - spread) + np.float32(spread) * np.linspace(-1, 1, k).astype(np.float32) ** 3
    levels = np.unique(np.concatenate([levels, -levels])) if spread == 1 else np.unique(levels)
    levels = levels[:256]
    bounds = codebook.midpoints(levels)
    rng = np.random.default_rng(k)
    near = np.concatenate([bounds, np.nextafter(bounds, np.float32(9)), np.nextafter(bounds, np.float32(-9))])
    x = np.concatenate([near, levels, rng.uniform(-1.1, 1.1, 5000), [np.inf, -np.inf, np.nan, 0.0, -0.0]])
    x = x.astype(np.float32)
    assert (codebook._buckets(bounds.tobytes()) is None) == (spread != 1)
    ref = np.searchsorted(bounds, np.where(np.isnan(x), -np.inf, x), side="left")
    np.testing.assert_array_equal(codebook.nearest(x, levels), ref)
    np.testing.assert_array_equal(
        codebook.nearest(x[: len(x) // 2 * 2].reshape(-1, 2), levels).ravel(), ref[: len(x) // 2 * 2]
    )


def test_levels_times_the_peak_come_back_exactly():
    x = EIGHTS.table[None] * np.array([[1], [3], [0.7]], np.float32)
    codes, scale = codebook.encode(x, EIGHTS, group(8))
    np.testing.assert_array_equal(codes, np.tile(np.arange(8), (3, 1)))
    np.testing.assert_array_equal(codebook.decode(codes, scale, EIGHTS, group(8)), x)


@pytest.mark.parametrize("zeros", [[0.0, 0.0], [-0.0, -0.0], [0.0, -0.0], [-0.0, 0.0]])
def test_a_group_of_zeros_takes_the_level_zero_or_with_a_reciprocal_the_first(zeros):
    x = np.array([zeros * 4], np.float32)
    for reciprocal, code in ((False, 3), (True, 0)):
        rule = codebook.Rule(EIGHTS.levels, reciprocal)
        codes, scale = codebook.encode(x, rule, group(8))
        assert (codes == code).all()
        assert scale == 0
        assert not np.signbit(scale).any()
        assert not codebook.decode(codes, scale, rule, group(8)).any()


@seeded
@given(exponent=st.integers(-149, -140))
def test_subnormal_peaks_are_scales_and_their_reciprocal_may_be_infinite(exponent):
    x = np.array([1, -1, 0, 0.5], np.float32) * np.float32(2.0**exponent)
    codes, scale = codebook.encode(x, EIGHTS, TENSOR)
    assert float(scale) == 2.0**exponent
    assert (codes[0], codes[1], codes[2]) == (7, 0, 3)
    codes, _ = codebook.encode(x, codebook.Rule(EIGHTS.levels, True), TENSOR)
    assert (codes[0], codes[1], codes[2]) == (7, 0, 0)


def test_decoding_the_largest_scale_is_finite_and_any_scale_is_silent():
    big = np.array([np.finfo(np.float32).max, np.inf, np.nan], np.float32)
    got = codebook.decode(np.array([7, 3, 0], np.uint8), big, EIGHTS, group(1))
    np.testing.assert_array_equal(got, [big[0], np.nan, np.nan])


def test_codes_may_be_in_any_order_and_bounds_anywhere():
    rule = codebook.Rule((1.0, 0.0, -1.0), order=(2, 1, 0))
    codes, _ = codebook.encode(np.float32([1, 0.5, 0.51, -0.5, -0.4, -1]), rule, TENSOR)
    assert codes.tolist() == [0, 1, 0, 2, 1, 2]  # ties to the lower level, whatever its code
    moved = codebook.Rule((-1.0, 0.0, 1.0), bounds=(-0.9, 0.9))
    codes, _ = codebook.encode(np.float32([1, 0.9, 0.91, -0.9, -0.8, -1]), moved, TENSOR)
    assert codes.tolist() == [2, 1, 2, 0, 1, 0]


def test_smallest_divisors_and_scales():
    x = np.float32([0.25, -0.25, 0, 0.125])
    codes, scale = codebook.encode(x, codebook.Rule(EIGHTS.levels, min_divisor=1.0), TENSOR)
    assert float(scale) == 0.25
    np.testing.assert_array_equal(EIGHTS.table[codes], [0.125, -0.25, 0, 0.125])  # 0.25 is a tie
    codes, scale = codebook.encode(x, codebook.Rule(EIGHTS.levels, min_scale=1.0), TENSOR)
    assert float(scale) == 1
    np.testing.assert_array_equal(EIGHTS.table[codes], [0.125, -0.25, 0, 0.125])


@pytest.mark.parametrize("k, bits", [(2, 1), (3, 2), (16, 4), (17, 5), (256, 8)])
def test_bits_are_what_the_largest_code_needs(k, bits):
    assert codebook.Rule(tuple(range(k))).bits == bits


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: codebook.Rule((0.0, np.inf)), SchemeError, "expected finite float32"),
        (lambda: codebook.Rule((0.0, 1.0), order=(0, 0)), SchemeError, "order = 2 codes, expected every code once"),
        (lambda: codebook.Rule((1.0, 0.0), order=(0, 1)), SchemeError, "ascending order"),
        (lambda: codebook.Rule((0.0, 1.0), bounds=(0.1, 0.2)), SchemeError, "bounds = 2 values, expected 1"),
        (lambda: codebook.Rule((1.0,)), SchemeError, "levels = 1 values, expected 2 to 256 in ascending order"),
        (lambda: codebook.Rule((1.0, 0.0)), SchemeError, "ascending order"),
        (lambda: codebook.Rule((0.0, float("nan"))), SchemeError, "ascending order"),
        (lambda: codebook.encode(np.zeros(60, np.float32), EIGHTS, group(64)), ShapeError, "60, expected a positive"),
        (lambda: codebook.encode(np.full(8, np.inf), EIGHTS, TENSOR), NonFiniteError, r"x\.flat\[0\] = inf"),
        (lambda: codebook.decode(np.array([8], np.uint8), np.ones(1), EIGHTS, TENSOR), RangeError, "codes below 8"),
        (lambda: codebook.decode(np.zeros(8, np.uint8), np.ones(3), EIGHTS, group(4)), ShapeError, "one value or 2"),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
