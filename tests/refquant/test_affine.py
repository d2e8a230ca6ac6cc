from fractions import Fraction

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import HUGE, rows, seeded

from refquant import affine, groups
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.groups import CHANNEL, TENSOR, group

RULES = {
    "half": {},
    "restricted": {"range_mode": "restricted"},
    "full": {"range_mode": "full"},
    "signedmax": {"range_mode": "signedmax"},
    "asymmetric": {"symmetric": False},
}
N = 12  # weights in a row: small, so that every example can be done in fractions


def values(x):
    return [float(v) for v in np.ravel(x)]


def assert_equals_naive(row, rule):
    codes, scale, zero = affine.encode(row, rule)
    ref_codes, ref_scale, ref_zero = naive.linear(
        values(row), rule.bits, rule.signed, rule.symmetric, rule.range_mode, rule.scale_dtype, rule.rounding
    )
    assert Fraction(float(scale)) == ref_scale
    assert Fraction(float(zero)) == ref_zero
    assert codes.tolist() == ref_codes
    got = affine.decode(codes, scale, zero, TENSOR)
    assert [Fraction(v) for v in values(got)] == naive.decode_linear(ref_codes, ref_scale, ref_zero)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("kind", RULES)
@seeded
@given(row=rows(N), bits=st.integers(2, 8))
def test_codes_scales_and_values_equal_exact_arithmetic(kind, signed, row, bits):
    assert_equals_naive(row, affine.Rule(bits, signed, **RULES[kind]))


@seeded
@given(row=rows(N), signed=st.booleans(), symmetric=st.booleans())
def test_one_bit_equals_exact_arithmetic(row, signed, symmetric):
    assert_equals_naive(row, affine.Rule(1, signed, symmetric))


@pytest.mark.parametrize("kind", RULES)
@seeded
@given(row=rows(N), bits=st.integers(2, 8))
def test_bfloat16_scales_equal_exact_arithmetic(kind, row, bits):
    assert_equals_naive(row, affine.Rule(bits, scale_dtype="bfloat16", **RULES[kind]))


@seeded
@given(
    row=rows(N).filter(lambda row: abs(row).max() < 1e5), mode=st.sampled_from(["half_away", "half_down", "half_up"])
)
def test_other_roundings_and_float16_scales_equal_exact_arithmetic(row, mode):
    for kind in RULES.values():
        assert_equals_naive(row, affine.Rule(4, rounding=mode, scale_dtype="float16", **kind))


@pytest.mark.parametrize("kind", ["half", "restricted", "asymmetric"])
@seeded
@given(row=rows(N).filter(lambda row: 1e-30 < abs(row).max() < 1e38), bits=st.integers(2, 8))
def test_no_value_moves_by_more_than_half_a_step(kind, row, bits):
    codes, scale, zero = affine.encode(row, affine.Rule(bits, **RULES[kind]))
    error = np.abs(affine.decode(codes, scale, zero, TENSOR).astype(np.float64) - row)
    bound = 0.5 if kind != "asymmetric" else 1.0  # a rounded zero point shifts the range by up to half a step more
    assert error.max() <= bound * float(scale) * (1 + 1e-5)


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_code_survives_a_round_trip(bits):
    rule = affine.Rule(bits, range_mode="full")
    q = np.arange(rule.qmin, rule.qmax + 1).astype(np.int8)
    codes, scale, zero = affine.encode(q.astype(np.float32) / 4, rule)
    assert (float(scale), int(zero)) == (0.25, 0)
    np.testing.assert_array_equal(codes, q)


def test_ranges_map_the_peak_as_the_docstring_prints():
    x = np.array([1.0, -0.5, 0.25, -1.0], np.float32)
    ref = {"half": (7, -7), "restricted": (7, -7), "full": (7, -8), "signedmax": (-8, 7)}  # half: 1 / fl(1 / 7.5) < 7.5
    for mode, peaks in ref.items():
        codes, scale, _ = affine.encode(x, affine.Rule(4, range_mode=mode))
        assert (codes[0], codes[3]) == peaks
        divisor = {"half": 7.5, "restricted": 7, "full": 8, "signedmax": -8}[mode]
        assert scale == np.float32(1) / np.float32(divisor)


def test_the_last_bit_of_the_scale_decides_the_code_of_minus_amax_in_the_half_range():
    x = np.array([[-1, 0], [-1.5, 0], [-1.2, 0]], np.float32)
    codes, _, _ = affine.encode(x, affine.Rule(4), group(2))
    assert set(codes[:, 0].tolist()) == {-7, -8}


