"""The two 8-bit forms of activations that the block-quantized matmuls read: those of ggml, so that texts agree with it.

    Q8_0   a scale for 32 values      e = float16(max|x| / 127)    codes = round(x * (127 / max|x|))
    Q8_K   a scale for 256 values     e = 1 / f, f = -127 / m      codes = round(x * f), m the x of the largest |x|

Shapes   x (tokens, n) float32, n a multiple of 32 or 256; codes (tokens, n) int8; scale e (tokens, n / 32 or n / 256)
         float32; sums (tokens, n / 32) int32: of each 32 codes, for blocks with an offset.
Rounding half to even, after a product rounded to float32; e of Q8_0 is narrowed half to even, after the codes.
Edges    a block of zeros has scale 0 and codes 0; the first of several largest |x| is m, so its code is -127. A block
         with an infinity or NaN has scale NaN and codes 0, so that it shows in the result. Where 127 / max overflows,
         below 2^-121, the block counts as zeros. The float16 of Q8_0 is 0 up to max|x| = 127 * 2^-25 and infinite from
         127 * 65520 on.
Source   ggml/src/ggml-cpu/arch/x86/quants.c quantize_row_q8_0, ggml/src/ggml-quants.c quantize_row_q8_K_ref.
Differs  ggml's bytes for NaN and infinity depend on the CPU; its portable Q8_0 rounds half away from zero.
"""

import numpy as np
from numba import float32, int8, int32

from runtime.jit import kernel
from runtime.kernels.half import narrow, widen

SMALLEST = np.float32(2.0**-121)
LARGEST = np.finfo(np.float32).max


@kernel
def quantize_q8_0(x, codes, scale, sums):
    tokens, n = x.shape
    for t in range(tokens):
        for b in range(n // 32):
            amax, finite = float32(0), True
            for i in range(b * 32, b * 32 + 32):
                v = abs(x[t, i])
                amax = max(amax, v)
                finite &= v <= LARGEST
            usable = finite and amax >= SMALLEST
            factor = float32(127) / amax if usable else float32(0)
            total = int32(0)
            for i in range(b * 32, b * 32 + 32):
                q = int32(np.rint(x[t, i] * factor)) if usable else int32(0)
                codes[t, i] = int8(q)
                total += q
            narrowed = widen(narrow(amax / float32(127))) if usable else float32(0)
            scale[t, b] = narrowed if finite else float32(np.nan)
            sums[t, b] = total


def quantize_q8_0_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The twin of `quantize_q8_0`: returns (codes, scale, sums)."""
    blocks = x.reshape(len(x), -1, 32)
    amax = np.abs(blocks).max(axis=-1)
    usable = np.isfinite(amax) & (amax >= SMALLEST)
    safe = np.where(usable, amax, np.float32(127))
    codes = np.rint(np.where(usable[..., None], blocks, np.float32(0)) * (np.float32(127) / safe)[..., None])
    with np.errstate(over="ignore"):
        narrowed = (safe / np.float32(127)).astype(np.float16).astype(np.float32)
    scale = np.where(np.isfinite(amax), np.where(usable, narrowed, np.float32(0)), np.float32(np.nan))
    codes = codes.astype(np.int8)
    return codes.reshape(x.shape), scale, codes.sum(axis=-1, dtype=np.int32)


@kernel
def quantize_q8_k(x, codes, scale, sums):
    tokens, n = x.shape
    for t in range(tokens):
        for k in range(n // 256):
            amax, peak, finite = float32(0), float32(0), True
            for i in range(k * 256, k * 256 + 256):
                v = abs(x[t, i])
                finite &= v <= LARGEST
                if v > amax:
                    amax, peak = v, x[t, i]
            usable = finite and amax >= SMALLEST
            factor = float32(-127) / peak if usable else float32(0)
            for b in range(k * 8, k * 8 + 8):
                total = int32(0)
                for i in range(b * 32, b * 32 + 32):
                    q = int32(np.rint(x[t, i] * factor)) if usable else int32(0)
                    codes[t, i] = int8(q)
                    total += q
                sums[t, b] = total
            inverse = float32(1) / factor if usable else float32(0)
            scale[t, k] = inverse if finite else float32(np.nan)


def quantize_q8_k_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The twin of `quantize_q8_k`: returns (codes, scale, sums)."""
    blocks = x.reshape(len(x), -1, 256)
    first = np.abs(blocks).argmax(axis=-1, keepdims=True)
    peak = np.take_along_axis(blocks, first, axis=-1)[..., 0]
    finite = np.isfinite(blocks).all(axis=-1)
    usable = finite & (np.abs(peak) >= SMALLEST)
    factor = np.float32(-127) / np.where(usable, peak, np.float32(127))
    codes = np.rint(np.where(usable[..., None], blocks, np.float32(0)) * factor[..., None]).astype(np.int8)
    scale = np.where(finite, np.where(usable, np.float32(1) / factor, np.float32(0)), np.float32(np.nan))
    return codes.reshape(x.shape), scale, codes.reshape(len(x), -1, 32).sum(axis=-1, dtype=np.int32)
