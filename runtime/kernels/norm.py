"""The residual, its RMS norm, and the 8-bit forms of the result: what stands between two matrix products.

    x[t] += y[t] (+ bias)                              the output of the last block, where there is one
    h[t]  = x[t] * (1 / sqrt(mean(x[t]^2) + eps)) * weight

Order    the squares are float32 products added in float32 by 16 lanes (lane l: columns l, l + 16, ...), the lanes as a
         tree (8 apart, 4, 2, 1); 1 / sqrt(... ) in float64, rounded once; h = (x * scale) * weight.
Widths   a row takes `width` columns, n rounded up to a multiple of 32; the columns from n on are zeros.
Source   Zhang and Sennrich 2019, arXiv:1910.07467; the order 'scale, then weight' is ggml's.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.activations import BF16, Q8_0, Q8_K, encode_q8_0, encode_q8_k
from runtime.kernels.bf16 import encode_bf16
from runtime.simd import buffer, integer, load_f32x16, number, splat_f32, store_f32x16, sum_lanes


@inlined
def normalize(x, at, weight, h, to, n, width, eps):
    """One row of `width` columns at byte `at` of x, to byte `to` of h."""
    total = splat_f32(np.float32(0))
    for i in range(0, width * 4, 64):
        v = load_f32x16(x, at + i)
        total += v * v
    scale = np.float32(1 / np.sqrt(np.float64(sum_lanes(total)) / n + eps))
    for i in range(0, width * 4, 64):
        store_f32x16(h, to + i, load_f32x16(x, at + i) * scale * load_f32x16(weight, i))


@kernel
def add_norm(args, tokens, start, thread, lo, hi):
    """Record: buffers 0 x, 1 y, 2 weight, 3 h, 4..7 codes e sums halves of Q8_0, 8..12 these and raised codes of Q8_K,
    13 BF16, 14 bias of y; integers 32 n, 33 width, 34 stride of y in bytes or 0 for no y, 35 forms; number 36 eps;
    integer 37 biased. A unit is a token."""
    x, y, weight, h = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3)
    n, width, stride, forms, eps = (
        integer(args, 32),
        integer(args, 33),
        integer(args, 34),
        integer(args, 35),
        number(args, 36),
    )
    bias, biased = buffer(args, 14), integer(args, 37)
    for t in range(lo, hi):
        at = t * width * 4
        if stride:
            for i in range(0, width * 4, 64):
                v = load_f32x16(y, t * stride + i)
                if biased:
                    v += load_f32x16(bias, i)
                store_f32x16(x, at + i, load_f32x16(x, at + i) + v)
        normalize(x, at, weight, h, at, n, width, eps)
        if forms & Q8_0:
            encode_q8_0(
                h,
                at,
                width,
                buffer(args, 4),
                t * width,
                buffer(args, 5),
                buffer(args, 6),
                buffer(args, 7),
                t * (width // 32),
            )
        if forms & Q8_K:
            encode_q8_k(
                h,
                at,
                width,
                buffer(args, 8),
                t * width,
                buffer(args, 9),
                buffer(args, 10),
                buffer(args, 11),
                buffer(args, 12),
                t * (width // 32),
            )
        if forms & BF16:
            encode_bf16(h, at, width, buffer(args, 13), t * width * 2)


def normalize_numpy(x: np.ndarray, weight: np.ndarray, n: int, eps: float) -> np.ndarray:
    """The twin of `normalize` on (tokens, width)."""
    squares = (x * x).reshape(len(x), -1, 16)
    lanes = np.add.accumulate(squares, axis=1)[:, -1]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width:]
    scale = (1 / np.sqrt(lanes.astype(np.float64) / n + eps)).astype(np.float32)
    return x * scale * weight
