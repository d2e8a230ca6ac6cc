"""Codebooks that belong to the data: the table is fitted, or handed in, and stored with the codes.

    encode   s = max|x| of a group          levels = fit of all x / s          code = nearest level of x / s
    decode   x^ = levels[code] * s

fit      quantile    equal mass, quantile.py                     quantile4, quantile3-g64, ...
         kmeans      least squared error (Lloyd), kmeans.py      kmeans4, kmeans3-channel-own-raw (SqueezeLLM), ...
                     `weights`, an array like x, weighs the errors of x / s
         given       the option `levels`, any 2 to 2^bits        codebook4, codebook8-g64, ...
Words    own         a table for each group instead of one for the array
         raw         no scale: the levels are in the units of x, scale is None
Stored   extras["levels"] float32, (k,) or with own (groups, k)
Codes    codebook.py has the arithmetic: division, ties to the lower code, zero groups.
Costs    the fit of one table sorts the array: some 60 ns a value, most of the time.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refquant import codebook, groups, kmeans, quantile
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.groups import Granularity
from refquant.inputs import as_float32

FITS = ("quantile", "kmeans", "given")


@dataclass(frozen=True, slots=True)
class Rule:
    """How a table is made, and for whom."""

    bits: int
    fit: str
    own: bool = False  # a table for each group
    scaled: bool = True  # levels of x / max|x|, else of x

    def __post_init__(self):
        if self.bits not in range(1, 9) or self.fit not in FITS:
            raise SchemeError(f"fitted.Rule: bits, fit = {self.bits}, {self.fit!r}, expected 1 to 8, one of {FITS}")

    @property
    def group_bits(self) -> int:
        """Bits that a group stores besides its codes: a float32 scale, or none."""
        return 32 if self.scaled else 0

    @property
    def extra_bits(self) -> int:
        """Bits that the tables add to each group of a large array."""
        return 32 << self.bits if self.own else 0

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        made = {"quantile": "equal-mass", "kmeans": "k-means", "given": "given"}[self.fit]
        whose = "a table of each group" if self.own else "one table"
        return f"{1 << self.bits} {made} levels, {whose}, {'float32 scale' if self.scaled else 'no scale'}"


def encode(
    x: np.ndarray,
    rule: Rule,
    granularity: Granularity,
    levels: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None, dict[str, np.ndarray]]:
    """Return (codes, scale or None, {"levels": table}). Raises ShapeError, NonFiniteError, RangeError, SchemeError."""
    if (levels is None) == (rule.fit == "given"):
        raise SchemeError(f"fitted.encode: levels = {levels}, expected them with a codebook scheme and only there")
    if weights is not None and rule.fit != "kmeans":
        raise SchemeError(f"fitted.encode: weights with fit = {rule.fit}, expected them with kmeans only")
    x = as_float32("fitted.encode", x)
    shape = groups.scale_shape("fitted.encode", x.shape, granularity)
    rows = groups.split("fitted.encode", x, granularity)
    scale = None
    if rule.scaled:
        scale = np.maximum(-rows.min(axis=1), rows.max(axis=1)) + np.float32(0)
        rows = rows / np.where(scale == 0, np.float32(np.inf), scale)[:, None]
    if weights is not None:
        if np.shape(weights) != x.shape:
            raise ShapeError(f"fitted.encode: weights.shape = {np.shape(weights)}, expected that of x, {x.shape}")
        weights = groups.split("fitted.encode", np.ascontiguousarray(weights), granularity)
    tables = _given(levels, rule, len(rows)) if rule.fit == "given" else _fitted(rows, rule, weights)
    codes = np.empty(rows.shape, np.uint8)
    if rule.own:
        for row, table, out in zip(rows, tables, codes):
            out[:] = codebook.nearest(row, table)
    else:
        for part in groups.slabs(rows.shape):
            codes[part] = codebook.nearest(rows[part], tables)
    codes = groups.join(codes, x.shape, granularity)
    return codes, None if scale is None else scale.reshape(shape), {"levels": tables}


def decode(
    codes: np.ndarray, scale: np.ndarray | None, stored: Mapping[str, np.ndarray], rule: Rule, granularity: Granularity
) -> np.ndarray:
    """levels[codes] * scale in float32; a code beyond the table raises RangeError."""
    rows, levels = groups.split("fitted.decode", codes, granularity), stored["levels"]
    if levels.ndim != 1 + rule.own or (rule.own and len(levels) != len(rows)):
        wanted = f"({len(rows)}, k)" if rule.own else "(k,)"
        raise ShapeError(f"fitted.decode: levels.shape = {levels.shape}, expected {wanted}")
    if rows.max() >= levels.shape[-1]:
        raise RangeError(f"fitted.decode: codes.max() = {rows.max()}, expected codes below {levels.shape[-1]}")
    x = np.take_along_axis(levels, rows.astype(np.intp), axis=1) if rule.own else levels.take(rows, mode="clip")
    if rule.scaled:
        with np.errstate(over="ignore", invalid="ignore"):
            x = x * groups.column("fitted.decode", "scale", scale, len(rows))
    return groups.join(x, codes.shape, granularity)


def _fitted(rows: np.ndarray, rule: Rule, weights: np.ndarray | None) -> np.ndarray:
    k = 1 << rule.bits
    if rule.fit == "quantile":
        return np.stack([quantile.table(row, k) for row in rows]) if rule.own else quantile.table(rows, k)
    if not rule.own:
        return kmeans.lloyd(rows, k, weights)
    each = [None] * len(rows) if weights is None else weights
    return np.stack([kmeans.lloyd(row, k, w) for row, w in zip(rows, each)])


def _given(levels: np.ndarray, rule: Rule, count: int) -> np.ndarray:
    """The caller's table as float32, checked."""
    table = as_float32("fitted.encode", np.asarray(levels).astype(np.float64), "levels")
    shape = (count, table.shape[-1]) if rule.own else (table.shape[-1],)
    if table.shape != shape or not 2 <= table.shape[-1] <= 1 << rule.bits:
        wanted = f"{'(groups, k)' if rule.own else '(k,)'} with k = 2 to {1 << rule.bits}"
        raise ShapeError(f"fitted.encode: levels.shape = {table.shape}, expected {wanted}")
    if not (table[..., 1:] > table[..., :-1]).all():
        raise RangeError("fitted.encode: levels are not in ascending order, expected each above the one before")
    return table.copy()
