"""y = W x with W in TQ1_0 or TQ2_0 and x in Q8_K: weights (q - 1) d with one scale for 256 values.

    y[t, r] = sum_k float32(sum_i (q[i] - 1) * p[i]) * (d * e[t,k])

k runs over the super-blocks of 256, ascending from 0. The integer is exact (|.| <= 256 * 2 * 127); d * e is a float32
product, formed first.

File     TQ2_0  66 bytes: qs[64], d float16. Half h of 128 values, run r of 32, l < 32: q = qs[32h + l] >> 2r & 3.
         TQ1_0  54 bytes: qs[48], qh[4], d float16. A byte v is 256 times a number 0.abcde in base 3; digit i is a q,
                0..2. Digit i of byte l is value 32i + l of the first run (qs[:32], 160 values), 160 + 16i + l of the
                second (qs[32:], 80 values) and 240 + 4i + l of the third (qh, four digits, 16 values).
Packed   32 rows side by side: for each c the four bytes 4c .. 4c + 3 of 32 rows, qs and qh, then 32 d.
"""

import numpy as np

from refquant.gguf import FORMATS
from runtime.jit import inlined, kernel, unpacker
from runtime.kernels.gemm import PANEL
from runtime.kernels.gemm_super import D, signed_numpy
from runtime.kernels.runs import totals_of_runs
from runtime.simd import (
    broadcast_4,
    broadcast_f32,
    buffer,
    dot_narrow,
    integer,
    load_f16x16,
    load_i32,
    load_u8x64,
    splat_f32,
    splat_i32,
    store_f32x16,
    store_u8x64,
    to_f32,
)

TQ1_0_FIELDS, TQ2_0_FIELDS = ((4, 13), (2, 1)), ((4, 16), (2, 1))
TQ1_0_BLOCK, TQ2_0_BLOCK = 32 * 54, 32 * 66


@inlined
def minus_sum(sums, k):
    """What takes the 1 off every q of super-block k: minus the sum of its p."""
    total = np.int32(0)
    for b in range(8):
        total -= load_i32(sums, (k * 8 + b) * 4)
    return splat_i32(np.int32(total))


@inlined
def four_codes(w, at, i):
    """0..3: what runtime.kernels.runs asks for."""
    v = load_u8x64(w, at + i * 128)
    return v & 3, v >> 2 & 3, v >> 4 & 3, v >> 6


runs = totals_of_runs(four_codes, None, 0, TQ2_0_BLOCK)


@inlined
def totals_2(w, at, codes, sums, k):
    """The integers of super-block k of TQ2_0, at byte `at`, for rows 0..15 and 16..31."""
    less, (first, second) = minus_sum(sums, k), runs(w, at, at, codes, sums, k)
    return less + first, less + second


@inlined
def digit(v):
    """The first base-3 digit of v / 256, 3 v >> 8: as (3 v >> 2) >> 6, where 3 v >> 2 fits a byte."""
    return ((v >> 1) + (v >> 2) + (v & v >> 1 & 1)) >> 6


@inlined
def place(c):
    """Where digit 0 of bytes 4c .. 4c + 3 of TQ1_0 belongs, how far it is to the next digit, and how many there are."""
    if c < 8:
        return 4 * c, 32, 5
    return (160 + 4 * (c - 8), 16, 5) if c < 12 else (240, 4, 4)


@inlined
def total_1(w, at, codes, sums, k):
    """The integer of super-block k of TQ1_0 for the 16 rows that begin at byte `at`."""
    even, odd = minus_sum(sums, k), splat_i32(np.int32(0))
    for c in range(13):
        v = load_u8x64(w, at + c * 128)
        x, step, count = place(c)
        for i in range(count):
            even, odd = odd, dot_narrow(even, digit(v), broadcast_4(codes, k * 256 + x + i * step))
            v = v + v + v
    return even + odd


@inlined
def totals_1(w, at, codes, sums, k):
    """The integers of super-block k of TQ1_0, at byte `at`, for rows 0..15 and 16..31."""
    return total_1(w, at, codes, sums, k), total_1(w, at + 64, codes, sums, k)


