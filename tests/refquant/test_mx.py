from fractions import Fraction

import naive_floats
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import rows, seeded

from refquant import dequantize, gguf, minifloat, mx, mx_scale, quantize
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.groups import Granularity
from refquant.minifloat import FORMATS

NAMES = {
    "mxfp4": "e2m1",
    "mxfp6_e2m3": "e2m3",
    "mxfp6_e3m2": "e3m2",
    "mxfp8_e4m3": "e4m3fn",
    "mxfp8_e5m2": "e5m2",
    "mxint8": "int8",
}


def byte(scale):
    return minifloat.encode(scale, FORMATS["e8m0"])


@pytest.mark.parametrize("name", NAMES)
@seeded
@given(row=rows(32), rule=st.sampled_from(mx_scale.SCALE_RULES))
def test_values_and_exponents_equal_exact_arithmetic(name, rule, row):
    q = quantize(row[None], f"{name}-{rule}")
    ref_values, ref_e = naive_floats.mx([float(v) for v in row], NAMES[name], rule)
    assert Fraction(float(q.scale[0, 0])) == Fraction(2) ** ref_e
    got = q.dequantize()[0]
    assert got.dtype == np.float32
    for ours, ref in zip(got, ref_values):
        if abs(ref) >= 2**128:  # the rules above floor may leave float32
            assert np.isinf(ours) and (ours > 0) == (ref > 0)
        else:
            assert ours == np.float32(float(ref))  # float(ref) is exact; float32 rounds subnormals only


@pytest.mark.parametrize(
    "rounding, mode", [("half_away", "half_up"), ("half_to_zero", "half_down"), ("toward_zero",) * 2]
)
def test_element_roundings_equal_exact_arithmetic_on_ties(rounding, mode):
    row = np.resize([4.0, 0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 7.0, -0.25, -2.5, -5.0], 32).astype(np.float32)
    for name, element in NAMES.items():
        ref, _ = naive_floats.mx([float(v) for v in row], element, "floor", mode)
        np.testing.assert_array_equal(
            quantize(row[None], f"{name}-{rounding}").dequantize()[0], [float(v) for v in ref]
        )


def test_the_rules_of_the_shared_scale_on_one_example():
    amax = np.array([6.5], np.float32)  # the example of mx_scale.py
    got = {rule: int(mx_scale.exponents(amax, rule, 6.0, 1, "exact", -127)[0]) for rule in mx_scale.SCALE_RULES}
    assert got == {"floor": 0, "ceil": 1, "even": 0, "rceil": 1, "rne": 0, "nearest": 0}


def test_even_bumps_from_seven_quarters_on_for_e2m1():
    amax = np.array([1.75, np.nextafter(np.float32(1.75), np.float32(0)), 1.9375, 1.875], np.float32)
    even = lambda bits: mx_scale.exponents(amax, "even", 6.0, bits, "exact", -127).tolist()
    assert even(1) == [-1, -2, -1, -1]
    assert even(3) == [-2, -2, -1, -2]


@pytest.mark.parametrize("rule", mx_scale.SCALE_RULES)
@seeded
@given(amax=st.floats(0, float(np.finfo(np.float32).max), width=32), name=st.sampled_from(sorted(NAMES)))
def test_exponents_equal_exact_arithmetic(rule, amax, name):
    r = mx.RULES[name]
    for around in (amax, 2.0 ** naive_floats.exponent(Fraction(amax)) if amax else 0.0):
        ref = naive_floats.mx_exponent(Fraction(around), rule, Fraction(r.max), r.mantissa_bits)
        got = mx_scale.exponents(np.array([around], np.float32), rule, r.max, r.mantissa_bits, "exact", -127)
        assert got.tolist() == [ref]


@pytest.mark.parametrize(
    "rule, share", [("even", 0.169), ("rceil", 0.298), ("rne", 0.107), ("ceil", 1.0), ("nearest", 0.228)]
)
def test_share_of_gaussian_blocks_whose_scale_is_not_that_of_floor(rule, share):
    x = np.random.default_rng(13).standard_normal((1 << 15, 32), dtype=np.float32)
    floor, other = quantize(x, "mxfp4").scale, quantize(x, f"mxfp4-{rule}").scale
    assert (floor != other).mean() == pytest.approx(share, abs=0.01)


