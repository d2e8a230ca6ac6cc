"""Y = W X for a prompt and the types with super-blocks of 256 columns (K- and I-quants, TQ), x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[r,k,j] * D[t,r,k,j]) * (d[r,k] * e[t,k])
                  [ - float32(sum_j m[r,k,j] * S[t,k,j]) * (dmin[r,k] * e[t,k]) ]

j runs over the sub-blocks of 32 or 16 columns, D is the sum of u * p over one, S that of p; these integers are exact.
k ascends from 0; the first term is added, then the second taken away. Otherwise this is runtime.kernels.gemm: 32 rows,
six tokens, and a panel that an unpacker fills with two super-blocks at a time. Where sc * u fits a byte the unpacker
multiplies them (folded), and the columns of a super-block make one sum.

Codes of types with a minimum are unsigned, the others signed. The product of signed codes wants activations that stand
EXCESS (runtime.simd.signed) too high, as whoever encoded them has stored them too, so that they go from memory to all
lanes at once; by way of a general register the product is a tenth slower. What they add is taken off through `START`,
once for all tokens. The minimums of two sub-blocks, as int16, meet their two sums in one instruction.

Panel    u: [super-block 2][4 columns: 64][row 32][4] bytes               16 KB at 0
         sc: [super-block 2][sub-block][row 32] int32                     at SC
         m: [super-block 2][pair of sub-blocks][row 32][2] int16          at M
         start: [super-block 2][row 32] int32                             at START, filled here
         d, dmin: [super-block 2][row 32] float32                         at D and DMIN
Record   as in runtime.kernels.gemm; sums are of 16 columns where minimums are; codes are the raised ones where the
         kernel is one of RAISED
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.gemm import HELD, SLAB, TOKENS, product_of_tiles
from runtime.simd import (
    as_u8,
    buffer,
    dot_narrow,
    integer,
    load_i32x16,
    load_u8x64,
    splat_i32,
    store_i32x16,
    tile_operations,
)
from runtime.simd.tier import EXCESS_ANY, EXCESS_SMALL

SC = SLAB * 1024
M = SC + 4096
START = M + 2048
D, DMIN = START + 256, START + 512
assert HELD >= DMIN + 256


def _tile(tokens: int, columns: int, minimum: int, kind: str):
    """The product of one panel with `tokens` tokens, added to y: a scale for `columns`, a minimum for `minimum`."""
    ops = tile_operations(tokens)
    zeros, load, store, scaled, lowered, nothing = ops.zeros, ops.load, ops.store, ops.scaled, ops.lowered, ops.nothing
    ask_for = ops.ask_for
    outer, weighted, outer_pairs, alike = getattr(ops, kind), ops.weighted, ops.outer_pairs, ops.alike
    parts, words, pairs = 256 // columns, columns // 4, 128 // minimum if minimum else 0

    @inlined
    def tile(args, panel, held, at, t, first, count):
        codes, e, sums, y, panels = buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4), buffer(args, 5)
        n, stride = integer(args, 32), integer(args, 33)
        if first + count == n // 32:
            ask_for(y, at, stride)
        for k in range(count // 8):
            u, x, to = panel + k * 8192, t * n + first * 32 + k * 256, (t * n // 256 + first // 8 + k) * 4
            plus = nothing() if minimum else alike(panels, panel + START + k * 128)
            if parts == 1:
                for c in range(64):
                    plus = outer(plus, panels, u + c * 128, codes, x + c * 4, n)
            else:
                for j in range(parts):
                    dots = nothing()
                    for c in range(j * words, (j + 1) * words):
                        dots = outer(dots, panels, u + c * 128, codes, x + c * 4, n)
                    plus = weighted(plus, dots, panels, panel + SC + (k * parts + j) * 128)
            acc = load(panels, held, 128) if first + k else zeros()
            acc = scaled(acc, plus, panels, panel + D + k * 128, e, to, n // 256 * 4)
            if minimum:
                minus, by = nothing(), x // minimum * 4
                for i in range(pairs):
                    m = panel + M + (k * pairs + i) * 128
                    minus = outer_pairs(minus, panels, m, sums, by + i * 8, n // minimum * 4)
                acc = lowered(acc, minus, panels, panel + DMIN + k * 128, e, to, n // 256 * 4)
            if first + k * 8 + 8 < n // 32:
                store(panels, held, 128, acc)
            else:
                store(y, at, stride, acc)

    return tile


def _begin(columns: int, excess: int):
    """What takes the excess off: start = -excess * sum_j sc[j] * (sum of u), for each row."""
    parts, words = 256 // columns, columns // 4

    @inlined
    def begin(panels, panel, blocks):
        ones, zero = as_u8(splat_i32(0x01010101)), splat_i32(0)
        for k in range(blocks // 8):
            for g in range(0, 128, 64):
                total = zero
                for j in range(parts):
                    whole = zero
                    for c in range(j * words, (j + 1) * words):
                        whole = dot_narrow(whole, ones, load_u8x64(panels, panel + k * 8192 + c * 128 + g))
                    if parts > 1:
                        whole *= load_i32x16(panels, panel + SC + (k * parts + j) * 128 + g)
                    total += whole
                store_i32x16(panels, panel + START + k * 128 + g, total * -excess)

    return begin


def _product(columns: int, minimum: int, kind: str, excess: int = 0):
    many, one = _tile(TOKENS, columns, minimum, kind), _tile(1, columns, minimum, kind)
    return product_of_tiles(many, one, None if minimum else _begin(columns, excess))


_minimum, _folded_minimum = _product(32, 32, "outer"), _product(256, 16, "outer")
_signed, _signed_folded = _product(32, 0, "outer_any", EXCESS_ANY), _product(256, 0, "outer_any", EXCESS_ANY)
_signed_halves = _product(16, 0, "outer_small", EXCESS_SMALL)


@kernel
def gemm_minimum(args, tokens, start, thread, lo, hi):
    """Codes of 0..127, a scale and a minimum for 32 columns."""
    _minimum(args, tokens, thread, lo, hi)


@kernel
def gemm_folded_minimum(args, tokens, start, thread, lo, hi):
    """Codes times scales, of 0..127; a minimum for 16 columns."""
    _folded_minimum(args, tokens, thread, lo, hi)


@kernel
def gemm_signed(args, tokens, start, thread, lo, hi):
    """Codes of -128..127, a scale for 32 columns."""
    _signed(args, tokens, thread, lo, hi)


@kernel
def gemm_signed_halves(args, tokens, start, thread, lo, hi):
    """Codes of -64..64, a scale for 16 columns."""
    _signed_halves(args, tokens, thread, lo, hi)


@kernel
def gemm_signed_folded(args, tokens, start, thread, lo, hi):
    """Codes times scales, of -128..127."""
    _signed_folded(args, tokens, thread, lo, hi)


_EXCESSES = {gemm_signed: EXCESS_ANY, gemm_signed_halves: EXCESS_SMALL, gemm_signed_folded: EXCESS_ANY}
RAISED = frozenset(
    product for product, excess in _EXCESSES.items() if excess
)  # of activations: those that want 128 more


def signed_numpy(q: np.ndarray, sc: np.ndarray, d: np.ndarray, codes: np.ndarray, e: np.ndarray) -> np.ndarray:
    """The twin for types without a minimum: q (rows, super-blocks, sub-blocks, columns), sc (rows, super-blocks,
    sub-blocks) of any integer type, d (rows, super-blocks) float32, codes (tokens, n), e (tokens, n / 256)."""
    plus = _weighted_dots(q, sc, codes) * (d * e[:, None])
    return np.add.accumulate(plus, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0


def minimum_numpy(
    q: np.ndarray,
    sc: np.ndarray,
    m: np.ndarray,
    d: np.ndarray,
    dmin: np.ndarray,
    codes: np.ndarray,
    e: np.ndarray,
    sums: np.ndarray,
) -> np.ndarray:
    """The twin for types with one: m and dmin as sc and d, sums (tokens, n / columns of a sub-block)."""
    plus = _weighted_dots(q, sc, codes) * (d * e[:, None])
    minus = (m.astype(np.int32) * sums.reshape(len(codes), 1, *m.shape[1:])).sum(axis=-1, dtype=np.int32)
    minus = minus.astype(np.float32) * (dmin * e[:, None])
    terms = np.stack([plus, -minus], axis=-1).reshape(len(codes), len(q), -1)
    return np.add.accumulate(terms, axis=-1)[..., -1] + np.float32(0)  # a sum from +0 on is never -0


def _weighted_dots(q: np.ndarray, sc: np.ndarray, codes: np.ndarray) -> np.ndarray:
    p = codes.reshape(len(codes), 1, *q.shape[1:]).astype(np.int32)
    dots = (q.astype(np.int32) * p).sum(axis=-1, dtype=np.int32)
    return (sc.astype(np.int32) * dots).sum(axis=-1, dtype=np.int32).astype(np.float32)