def _matvec(totals, block: int):
    @inlined
    def matvec(args, lo, hi):
        w, codes, e, sums, y = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
        supers = integer(args, 32) // 256
        for group in range(lo, hi):
            first, second = splat_f32(np.float32(0)), splat_f32(np.float32(0))
            for k in range(supers):
                at, step = (group * supers + k) * block, broadcast_f32(e, k * 4)
                d, (low, high) = at + block - 64, totals(w, at, codes, sums, k)
                first += to_f32(low) * (load_f16x16(w, d) * step)
                second += to_f32(high) * (load_f16x16(w, d + 32) * step)
            store_f32x16(y, group * 128, first)
            store_f32x16(y, group * 128 + 64, second)

    return matvec


one_1, one_2 = _matvec(totals_1, TQ1_0_BLOCK), _matvec(totals_2, TQ2_0_BLOCK)


@kernel
def matvec_tq1_0(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super; a unit is a group of 32 rows."""
    one_1(args, lo, hi)


@kernel
def matvec_tq2_0(args, tokens, start, thread, lo, hi):
    """One token. Record as in runtime.kernels.gemm_super; a unit is a group of 32 rows."""
    one_2(args, lo, hi)


@inlined
def unpack_scales(w, panels, at, to):
    """32 d at byte `at`."""
    store_f32x16(panels, to, load_f16x16(w, at))
    store_f32x16(panels, to + 64, load_f16x16(w, at + 32))


@unpacker
def unpack_tq1_0(args, thread, group, first, count):
    """q - 1; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at, u = (group * supers + first // 8 + k) * TQ1_0_BLOCK, panel + k * 8192
        unpack_scales(w, panels, at + TQ1_0_BLOCK - 64, panel + D + k * 128)
        for c in range(13):
            x, step, digits = place(c)
            for g in range(0, 128, 64):
                v = load_u8x64(w, at + c * 128 + g)
                for i in range(digits):
                    store_u8x64(panels, u + (x + i * step) * 32 + g, digit(v) - 1)
                    v = v + v + v


@unpacker
def unpack_tq2_0(args, thread, group, first, count):
    """q - 1; `first` and `count` are multiples of 8."""
    w, panels = buffer(args, 0), buffer(args, 5)
    supers, panel = integer(args, 32) // 256, thread * PANEL
    for k in range(count // 8):
        at = (group * supers + first // 8 + k) * TQ2_0_BLOCK
        unpack_scales(w, panels, at + TQ2_0_BLOCK - 64, panel + D + k * 128)
        for i in range(16):
            for g in range(0, 128, 64):
                q, u = four_codes(w, at + g, i), panel + k * 8192 + (i // 8 * 32 + i % 8) * 128 + g
                store_u8x64(panels, u, q[0] - 1)
                store_u8x64(panels, u + 1024, q[1] - 1)
                store_u8x64(panels, u + 2048, q[2] - 1)
                store_u8x64(panels, u + 3072, q[3] - 1)


def _product_numpy(blocks: np.ndarray, q: np.ndarray, codes: np.ndarray, e: np.ndarray) -> np.ndarray:
    q, ones = q.astype(np.int32).reshape(*blocks.shape, 1, 256) - 1, np.ones((*blocks.shape, 1), np.int32)
    return signed_numpy(q, ones, blocks["d"].astype(np.float32), codes, e)


def tq1_0_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of TQ1_0: from the bytes of the file (rows, n / 256 * 54), for all tokens."""
    blocks = w.view(FORMATS["TQ1_0"].layout)  # (rows, n / 256)
    powers = 3 ** np.arange(5)[:, None]
    runs = (
        (blocks["qs"][..., None, :32], powers),
        (blocks["qs"][..., None, 32:], powers),
        (blocks["qh"][..., None, :], powers[:4]),
    )
    q = [(v * power % 256 * 3 // 256).reshape(*blocks.shape, -1) for v, power in runs]
    return _product_numpy(blocks, np.concatenate(q, axis=-1), codes, e)


def tq2_0_numpy(w: np.ndarray, codes: np.ndarray, e: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """The twin of TQ2_0: from the bytes of the file (rows, n / 256 * 66), for all tokens."""
    blocks = w.view(FORMATS["TQ2_0"].layout)  # (rows, n / 256)
    q = np.stack([blocks["qs"].reshape(*blocks.shape, 2, 32) >> shift & 3 for shift in (0, 2, 4, 6)], axis=3)
    return _product_numpy(blocks, q, codes, e)