@seeded
@given(k=st.integers(-120, 127), ulps=st.integers(1, 60))
def test_a_logarithm_rounded_to_float32_counts_what_is_next_to_a_power_of_two_as_that_power(k, ulps):
    power = np.float32(2.0**k)
    below = np.array([power.view(np.uint32) - np.uint32(ulps)], np.uint32).view(np.float32)
    above = np.array([power.view(np.uint32) + np.uint32(ulps)], np.uint32).view(np.float32)
    e = lambda x, rule, log: int(mx_scale.exponents(x, rule, 1.0, 1, log, -127)[0])
    assert e(below, "floor", "exact") == k - 1
    assert e(above, "rceil", "exact") == min(k + 1, 127)
    half_ulp = np.spacing(np.float32(abs(k) or 1)) / 2  # of log2 itself
    near = -np.log2(float(below[0]) / float(power)) < 0.5 * half_ulp
    if near and k not in (0, 1):
        assert e(below, "floor", "float32") == k
    if np.log2(float(above[0]) / float(power)) < 0.5 * half_ulp:
        assert e(above, "rceil", "float32") == k


@pytest.mark.parametrize("scheme, ref", [
    ("mxfp4", 0), ("mxfp4-rceil", 0), ("mxfp4@modelopt", 0), ("mxfp4@auto-round", 126), ("mxfp4@auto-round-rceil", 128),
    ("mxfp8_e4m3@auto-round", 120),
])  # fmt: skip
def test_scale_byte_of_a_zero_block(scheme, ref):
    q = quantize(np.zeros((1, 32), np.float32), scheme)
    assert byte(q.scale).tolist() == [[ref]]
    assert not q.dequantize().any()


def test_zero_codes_of_each_dialect():
    x = np.zeros((1, 32), np.float32)
    x[0, :4] = 0.0, -0.0, -1e-6, 4.0
    codes = {
        "ocp": [0, 8, 8],
        "torchao": [0, 8, 8],
        "compressed-tensors": [0, 0, 8],
        "auto-round": [0, 0, 8],
        "ggml": [0, 0, 0],
        "modelopt": [8, 8, 8],
    }
    for dialect, ref in codes.items():
        assert quantize(x, f"mxfp4@{dialect}").codes[0, :3].tolist() == ref


def test_subnormal_blocks_keep_the_smallest_exponent_and_torchao_divides_them_by_another():
    x = np.full((1, 32), 2.0**-127, np.float32)
    ours, theirs = quantize(x, "mxfp4"), quantize(x, "mxfp4@torchao")
    assert byte(ours.scale) == byte(theirs.scale) == 0
    assert (ours.dequantize() == x).all()
    assert (theirs.dequantize() == x / 2).all()  # encoded under 2^-126, decoded under 2^-127
    assert not quantize(x, "mxfp4@torchao-rceil").codes.any()


def test_item_13_a_wrong_pick_of_the_rule_changes_the_error_as_published():
    x = np.random.default_rng(5).standard_normal((1 << 14, 64), dtype=np.float32)
    error = {r: np.square(quantize(x, f"mxfp4-{r}").dequantize() - x).mean() for r in mx_scale.SCALE_RULES}
    assert error["even"] < error["floor"] < error["rceil"] < error["rne"] < error["nearest"] < error["ceil"]


def test_item_14_half_of_all_bfloat16_ties_split_the_three_customs():
    x = np.random.default_rng(6).standard_normal((1 << 13, 32), dtype=np.float32)
    x.view(np.uint32)[:] &= np.uint32(0xFFFF0000)  # bfloat16 values
    even, down, away = (quantize(x, f"mxfp4-{r}").codes for r in ("half_even", "half_to_zero", "half_away"))
    assert (down != away).mean() == pytest.approx(0.0116, abs=0.001)  # all exact ties
    assert ((even == down) | (even == away)).all()


