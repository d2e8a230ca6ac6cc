"""The grids of a weight matrix that is quantized column by column: which group a column is in, and its scale.

A sweep visits columns in some order and changes those to come. The grid of a group is found

    static     before the sweep, from the original weights of the group's own columns
    dynamic    when the sweep enters the block in which the group begins, from the weights as they are then

and it holds for the g columns of the group. What "as they are then" means is the sweep's business: it decides where
blocks begin (`edges`), and passes the errors of one block on to later ones only when the block is done.

    statistics   blocks begin                           a group that begins inside a block of 128 sees
    fresh        at multiples of 128 and at groups      all earlier errors: "always the most current updated weights"
    stale        at multiples of 128                    the weights from before the block: IST-DASLab gptq, gptqmodel

Granularity  tensor, channel, token (one group: all columns), g<n>, and b<n> where n divides the row.
Ranges       format: the format's own scale (grid.py). ist: as in IST's quant.py, and in gptqmodel: a symmetric group
             without a negative weight gets the scale max / (2^bits - 1) and the zero point in the middle, so that the
             upper half of it is cut to about max/2; a group of zeros gets the range -1..1.
Tensor       a scale of the whole tensor (nvfp4) is found once, from the original weights, in every case.
Source       Frantar et al. 2022, arXiv:2210.17323, sec. 4 (grouping); quant.py and gptq.py of IST-DASLab gptq.
"""

import numpy as np

from refquant import affine, groups, mx
from refquant.errors import RangeError, SchemeError, UnsupportedError
from refquant.grid import Grid, fit, from_range, require_rounding, tensor_scale
from refquant.observers.mean_squared_error import SEARCHES, best_range
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

RANGES = ("format", "ist")
STATISTICS = ("fresh", "stale")


