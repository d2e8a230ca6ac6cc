"""Codebooks: a code names one of a few fixed levels, and a scale stretches the levels over a group.

    encode   scale = max|x| of a group         code = argmin_k |x / scale - LEVELS[k]|
    decode   x^ = LEVELS[code] * scale

Levels     float32, at most 256. Ascending, or `order` lists the codes by ascending level (fp4.py).
Shapes     x and codes any shape, codes uint8; scale float32 as groups.scale_shape says, in the units of x.
Arithmetic float32; x / scale, or x * (1 / scale) where the rule says reciprocal. The scale is not narrowed.
Rounding   nearest level, decided by the float32 midpoint of neighbours: code = number of midpoints below x / scale.
           A tie takes the lower code. `bounds` gives other thresholds; x > bound is always the test.
Zero group scale 0 and the code nearest 0. With reciprocal arithmetic 0 * (1 / 0) is NaN: code 0. zero_code names any
           other. Whatever the code, it decodes to zeros. min_divisor > 0 replaces smaller divisors, so that 0 is
           divided by it; the scale that is stored stays what it is, unless min_scale raises it.
Subnormal  a subnormal max|x| is a scale like any other: dividing by it is exact enough. Its reciprocal may be infinite,
           and then every positive weight takes the last level, every negative the first, and a zero (NaN) code 0.
           With flush, as GPU kernels built with fast math, what is subnormal is 0 before anything else.
Speed      bounds are counted, one comparison each, over a slab that stays in cache: for 16 levels several times
           faster than np.searchsorted. For more than 48, the upper 16 bits of a float32 say which bounds are below but
           for one, and one comparison is left; where bounds lie closer than that, they are counted.
"""

import itertools
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from refquant import groups
from refquant.errors import RangeError, SchemeError
from refquant.groups import Granularity
from refquant.inputs import as_float32

LARGEST = float(np.finfo(np.float32).max)
TINY = np.finfo(np.float32).tiny
MANY = 48  # bounds from which on a table of the upper halves of float32 is faster than comparing with each
_HIGH = int(sys.byteorder == "little")  # where the upper half of a float32 lies


@dataclass(frozen=True, slots=True)
class Rule:
    """A codebook and the arithmetic around it. `levels` are float32 values by code."""

    levels: tuple[float, ...]
    reciprocal: bool = False  # x * (1 / scale)
    min_divisor: float = 0.0  # scales below are divided by as if they were this; they are stored as they are
    min_scale: float = 0.0  # scales below are raised to it, and stored so
    zero_code: int | None = None  # the code of all weights of a zero group; None: as the arithmetic has it
    flush: bool = False  # subnormal x and x / scale count as 0
    bounds: tuple[float, ...] | None = None  # one fewer than levels; None: midpoints
    order: tuple[int, ...] | None = None  # codes by ascending level; None: the codes ascend
    double: bool = False  # scales are quantized in turn (double_quant.py) ...
    scale_rule: "Rule | None" = None  # ... by this rule

    def __post_init__(self):
        shown = [self.levels[code] for code in self.order] if self._is_permutation() else list(self.levels)
        strict = self.bounds is None
        ascending = all(a < b or (a == b and not strict) for a, b in itertools.pairwise(shown))
        if not 2 <= len(self.levels) <= 256 or not ascending:
            raise SchemeError(
                f"codebook.Rule: levels = {len(self.levels)} values, expected 2 to 256 in ascending order"
            )
        if max(abs(level) for level in self.levels) > LARGEST:
            raise SchemeError(f"codebook.Rule: levels = {self.levels[0]} to {self.levels[-1]}, expected finite float32")
        if self.double and (self.scale_rule is None or self.scale_rule.double):
            raise SchemeError("codebook.Rule: double = True, expected a scale_rule that is not double itself")
        if self.order is not None and not self._is_permutation():
            raise SchemeError(f"codebook.Rule: order = {len(self.order)} codes, expected every code once")
        bounds = self.bounds
        if bounds is not None and (
            len(bounds) != len(self.levels) - 1 or not all(a <= b for a, b in itertools.pairwise(bounds))
        ):
            raise SchemeError(
                f"codebook.Rule: bounds = {len(bounds)} values, expected {len(self.levels) - 1} in ascending order"
            )

    def _is_permutation(self) -> bool:
        return self.order is not None and sorted(self.order) == list(range(len(self.levels)))

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return (len(self.levels) - 1).bit_length()

    @property
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes: a float32 scale; 0 where double_quant.py stores the scales."""
        return 0 if self.double else 32

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        return (
            f"{len(self.levels)} fixed levels, {'8-bit scale of a float32 scale' if self.double else 'float32 scale'}"
        )

    @property
    def table(self) -> np.ndarray:
        """The levels as float32, index = code."""
        return np.array(self.levels, np.float32)

    @property
    def thresholds(self) -> np.ndarray:
        """The float32 bounds between ascending levels."""
        if self.bounds is not None:
            return np.array(self.bounds, np.float32)
        return midpoints(self.table if self.order is None else self.table[list(self.order)])


def midpoints(levels: np.ndarray) -> np.ndarray:
    """Where the nearest level changes: the float32 means of neighbours, finite levels giving finite means."""
    return levels[1:] / np.float32(2) + levels[:-1] / np.float32(2)


def nearest(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the level nearest to each x as uint8, the lower one of a tie, 0 for NaN. Shapes: x any, levels (k,)."""
    return count_below(x, midpoints(levels))


