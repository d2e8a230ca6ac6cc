"""Y = W X for a prompt and the types with super-blocks of 256 columns (K- and I-quants), x in Q8_K.

    y[t, r] = sum_k float32(sum_j sc[r,k,j] * D[t,r,k,j]) * (d[r,k] * e[t,k])
                  [ - float32(sum_j m[r,k,j] * S[t,k,j]) * (dmin[r,k] * e[t,k]) ]

j runs over the sub-blocks of 32 or 16 columns, D is the sum of (u - bias) * p over one, S that of p; these integers
are exact. k ascends from 0; the first term is added, then the second taken away. Otherwise this is
runtime.kernels.gemm: 32 rows, six tokens, and a panel that an unpacker fills with two super-blocks at a time.

Panel    u: [block of 32 columns: 16][4 columns: 8][row 32][4] uint8    16 KB at 0
         sc, m: [block 16][half 2][row 32] int32                        4 KB each at SC and M (half: two for 32 columns)
         d, dmin: [super-block 2][row 32] float32                       256 bytes each at D and DMIN
Record   as in runtime.kernels.gemm; sums are of 16 columns where sub-blocks are
"""

from runtime.jit import inlined, kernel
from runtime.kernels.gemm import PANEL, SLAB, TOKENS
from runtime.simd.memory import buffer, integer
from runtime.simd.threads import call_unpack
from runtime.simd.tiles import tile_operations

SC, M = SLAB * 1024, SLAB * 1024 + SLAB * 256
D, DMIN = M + SLAB * 256, M + SLAB * 256 + 256
assert PANEL >= DMIN + 256


def _tile(tokens: int, wide: bool, halves: bool, minimum: bool):
    ops = tile_operations(tokens)
    zeros, load, store, scaled, lowered, nothing = ops.zeros, ops.load, ops.store, ops.scaled, ops.lowered, ops.nothing
    start, start_wide, outer, outer_wide = ops.start, ops.start_wide, ops.outer, ops.outer_wide
    weighted, weighted_sums = ops.weighted, ops.weighted_sums

    @inlined
    def tile(codes, e, sums, y, panels, panel, at, stride, n, t, first, count, bias):
        blocks, supers = n // 32, n // 256
        acc = load(y, at, stride) if first else zeros()
        for k in range(count // 8):
            plus, minus = nothing(), nothing()
            for b in range(8):
                block = k * 8 + b
                x, to = t * n + (first + block) * 32, (t * blocks + first + block) * 4
                u, here = panel + block * 1024, panel + block * 256
                if halves:
                    for h in range(2):
                        by = to * 2 + h * 4
                        dots = start(sums, by, blocks * 8, bias)
                        for c in range(4):
                            dots = outer(dots, panels, u + h * 512 + c * 128, codes, x + h * 16 + c * 4, n)
                        plus = weighted(plus, dots, panels, here + SC + h * 128)
                        if minimum:
                            minus = weighted_sums(minus, panels, here + M + h * 128, sums, by, blocks * 8)
                elif wide:
                    dots = start_wide(sums, to, blocks * 4)
                    for c in range(8):
                        dots = outer_wide(dots, panels, u + c * 128, codes, x + c * 4, n)
                    plus = weighted(plus, dots, panels, here + SC)
                else:
                    dots = start(sums, to, blocks * 4, bias)
                    for c in range(8):
                        dots = outer(dots, panels, u + c * 128, codes, x + c * 4, n)
                    plus = weighted(plus, dots, panels, here + SC)
                    if minimum:
                        minus = weighted_sums(minus, panels, here + M, sums, to, blocks * 4)
            to = (t * supers + first // 8 + k) * 4
            acc = scaled(acc, plus, panels, panel + D + k * 128, e, to, supers * 4)
            if minimum:
                acc = lowered(acc, minus, panels, panel + DMIN + k * 128, e, to, supers * 4)
        store(y, at, stride, acc)

    return tile


def _product(wide: bool = False, halves: bool = False, minimum: bool = False):
    many, one = _tile(TOKENS, wide, halves, minimum), _tile(1, wide, halves, minimum)

    @inlined
    def product(args, tokens, thread, lo, hi):
        codes, e, sums, y, panels = buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4), buffer(args, 5)
        n, stride, unpack, bias = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
        panel = thread * PANEL
        for group in range(lo, hi):
            for first in range(0, n // 32, SLAB):
                count, t = min(SLAB, n // 32 - first), 0
                call_unpack(unpack, args, thread, group, first, count)
                while t + TOKENS <= tokens:
                    many(codes, e, sums, y, panels, panel, t * stride + group * 128, stride, n, t, first, count, bias)
                    t += TOKENS
                while t < tokens:
                    one(codes, e, sums, y, panels, panel, t * stride + group * 128, stride, n, t, first, count, bias)
                    t += 1

    return product


_plain, _wide, _minimum = _product(), _product(wide=True), _product(minimum=True)
_halves, _halves_minimum = _product(halves=True), _product(halves=True, minimum=True)


@kernel
def gemm_plain(args, tokens, start, thread, lo, hi):
    """Codes below 128, a scale for 32 columns."""
    _plain(args, tokens, thread, lo, hi)


@kernel
def gemm_wide(args, tokens, start, thread, lo, hi):
    """Codes that stand 128 too high, a scale for 32 columns."""
    _wide(args, tokens, thread, lo, hi)


@kernel
def gemm_minimum(args, tokens, start, thread, lo, hi):
    """Codes below 128, a scale and a minimum for 32 columns."""
    _minimum(args, tokens, thread, lo, hi)


@kernel
def gemm_halves(args, tokens, start, thread, lo, hi):
    """Codes below 128, a scale for 16 columns; sums are of 16 columns."""
    _halves(args, tokens, thread, lo, hi)


@kernel
def gemm_halves_minimum(args, tokens, start, thread, lo, hi):
    """Codes below 128, a scale and a minimum for 16 columns; sums are of 16 columns."""
    _halves_minimum(args, tokens, thread, lo, hi)