class ColumnGrids:
    """Grids by group, filled before the sweep (static) or during it.

    W       (out, in) float32, the original weights, dead columns zeroed
    order   (in,): order[position] = column
    dtype   of the arithmetic: float32 or float64
    search  "" or a name of SEARCHES: shrink each range to the least error, as in the `--mse` of IST's code
    """

    def __init__(
        self,
        W: np.ndarray,
        scheme: Scheme,
        order: np.ndarray,
        *,
        static: bool,
        ranges: str = "format",
        search: str = "",
        dtype: type[np.floating],
    ):
        where = "column_grids"
        require_rounding(where, scheme.rule)
        if ranges not in RANGES or (search and search not in SEARCHES):
            raise RangeError(
                f"{where}: ranges, search = {ranges!r}, {search!r}, expected {RANGES}, {list(SEARCHES)} or ''"
            )
        linear = isinstance(scheme.rule, affine.Rule) and not scheme.rule.binary
        if (ranges == "ist" or search) and not (linear and scheme.rule.range_mode == "half"):
            raise SchemeError(f"{where}: scheme = {scheme}, expected range_mode 'half' for ranges='ist' or a search")
        self.shape, self.scheme, self.order, self.size = W.shape, scheme, order, group_size(W.shape, scheme)
        self._ranges, self._search, self._dtype, self._static = ranges, search, dtype, static
        of_position = np.arange(len(order)) // self.size
        by_column = order // self.size
        kept = (by_column.reshape(-1, self.size) == by_column.reshape(-1, self.size)[:, :1]).all()
        self._scattered = not (static or kept)  # then groups are made of positions, and the file needs g_idx
        self._group = of_position if self._scattered else by_column  # (in,) the group of each position
        self._tensor = tensor_scale(W, scheme.rule)  # extras of the result
        self._grids: list[Grid | None] = [None] * (len(order) // self.size)
        if static:
            columns = W.T
            for group in range(len(self._grids)):
                self._grids[group] = self._fitted(columns[group * self.size : (group + 1) * self.size])

    def edges(self, block: int, statistics: str) -> list[int]:
        """Where blocks begin, and the end. Raises RangeError."""
        if statistics not in STATISTICS or block < 1:
            raise RangeError(f"column_grids: block, statistics = {block}, {statistics!r}, expected 1.., {STATISTICS}")
        count = len(self.order)
        begin = set(range(0, count, block))
        if statistics == "fresh" and not self._static:
            begin |= set(range(0, count, self.size))
        return [*sorted(begin), count]

    def reach(self, first: int, last: int) -> int:
        """Behind the last column that block first..last-1 looks at: a group that begins in it may end behind it."""
        begin = (last - 1) // self.size * self.size
        return last if self._static or begin < first else max(last, begin + self.size)

    def enter(self, first: int, last: int, columns: np.ndarray) -> None:
        """Find the grids of the groups that begin at positions first..last-1; columns (in, out) as they are now."""
        if not self._static:
            for begin in range(-(-first // self.size) * self.size, last, self.size):
                self._grids[self._group[begin]] = self._fitted(columns[begin : begin + self.size])

    def __getitem__(self, position: int) -> Grid:
        """The grid of the column at a position of the sweep."""
        return self._grids[self._group[position]]

    def whole(self) -> Grid:
        """All static grids as one that broadcasts against columns: scale and zero_point (in, out)."""
        shape = (len(self.order), self.shape[0])
        stacked = (np.stack([getattr(g, name) for g in self._grids])[self._group] for name in ("scale", "zero_point"))
        return Grid(self.scheme.rule, *(np.broadcast_to(a.reshape(len(a), -1), shape) for a in stacked))

    def tensor(self, codes: np.ndarray) -> QuantizedTensor:
        """The result, from codes (in, out) by position."""
        rule, granularity = self.scheme.rule, self.scheme.granularity
        signed = rule.signed if isinstance(rule, affine.Rule) else isinstance(rule, mx.Rule) and rule.element is None
        stored = np.int8 if signed else np.uint8
        ordered = np.empty(self.shape, stored)
        ordered[:, self.order] = codes.T
        shape = groups.scale_shape("column_grids", self.shape, granularity)
        scales = [grid.scale if grid.stored is None else grid.stored for grid in self._grids]
        scale = np.stack(scales, axis=-1).astype(np.float32).reshape(shape)
        zero = self._zero_point(shape, stored) if isinstance(rule, affine.Rule) else None
        extras = dict(self._tensor)
        if self._scattered:
            extras["g_idx"] = np.empty(len(self.order), np.int32)
            extras["g_idx"][self.order] = self._group
        return QuantizedTensor(ordered, scale, zero, self.scheme, self.shape, extras)

    def _zero_point(self, shape: tuple[int, ...], stored: type[np.integer]) -> np.ndarray:
        rule = self.scheme.rule
        dtype = np.float32 if rule.zero_kind == "float" or rule.binary else stored
        if rule.symmetric:
            return np.array(rule.fixed_zero, dtype)
        return np.stack([grid.zero_point for grid in self._grids], axis=-1).astype(dtype).reshape(shape)

    def _fitted(self, columns: np.ndarray) -> Grid:
        """The grid of columns (members, out), a scale for each output or, of a tensor, one."""
        rows = columns.reshape(1, -1) if self.scheme.granularity.kind == "tensor" else columns.T
        rows, rule = rows.astype(np.float32, copy=False), self.scheme.rule
        if self._ranges == "format" and not self._search:
            return fit(rows, rule, next(iter(self._tensor.values()), None)).astype(self._dtype)
        lo, hi = (
            best_range(rows, rule, SEARCHES[self._search]) if self._search else (rows.min(axis=1), rows.max(axis=1))
        )
        if self._ranges == "ist":
            lo, hi = _ist_range(lo, hi, rule)
        return from_range(lo, hi, rule).astype(self._dtype)


def group_size(shape: tuple[int, ...], scheme: Scheme) -> int:
    """Columns under one scale. Raises ShapeError, UnsupportedError (tiles, other axes)."""
    granularity = scheme.granularity
    groups.scale_shape("column_grids", shape, granularity)
    if granularity.kind in ("tensor", "token") or (granularity.kind == "channel" and not granularity.axis):
        return shape[1]
    if granularity.kind == "group" or (granularity.kind == "block" and shape[1] % granularity.size == 0):
        return granularity.size
    raise UnsupportedError(
        f"column_grids: granularity = {granularity}, expected tensor, channel, token or groups of a row"
    )


def _ist_range(lo: np.ndarray, hi: np.ndarray, rule: affine.Rule) -> tuple[np.ndarray, np.ndarray]:
    """The range whose `half` scale is IST's: (xmax - xmin) / maxq, xmin mirrored only where it is negative."""
    empty = (lo == 0) & (hi == 0)
    if rule.symmetric:
        hi = np.where(lo < 0, np.maximum(-lo, hi), hi / np.float32(2))
        lo = -hi
    return np.where(empty, np.float32(-1), lo), np.where(empty, np.float32(1), hi)
