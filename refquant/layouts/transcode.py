"""Transcode: the same numbers in another layout, proved equal, or refused with the reason.

    transcode(arrays, "awq-gemm", "gptq")       one weight: unpack, convert, pack, read back, compare

The proof    what was written is read back and decoded by the formula of its own layout in float32; every value must be
             the bits of the source's, -0 and +0 counting as one number and NaN as NaN.
Converted    integer zero points become offsets and offsets integer zero points where that is exact; scales change their
             dtype where every one of them is representable; groups are split, or merged where neighbours are equal.
Refused      act-order where the layout has no g_idx; a zero point out of range, or one where the layout is symmetric; a
             minimum that is no multiple of its scale (Q4_1 to GPTQ), or too fine for float16 (GPTQ to MLX); bfloat16
             scales that float16 cannot hold; a scale that divides; groups and lengths that the layout does not have.
NVFP4        weight_global_scale and weight_scale_2 are reciprocals, and a reciprocal is rounded: for one random number
             in five every block scale comes out the same, for the others some are one bit apart. `tolerance` is the
             largest relative difference of a value to be let through; 2^-22 lets those through and nothing else. It is
             0 unless said.
"""

import dataclasses

import numpy as np

from refquant.errors import RangeError
from refquant.layouts import catalogue
from refquant.layouts.arrays import Arrays
from refquant.layouts.bitsandbytes import INVERSE_127, RowInt8
from refquant.layouts.catalogue import Record
from refquant.layouts.linear import Linear, middle

RECIPROCAL = 2.0**-22


def transcode(
    arrays: Arrays,
    source: str,
    target: str,
    *,
    group_size: int | None = None,
    tolerance: float = 0.0,
    **options: object,
) -> dict[str, np.ndarray]:
    """The arrays of one weight in the layout `target`.

    group_size   of the result; None keeps the groups
    tolerance    largest |x' - x| / |x| to accept, 0 for equality
    options      what the arrays do not tell the reader of `source`: bits, group_size, shape ... (see its module)

    Raises RangeError, ShapeError, SchemeError, QuantError: what cannot be the same, or is not well-formed.
    """
    return convert(catalogue.unpack(arrays, source, **options), target, group_size=group_size, tolerance=tolerance)


def convert(record: Record, target: str, *, group_size: int | None = None, tolerance: float = 0.0) -> dict:
    """The same from a record. See `transcode`."""
    source = record
    if isinstance(record, RowInt8) and catalogue.layout(target).record is Linear:
        record = _row_scales(record)
    if group_size is not None:
        if not isinstance(record, Linear):
            raise RangeError(f"transcode: group_size = {group_size}, expected None: {target} has its own blocks")
        record = regroup(record, group_size)
    arrays = catalogue.pack(record, target)
    written = catalogue.unpack(arrays, target, **catalogue.layout(target).told(record))
    if not _identical(source, written):
        _prove(source.dequantize(), written.dequantize(), target, tolerance)
    return arrays


def regroup(linear: Linear, group_size: int) -> Linear:
    """The same numbers in groups of another size: split, or merged where scale, zero point and offset are equal.

    Raises RangeError: act-order, sizes that do not divide each other, neighbours that differ.
    """
    old, new = linear.group_size, group_size
    if new == old:
        return linear
    ins = linear.codes.shape[1]
    if new < 1 or linear.g_idx is not None or linear.shape is not None or (old % new and new % old and old < ins):
        raise RangeError(f"transcode: groups of {old} to {new}, expected neighbouring inputs and sizes that divide")
    parts = {"scale": linear.scale, "zero_point": linear.zero_point, "offset": linear.offset}
    changed = {}
    for name, values in parts.items():
        if values is None:
            continue
        changed[name] = np.ascontiguousarray(linear.per_input(values)[:, ::new])
        spread = np.repeat(changed[name], new, axis=1)[:, :ins]
        differs = spread != linear.per_input(values)
        if differs.any():
            row, column = (int(i) for i in np.argwhere(differs)[0])
            raise RangeError(
                f"transcode: {name} of output {row} changes at input {column}, expected equal groups to merge"
            )
    return dataclasses.replace(linear, group_size=new, **changed)


def _row_scales(record: RowInt8) -> Linear:
    """q * (SCB / 127); the order of the two products is another than bitsandbytes', so that the proof decides."""
    scale = (record.absmax * INVERSE_127)[:, None]
    codes = record.codes.view(np.uint8) ^ np.uint8(128)
    return Linear(codes, scale, middle(8, scale.shape), 8, codes.shape[1], "float32")


def _identical(a: Record, b: Record) -> bool:
    """Whether two Linear records are equal part by part: one formula decodes both, the quick way to the proof."""
    if not (isinstance(a, Linear) and isinstance(b, Linear)):
        return False
    for field in dataclasses.fields(Linear):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray) != isinstance(y, np.ndarray):
            return False
        if not (np.array_equal(x, y) if isinstance(x, np.ndarray) else x == y):
            return False
    return True


def _prove(before: np.ndarray, after: np.ndarray, target: str, tolerance: float) -> None:
    """Raise RangeError unless the values agree."""
    differs = (before != after) & ~(np.isnan(before) & np.isnan(after))
    count = int(differs.sum())
    if not count:
        return
    x, y = before[differs].astype(np.float64), after[differs].astype(np.float64)
    with np.errstate(all="ignore"):
        worst = float(np.max(np.abs(y - x) / np.abs(x)))
    if worst <= tolerance:
        return
    first = tuple(int(i) for i in np.argwhere(differs)[0])
    got = f"{count} of {before.size} values differ, at {list(first)} {before[first]!s} becomes {after[first]!s}"
    raise RangeError(f"transcode: to {target}: {got} (relative {worst:.3g} at most), expected at most {tolerance:.3g}")
