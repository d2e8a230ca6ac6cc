"""How Python calls an encoder: f(x, y, importance, sigma2, first, reals, integers) for sixteen blocks at a time.

    x           (blocks, values) float32, blocks a multiple of 16       y    (blocks, bytes) uint8, written
    importance  (blocks of a row + 15, values) float32: the row of block b is (first + b) % (blocks of a row), and the
                15 repeat the beginning, so that sixteen blocks always lie side by side; empty where there is none
    sigma2      (blocks,) float32: what `legacy_weighted` adds to x^2; empty elsewhere
    first       the number of block 0 in its matrix
    reals, integers   (SCRATCH, 16) float32 and int32, of this call alone

`lane_encoder` compiles such a function when it is first needed.
"""

from numba import types

from runtime.jit import array_entry

SCRATCH = 592


def matrix(dtype: types.Type) -> types.Array:
    """A contiguous array of two axes."""
    return types.Array(dtype, 2, "C")


FLOATS, FLOAT_ROW = matrix(types.float32), types.Array(types.float32, 1, "C")
lane_encoder = array_entry(
    types.int64(FLOATS, matrix(types.uint8), FLOATS, FLOAT_ROW, types.int64, FLOATS, matrix(types.int32))
)
