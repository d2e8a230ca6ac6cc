"""Granularity: which weights share one scale.

    kind      spelling   who shares a scale                            shape of scale and zero_point for x (..., m, n)
    tensor    tensor     all of x                                      ()
    channel   channel    one index of axis 0 (channel1: of axis 1)     (m, 1, ...), one axis of x kept
    token     token      one vector along the last axis                (..., m, 1)
    group     g128       128 neighbours along the last axis            (..., m, n / 128)
    block     b64        64 neighbours of x laid out flat, row-major   (x.size / 64,)
    tile      b128x128   a rectangle of the last two axes              (..., m / 128, n / 128)

Every codec sees one picture only: `split` lays x out as (groups, members), a row for each scale, and `join` undoes it.
For a matrix (out, in) the kinds channel and token are the same; they part for more axes and for axis 1.

Tails    a length that is not a multiple of the group raises ShapeError; nothing is padded silently.
Copies   `split` returns a view wherever C order allows it, that is for all but channel1... and tile.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, ShapeError

SLAB = 1 << 18  # values handled at a time: 1 MiB of float32 stays in the L2 cache, and temporaries stay small

_COUNT = r"[1-9]\d{0,8}"
_SPELLING = re.compile(
    rf"tensor|token|channel(?P<axis>[1-9]?)|g(?P<group>{_COUNT})|b((?P<rows>{_COUNT})x)?(?P<size>{_COUNT})"
)


@dataclass(frozen=True, slots=True)
class Granularity:
    """Who shares a scale. `size` counts members along the last axis, `rows` is the height of a tile."""

    kind: str
    size: int = 0
    rows: int = 1
    axis: int = 0

    def __post_init__(self):
        if self.kind not in ("tensor", "channel", "token", "group", "block", "tile"):
            raise RangeError(
                f"Granularity: kind = {self.kind!r}, expected tensor, channel, token, group, block or tile"
            )
        if self.kind in ("group", "block", "tile") and (self.size < 1 or self.rows < 1):
            raise RangeError(f"Granularity: size = {self.rows}x{self.size}, expected positive sizes")

    def __str__(self) -> str:
        spellings = {
            "channel": f"channel{self.axis or ''}",
            "group": f"g{self.size}",
            "block": f"b{self.size}",
            "tile": f"b{self.rows}x{self.size}",
        }
        return spellings.get(self.kind, self.kind)

    @property
    def members(self) -> int | None:
        """Weights under one scale, None where that depends on the shape."""
        return self.rows * self.size if self.size else None


TENSOR = Granularity("tensor")
CHANNEL = Granularity("channel")
TOKEN = Granularity("token")


def group(size: int) -> Granularity:
    """`size` neighbours along the last axis share a scale."""
    return Granularity("group", size)


def block(size: int) -> Granularity:
    """`size` neighbours of the flattened array share a scale."""
    return Granularity("block", size)


def parse(word: str) -> Granularity | None:
    """Read one spelling of the table above; None when the word is no granularity."""
    match = _SPELLING.fullmatch(word)
    if match is None:
        return None
    if match["axis"] is not None:
        return Granularity("channel", axis=int(match["axis"] or 0))
    if match["group"]:
        return group(int(match["group"]))
    if match["rows"]:
        return Granularity("tile", int(match["size"]), rows=int(match["rows"]))
    return block(int(match["size"])) if match["size"] else Granularity(word)


def scale_shape(where: str, shape: tuple[int, ...], granularity: Granularity) -> tuple[int, ...]:
    """Shape of the scales of an array of `shape`. Raises ShapeError where the array cannot be divided so."""
    g, axes = granularity, len(shape)
    if g.kind == "tensor":
        return ()
    if g.kind == "token":
        return (*shape[:-1], 1)
    if g.kind == "channel":
        if axes < 2 or g.axis >= axes:
            raise ShapeError(
                f"{where}: x.shape = {shape}, expected at least {max(2, g.axis + 1)} axes for {g}; try tensor"
            )
        return tuple(n if axis == g.axis else 1 for axis, n in enumerate(shape))
    if g.kind == "block":
        return (_parts(where, "x.size", math.prod(shape), g.size, g),)
    if g.kind == "tile":
        if axes < 2:
            raise ShapeError(f"{where}: x.shape = {shape}, expected at least 2 axes for {g}")
        return (
            *shape[:-2],
            _parts(where, "x.shape[-2]", shape[-2], g.rows, g),
            _parts(where, "x.shape[-1]", shape[-1], g.size, g),
        )
    return (*shape[:-1], _parts(where, "x.shape[-1]", shape[-1], g.size, g))


def split(where: str, x: np.ndarray, granularity: Granularity) -> np.ndarray:
    """Lay `x` out as (groups, members), groups in C order of the scales' shape; a view where possible."""
    count = math.prod(scale_shape(where, x.shape, granularity))
    return _grouped_last(x, granularity).reshape(count, -1)


def join(rows: np.ndarray, shape: tuple[int, ...], granularity: Granularity) -> np.ndarray:
    """Inverse of `split` for an array of `shape`: C-contiguous, a view of `rows` where possible."""
    if granularity.kind == "channel" and granularity.axis:
        moved = (shape[granularity.axis], *shape[: granularity.axis], *shape[granularity.axis + 1 :])
        return np.ascontiguousarray(np.moveaxis(rows.reshape(moved), 0, granularity.axis))
    if granularity.kind == "tile":
        *lead, m, n = shape
        r, c = granularity.rows, granularity.size
        return np.ascontiguousarray(rows.reshape(*lead, m // r, n // c, r, c).swapaxes(-2, -3)).reshape(shape)
    return rows.reshape(shape)


def column(where: str, name: str, values: np.ndarray, count: int) -> np.ndarray:
    """One value for each of `count` groups, or one for all, as a float32 column (count, 1)."""
    if values.size not in (1, count):
        raise ShapeError(f"{where}: {name}.shape = {values.shape}, expected one value or {count}, one for each group")
    return np.broadcast_to(values.astype(np.float32).reshape(-1, 1), (count, 1))


def slabs(shape: tuple[int, int], values: int = SLAB) -> Iterator[tuple[slice, slice]]:
    """Cut (groups, members) into index pairs of at most about `values` values, in C order."""
    groups, members = shape
    height, width = max(1, values // members), min(members, values)
    for row in range(0, groups, height):
        for column in range(0, members, width):
            yield slice(row, row + height), slice(column, column + width)


def _grouped_last(x: np.ndarray, g: Granularity) -> np.ndarray:
    """Bring the axes that share a scale to the end."""
    if g.kind == "channel":
        return np.moveaxis(x, g.axis, 0)
    if g.kind == "tile":
        *lead, m, n = x.shape
        return x.reshape(*lead, m // g.rows, g.rows, n // g.size, g.size).swapaxes(-2, -3)
    return x


def _parts(where: str, what: str, got: int, of: int, g: Granularity) -> int:
    if got % of == 0 and got > 0:
        return got // of
    below, above = got // of * of, -(-got // of) * of
    nearest = f"cut to {below} or pad with zeros to {above}" if below else f"pad with zeros to {above}"
    fits = [d for d in (512, 256, 128, 64, 32, 16) if got % d == 0 and d < of]
    other = f", or take a size that divides it such as {fits[0]}" if fits else ""
    raise ShapeError(f"{where}: {what} = {got}, expected a positive multiple of {of} for {g}: {nearest}{other}")
