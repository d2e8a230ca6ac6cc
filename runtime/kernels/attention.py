"""Attention over the KV cache with an online softmax, cut at fixed absolute positions.

    s[j] = q . k[j] * scale        for every position j up to the token's own
    y    = sum_j exp(s[j] - max s) v[j] / sum_j exp(s[j] - max s)

The positions are cut at multiples of 256. Each cut gives (m, l, a): its largest score, its sum of exponentials and its
weighted sum of values; the cuts are merged in ascending order from (-inf, 0, 0):

    M' = max(M, m)    L' = L * exp(M - M') + l * exp(m - M')    A' = A * exp(M - M') + a * exp(m - M')    y = A / L

A prompt merges as it goes; for a single token all cuts are worked on at once, by all threads, and merged after. Where a
cut begins never depends on the batch or the threads, so both ways give the same bits.

The queries of the heads that share a key head are rows of one matrix, token by token: 6, 2 or 1 of them are multiplied
with 32 positions at a time.

Shapes   q (kv_heads, tokens * group, head_dim) float32; of one layer keys (kv_heads, cuts, head_dim, 256) and values
         (kv_heads, cuts, 256, head_dim_v) float16 or float32; y (tokens, stride) float32, head_dim_v of each head
         side by side.
Order    q . k: d ascending, product then sum, times scale last; l: 16 lanes over positions ascending, the lanes as a
         tree; a: positions ascending. Positions after the token's own have weight 0.
Widths   dim is head_dim, dim_v head_dim_v rounded up to a multiple of 32; the columns beyond are zeros.
Record   buffers 0 q, 1 keys, 2 values, 3 y, 4 scratch (SCRATCH bytes and 12 x (2 + dim_v) float32 a thread), 5
         partials (kv_heads * group, cuts, 2 + dim_v) float32; integers 32 kv_heads, 33 group, 34 dim, 35 dim_v, 36
         head_dim_v, 37 cuts of the cache, 38 stride of y in bytes; number 39 scale
Source   Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, FlashAttention, arXiv:2205.14135, alg. 1.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.exponential import exp, exp_numpy
from runtime.simd.memory import (
    buffer,
    integer,
    load_f16x16,
    load_f32,
    load_f32x16,
    number,
    store_f32,
    store_f32x16,
)
from runtime.simd.tiles import tile_operations
from runtime.simd.vectors import (
    count_up,
    larger,
    largest_lane,
    splat_f32,
    sum_lanes,
    where_above,
)

CUT = 256  # positions
TILES = (6, 2, 1)  # queries worked on together
LOWEST = np.float32(-np.inf)


def _rows(wide: bool):
    @inlined
    def rows(memory, at):
        return load_f32x16(memory, at) if wide else load_f16x16(memory, at)

    return rows


def _partial(tile: int, wide: bool):
    """Scores, exponentials and weighted values of `tile` queries and one cut."""
    ops, rows, size = tile_operations(tile), _rows(wide), 4 if wide else 2
    zeros, store, rank_one = ops.zeros, ops.store, ops.rank_one

    @inlined
    def partial(q, base, first, keys, values, k, v, s, at_s, out, at_out, step, dim, dim_v, begin, start, scale, group):
        """Rows first.. of the kv head whose rows begin at row `base` of q, and the cut that begins at position
        `begin`, whose keys and values lie at bytes k and v. `out` gets (m, l, a) of each row, `step` bytes apart."""
        last = start + (first + tile - 1) // group  # the latest position that any of these rows may see
        n = min(CUT, (last + 1 - begin + 31) // 32 * 32)
        for j in range(0, n, 32):
            acc = zeros()
            for d in range(dim):
                to = k + (d * CUT + j) * size
                acc = rank_one(
                    acc, rows(keys, to), rows(keys, to + 16 * size), q, ((base + first) * dim + d) * 4, dim * 4
                )
            store(s, at_s + j * 4, CUT * 4, acc)
        for r in range(tile):
            here = at_s + r * CUT * 4
            own = np.float32(start + (first + r) // group - begin)  # position in the cut
            m = splat_f32(LOWEST)
            for j in range(0, n, 16):
                x = where_above(count_up(j), own, splat_f32(LOWEST), load_f32x16(s, here + j * 4) * scale)
                store_f32x16(s, here + j * 4, x)
                m = larger(x, m)
            top = largest_lane(m)
            total = splat_f32(np.float32(0))
            for j in range(0, n, 16):
                p = exp(load_f32x16(s, here + j * 4) - top)
                store_f32x16(s, here + j * 4, p)
                total += p
            store_f32(out, at_out + r * step, top)
            store_f32(out, at_out + r * step + 4, sum_lanes(total))
        for d in range(0, dim_v, 32):
            acc = zeros()
            for j in range(n):
                to = v + (j * dim_v + d) * size
                acc = rank_one(acc, rows(values, to), rows(values, to + 16 * size), s, at_s + j * 4, CUT * 4)
            store(out, at_out + 8 + d * 4, step, acc)

    return partial


@inlined
def merge(partials, at, total, to, dim_v, first):
    """Merge the (m, l, a) at byte `at` into the one at byte `to`; `first` starts from (-inf, 0, 0)."""
    top = LOWEST if first else load_f32(total, to)
    m = load_f32(partials, at)
    new = m if m > top else top
    before, here = exp(splat_f32(np.float32(top - new))), exp(splat_f32(np.float32(m - new)))
    old = splat_f32(np.float32(0)) if first else splat_f32(load_f32(total, to + 4))
    store_f32(total, to, new)
    store_f32(total, to + 4, largest_lane(old * before + splat_f32(load_f32(partials, at + 4)) * here))
    for d in range(8, 8 + dim_v * 4, 64):
        a = load_f32x16(partials, at + d) * here
        v = splat_f32(np.float32(0)) * before if first else load_f32x16(total, to + d) * before
        store_f32x16(total, to + d, v + a)


@inlined
def write(total, at, y, to, head_dim_v):
    """A / L of the (M, L, A) at byte `at`."""
    whole = load_f32(total, at + 4)
    for d in range(head_dim_v):
        store_f32(y, to + d * 4, np.float32(load_f32(total, at + 8 + d * 4) / whole))


SCRATCH = 6 * CUT * 4


def _rows_together(wide: bool):
    """`_partial` for as many of `left` rows as a tile holds; returns how many that were."""
    six, two, one = (_partial(tile, wide) for tile in TILES)

    @inlined
    def together(
        left, q, base, row, keys, values, k, v, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group
    ):
        if left >= 6:
            six(q, base, row, keys, values, k, v, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
            return 6
        if left >= 2:
            two(q, base, row, keys, values, k, v, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
            return 2
        one(q, base, row, keys, values, k, v, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
        return 1

    return together


def _prompt(wide: bool):
    together, size = _rows_together(wide), 4 if wide else 2

    @inlined
    def prompt(args, tokens, start, thread, lo, hi):
        q, keys, values, y, own = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
        group, dim, dim_v, head_dim_v = integer(args, 33), integer(args, 34), integer(args, 35), integer(args, 36)
        all_cuts, stride, scale = integer(args, 37), integer(args, 38), np.float32(number(args, 39))
        step = (2 + dim_v) * 4
        s = thread * (SCRATCH + 12 * step)
        part, total = s + SCRATCH, s + SCRATCH + 6 * step
        sixes = (tokens + 5) // 6
        for unit in range(lo, hi):
            kv, block = unit // sixes, unit % sixes
            row, end = block * 6 * group, min((block + 1) * 6, tokens) * group
            base = kv * tokens * group  # of this kv head's query rows
            while row < end:
                tile = 6 if row + 6 <= end else 2 if row + 2 <= end else 1
                for cut in range((start + (row + tile - 1) // group) // CUT + 1):
                    at, begin = (kv * all_cuts + cut) * CUT * size, cut * CUT
                    k, v = at * dim, at * dim_v
                    together(
                        end - row, q, base, row, keys, values, k, v, own, s, own, part, step, dim, dim_v, begin, start,
                        scale, group,
                    )  # fmt: skip
                    for r in range(tile):
                        if start + (row + r) // group >= begin:
                            merge(own, part + r * step, own, total + r * step, dim_v, cut == 0)
                for r in range(tile):
                    token, head = (row + r) // group, kv * group + (row + r) % group
                    write(own, total + r * step, y, token * stride + head * head_dim_v * 4, head_dim_v)
                row += tile

    return prompt


def _cuts(wide: bool):
    together, size = _rows_together(wide), 4 if wide else 2

    @inlined
    def cuts(args, tokens, start, thread, lo, hi):
        q, keys, values, own, out = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 4), buffer(args, 5)
        kv_heads, group, dim, dim_v = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
        all_cuts, scale = integer(args, 37), np.float32(number(args, 39))
        step = (2 + dim_v) * 4
        s = thread * (SCRATCH + 12 * step)
        for unit in range(lo, hi):
            cut, kv = unit // kv_heads, unit % kv_heads
            at, begin, base, row = (kv * all_cuts + cut) * CUT * size, cut * CUT, kv * group, 0
            k, v = at * dim, at * dim_v
            while row < group:
                to = ((base + row) * all_cuts + cut) * step
                row += together(
                    group - row, q, base, row, keys, values, k, v, own, s, out, to, all_cuts * step, dim, dim_v, begin,
                    start, scale, group,
                )  # fmt: skip

    return cuts


_prompt_f16, _prompt_f32, _cuts_f16, _cuts_f32 = _prompt(False), _prompt(True), _cuts(False), _cuts(True)


@kernel
def attend_prompt_f16(args, tokens, start, thread, lo, hi):
    """Many tokens, float16 cache. A unit is six tokens of one kv head."""
    _prompt_f16(args, tokens, start, thread, lo, hi)


@kernel
def attend_prompt_f32(args, tokens, start, thread, lo, hi):
    """Many tokens, float32 cache. A unit is six tokens of one kv head."""
    _prompt_f32(args, tokens, start, thread, lo, hi)


@kernel
def attend_cuts_f16(args, tokens, start, thread, lo, hi):
    """One token, float16 cache. A unit is one cut of one kv head; partials get its (m, l, a)."""
    _cuts_f16(args, tokens, start, thread, lo, hi)


@kernel
def attend_cuts_f32(args, tokens, start, thread, lo, hi):
    """One token, float32 cache. A unit is one cut of one kv head; partials get its (m, l, a)."""
    _cuts_f32(args, tokens, start, thread, lo, hi)


@kernel
def merge_cuts(args, tokens, start, thread, lo, hi):
    """One token: the partials of a head into y. A unit is a head."""
    y, scratch, partials = buffer(args, 3), buffer(args, 4), buffer(args, 5)
    dim_v, head_dim_v, all_cuts = integer(args, 35), integer(args, 36), integer(args, 37)
    step = (2 + dim_v) * 4
    total = thread * (SCRATCH + 12 * step) + SCRATCH
    for head in range(lo, hi):
        for cut in range(start // CUT + 1):
            merge(partials, (head * all_cuts + cut) * step, scratch, total, dim_v, cut == 0)
        write(scratch, total, y, head * head_dim_v * 4, head_dim_v)


def attend_numpy(q: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int, scale: np.float32) -> np.ndarray:
    """The twin of all of them: q (tokens, kv_heads, group, dim), keys (kv_heads, n, dim) and values (kv_heads, n,
    dim_v) as float32; (tokens, kv_heads * group * dim_v)."""
    tokens, kv_heads, group, _ = q.shape
    y = np.empty((tokens, kv_heads, group, values.shape[2]), np.float32)
    for t in range(tokens):
        top, total = np.full((kv_heads, group), LOWEST), np.zeros((kv_heads, group), np.float32)
        acc = np.zeros_like(y[t])
        for cut in range(0, start + t + 1, CUT):
            here = slice(cut, min(cut + CUT, start + t + 1))
            s = _ascending(q[t][..., None, :] * keys[:, None, here], axis=-1) * scale  # (kv_heads, group, n)
            m = s.max(axis=-1)
            p = exp_numpy(s - m[..., None])
            part = _lanes(p)
            a = _ascending(p[..., None] * values[:, None, here], axis=-2)
            new = np.maximum(top, m)
            before, now = exp_numpy(top - new), exp_numpy(m - new)
            total = total * before + part * now
            acc = acc * before[..., None] + a * now[..., None]
            top = new
        y[t] = acc / total[..., None]
    return y.reshape(tokens, -1)


def _ascending(terms: np.ndarray, axis: int) -> np.ndarray:
    """The sum along `axis` in ascending order: `np.sum` is pairwise, and so rounds otherwise."""
    return np.take(np.add.accumulate(terms, axis=axis), -1, axis=axis)


def _lanes(p: np.ndarray) -> np.ndarray:
    """The sum of (..., n) by 16 lanes, each ascending, then the lanes as a tree."""
    padded = np.zeros((*p.shape[:-1], (p.shape[-1] + 15) // 16 * 16), np.float32)
    padded[..., : p.shape[-1]] = p
    lanes = _ascending(padded.reshape(*p.shape[:-1], -1, 16), axis=-2)
    for width in (8, 4, 2, 1):
        lanes = lanes[..., :width] + lanes[..., width:]
    return lanes[..., 0]
