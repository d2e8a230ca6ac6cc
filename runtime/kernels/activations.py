"""The 8-bit forms of activations that the block-quantized products read: those of ggml, so that texts agree with it.

    Q8_0   a scale for 32 values      e = float16(max|x| / 127)    codes = round(x * (127 / max|x|))
    Q8_K   a scale for 256 values     e = 1 / f, f = -127 / m      codes = round(x * f), m the x of the largest |x|

Beside the codes (int8) and e (float32) stand the sums of each 32 codes and of each 16 codes (int32), for blocks with an
offset, and with Q8_K the codes + 128 (uint8), for instructions whose activations are unsigned (runtime.simd.signed). A
row of n values takes n bytes of codes, 4 n / block of e, n / 8 of sums, n / 4 of halves and n of raised codes.

Rounding half to even, after a product rounded to float32; e of Q8_0 is narrowed half to even, after the codes.
Edges    a block of zeros has scale 0 and codes 0; the first of several largest |x| is m, so its code is -127. A block
         with an infinity or NaN has scale NaN and codes 0, so that it shows in the result. Where 127 / max overflows,
         below 2^-121, a block counts as zeros. The float16 of Q8_0 is 0 up to max|x| = 127 * 2^-25 and infinite from
         127 * 65520 on.
Source   ggml/src/ggml-cpu/arch/x86/quants.c quantize_row_q8_0, ggml/src/ggml-quants.c quantize_row_q8_K_ref.
"""

import numpy as np

from runtime.jit import inlined
from runtime.simd import (
    absolute,
    larger,
    largest_lane,
    load_f32,
    load_f32x16,
    load_u8x64,
    round_f16,
    round_half_even,
    smaller,
    smallest_lane,
    splat_i32,
    store_f32,
    store_i8x16,
    store_i32,
    store_u8x64,
    sum_lanes,
    sum_lanes_i32,
    to_i32,
)

Q8_0, Q8_K, BF16 = 1, 2, 4  # bits of the set of forms that an operation writes
SMALLEST = np.float32(2.0**-121)


@inlined
def encode_32(x, at, factor, codes, to, sums, halves, block):
    """32 values at byte `at` of x times `factor`, as codes at byte `to` and as the sums of block number `block`."""
    low = to_i32(round_half_even(load_f32x16(x, at) * factor))
    high = to_i32(round_half_even(load_f32x16(x, at + 64) * factor))
    store_i8x16(codes, to, low)
    store_i8x16(codes, to + 16, high)
    first, second = sum_lanes_i32(low), sum_lanes_i32(high)
    store_i32(halves, block * 8, first)
    store_i32(halves, block * 8 + 4, second)
    store_i32(sums, block * 4, np.int32(first + second))


@inlined
def clear_32(codes, to, sums, halves, block):
    """A block of codes 0."""
    zero = splat_i32(np.int32(0))
    store_i8x16(codes, to, zero)
    store_i8x16(codes, to + 16, zero)
    store_i32(halves, block * 8, np.int32(0))
    store_i32(halves, block * 8 + 4, np.int32(0))
    store_i32(sums, block * 4, np.int32(0))


@inlined
def encode_q8_0(x, at, n, codes, to, e, sums, halves, first):
    """n values at byte `at` of x; `to` is the byte of their codes, `first` the number of their first block of 32."""
    for b in range(n // 32):
        low, high = load_f32x16(x, at + b * 128), load_f32x16(x, at + b * 128 + 64)
        top = largest_lane(larger(absolute(low), absolute(high)))
        finite = sum_lanes((low + high) * np.float32(0)) == np.float32(0)  # infinity and NaN times 0 are NaN
        if finite and top >= SMALLEST:
            encode_32(x, at + b * 128, np.float32(127) / top, codes, to + b * 32, sums, halves, first + b)
            store_f32(e, (first + b) * 4, round_f16(top / np.float32(127)))
        else:
            clear_32(codes, to + b * 32, sums, halves, first + b)
            store_f32(e, (first + b) * 4, np.float32(0) if finite else np.float32(np.nan))


@inlined
def encode_q8_k(x, at, n, codes, to, e, sums, halves, raised, first):
    """As encode_q8_0, 256 values at a time; `first` still counts blocks of 32."""
    for k in range(n // 256):
        here = at + k * 1024
        high = low = load_f32x16(x, here)
        test = high * np.float32(0)
        for i in range(64, 1024, 64):
            v = load_f32x16(x, here + i)
            high, low = larger(v, high), smaller(v, low)
            test += v * np.float32(0)
        up, down = largest_lane(high), smallest_lane(low)
        peak = up if up > -down else down
        if up == -down:  # the first of the peaks decides the sign
            i = 0
            while load_f32(x, here + i) != up and load_f32(x, here + i) != down and i < 1020:
                i += 4
            peak = load_f32(x, here + i)
        finite = sum_lanes(test) == np.float32(0)
        block = first + k * 8
        if finite and abs(peak) >= SMALLEST:
            factor = np.float32(-127) / peak
            for b in range(8):
                encode_32(x, here + b * 128, factor, codes, to + k * 256 + b * 32, sums, halves, block + b)
            store_f32(e, block // 8 * 4, np.float32(1) / factor)
        else:
            for b in range(8):
                clear_32(codes, to + k * 256 + b * 32, sums, halves, block + b)
            store_f32(e, block // 8 * 4, np.float32(0) if finite else np.float32(np.nan))
        for i in range(to + k * 256, to + k * 256 + 256, 64):
            store_u8x64(raised, i, load_u8x64(codes, i) ^ 128)


def q8_0_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The twin of `encode_q8_0` on (tokens, n): codes, e, sums, halves."""
    blocks = x.reshape(len(x), -1, 32)
    amax = np.abs(blocks).max(axis=-1)
    finite = np.isfinite(blocks).all(axis=-1)
    usable = finite & (amax >= SMALLEST)
    safe = np.where(usable, amax, np.float32(127))
    codes = np.rint(np.where(usable[..., None], blocks, np.float32(0)) * (np.float32(127) / safe)[..., None])
    with np.errstate(over="ignore"):
        narrowed = (safe / np.float32(127)).astype(np.float16).astype(np.float32)
    e = np.where(finite, np.where(usable, narrowed, np.float32(0)), np.float32(np.nan))
    return _with_sums(codes.astype(np.int8).reshape(x.shape), e)


def q8_k_numpy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The twin of `encode_q8_k` on (tokens, n): codes, e, sums, halves."""
    blocks = x.reshape(len(x), -1, 256)
    finite = np.isfinite(blocks).all(axis=-1)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)[..., 0]
    usable = finite & (np.abs(peak) >= SMALLEST)
    factor = np.float32(-127) / np.where(usable, peak, np.float32(127))
    codes = np.rint(np.where(usable[..., None], blocks, np.float32(0)) * factor[..., None]).astype(np.int8)
    e = np.where(finite, np.where(usable, np.float32(1) / factor, np.float32(0)), np.float32(np.nan))
    return _with_sums(codes.reshape(x.shape), e)


def raised_numpy(codes: np.ndarray) -> np.ndarray:
    """int8 codes + 128 as uint8."""
    return codes.view(np.uint8) ^ 128


def _with_sums(codes: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    halves = codes.reshape(len(codes), -1, 16).sum(axis=-1, dtype=np.int32)
    return codes, e, halves.reshape(len(codes), -1, 2).sum(axis=-1, dtype=np.int32), halves