def test_item_16_microxcaling_rounds_ties_away_and_takes_the_logarithm_in_float32():
    x = np.zeros((2, 32), np.float32)
    x[0, :2] = 4.0, 2.5
    x[1, 0] = np.nextafter(np.float32(2.0**40), np.float32(0))
    assert quantize(x, "mxfp4").dequantize()[0, 1] == 2.0
    assert quantize(x, "mxfp4@microxcaling").dequantize()[0, 1] == 3.0
    assert byte(quantize(x, "mxfp4@microxcaling").scale)[1, 0] == byte(quantize(x, "mxfp4").scale)[1, 0] + 1


def microxcaling(x, element):
    """The published formula of its `_quantize_mx` with round="nearest", written out for one block a row."""
    exponent_bits, emax, largest = element.exponent_bits, int(np.frexp(element.max)[1]) - 1, np.float32(element.max)
    with np.errstate(divide="ignore"):
        amax = np.abs(x).max(axis=1, keepdims=True)
        shared = np.floor(
            np.log2(np.where(amax == 0, np.float32(2.0**-126), amax).astype(np.float64)).astype(np.float32)
        )
        scale = np.exp2(np.maximum(shared - emax, -127).astype(np.float32))
        a = x / scale
        private = np.floor(np.log2(np.abs(a) + (a == 0)).astype(np.float32))
    unit = np.exp2(np.maximum(private, 2 - 2 ** (exponent_bits - 1)) - element.mantissa_bits).astype(np.float32)
    rounded = np.sign(a) * np.floor(np.abs(a / unit) + np.float32(0.5)) * unit
    return np.clip(rounded, -largest, largest) * scale


@pytest.mark.parametrize("name", [n for n in NAMES if n != "mxint8"])
def test_microxcaling_dialect_equals_its_formula(name):
    rng = np.random.default_rng(16)
    x = np.concatenate([
        rng.standard_normal((512, 32)), rng.choice([0.25, 0.75, 1.25, 2.5, 3.5, 5.0, -5.0, 0.0, 6.5], (512, 32)),
        np.zeros((1, 32)), 2.0 ** rng.integers(-90, 90, (64, 1)) * rng.uniform(-1, 1, (64, 32)),
    ]).astype(np.float32)  # fmt: skip
    ref = microxcaling(x, mx.RULES[name].element)
    np.testing.assert_array_equal(quantize(x, f"{name}@microxcaling").dequantize(), ref)


def test_microxcaling_adds_one_half_in_float32_and_so_rounds_the_float_below_a_half_up():
    x = np.zeros((1, 32), np.float32)
    x[0, :2] = 4.0, np.nextafter(np.float32(0.25), np.float32(0))  # 0.49999997 units of E2M1's smallest number
    assert microxcaling(x, FORMATS["e2m1"])[0, 1] == 0.5
    assert quantize(x, "mxfp4@microxcaling").dequantize()[0, 1] == 0.0


def test_item_29_ggml_wraps_small_exponents_and_refuses_nothing_silently_here():
    x = np.zeros((1, 32), np.float32)
    x[0, 0] = 2.0**-130
    assert gguf.quantize(x, "MXFP4")[0, 0] == 251  # -130 - 2 + 127 modulo 256
    assert byte(quantize(x, "mxfp4@ggml").scale).tolist() == [[0]]
    x[0, 0] = 2.0**-128
    assert quantize(x, "mxfp4").dequantize()[0, 0] == 2.0**-128
    x[0, 0] = np.nan
    for scheme in ("mxfp4", "MXFP4"):
        with pytest.raises(NonFiniteError, match=r"array\.flat\[0\] = nan"):
            quantize(x, scheme)


def test_ggml_dialect_has_the_codes_and_scales_of_its_blocks():
    rng = np.random.default_rng(4)
    x = np.concatenate(
        [rng.standard_normal((300, 32)), rng.choice([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5, -5, 0], (300, 32))]
    )
    x = (x * 2.0 ** rng.integers(-100, 100, (600, 1))).astype(np.float32)
    blocks = gguf.quantize(x, "MXFP4").reshape(600, 17)
    q = quantize(x, "mxfp4@ggml")
    np.testing.assert_array_equal(byte(q.scale)[:, 0], blocks[:, 0])
    np.testing.assert_array_equal(q.codes, np.hstack([blocks[:, 1:] & 15, blocks[:, 1:] >> 4]))
    np.testing.assert_array_equal(q.dequantize(), gguf.dequantize(blocks, "MXFP4"))


