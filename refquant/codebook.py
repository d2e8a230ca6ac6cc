"""Codebooks: a code names one of a few fixed levels, and a scale stretches the levels over a group.

    encode   scale = max|x| of a group         code = argmin_k |x / scale - LEVELS[k]|
    decode   x^ = LEVELS[code] * scale

Levels     ascending float32, at most 256.
Shapes     x and codes any shape, codes uint8; scale float32 as groups.scale_shape says, in the units of x.
Arithmetic float32; x / scale, or x * (1 / scale) where the rule says reciprocal. The scale is not narrowed.
Rounding   nearest level, decided by the float32 midpoint of neighbours: code = number of midpoints below x / scale.
           A tie takes the lower code.
Zero group scale 0 and the code nearest 0. With reciprocal arithmetic 0 * (1 / 0) is NaN, which is above no midpoint:
           code 0. Either way it decodes to zeros.
Subnormal  a subnormal max|x| is a scale like any other: dividing by it is exact enough. Its reciprocal may be infinite,
           and then every positive weight takes the last code and every other weight the first.
Speed      midpoints are counted, one comparison each, over a slab that stays in cache: for 16 levels several times
           faster than np.searchsorted, for 256 still faster, and with the same result.
"""

from dataclasses import dataclass

import numpy as np

from refquant import groups
from refquant.errors import RangeError, SchemeError
from refquant.groups import Granularity
from refquant.inputs import as_float32


@dataclass(frozen=True, slots=True)
class Rule:
    """A codebook and the arithmetic around it. `levels` are float32 values in ascending order."""

    levels: tuple[float, ...]
    reciprocal: bool = False

    def __post_init__(self):
        ascending = all(a < b for a, b in zip(self.levels, self.levels[1:]))
        if not 2 <= len(self.levels) <= 256 or not ascending:
            raise SchemeError(
                f"codebook.Rule: levels = {len(self.levels)} values, expected 2 to 256 in ascending order"
            )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return (len(self.levels) - 1).bit_length()

    @property
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes: a float32 scale."""
        return 32

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        return f"{len(self.levels)} fixed levels, float32 scale"

    @property
    def table(self) -> np.ndarray:
        """The levels as float32, index = code."""
        return np.array(self.levels, np.float32)


def midpoints(levels: np.ndarray) -> np.ndarray:
    """Where the nearest level changes: the float32 means of neighbours."""
    return (levels[1:] + levels[:-1]) / np.float32(2)


def nearest(x: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Index of the level nearest to each x as uint8, the lower one of a tie, 0 for NaN. Shapes: x any, levels (k,)."""
    codes, above = np.zeros(x.shape, np.uint8), np.empty(x.shape, bool)
    for bound in midpoints(levels):
        np.greater(x, bound, out=above)
        codes += above.view(np.uint8)
    return codes


def encode(x: np.ndarray, rule: Rule, granularity: Granularity) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError."""
    x = as_float32("codebook.encode", x)
    shape = groups.scale_shape("codebook.encode", x.shape, granularity)
    rows, levels = groups.split("codebook.encode", x, granularity), rule.table  # (groups, members)
    scale = np.maximum(-rows.min(axis=1), rows.max(axis=1)) + np.float32(0)  # + 0 turns -0 into 0
    codes = np.empty(rows.shape, np.uint8)
    for part in groups.slabs(rows.shape):
        codes[part] = nearest(_scaled(rows[part], scale[part[0], None], rule.reciprocal), levels)
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
            np.multiply(levels[rows[part]], scales[part[0]], out=x[part])
    return groups.join(x, codes.shape, granularity)


def _scaled(x: np.ndarray, scale: np.ndarray, reciprocal: bool) -> np.ndarray:
    """x / scale, zeros where the scale is 0; or x * (1 / scale) whatever that gives."""
    if not reciprocal:
        return x / np.where(scale == 0, np.float32(np.inf), scale)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        return x * (np.float32(1) / scale)
