"""Rounding to integers: the only file of this package that rounds.

    mode           -2.5  -1.5  -0.5   0.5   1.5   2.5   0.7  -0.7   who rounds so
    half_even       -2    -2     0     0     2     2     1    -1    IEEE 754, torch.round, CUDA rn, ggml nearest_int
    half_away       -3    -2    -1     1     2     3     1    -1    C roundf, ggml Q8_0, microxcaling "nearest"
    half_to_zero    -2    -1     0     0     1     2     1    -1    argmin over levels sorted by magnitude
    half_up         -2    -1     0     1     2     3     1    -1    floor(x + 1/2), ggml Q4_0
    half_down       -3    -2    -1     0     1     2     1    -1    bitsandbytes: a midpoint takes the lower code
    toward_zero     -2    -1     0     0     1     2     0     0    a C cast, ml_dtypes int4
    stochastic     floor or floor + 1, the latter with probability x - floor(x)

Input    any floating dtype and shape; `x` is not changed.
Output   the same dtype and shape, integral values; `out` may be `x` itself and saves an allocation.
Exact    the fraction is found by subtraction, which is exact where it decides. `floor(x + 0.5)` is not the same:
         in float32 it turns 0.49999997 into 1 and 8388609 into 8388610.
Zero     the sign of a zero result is not part of any rule here.
Total    NaN and infinities come back as they are, without a warning.
Source   IEEE 754-2019 sec. 4.3; the right-hand column from the sources of the projects named.
"""

from collections.abc import Callable

import numpy as np

from refquant.errors import RangeError

Rounding = Callable[[np.ndarray], np.ndarray]


def half_even(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Nearest integer, a tie to the even one."""
    return np.rint(x, out=out)


def half_away(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Nearest integer, a tie away from zero."""
    whole = np.trunc(x)
    return np.add(whole, np.copysign(_fraction(x, whole) >= 0.5, x, dtype=whole.dtype), out=out)


def half_to_zero(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Nearest integer, a tie toward zero."""
    whole = np.trunc(x)
    return np.add(whole, np.copysign(_fraction(x, whole) > 0.5, x, dtype=whole.dtype), out=out)


def half_up(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Nearest integer, a tie to the greater one."""
    whole = np.floor(x)
    return np.add(whole, _fraction(x, whole) >= 0.5, out=out, dtype=whole.dtype)


def half_down(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Nearest integer, a tie to the lesser one."""
    whole = np.ceil(x)
    return np.subtract(whole, _fraction(x, whole) >= 0.5, out=out, dtype=whole.dtype)


def toward_zero(x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Drop the fraction."""
    return np.trunc(x, out=out)


def stochastic(x: np.ndarray, rng: np.random.Generator, out: np.ndarray | None = None) -> np.ndarray:
    """floor(x), plus one with probability x - floor(x), so that the expectation is x; integers never move.

    One uniform number is drawn for each element in C order: float64 for float64, float32 (multiples of 2^-24) for
    narrower types. The same generator state gives the same result.
    """
    whole = np.floor(x)
    drawn = rng.random(whole.shape, dtype=np.float64 if whole.dtype == np.float64 else np.float32)
    return np.add(whole, drawn < _fraction(x, whole), out=out, dtype=whole.dtype)


ROUNDINGS: dict[str, Rounding] = {
    "half_even": half_even,
    "half_away": half_away,
    "half_to_zero": half_to_zero,
    "half_up": half_up,
    "half_down": half_down,
    "toward_zero": toward_zero,
}


def _fraction(x: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """|x - whole|, NaN where x is infinite: every comparison with it is then false."""
    with np.errstate(invalid="ignore"):
        return np.abs(x - whole)


def narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """The float32 values that storing float32 `x` as `dtype` and reading it back gives: nearest, ties to even.

    `dtype` is float32, float16 or bfloat16. What is too large becomes an infinity and what is too small a subnormal
    or zero, without a warning; NaN stays NaN.
    """
    if dtype == "float32":
        return x
    if dtype == "float16":
        with np.errstate(over="ignore", under="ignore"):
            return x.astype(np.float16).astype(np.float32)
    if dtype != "bfloat16":
        raise RangeError(f"rounding.narrow: dtype = {dtype!r}, expected float32, float16 or bfloat16")
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    kept = (bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))) & np.uint32(0xFFFF0000)
    return np.where(np.isnan(x), x, kept.view(np.float32))