def test_signedmax_takes_the_first_of_two_peaks():
    x = np.array([[0.5, -2, 1, 2], [0.5, 2, 1, -2], [0, 0, 0, 0], [1, -3, 3, -3]], np.float32)
    _, scale, _ = affine.encode(x, affine.Rule(4, range_mode="signedmax"), group(4))
    np.testing.assert_array_equal(scale[:, 0], [0.25, -0.25, 0, 0.375])


def test_zero_stays_zero_and_is_a_level_of_every_asymmetric_group():
    x = np.abs(np.random.default_rng([4, 64]).standard_normal((4, 64), dtype=np.float32)) + 1
    x[:, 3] = 0
    for rule in (affine.Rule(4, symmetric=False), affine.Rule(4, False, False), affine.Rule(3)):
        codes, scale, zero = affine.encode(x, rule, group(32))
        assert (affine.decode(codes, scale, zero, group(32))[:, 3] == 0).all()


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("x", [[0.0, 0.0], [-0.0, -0.0], [0.0, -0.0], [-0.0, 0.0]])
def test_a_group_of_zeros_has_scale_plus_zero_and_the_code_of_zero(kind, signed, x):
    codes, scale, zero = affine.encode(np.array(x, np.float32), affine.Rule(4, signed, **RULES[kind]))
    assert float(scale) == 0
    assert not np.signbit(scale)
    assert (codes == zero).all()
    assert not affine.decode(codes, scale, zero, TENSOR).any()


@pytest.mark.parametrize("amax, dtype", [(1e-45, "float32"), (1e-7, "float16"), (1e-41, "bfloat16")])
def test_a_scale_that_underflows_when_stored_makes_zeros(amax, dtype):
    x = np.array([amax, -amax, 0], np.float32)
    codes, scale, zero = affine.encode(x, affine.Rule(4, scale_dtype=dtype))
    assert float(scale) == 0
    assert not codes.any()
    assert not affine.decode(codes, scale, zero, TENSOR).any()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_ends_of_float32_decode_finite(bits, dtype):
    for kind in ("half", "asymmetric") if bits == 1 else RULES:
        for x in ([HUGE, -HUGE, 1], [HUGE, HUGE, HUGE], [-HUGE, -HUGE / 2, 0]):
            rule = affine.Rule(bits, scale_dtype=dtype, **RULES[kind])
            codes, scale, zero = affine.encode(np.array(x, np.float32), rule)
            assert np.isfinite(scale)
            assert np.isfinite(affine.decode(codes, scale, zero, TENSOR)).all()


def test_codes_follow_the_stored_scale_unless_the_rule_says_wide():
    x = np.random.default_rng([64, 128]).standard_normal((64, 128), dtype=np.float32)
    stored, scale, _ = affine.encode(x, affine.Rule(4, scale_dtype="bfloat16"), group(128))
    wide, same_scale, _ = affine.encode(x, affine.Rule(4, scale_dtype="bfloat16", codes_from="wide"), group(128))
    full, _, _ = affine.encode(x, affine.Rule(4), group(128))
    np.testing.assert_array_equal(scale, same_scale)
    np.testing.assert_array_equal(wide, full)
    differing = (stored != wide).mean()
    assert 0.0005 < differing < 0.01  # reference value 0.27 %
    rounded = np.clip(np.rint(x.reshape(64, 1, 128) / scale[..., None]), -8, 7)
    np.testing.assert_array_equal(stored, rounded.reshape(64, 128))


def test_a_float_zero_point_is_not_rounded_and_lowers_the_error():
    x = np.random.default_rng([64, 64]).standard_normal((64, 64), dtype=np.float32)
    errors = {}
    for kind in ("int", "float"):
        rule = affine.Rule(4, False, False, zero_kind=kind, zero_added="before")
        codes, scale, zero = affine.encode(x, rule, group(64))
        errors[kind] = np.square(affine.decode(codes, scale, zero, group(64)) - x).mean()
    assert zero.dtype == np.float32
    assert (zero != np.rint(zero)).any()
    np.testing.assert_array_equal(zero, -x.min(axis=1, keepdims=True) / scale)
    assert errors["float"] < errors["int"]


def test_adding_an_odd_zero_point_before_rounding_moves_ties():
    x = np.array([-1, 14, 0.5, 1.5, 2.5], np.float32)  # scale 1, zero point 1
    after, _, zero = affine.encode(x, affine.Rule(4, False, False))
    before, _, _ = affine.encode(x, affine.Rule(4, False, False, zero_added="before"))
    assert int(zero) == 1
    np.testing.assert_array_equal(after, [0, 15, 1, 3, 3])
    np.testing.assert_array_equal(before, [0, 15, 2, 2, 4])


