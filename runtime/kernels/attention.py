"""Attention over the KV cache with an online softmax, cut at fixed absolute positions.

    s[j] = q . k[j] * scale        for every position j up to the token's own
    y    = sum_j exp(s[j] - max s) v[j] / sum_j exp(s[j] - max s)

The positions are cut at multiples of 256. Each cut gives (m, l, a): its largest score, its sum of exponentials and its
weighted sum of values; the cuts are merged in ascending order from (-inf, 0, 0):

    M' = max(M, m)    L' = L * exp(M - M') + l * exp(m - M')    A' = A * exp(M - M') + a * exp(m - M')    y = A / L

A prompt merges as it goes; for a single token all cuts are worked on at once, by all threads, and merged after. Where a
cut begins never depends on the batch or the threads, so both ways give the same bits.

The queries of the heads that share a key head are rows of one matrix, token by token: 6, 2 or 1 of them are multiplied
with 32 positions, then with 32 columns, at a time. In a prompt the rows of six tokens pass over a cut before the next
one is read, so that its keys and values come from memory once; a single token reads each once for all of its heads.

Shapes   q (kv_heads, tokens * group, head_dim) float32; keys and values of one layer as runtime.kernels.kv_rows lays
         them out, (kv_heads, cuts, bytes); y (tokens, stride) float32, head_dim_v of each head side by side.
Order    q . k: d ascending, product then sum, times scale last; l: 16 lanes over positions ascending, the lanes as a
         tree; a: positions ascending. Positions after the token's own have weight 0.
Widths   dim is head_dim, dim_v head_dim_v rounded up to a multiple of 32; the columns beyond are zeros.
Record   buffers 0 q, 1 keys, 2 values, 3 y, 4 scratch (`scratch_bytes` a thread), 5 partials (kv_heads * group, cuts,
         2 + dim_v) float32; integers 32 kv_heads, 33 group, 34 dim, 35 dim_v, 36 head_dim_v, 37 cuts of the cache,
         38 stride of y in bytes, 40 bytes of a tile of keys; number 39 scale
Source   Milakov and Gimelshein 2018, arXiv:1805.02867; Dao et al. 2022, FlashAttention, arXiv:2205.14135, alg. 1.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.exponential import exp, exp_numpy
from runtime.kernels.kv_rows import CUT, KEY_BLOCK, ROWS, TILE, reader
from runtime.simd import (
    buffer,
    count_up,
    integer,
    larger,
    largest_lane,
    load_f32,
    load_f32x16,
    number,
    splat_f32,
    store_f32,
    store_f32x16,
    sum_lanes,
    tile_operations,
    where_above,
)

TILES = (6, 2, 1)  # queries worked on together
TOKENS = 6  # of a prompt, in one unit
LOWEST = np.float32(-np.inf)
SCORES = TILES[0] * CUT * 4  # bytes


def scratch_bytes(group: int, dim_v: int) -> int:
    """Bytes of scratch a thread needs: scores and (m, l, a) of a tile, (M, L, A) of the rows of a unit."""
    return SCORES + (TILES[0] + TOKENS * group) * (2 + dim_v) * 4


def _partial(tile: int, name: str):
    """Scores, exponentials and weighted values of `tile` queries and one cut."""
    ops, (key_scale, key, value_scale, value) = tile_operations(tile), reader(name)
    zeros, store, rank_one = ops.zeros, ops.store, ops.rank_one
    run = KEY_BLOCK if name == "q8_0" else TILE * TILE * ROWS[name].number  # bytes of 32 elements of 32 positions
    value_tile = ROWS[name].value_tile

    @inlined
    def partial(
        q, at_q, first, keys, values, k, v, key_tile, s, at_s, out, at_out, step, dim, dim_v, begin, start, scale, group
    ):
        """Rows first.. of a kv head, whose queries begin at byte at_q, and the cut that begins at position `begin`,
        whose keys and values lie at bytes k and v. `out` gets (m, l, a) of each row, `step` bytes apart."""
        last = start + (first + tile - 1) // group  # the latest position that any of these rows may see
        n = min(CUT, (last + 1 - begin + 31) // 32 * 32)
        for j in range(0, n, TILE):
            acc, at = zeros(), k
            for d in range(0, dim, TILE):
                low, high = key_scale(keys, at, 0), key_scale(keys, at, 1)
                for i in range(min(TILE, dim - d)):
                    acc = rank_one(
                        acc, key(keys, at, i, 0, low), key(keys, at, i, 1, high), q, at_q + (d + i) * 4, dim * 4
                    )
                at += run
            store(s, at_s + j * 4, CUT * 4, acc)
            k += key_tile
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
        for d in range(0, dim_v, TILE):
            acc = zeros()
            for j in range(n):
                each = value_scale(values, v, j)
                acc = rank_one(
                    acc, value(values, v, j, 0, each), value(values, v, j, 1, each), s, at_s + j * 4, CUT * 4
                )
            store(out, at_out + 8 + d * 4, step, acc)
            v += value_tile

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


def _tiles(name: str):
    """`_partial` for as many of `left` rows as a tile holds; returns how many that were."""
    six, two, one = (_partial(tile, name) for tile in TILES)

    @inlined
    def tiles(
        left, q, at_q, row, keys, values, k, v, kt, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group
    ):
        if left >= 6:
            six(q, at_q, row, keys, values, k, v, kt, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
            return 6
        if left >= 2:
            two(q, at_q, row, keys, values, k, v, kt, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
            return 2
        one(q, at_q, row, keys, values, k, v, kt, s, at_s, out, at, step, dim, dim_v, begin, start, scale, group)
        return 1

    return tiles


def _prompt(name: str):
    tiles, value_tile = _tiles(name), ROWS[name].value_tile

    @inlined
    def prompt(args, tokens, start, thread, lo, hi):
        q, keys, values, y, own = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 3), buffer(args, 4)
        group, dim, dim_v, head_dim_v = integer(args, 33), integer(args, 34), integer(args, 35), integer(args, 36)
        cuts, stride, kt, scale = integer(args, 37), integer(args, 38), integer(args, 40), np.float32(number(args, 39))
        step = (2 + dim_v) * 4
        s = thread * (SCORES + (6 + TOKENS * group) * step)
        part, total = s + SCORES, s + SCORES + 6 * step
        sixes = (tokens + TOKENS - 1) // TOKENS
        for unit in range(lo, hi):
            kv, first = unit // sixes, unit % sixes * TOKENS * group
            rows = min(first + TOKENS * group, tokens * group) - first
            base = kv * tokens * group + first  # of these rows in q
            for cut in range((start + (first + rows - 1) // group) // CUT + 1):
                begin = cut * CUT
                k, v = (kv * cuts + cut) * (CUT // TILE * kt), (kv * cuts + cut) * (dim_v // TILE * value_tile)
                row = max(0, (begin - start) * group - first)  # rows before it see nothing of this cut
                while row < rows:
                    done = tiles(
                        rows - row, q, (base + row) * dim * 4, first + row, keys, values, k, v, kt, own, s, own, part,
                        step, dim, dim_v, begin, start, scale, group,
                    )  # fmt: skip
                    for r in range(done):
                        merge(own, part + r * step, own, total + (row + r) * step, dim_v, cut == 0)
                    row += done
            for row in range(rows):
                token, head = (first + row) // group, kv * group + (first + row) % group
                write(own, total + row * step, y, token * stride + head * head_dim_v * 4, head_dim_v)

    return prompt


def _cuts(name: str):
    tiles, value_tile = _tiles(name), ROWS[name].value_tile

    @inlined
    def cuts(args, tokens, start, thread, lo, hi):
        q, keys, values, own, out = buffer(args, 0), buffer(args, 1), buffer(args, 2), buffer(args, 4), buffer(args, 5)
        kv_heads, group, dim, dim_v = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
        all_cuts, kt, scale = integer(args, 37), integer(args, 40), np.float32(number(args, 39))
        step = (2 + dim_v) * 4
        s = thread * (SCORES + (6 + TOKENS * group) * step)
        for unit in range(lo, hi):
            cut, kv = unit // kv_heads, unit % kv_heads
            at, base, row = kv * all_cuts + cut, kv * group, 0
            k, v = at * (CUT // TILE * kt), at * (dim_v // TILE * value_tile)
            while row < group:
                to = ((base + row) * all_cuts + cut) * step
                row += tiles(
                    group - row, q, (base + row) * dim * 4, row, keys, values, k, v, kt, own, s, out, to,
                    all_cuts * step, dim, dim_v, cut * CUT, start, scale, group,
                )  # fmt: skip

    return cuts


_prompt_f16, _prompt_f32, _prompt_q8_0 = _prompt("f16"), _prompt("f32"), _prompt("q8_0")
_cuts_f16, _cuts_f32, _cuts_q8_0 = _cuts("f16"), _cuts("f32"), _cuts("q8_0")


@kernel
def attend_prompt_f16(args, tokens, start, thread, lo, hi):
    """Many tokens. A unit is six tokens of one kv head."""
    _prompt_f16(args, tokens, start, thread, lo, hi)


@kernel
def attend_prompt_f32(args, tokens, start, thread, lo, hi):
    """Many tokens. A unit is six tokens of one kv head."""
    _prompt_f32(args, tokens, start, thread, lo, hi)


@kernel
def attend_prompt_q8_0(args, tokens, start, thread, lo, hi):
    """Many tokens. A unit is six tokens of one kv head."""
    _prompt_q8_0(args, tokens, start, thread, lo, hi)


@kernel
def attend_cuts_f16(args, tokens, start, thread, lo, hi):
    """One token. A unit is one cut of one kv head; partials get its (m, l, a)."""
    _cuts_f16(args, tokens, start, thread, lo, hi)


@kernel
def attend_cuts_f32(args, tokens, start, thread, lo, hi):
    """One token. A unit is one cut of one kv head; partials get its (m, l, a)."""
    _cuts_f32(args, tokens, start, thread, lo, hi)


@kernel
def attend_cuts_q8_0(args, tokens, start, thread, lo, hi):
    """One token. A unit is one cut of one kv head; partials get its (m, l, a)."""
    _cuts_q8_0(args, tokens, start, thread, lo, hi)


PROMPT = {"f16": attend_prompt_f16, "f32": attend_prompt_f32, "q8_0": attend_prompt_q8_0}
CUTS = {"f16": attend_cuts_f16, "f32": attend_cuts_f32, "q8_0": attend_cuts_q8_0}


@kernel
def merge_cuts(args, tokens, start, thread, lo, hi):
    """One token: the partials of a head into y. A unit is a head."""
    y, scratch, partials = buffer(args, 3), buffer(args, 4), buffer(args, 5)
    group, dim_v, head_dim_v, all_cuts = integer(args, 33), integer(args, 35), integer(args, 36), integer(args, 37)
    step = (2 + dim_v) * 4
    total = thread * (SCORES + (6 + TOKENS * group) * step) + SCORES
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
