"""Which scale and zero point a linear rule finds for each group: affine.py states the formulas.

    scales     amax / divisor or (hi - lo) / steps of every row, narrowed, with what the rule says about flat groups
    zeros      the zero points that belong to them
    quotient   x / scale as the rule's arithmetic has it

Rows are (groups, members) float32, results (groups,) float32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from refquant.errors import RangeError
from refquant.rounding import ROUNDINGS, narrow

if TYPE_CHECKING:
    from refquant.affine import Rule

LARGEST = 0.99 * float(np.finfo(np.float32).max)
IN_UNITS_OF_X = ("min", "mid")  # zero kinds that store a value of x, not a code


class Scale(NamedTuple):
    """What the scales of all groups are, each array (groups,)."""

    wide: np.ndarray  # before narrowing
    stored: np.ndarray
    flat: np.ndarray  # which groups are flat
    multiplier: np.ndarray | None  # what x is multiplied by; None: it is divided


def scales(rows: np.ndarray, rule: Rule) -> Scale:
    """Scales of rows (groups, members)."""
    zero = np.float32(0)  # x + 0 turns -0 into 0: which of the two a minimum returns depends on the processor
    reach, divisor = _symmetric(rows, rule) if rule.symmetric else _asymmetric(rows, rule)
    reach = reach + zero
    flat = np.abs(reach) <= np.float32(rule.flat_range)
    if rule.min_range:
        reach = np.copysign(np.maximum(np.abs(reach), np.float32(rule.min_range)), reach)
    multiplier = None
    if rule.arithmetic.endswith("multiplier"):
        multiplier = _multiplier(reach, divisor, flat, rule)
        with np.errstate(divide="ignore", over="ignore"):
            wide = np.where(np.isinf(multiplier), zero, np.float32(1) / multiplier)
    else:
        wide = reach / divisor + zero
        over = np.flatnonzero(np.isinf(reach))
        with np.errstate(over="ignore"):
            wide[over] = rows[over].max(axis=1) / divisor[over] - rows[over].min(axis=1) / divisor[over]
        if rule.min_scale:
            wide = np.copysign(np.maximum(np.abs(wide), np.float32(rule.min_scale)), wide)
        if rule.flat_scale:
            wide[flat] = np.float32(rule.flat_scale)
    wide = np.clip(wide, np.float32(-LARGEST), np.float32(LARGEST))
    stored = narrow(wide, rule.scale_dtype) + zero
    if rule.flat_scale:
        flat |= stored == 0
        stored = np.where(flat, narrow(np.full(1, rule.flat_scale, np.float32), rule.scale_dtype), stored)
        wide = np.where(wide == 0, stored, wide)
    if not np.isfinite(stored).all():
        worst = int(np.argmin(np.isfinite(stored)))
        raise RangeError(
            f"affine.encode: scale of group {worst} = {wide[worst]:.6g}, expected one that {rule.scale_dtype} holds"
        )
    return Scale(wide, stored, flat, multiplier)


def _symmetric(rows: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """(largest magnitude with the sign of the scale, what it is divided by)."""
    half = 1 << (rule.bits - 1)
    if rule.binary:
        mean = np.abs(rows).mean(axis=1, dtype=np.float64)  # float64, so that the order of the sum does not show
        return (2 * np.minimum(mean, LARGEST / 2)).astype(np.float32), np.ones(len(rows), np.float32)
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    if rule.range_mode == "signedmax":
        peak = np.where(-lo > hi, lo, hi)
        tied = np.flatnonzero((-lo == hi) & (hi > 0))
        first_is_low = (rows[tied] == lo[tied, None]).argmax(axis=1) < (rows[tied] == hi[tied, None]).argmax(axis=1)
        peak[tied[first_is_low]] *= -1
        return peak, np.full(len(rows), -half, np.float32)
    if rule.range_mode == "covering":
        low, high = np.maximum(-lo, 0), np.maximum(hi, 0)
        negative = low / np.float32(half) > high / np.float32(half - 1)
        return np.where(negative, low, high), np.where(negative, np.float32(half), np.float32(half - 1))
    divisor = np.full(
        len(rows), {"half": half - 0.5, "restricted": half - 1, "full": half}[rule.range_mode], np.float32
    )
    if rule.mirror == "negative":
        divisor[lo >= 0] *= 2  # the range is 0 .. hi, the steps are as many
    return np.maximum(-lo, hi), divisor


def _asymmetric(rows: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """(hi - lo, the number of steps). Raises RangeError where zero points in units of x leave float32."""
    lo, hi = _ends(rows, rule)
    with np.errstate(over="ignore"):
        reach = hi - lo
    widest = float(np.maximum(np.maximum(-lo, hi), reach).max())
    if rule.zero_kind in IN_UNITS_OF_X and widest > LARGEST:
        raise RangeError(
            f"affine.encode: widest group = {lo.min():.6g}..{hi.max():.6g}, expected ends and a width up to "
            f"{LARGEST:.6g} with zero_kind {rule.zero_kind!r}"
        )
    return reach, np.full(len(rows), (1 << rule.bits) - 1, np.float32)


def _ends(rows: np.ndarray, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    return (np.minimum(lo, 0), np.maximum(hi, 0)) if rule.include_zero else (lo, hi)


def _multiplier(reach: np.ndarray, divisor: np.ndarray, flat: np.ndarray, rule: Rule) -> np.ndarray:
    """divisor / reach, held by min_scale and flat_scale; infinite where x has no extent, so that the scale is 0."""
    with np.errstate(divide="ignore", over="ignore"):
        by_reciprocal = rule.arithmetic == "reciprocal_multiplier"  # what torch makes of `number / tensor`
        multiplier = (np.float32(1) / reach) * divisor if by_reciprocal else divisor / reach
    if rule.flat_scale:
        multiplier[flat] = np.float32(1) / np.float32(rule.flat_scale)
    if rule.min_scale:
        multiplier = np.minimum(multiplier, np.float32(1) / np.float32(rule.min_scale))
    return multiplier


def zeros(rows: np.ndarray, found: Scale, rule: Rule) -> np.ndarray:
    """Zero points as float32: () of a symmetric rule, else (groups,)."""
    if rule.fixed_zero is not None:
        return np.array(rule.fixed_zero, np.float32)
    lo, _ = _ends(rows, rule)
    scale = found.wide if rule.codes_from == "wide" else found.stored
    if rule.zero_kind in IN_UNITS_OF_X:
        shift = np.float32(rule.base - rule.qmin)
        zero = narrow(lo + found.wide * shift, rule.scale_dtype)
    else:
        exact = quotient(lo, scale, found.multiplier)
        if rule.zero_kind == "float":
            zero = narrow(np.float32(rule.qmin) - exact, rule.scale_dtype)
        else:  # a stochastic rule draws for codes only
            whole = ROUNDINGS.get(rule.rounding, ROUNDINGS["half_even"])
            difference = rule.zero_rounded == "difference"
            zero = whole(np.float32(rule.qmin) - exact) if difference else np.float32(rule.qmin) - whole(exact)
            zero = np.clip(zero, rule.qmin, rule.qmax)
    if rule.flat_zero is not None:
        zero = np.where(found.flat, np.float32(rule.flat_zero), zero)
    return zero


def held_finite(scale: np.ndarray, zero: np.ndarray, rule: Rule) -> np.ndarray:
    """Keep (q - zero) * scale below infinity for every code; only groups near the end of float32 are touched."""
    if float(np.abs(scale).max()) * (1 << rule.bits) <= LARGEST:
        return scale
    base = rule.base if rule.zero_kind in IN_UNITS_OF_X else zero
    reach = np.maximum(np.abs(rule.qmin - base), np.abs(rule.qmax - base)).astype(np.float64)
    held = np.minimum(np.abs(scale), LARGEST / np.maximum(reach, 1)).astype(np.float32)
    return narrow(np.copysign(held, scale), rule.scale_dtype)


def quotient(x: np.ndarray, scale: np.ndarray, multiplier: np.ndarray | None) -> np.ndarray:
    """x / scale, 0 where the scale is; or x times what replaces 1 / scale."""
    with np.errstate(over="ignore"):
        return x / safe_divisor(scale) if multiplier is None else x * multiplier


def safe_divisor(scale: np.ndarray) -> np.ndarray:
    """x / infinity is 0, which is the code of every weight whose scale is 0."""
    return np.where(scale == 0, np.float32(np.inf), scale)