def test_mxint8_codes_are_symmetric_and_minus_two_is_only_decoded():
    x = np.array([[-1.999, 1.999, 1.0, -1.0, 0.0078125, *([0.0] * 27)]], np.float32)
    q = quantize(x, "mxint8")
    assert q.codes.dtype == np.int8
    assert q.codes[0, :5].tolist() == [-127, 127, 64, -64, 0]
    assert mx.decode(np.array([-128] * 32, np.int8), np.ones(1, np.float32), mx.RULES["mxint8"])[0] == -2


def test_a_nan_scale_decodes_the_block_to_nan():
    scale = minifloat.decode(np.array([255, 127], np.uint8), FORMATS["e8m0"])
    got = mx.decode(np.full(64, 2, np.uint8), scale, mx.RULES["mxfp4"])
    assert np.isnan(got[:32]).all()
    assert (got[32:] == 1).all()


def test_stochastic_elements_are_right_on_average():
    x = np.full((4096, 32), 1.3, np.float32)
    x[:, 0] = 4
    for name in NAMES:
        got = quantize(x, f"{name}-stochastic", rng=np.random.default_rng(1)).dequantize()
        assert got[:, 1:].mean() == pytest.approx(1.3, rel=2e-3)


@pytest.mark.parametrize("granularity", ["g16", "b32", "b2x16", "token", "channel1"])
def test_other_blocks_are_possible(granularity):
    x = np.random.default_rng(2).standard_normal((6, 64), dtype=np.float32)
    q = quantize(x, f"mxfp8_e4m3-{granularity}")
    assert np.abs(q.dequantize() - x).max() < 0.25
    assert np.array_equal(q.scale, 2.0 ** np.rint(np.log2(q.scale)))


@pytest.mark.parametrize("name, bits", [("mxfp4", 4.25), ("mxfp6_e3m2", 6.25), ("mxfp8_e5m2", 8.25), ("mxint8", 8.25)])
def test_bits_per_weight(name, bits):
    q = quantize(np.ones((4, 64), np.float32), name)
    assert q.bits_per_weight == q.scheme.bits_per_weight == bits


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_dtypes_and_layouts(dtype):
    x = np.random.default_rng(3).standard_normal((64, 96)).astype(np.float16)
    ref = dequantize(quantize(x.astype(np.float32), "mxfp4"))
    np.testing.assert_array_equal(dequantize(quantize(np.asfortranarray(x.astype(dtype)), "mxfp4")), ref)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: mx.Rule(FORMATS["e2m1"], scale_rule="up"), SchemeError, "scale_rule = 'up', expected one of"),
        (lambda: mx.Rule(FORMATS["e2m1"], rounding="up"), SchemeError, "rounding = 'up'"),
        (lambda: quantize(np.ones((2, 40)), "mxfp4"), ShapeError, "40, expected a positive multiple of 32"),
        (lambda: quantize(np.ones((0, 32)), "mxfp4"), ShapeError, "expected at least one value"),
        (lambda: quantize(np.ones((1, 32)), "mxfp4-stochastic"), SchemeError, "rng = None"),
        (lambda: quantize(np.ones((1, 32)), "mxfp4", scale=1.0), SchemeError, "option scale of mxfp4"),
        (lambda: quantize(np.full((1, 32), np.inf), "mxint8"), NonFiniteError, "inf, expected finite"),
        (
            lambda: mx.decode(np.array([16] * 32, np.uint8), np.ones(1), mx.RULES["mxfp4"]),
            RangeError,
            "codes = 16, expected uint8 below 16",
        ),
        (
            lambda: mx.decode(np.zeros(64, np.uint8), np.ones(3), mx.RULES["mxfp4"], Granularity("group", 32)),
            ShapeError,
            "one value or 2",
        ),
    ],
)
def test_refusals(call, error, message):
    with pytest.raises(error, match=message):
        call()