def count_below(x: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """How many of at most 255 ascending float32 bounds are below each float32 x, as uint8; none are below NaN."""
    buckets = _buckets(bounds.tobytes()) if len(bounds) > MANY and x.size > MANY**2 else None
    if buckets is not None:
        bucket = np.ascontiguousarray(x).view(np.uint16)[..., _HIGH::2]
        count, above = buckets.below.take(bucket), (x > buckets.inside.take(bucket)).view(np.uint8)
        if buckets.times is not None:
            above *= buckets.times.take(bucket)
        count += above
        count *= (x == x).view(np.uint8)  # some NaN have the upper half of infinity
        return count
    count, above = np.zeros(x.shape, np.uint8), np.empty(x.shape, bool)
    for bound in bounds:
        np.greater(x, bound, out=above)
        count += above.view(np.uint8)
    return count


class _Buckets(NamedTuple):
    """For each upper half of a float32, (65536,)."""

    below: np.ndarray  # bounds below all values of it
    inside: np.ndarray  # the bound among its values, or infinity
    times: np.ndarray | None  # how many equal bounds that is; None: one everywhere


@lru_cache(maxsize=16)
def _buckets(bounds: bytes) -> _Buckets | None:
    """The table of `bounds`; None where two different ones share an upper half: one comparison would not do."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    ends = np.stack([upper, upper | 0xFFFF]).view(np.float32)
    ends = np.where(np.isnan(ends), ends[0], ends)  # of the two infinities: the other end is NaN
    smallest, largest = np.where(np.isnan(ends[0]), np.float32(-np.inf), np.sort(ends, axis=0))
    table = np.frombuffer(bounds, np.float32)
    first, last = np.searchsorted(table, smallest, side="left"), np.searchsorted(table, largest, side="left")
    padded = np.append(table, np.float32(np.inf))
    inside = np.where(last > first, padded[first], np.float32(np.inf))
    if (inside != np.where(last > first, padded[last - 1], np.float32(np.inf))).any():
        return None
    times = (last - first).astype(np.uint8)
    return _Buckets(first.astype(np.uint8), inside, times if times.max() > 1 else None)


def encode(x: np.ndarray, rule: Rule, granularity: Granularity) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError."""
    x = as_float32("codebook.encode", x)
    shape = groups.scale_shape("codebook.encode", x.shape, granularity)
    rows, bounds = groups.split("codebook.encode", x, granularity), rule.thresholds  # (groups, members)
    scale = np.maximum(-rows.min(axis=1), rows.max(axis=1)) + np.float32(0)  # + 0 turns -0 into 0
    if rule.min_scale:
        scale = np.maximum(scale, np.float32(rule.min_scale))
    renamed = None if rule.order is None else np.array(rule.order, np.uint8)
    codes = np.empty(rows.shape, np.uint8)
    if rule.flush:
        scale[scale < TINY] = 0
    for part in groups.slabs(rows.shape):
        quotient = _scaled(rows[part], scale[part[0], None], rule)
        codes[part] = count_below(quotient, bounds)
        if renamed is not None:
            codes[part] = np.where(np.isnan(quotient), np.uint8(0), renamed[codes[part]])
    if rule.zero_code is not None:
        codes[scale == 0] = rule.zero_code
    return groups.join(codes, x.shape, granularity), scale.reshape(shape)


def decode(codes: np.ndarray, scale: np.ndarray, rule: Rule, granularity: Granularity) -> np.ndarray:
    """LEVELS[codes] * scale in float32, in the shape of `codes`; a code beyond the table raises RangeError."""
    rows, levels = groups.split("codebook.decode", codes, granularity), rule.table
    if rows.max() >= len(levels):
        raise RangeError(f"codebook.decode: codes.max() = {rows.max()}, expected codes below {len(levels)}")
    scales = groups.column("codebook.decode", "scale", scale, len(rows))
    x = np.empty(rows.shape, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for part in groups.slabs(rows.shape):
            # the codes are in range, so that mode="clip" only saves the check of each
            np.multiply(levels.take(rows[part], mode="clip"), scales[part[0]], out=x[part])
    return groups.join(x, codes.shape, granularity)


def _scaled(x: np.ndarray, scale: np.ndarray, rule: Rule) -> np.ndarray:
    """x / scale or x * (1 / scale), as the rule says; NaN where that is 0 * infinity."""
    divisor = np.maximum(scale, np.float32(rule.min_divisor)) if rule.min_divisor else scale
    if rule.flush:
        x = _flushed(x)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        if rule.reciprocal:
            quotient = x * (np.float32(1) / divisor)
        else:
            quotient = x / np.where(divisor == 0, np.float32(np.inf), divisor)
    return _flushed(quotient) if rule.flush else quotient


def _flushed(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < TINY, np.float32(0), x)
