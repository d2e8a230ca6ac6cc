"""Y = W X for a prompt: every block type through one 8-bit matrix product.

    y[t, r] = sum_b float32(sum_i (u[r,b,i] - bias) * p[t,b,i]) * (d[r,b] * e[t,b])
                  [ - m[r,b] * (float32(sums[t,b]) * e[t,b]) ]

Rows are worked on in groups of 32. For 16 blocks of 32 columns at a time an unpacker turns the packed weights of a
group into a panel of unsigned bytes u and float32 scales d (and m), which stays in the L1 cache while all tokens
pass, six at a time: 12 accumulators of 16 rows in registers. Unpacking is paid once for all tokens, so every type
runs at the speed of the product. b ascends from 0, product then sum, as in the matvec of the type: the bits are the
same.

What a tile has summed so far waits beside the panel, tile after tile: y itself, a row of each token, would be read and
written in a new page every 128 bytes. It is written once, and its lines are asked for when the last slab begins: 3 to
7 % of the whole. Where panels or rows of activations begin off a cache line, every vector of them takes two reads, and
the product loses 7 to 12 % (runtime.aligned).

Panel of one slab   u: [block 16][4 columns: 8][row 32][4] uint8      16 KB at 0
                    d: [block 16][half 2][row 32] float32              4 KB at D      (half: two scales for 32 columns,
                    m: [block 16][half 2][row 32] float32              4 KB at M       types with one leave the other)
                    [token][row 32] float32                           65 KB at HELD
Record              buffers 0 w (packed), 1 codes (tokens, n) int8, 2 e and 3 sums (tokens, n / 32), 4 y (tokens,
                    stride), 5 panels (one a thread); integers 32 n, 33 stride of y in bytes, 34 address of the
                    unpacker, 35 bias
"""

from runtime.jit import inlined, kernel
from runtime.simd import buffer, call_unpack, integer, tile_operations

SLAB = 16  # blocks of 32 columns
TOKENS = 6  # 2 x 6 accumulators and their 12 integer dots fit 32 registers; measured best of 4, 5, 6, 7, 8
WINDOW = 512  # tokens that pass a panel
D, M, HELD = SLAB * 1024, SLAB * 1024 + SLAB * 256, SLAB * 1024 + 2 * SLAB * 256  # bytes
PANEL = HELD + (WINDOW + TOKENS) * 128


def product_of_tiles(many, one, begin=None):
    """product(args, tokens, thread, lo, hi): groups lo..hi of all tokens, by tiles of TOKENS tokens and of one.

    The last TOKENS tokens may overlap those before: what is written twice is the same. begin(panels, panel, blocks)
    is called on every panel.
    """

    @inlined
    def product(args, tokens, thread, lo, hi):
        n, stride, unpack, panels = integer(args, 32), integer(args, 33), integer(args, 34), buffer(args, 5)
        panel = thread * PANEL
        for start in range(0, tokens, WINDOW):
            end = min(start + WINDOW, tokens)
            for group in range(lo, hi):
                for first in range(0, n // 32, SLAB):
                    count, t = min(SLAB, n // 32 - first), start
                    call_unpack(unpack, args, thread, group, first, count)
                    if begin is not None:
                        begin(panels, panel, count)
                    while t < end:
                        held = panel + HELD + (t - start) * 128
                        if end - t > 2 and end - start >= TOKENS:
                            u = min(t, end - TOKENS)
                            many(args, panel, held, u * stride + group * 128, u, first, count)
                            t += TOKENS
                        else:
                            one(args, panel, held, t * stride + group * 128, t, first, count)
                            t += 1

    return product


def _tile(tokens: int, wide: bool, halves: bool, minimum: bool):
    """The product of one slab's panel with `tokens` tokens from t on, added to what is held of y."""
    ops = tile_operations(tokens)
    zeros, load, store, scaled, offset, ask_for = ops.zeros, ops.load, ops.store, ops.scaled, ops.offset, ops.ask_for
    start, start_wide, outer, outer_wide = ops.start, ops.start_wide, ops.outer, ops.outer_wide

    @inlined
    def tile(args, panel, held, at, t, first, count):
        codes, e, sums, y, panels = buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4), buffer(args, 5)
        n, stride, bias = integer(args, 32), integer(args, 33), integer(args, 35)
        blocks = n // 32
        last = first + count == blocks
        if last:
            ask_for(y, at, stride)
        acc = load(panels, held, 128) if first else zeros()
        for b in range(count):
            k = first + b
            x, to = t * n + k * 32, (t * blocks + k) * 4
            if halves:
                for h in range(2):
                    u, d, m = panel + b * 1024 + h * 512, panel + D + b * 256 + h * 128, panel + M + b * 256 + h * 128
                    by = to * 2 + h * 4
                    dots = start(sums, by, blocks * 8, bias)
                    for c in range(4):
                        dots = outer(dots, panels, u + c * 128, codes, x + h * 16 + c * 4, n)
                    acc = scaled(acc, dots, panels, d, e, to, blocks * 4)
                    if minimum:
                        acc = offset(acc, panels, m, e, to, blocks * 4, sums, by, blocks * 8)
            elif wide:
                u, d = panel + b * 1024, panel + D + b * 256
                dots = start_wide(sums, to, blocks * 4)
                for c in range(8):
                    dots = outer_wide(dots, panels, u + c * 128, codes, x + c * 4, n)
                acc = scaled(acc, dots, panels, d, e, to, blocks * 4)
            else:
                u, d, m = panel + b * 1024, panel + D + b * 256, panel + M + b * 256
                dots = start(sums, to, blocks * 4, bias)
                for c in range(8):
                    dots = outer(dots, panels, u + c * 128, codes, x + c * 4, n)
                acc = scaled(acc, dots, panels, d, e, to, blocks * 4)
                if minimum:
                    acc = offset(acc, panels, m, e, to, blocks * 4, sums, to, blocks * 4)
        if last:
            store(y, at, stride, acc)
        else:
            store(panels, held, 128, acc)

    return tile


def _product(wide: bool = False, halves: bool = False, minimum: bool = False):
    return product_of_tiles(_tile(TOKENS, wide, halves, minimum), _tile(1, wide, halves, minimum))


_narrow, _wide, _minimum = _product(), _product(wide=True), _product(minimum=True)
_halves, _halves_minimum = _product(halves=True), _product(halves=True, minimum=True)


@kernel
def gemm_narrow(args, tokens, start, thread, lo, hi):
    """Codes below 128, one scale for 32 columns."""
    _narrow(args, tokens, thread, lo, hi)


@kernel
def gemm_wide(args, tokens, start, thread, lo, hi):
    """Codes that stand 128 too high, one scale for 32 columns."""
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
