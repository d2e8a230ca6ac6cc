"""Rows side by side: the bytes of 32 rows interleaved field by field, so that a vector holds the same field of 16 rows.

A block of a type is a run of fields of 1, 2 or 4 bytes in file order; in the packed form each field stands for row 0,
row 1, ... row 31 of the group, then comes the next field. No byte is changed, none is added but rows of zeros that
fill the last group up.

    file     row 0: [block 0][block 1] ...    row 1: [block 0][block 1] ...    ...
    packed   group 0: [block 0: field 0 of 32 rows, field 1 of 32 rows, ...][block 1: ...] ...    group 1: ...
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.simd import (
    FIELDS,
    buffer,
    integer,
    let_go,
    load_i32,
    load_i64,
    load_u8,
    load_u16,
    prefetch,
    store_i32,
    store_u8,
    store_u16,
    turn_8,
    turn_16,
    turn_32,
)

GROUP = 32
LINE = 64  # bytes that one prefetch asks for


def plan(fields: tuple[tuple[int, int], ...], row_bytes: int, block_bytes: int) -> tuple[np.ndarray, int]:
    """((bytes, times), ...) as ((runs, 3) int64: offset in the block, bytes, times; bytes of a block).

    A block of one field is no block: the row is one run.
    """
    if len(fields) == 1 and fields[0][1] == 1:
        size = fields[0][0]
        return np.array([[0, size, row_bytes // size]], np.int64), row_bytes
    sizes = np.array([size * times for size, times in fields], np.int64)
    return np.column_stack([np.cumsum(sizes) - sizes, np.array(fields, np.int64)]), block_bytes


@inlined
def place_one(source, at, row_bytes, out, to, size, rows):
    """One field of `rows` rows."""
    if size == 4:
        for r in range(rows):
            store_i32(out, to + r * 4, load_i32(source, at + r * row_bytes))
    elif size == 2:
        for r in range(rows):
            store_u16(out, to + r * 2, load_u16(source, at + r * row_bytes))
    else:
        for r in range(rows):
            store_u8(out, to + r, load_u8(source, at + r * row_bytes))


@inlined
def place_four(source, at, row_bytes, out, to, size):
    """Four fields of 32 rows."""
    half = 16 * row_bytes
    if size == 4:
        turn_32(source, at, row_bytes, out, to, 128)
        turn_32(source, at + half, row_bytes, out, to + 64, 128)
    elif size == 2:
        turn_16(source, at, row_bytes, out, to, 64)
        turn_16(source, at + half, row_bytes, out, to + 32, 64)
    else:
        turn_8(source, at, row_bytes, out, to, 32)
        turn_8(source, at + half, row_bytes, out, to + 16, 32)


@kernel
def interleave(args, tokens, start, thread, lo, hi):
    """Pack groups lo..hi of a matrix.

    Record: buffers 0 the rows of the file, 1 the plan, 2 where the packed form goes, zeros so far; integers 32 rows,
    33 bytes of a row, 34 bytes of a block, 35 runs of the plan.
    """
    source, runs, out = buffer(args, 0), buffer(args, 1), buffer(args, 2)
    rows, row_bytes, block_bytes, count = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
    blocks = row_bytes // block_bytes
    for group in range(lo, hi):
        present = min(GROUP, rows - group * GROUP)
        for block in range(blocks):
            here = group * GROUP * row_bytes + block * block_bytes
            to = (group * blocks + block) * GROUP * block_bytes
            if group + 1 < hi:  # the rows are too many streams for the hardware: the next group is asked for in order
                for line in range(to, to + GROUP * block_bytes, LINE):
                    prefetch(source, line + GROUP * row_bytes)
            for run in range(count):
                at, size = here + load_i64(runs, run * 24), load_i64(runs, run * 24 + 8)
                times, field = load_i64(runs, run * 24 + 16), 0
                if present == GROUP and times >= FIELDS:
                    while field < times:
                        field = min(field, times - FIELDS)  # the last four may overlap those before
                        place_four(source, at + field * size, row_bytes, out, to + field * size * GROUP, size)
                        field += FIELDS
                else:
                    while field < times:
                        place_one(source, at + field * size, row_bytes, out, to + field * size * GROUP, size, present)
                        field += 1
                to += GROUP * size * times


@kernel
def release(args, tokens, start, thread, lo, hi):
    """Let the system take back pages of mapped files. Record: buffer 0 has an address and a length for each unit."""
    spans = buffer(args, 0)
    for span in range(lo, hi):
        let_go(load_i64(spans, span * 16), load_i64(spans, span * 16 + 8))


def interleave_numpy(w: np.ndarray, block_bytes: int, fields: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The twin: (rows, row bytes) uint8 -> flat uint8."""
    rows, row_bytes = w.shape
    groups = -(-rows // GROUP)
    padded = np.zeros((groups * GROUP, row_bytes), np.uint8)
    padded[:rows] = w
    blocks = padded.reshape(groups, GROUP, row_bytes // block_bytes, block_bytes)
    parts, offset = [], 0
    for size, times in fields:
        for _ in range(times):
            field = blocks[..., offset : offset + size].transpose(0, 2, 1, 3)
            parts.append(field.reshape(groups, row_bytes // block_bytes, -1))
            offset += size
    return np.concatenate(parts, axis=-1).reshape(-1)