def test_a_least_scale_replaces_smaller_ones():
    x = np.array([[0, 0], [1e-9, -1e-9], [1, -1]], np.float32)
    _, scale, _ = affine.encode(x, affine.Rule(8, min_scale=2.0**-23), group(2))
    np.testing.assert_array_equal(scale[:, 0], np.array([2.0**-23, 2.0**-23, 1 / 127.5], np.float32))


def test_stochastic_rounding_is_unbiased_and_needs_a_generator():
    x = np.full((1, 20000), 0.3, np.float32)
    x[0, 0] = 7.5
    rule = affine.Rule(4, rounding="stochastic")
    codes, scale, zero = affine.encode(x, rule, group(20000), np.random.default_rng(7))
    assert affine.decode(codes, scale, zero, group(20000))[0, 1:].mean() == pytest.approx(0.3, abs=0.02)
    again, _, _ = affine.encode(x, rule, group(20000), np.random.default_rng(7))
    np.testing.assert_array_equal(codes, again)
    with pytest.raises(SchemeError, match=r"rng = None, expected a np\.random\.Generator"):
        affine.encode(x, rule)


@pytest.mark.parametrize("spelling", ["tensor", "channel", "channel1", "token", "g4", "b16", "b2x4"])
def test_granularity_only_decides_who_shares(spelling):
    g = groups.parse(spelling)
    x = np.random.default_rng([8, 4, 8]).standard_normal((8, 4, 8), dtype=np.float32)
    rule = affine.Rule(4, symmetric=False)
    codes, scale, zero = affine.encode(x, rule, g)
    assert codes.shape == x.shape
    assert scale.shape == zero.shape == groups.scale_shape("test", x.shape, g)
    pieces = groups.split("test", x, g)
    for row, got, s, z in zip(pieces, groups.split("test", codes, g), scale.ravel(), zero.ravel()):
        ref_codes, ref_scale, ref_zero = affine.encode(row, rule)
        np.testing.assert_array_equal(got, ref_codes)
        assert (s, z) == (ref_scale, ref_zero)
    decoded = affine.decode(codes, scale, zero, g)
    assert decoded.shape == x.shape
    assert np.abs(decoded - x).max() <= scale.max()


def test_a_row_longer_than_a_slab_equals_its_parts():
    x = np.random.default_rng(9).standard_normal((3, groups.SLAB + 7), dtype=np.float32)
    codes, scale, zero = affine.encode(x, affine.Rule(8), CHANNEL)
    ref = np.clip(np.rint(x / scale), -128, 127)
    np.testing.assert_array_equal(codes, ref)
    np.testing.assert_array_equal(affine.decode(codes, scale, zero, CHANNEL), ref.astype(np.float32) * scale)


def test_arguments_are_not_changed():
    x = np.random.default_rng(1).standard_normal((4, 8), dtype=np.float32)
    before = x.copy()
    codes, scale, zero = affine.encode(x, affine.Rule(4, symmetric=False), group(8))
    kept = codes.copy(), scale.copy(), zero.copy()
    affine.decode(codes, scale, zero, group(8))
    for got, ref in zip((x, codes, scale, zero), (before, *kept)):
        np.testing.assert_array_equal(got, ref)


def test_a_subnormal_scale_changes_no_code_of_another_group():
    """Its reciprocal is infinite, so that it is divided by; the others are not."""
    rng = np.random.default_rng(0)
    x = (np.rint(2 * rng.standard_normal((64, 16))) / 2 * rng.uniform(0.5, 2, (64, 1))).astype(np.float32)
    tiny = x.copy()
    tiny[0] *= np.float32(1e-39)
    rule = affine.Rule(4, arithmetic="reciprocal")
    ref, got = (affine.encode(each, rule, group(16))[0] for each in (x, tiny))
    divided = affine.encode(x, affine.Rule(4), group(16))[0]
    np.testing.assert_array_equal(got[1:], ref[1:])
    assert (ref[1:] != divided[1:]).any()


def test_decoding_any_codes_and_scales_is_silent():
    codes = np.array([-128, 127, 0, 1], np.int8)
    scales = np.array([np.inf, np.nan, HUGE, -1], np.float32)
    got = affine.decode(codes, scales, np.array(0, np.int8), group(1))
    np.testing.assert_array_equal(got, np.array([-np.inf, np.nan, 0, -1], np.float32))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"bits": 9}, r"bits = 9, expected one of \[1, 2"),
        ({"bits": 4, "range_mode": "wide"}, r"range_mode = 'wide', expected one of \['half'"),
        ({"bits": 4, "scale_dtype": "float64"}, "scale_dtype = 'float64'"),
        ({"bits": 4, "rounding": "up"}, "rounding = 'up'"),
        ({"bits": 1, "range_mode": "full"}, "expected a symmetric rule of 2 bits or more"),
        ({"bits": 4, "symmetric": False, "range_mode": "full"}, "expected a symmetric rule"),
        ({"bits": 4, "zero_kind": "float"}, "expected an asymmetric rule"),
    ],
)
def test_rules_that_make_no_sense_are_refused(fields, message):
    with pytest.raises(SchemeError, match=message):
        affine.Rule(**fields)


