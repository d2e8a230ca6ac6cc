"""Fused multiply-add in NumPy and bfloat16: against exact fractions."""

from fractions import Fraction

import numpy as np
import pytest
from kernel_runner import assert_same_bits

from refquant.gguf import dequantize, quantize
from runtime.kernels.bf16 import encode_numpy
from runtime.kernels.fused import fma_numpy


def nearest(exact: Fraction) -> np.float32:
    """The float32 nearest to a fraction in the normal range, ties to even."""
    guess = np.float32(float(exact))
    near = [np.nextafter(guess, np.float32(-np.inf)), guess, np.nextafter(guess, np.float32(np.inf))]
    off = [abs(Fraction(float(x)) - exact) for x in near]
    best = [x for x, d in zip(near, off) if d == min(off)]
    return best[0] if len(best) == 1 else next(x for x in best if x.view(np.uint32) % 2 == 0)


@pytest.mark.parametrize("spread", [0, 12, 24, 26, 60])
def test_a_fused_multiply_add_rounds_once(spread):
    rng = np.random.default_rng(spread)
    a, b, c = rng.standard_normal((3, 3000)).astype(np.float32)
    c *= np.float32(2.0) ** rng.integers(-spread, spread + 1, 3000)
    ref = [nearest(Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))) for x, y, z in zip(a, b, c)]
    assert_same_bits(fma_numpy(a, b, c), np.array(ref, np.float32))


def test_two_roundings_would_give_another_number():
    a, b = np.float32(1 + 2.0**-23), np.float32(1 + 2.0**-23)
    c = np.float32(-1 - 2.0**-22)
    assert fma_numpy(a, b, c) == np.float32(2.0**-46)
    assert np.float32(a * b) + c == 0
    # The sum lies just beside the middle of two float32; float64 rounds it onto the middle, and the tie goes to even.
    beside = fma_numpy(np.float32(2.0**-30), np.float32(2.0**-24 - 2.0**-47), np.float32(1 + 2.0**-23))
    assert beside == np.float32(1 + 2.0**-23)


@pytest.mark.parametrize("a, b, c", [(np.inf, 1, -np.inf), (np.inf, 0, 1), (np.nan, 1, 1)])
def test_invalid_operations_are_nan_without_a_warning(a, b, c):
    assert np.isnan(fma_numpy(np.float32(a), np.float32(b), np.float32(c)))


def test_infinity_and_overflow_follow_ieee_754():
    assert fma_numpy(np.float32(1e38), np.float32(1e38), np.float32(0)) == np.inf
    assert fma_numpy(np.float32(np.inf), np.float32(1), np.float32(5)) == np.inf


def test_activations_are_rounded_to_bfloat16_as_the_oracle_rounds_weights():
    bits = np.random.default_rng(5).integers(0, 1 << 32, 1 << 16, dtype=np.uint32)
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16) | 0x8000
    x = np.concatenate([bits, ties]).view(np.float32)
    x = x[np.isfinite(x)][None]
    assert_same_bits(encode_numpy(x), quantize(x, "BF16").view(np.uint16).reshape(x.shape))
    assert np.isnan(dequantize(encode_numpy(np.array([[np.nan, -np.nan]], np.float32)), "BF16")).all()
