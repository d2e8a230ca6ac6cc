from fractions import Fraction

import naive
import naive_floats
import numpy as np
import pytest
from hypothesis import given
from strategies import rows, seeded

from refquant import minifloat, quantize, scaled_minifloat
from refquant.errors import NonFiniteError, RangeError, SchemeError, ShapeError
from refquant.minifloat import FORMATS
from refquant.peak import peaks

NAMES = list(scaled_minifloat.RULES)


@pytest.mark.parametrize("name", NAMES)
@seeded
@given(row=rows(12))
def test_codes_and_scales_equal_exact_arithmetic(name, row):
    q = quantize(row, name)
    values = naive_floats.magnitudes(name.partition("_")[2])
    x = [Fraction(float(v)) for v in row]
    amax = max(abs(v) for v in x)
    limit = naive.to_float(Fraction(float(np.float32(naive.LIMIT) / np.float32(values[-1]))))
    scale = min(naive.to_float(amax / values[-1]), limit)
    assert Fraction(float(q.scale)) == scale
    ref = [naive_floats.nearest(naive.to_float(abs(v) / scale) if scale else Fraction(0), values) for v in x]
    sign = 1 << (FORMATS[name.partition("_")[2]].bits - 1)
    np.testing.assert_array_equal(q.codes & (sign - 1), ref)
    assert np.isfinite(q.dequantize()).all()


def test_the_largest_magnitude_becomes_the_largest_value():
    x = np.random.default_rng(0).standard_normal((8, 256), dtype=np.float32)
    for name in NAMES:
        for granularity in ("tensor", "channel", "token", "g64", "b4x128"):
            q = quantize(x, f"{name}-{granularity}")
            top = minifloat.values(FORMATS[name.partition("_")[2]])[q.codes]
            assert np.abs(top).max() == q.scheme.rule.element.max


def test_cast_has_no_scale_and_saturates_unless_told_otherwise():
    x = np.array([0.1, -1.0, 500.0, -0.0], np.float32)
    q = quantize(x, "fp8_e4m3fn-cast")
    assert q.scale is None
    assert q.codes.tolist() == [0x1D, 0xB8, 0x7E, 0x80]
    assert q.dequantize().tolist() == [0.1015625, -1.0, 448.0, -0.0]
    assert np.isnan(quantize(x, "fp8_e4m3fn-cast-special").dequantize()[2])
    assert np.isinf(quantize(x * 1000, "fp8_e5m2-cast", overflow="special").dequantize()[2])
    assert q.bits_per_weight == q.scheme.bits_per_weight == 8


def test_static_scales_are_used_as_given_and_clip():
    x = np.array([[1.0, -2.0, 1000.0], [0.5, 0.25, 0.0]], np.float32)
    q = quantize(x, "fp8_e4m3fn", scale=0.5)
    assert q.scale == 0.5
    assert q.dequantize().tolist() == [[1.0, -2.0, 224.0], [0.5, 0.25, 0.0]]
    rows_ = quantize(x, "fp8_e4m3fn-token", scale=np.array([[4.0], [0.0]]))
    assert rows_.scale.shape == (2, 1)
    assert rows_.dequantize().tolist() == [[1.0, -2.0, 1024.0], [0.0, 0.0, 0.0]]


def test_a_dynamic_scale_given_back_makes_the_same_codes():
    x = np.random.default_rng(3).standard_normal((16, 128), dtype=np.float32)
    for scheme in ("fp8_e4m3fn-token", "fp8_e5m2-g32", "fp8_e4m3fn-b8x64", "fp4_e2m1-channel-bf16"):
        q = quantize(x, scheme)
        np.testing.assert_array_equal(quantize(x, scheme, scale=q.scale).codes, q.codes)


def test_the_scale_is_narrowed_before_it_is_used():
    x = np.random.default_rng(4).standard_normal((4, 64), dtype=np.float32)
    q = quantize(x, "fp8_e4m3fn-channel-bf16")
    assert not (q.scale.view(np.uint32) & 0xFFFF).any()
    ref = minifloat.encode(x / q.scale, FORMATS["e4m3fn"])
    np.testing.assert_array_equal(q.codes, ref)
    assert q.scheme.rule.group_bits == 16


def test_zero_groups_of_each_dialect():
    x = np.zeros((1, 8), np.float32)
    assert quantize(x, "fp8_e4m3fn-token").scale == 0
    assert quantize(x, "fp8_e4m3fn-token@compressed-tensors").scale == np.finfo(np.float32).eps
    assert quantize(x, "fp8_e4m3fn-token@auto-round").scale == np.float32(1 / (448 * 512))
    assert not quantize(x, "fp8_e4m3fn-token@auto-round").dequantize().any()


@pytest.mark.parametrize("members", [1, 2, 31, 32, 127, 128, 1000])
def test_peaks_of_short_and_long_rows(members):
    x = np.random.default_rng(members).standard_normal((300, members), dtype=np.float32)
    x[0], x[1] = 0, -0.0
    got = peaks(x)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.abs(x).max(axis=1))
    assert not np.signbit(got).any()


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: quantize(np.ones(4), "fp8_e4m3fn", scale=-1.0), RangeError, "expected finite, 0 or more"),
        (lambda: quantize(np.ones(4), "fp8_e4m3fn", scale=np.inf), RangeError, "expected finite, 0 or more"),
        (lambda: quantize(np.ones(4), "fp8_e4m3fn", scale=np.ones(3)), ShapeError, "one value or 1"),
        (lambda: quantize(np.ones(4), "fp8_e4m3fn-cast", scale=1.0), SchemeError, "a cast has no scale"),
        (lambda: quantize(np.ones(4), "fp8_e4m3fn-stochastic"), SchemeError, "rng = None"),
        (lambda: quantize(np.full(4, 1e38), "fp4_e2m1-f16"), RangeError, "scale of group 0 = 1.66667e\\+37"),
        (lambda: quantize(np.full(4, np.nan), "fp8_e4m3fn-cast"), NonFiniteError, "nan, expected finite"),
        (lambda: scaled_minifloat.Rule(FORMATS["e5m2"], overflow="wrap"), SchemeError, "overflow = 'wrap'"),
        (lambda: quantize(np.ones(4), "fp8_e4m3"), None, ""),
        (lambda: quantize(np.ones(4), "fp8_e4m4"), SchemeError, "the nearest are fp8_e4m3"),
    ],
)
def test_refusals(call, error, message):
    if error is None:
        call()
        return
    with pytest.raises(error, match=message):
        call()