@pytest.mark.parametrize(
    "x, rule, granularity, error, message",
    [
        (
            np.zeros((2, 60), np.float32),
            affine.Rule(4),
            group(64),
            ShapeError,
            "60, expected a positive multiple of 64",
        ),
        (np.full(4, np.nan), affine.Rule(4), TENSOR, NonFiniteError, r"x\.flat\[0\] = nan"),
        (np.array([1, 1e6, 3, 4]), affine.Rule(4, scale_dtype="float16"), group(2), RangeError, "of group 0 = 133333"),
    ],
)
def test_refusals(x, rule, granularity, error, message):
    with pytest.raises(error, match=message):
        affine.encode(x, rule, granularity)


def test_a_scale_that_is_given_is_used():
    x = np.float32([[-3, 0.5, 1.5, 2.5, 200, -200]])
    codes, scale, zero = affine.encode(x, affine.Rule(8), TENSOR, scale=np.float32(1))
    assert (float(scale), int(zero)) == (1, 0)
    assert codes.tolist() == [[-3, 0, 2, 2, 127, -128]]
    codes, scale, zero = affine.encode(x, affine.Rule(8, False, False), TENSOR, scale=2.0, zero_point=100)
    assert (float(scale), int(zero)) == (2, 100)
    assert codes.tolist() == [[98, 100, 101, 101, 200, 0]]  # -1.5 rounds to -2, 0.25 to 0, 0.75 and 1.25 to 1


def test_every_group_may_be_given_its_scale():
    x = np.random.default_rng(0).standard_normal((4, 8), dtype=np.float32)
    rule = affine.Rule(4, symmetric=False)
    ref = affine.encode(x, rule, group(4))
    got = affine.encode(x, rule, group(4), scale=ref[1], zero_point=ref[2])
    for a, b in zip(ref, got):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "rule, given, error, message",
    [
        (affine.Rule(8), {"zero_point": 1}, SchemeError, "expected a scale alone"),
        (affine.Rule(8), {"scale": 1.0, "zero_point": 1}, SchemeError, "expected a scale alone"),
        (affine.Rule(8, symmetric=False), {"scale": 1.0}, SchemeError, "expected a scale and a zero_point"),
        (affine.Rule(8), {"scale": np.ones(3)}, ShapeError, "one value or 2"),
        (affine.Rule(8), {"scale": np.nan}, NonFiniteError, "scale"),
        (affine.Rule(8, scale_dtype="float16"), {"scale": 1e6}, RangeError, "expected one that float16 holds"),
        (
            affine.Rule(8, False, False),
            {"scale": 1.0, "zero_point": 256},
            RangeError,
            "expected integers that are codes",
        ),
        (
            affine.Rule(8, False, False),
            {"scale": 1.0, "zero_point": 0.5},
            RangeError,
            "expected integers that are codes",
        ),
        (affine.Rule(1), {"scale": 1.0}, SchemeError, "static scale"),
    ],
)
def test_static_refusals(rule, given, error, message):
    with pytest.raises(error, match=message):
        affine.encode(np.ones((2, 4)), rule, group(4), **given)


@pytest.mark.parametrize("kind", ["min", "mid"])
@pytest.mark.parametrize("signed", [False, True])
def test_zero_points_in_units_of_x_refuse_a_group_that_is_wider_than_float32(kind, signed):
    rule = affine.Rule(4, signed=signed, symmetric=False, zero_kind=kind)
    largest = np.finfo(np.float32).max
    for row in ([-largest, 0, largest], [0, 0, largest], [-largest, 0, 0]):
        with pytest.raises(RangeError, match="widest group"):
            affine.encode(np.array([row], np.float32), rule, CHANNEL)
    x = np.linspace(-0.49, 0.49, 33, dtype=np.float32)[None] * largest
    codes, scale, zero = affine.encode(x, rule, CHANNEL)
    error = np.abs(affine.decode(codes, scale, zero, CHANNEL, rule).astype(np.float64) - x)
    assert (error <= 0.501 * scale).all()
