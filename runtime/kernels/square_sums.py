"""sums[k] += sum_t x[t, k]^2: how large the inputs of a matrix are, for importance matrices.

    Order    float32, t ascending, square then sum, from what `sums` holds

Record   buffers 0 x (tokens, width) float32, 1 sums (width,) float32; integers 32 width, a multiple of 16
"""

import numpy as np

from runtime.jit import kernel
from runtime.simd import buffer, integer, load_f32x16, store_f32x16


@kernel
def add_squares(args, tokens, start, thread, lo, hi):
    """A unit is 16 columns."""
    x, sums, width = buffer(args, 0), buffer(args, 1), integer(args, 32)
    for unit in range(lo, hi):
        total = load_f32x16(sums, unit * 64)
        for t in range(tokens):
            v = load_f32x16(x, t * width * 4 + unit * 64)
            total += v * v
        store_f32x16(sums, unit * 64, total)


def add_squares_numpy(x: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin: (tokens, width), (width,) -> (width,)."""
    return np.add.accumulate(np.concatenate([sums[None], x * x]), axis=0)[-1]
