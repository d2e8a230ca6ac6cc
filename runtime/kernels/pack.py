"""Rows side by side: the bytes of 32 rows interleaved field by field, so that a vector holds the same field of 16 rows.

A block of a type is a run of fields of 1, 2 or 4 bytes in file order; in the packed form each field stands for row 0,
row 1, ... row 31 of the group, then comes the next field. No byte is changed, none is added but rows of zeros that
fill the last group up.

    file     row 0: [block 0][block 1] ...    row 1: [block 0][block 1] ...    ...
    packed   group 0: [block 0: field 0 of 32 rows, field 1 of 32 rows, ...][block 1: ...] ...    group 1: ...
"""

import numpy as np

from runtime.jit import entry
from runtime.simd.memory import load_i32, load_i64, load_u8, load_u16, store_i32, store_u8, store_u16, window

GROUP = 32


def plan(fields: tuple[tuple[int, int], ...]) -> np.ndarray:
    """((bytes, times), ...) -> (fields, 2) int64: offset in the block, and size."""
    sizes = np.array([size for size, times in fields for _ in range(times)], np.int64)
    return np.stack([np.cumsum(sizes) - sizes, sizes], axis=1)


@entry(9)
def interleave(source, rows, row_bytes, block_bytes, plan_address, fields, target, lo, hi):
    """Pack groups lo..hi of the matrix at address `source` to address `target`; everything is an int64."""
    blocks = row_bytes // block_bytes
    src, out = window(source, rows * row_bytes), window(target, hi * GROUP * row_bytes)
    steps = window(plan_address, fields * 16)
    for group in range(lo, hi):
        count = min(GROUP, rows - group * GROUP)
        for block in range(blocks):
            at, to = group * GROUP * row_bytes + block * block_bytes, (group * blocks + block) * GROUP * block_bytes
            for f in range(fields):
                offset, size = load_i64(steps, f * 16), load_i64(steps, f * 16 + 8)
                here = at + offset
                if size == 4:
                    for r in range(count):
                        store_i32(out, to + r * 4, load_i32(src, here + r * row_bytes))
                elif size == 2:
                    for r in range(count):
                        store_u16(out, to + r * 2, load_u16(src, here + r * row_bytes))
                else:
                    for r in range(count):
                        store_u8(out, to + r, load_u8(src, here + r * row_bytes))
                to += GROUP * size
    return hi - lo


def interleave_numpy(w: np.ndarray, block_bytes: int, fields: tuple[tuple[int, int], ...]) -> np.ndarray:
    """The twin: (rows, row bytes) uint8 -> flat uint8."""
    rows, row_bytes = w.shape
    groups = -(-rows // GROUP)
    padded = np.zeros((groups * GROUP, row_bytes), np.uint8)
    padded[:rows] = w
    blocks = padded.reshape(groups, GROUP, row_bytes // block_bytes, block_bytes)
    parts = [
        blocks[..., offset : offset + size].transpose(0, 2, 1, 3).reshape(groups, row_bytes // block_bytes, -1)
        for offset, size in plan(fields).tolist()
    ]
    return np.concatenate(parts, axis=-1).reshape(-1)
