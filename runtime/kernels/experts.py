"""Experts: which of them a token passes through, their matrix products by the kernels of every other matrix, their sum.

    p = softmax(scores)      the n_used experts of largest p, of equal ones the lower number first
    w = p of these, divided by their sum where `normalized`
    y = sum w_e * result_e   by falling p;      + sigmoid(g) * shared result, where there is a shared expert

A token that goes to n_used experts becomes n_used rows. The rows of a prompt are sorted by expert, so that each expert
is multiplied with all of its rows at once; those of a single token stay in the order of p:

    route      per token     its experts and weights
    arrange    once          segments: runs of rows with one expert
    gather     per row       the activations of its token, in float32 or 8 bits
    multiply   per segment   the kernel of the matrix's type, on a record that shows it one expert and one segment
    combine    per token     the weighed sum of its rows, in the order of p

No sum depends on where a row lies, so neither the batch nor the threads change a bit.

Order    softmax: exp(x - max), their sum by 16 lanes, each ascending, the lanes as a tree, then a division; the sum of
         the chosen p and y: products, then sums from left to right.
Edges    where a score is NaN so are all weights; some experts are chosen nevertheless.
Source   llama.cpp, src/llama-graph.cpp build_moe_ffn.
"""

import numpy as np

from runtime.jit import inlined, kernel
from runtime.kernels.exponential import exp, exp_numpy
from runtime.simd import (
    buffer,
    call_kernel,
    count_up,
    integer,
    larger,
    largest_lane,
    load_f32,
    load_f32x16,
    load_i32,
    load_i64,
    load_u8x64,
    splat_f32,
    store_f32,
    store_f32x16,
    store_i32,
    store_i64,
    store_u8x64,
    sum_lanes,
    where_above,
)

RECORD = 512  # bytes of an operation's record
LOWEST = np.float32(-np.inf)


@kernel
def route(args, tokens, start, thread, lo, hi):
    """Record: buffers 0 scores (tokens, stride) float32, which are overwritten, 1 experts (tokens, n_used) int32, 2
    weights (tokens, n_used) float32; integers 32 n_expert, 33 n_used, 34 stride in bytes, a multiple of 64, 35
    normalized. A unit is a token."""
    scores, experts, weights = buffer(args, 0), buffer(args, 1), buffer(args, 2)
    n, used, stride, normalized = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
    last = np.float32(n - 1)
    for t in range(lo, hi):
        top = splat_f32(LOWEST)
        for j in range(0, n, 16):
            top = larger(
                where_above(count_up(j), last, splat_f32(LOWEST), load_f32x16(scores, t * stride + j * 4)), top
            )
        highest, total = largest_lane(top), splat_f32(np.float32(0))
        for j in range(0, n, 16):
            x = load_f32x16(scores, t * stride + j * 4) - highest
            p = exp(where_above(count_up(j), last, splat_f32(LOWEST), x))
            store_f32x16(scores, t * stride + j * 4, p + (x - x))  # x - x: 0, or NaN that exp does not hand on
            total += p + (x - x)
        whole, chosen = sum_lanes(total), np.float32(0)
        for place in range(used):
            best, value = np.int64(-1), np.float32(-1)
            for e in range(n):
                p = load_f32(scores, t * stride + e * 4)
                if p > value:
                    best, value = e, p
            if best < 0:
                best, value = place, np.float32(np.nan)
            store_f32(scores, t * stride + best * 4, np.float32(-1))
            p = np.float32(value / whole)
            store_i32(experts, (t * used + place) * 4, np.int32(best))
            store_f32(weights, (t * used + place) * 4, p)
            chosen += p
        if normalized:
            for place in range(t * used, (t + 1) * used):
                store_f32(weights, place * 4, np.float32(load_f32(weights, place * 4) / chosen))


@kernel
def arrange(args, tokens, start, thread, lo, hi):
    """Record: buffers 0 experts (tokens, n_used) int32, and int32 to be written: 1 rows (tokens, n_used), the row of
    each, 2 tokens of the rows, 3 firsts of the segments and the end of the last, 4 experts of the segments; integers
    32 n_expert, 33 n_used, 34 whether there is a segment for each expert, or one for each row of a single token. One
    unit."""
    experts, rows, sources, firsts, owners = (
        buffer(args, 0),
        buffer(args, 1),
        buffer(args, 2),
        buffer(args, 3),
        buffer(args, 4),
    )
    n, used, sort = integer(args, 32), integer(args, 33), integer(args, 34)
    count = tokens * used
    if not sort:
        for i in range(count):
            store_i32(rows, i * 4, np.int32(i))
            store_i32(sources, i * 4, np.int32(i // used))
            store_i32(firsts, i * 4, np.int32(i))
            store_i32(owners, i * 4, load_i32(experts, i * 4))
        store_i32(firsts, count * 4, np.int32(count))
        return
    for e in range(n + 1):
        store_i32(firsts, e * 4, np.int32(0))
    for i in range(count):
        at = np.int64(load_i32(experts, i * 4)) * 4 + 4
        store_i32(firsts, at, np.int32(load_i32(firsts, at) + 1))
    for e in range(n):
        store_i32(owners, e * 4, np.int32(e))
        store_i32(firsts, e * 4 + 4, np.int32(load_i32(firsts, e * 4 + 4) + load_i32(firsts, e * 4)))
    for i in range(count - 1, -1, -1):  # each segment is filled from its end, which then is where the next one begins
        at = np.int64(load_i32(experts, i * 4)) * 4 + 4
        row = np.int32(load_i32(firsts, at) - 1)
        store_i32(firsts, at, row)
        store_i32(rows, i * 4, row)
        store_i32(sources, np.int64(row) * 4, np.int32(i // used))
    for e in range(n):
        store_i32(firsts, e * 4, load_i32(firsts, e * 4 + 4))
    store_i32(firsts, n * 4, np.int32(count))


@kernel
def gather(args, tokens, start, thread, lo, hi):
    """Record: buffers 0 tokens of the rows, then pairs of a source (tokens, bytes) and a target (rows, bytes);
    integers 32 how many pairs, from 33 the bytes of a row of each, multiples of 4. A unit is a row."""
    sources = buffer(args, 0)
    for i in range(integer(args, 32)):
        source, target, size = buffer(args, 1 + 2 * i), buffer(args, 2 + 2 * i), integer(args, 33 + i)
        for row in range(lo, hi):
            at, to, done = np.int64(load_i32(sources, row * 4)) * size, row * size, 0
            while done + 64 <= size:
                store_u8x64(target, to + done, load_u8x64(source, at + done))
                done += 64
            while done < size:
                store_i32(target, to + done, load_i32(source, at + done))
                done += 4


@inlined
def advance(record, at, index, step):
    """Let the Buffer number `index` of a record begin `step` bytes later."""
    to = at + index * 16
    store_i64(record, to, load_i64(record, to) + step)
    store_i64(record, to + 8, load_i64(record, to + 8) - step)


@kernel
def multiply(args, tokens, start, thread, lo, hi):
    """Record: that of a matrix product for its first expert and all rows, and buffers 8 firsts and 9 experts of the
    segments, 10 records (RECORD bytes a thread); integers 48 address of the product's kernel, 49 groups of rows of
    one expert, 50 bytes of an expert, 51..54 bytes of a row of buffers 1 to 4. A unit is a group of one segment."""
    firsts, owners, records, at = buffer(args, 8), buffer(args, 9), buffer(args, 10), thread * RECORD
    groups, size, unit = integer(args, 49), integer(args, 50), lo
    while unit < hi:
        segment, group = unit // groups, unit % groups
        end = min(groups, group + hi - unit)
        first = np.int64(load_i32(firsts, segment * 4))
        count = load_i32(firsts, segment * 4 + 4) - first
        if count > 0:
            for i in range(RECORD // 8):
                store_i64(records, at + i * 8, integer(args, i))
            advance(records, at, 0, np.int64(load_i32(owners, segment * 4)) * size)
            for i in range(4):
                advance(records, at, 1 + i, first * integer(args, 51 + i))
            call_kernel(integer(args, 48), integer(args, 20) + at, count, start, thread, group, end)
        unit += end - group


@kernel
def combine(args, tokens, start, thread, lo, hi):
    """Record: buffers 0 results (rows, stride) float32, 1 rows and 2 weights (tokens, n_used), 3 y (tokens, stride)
    float32, which holds the result of the shared expert before, 4 g (tokens, step) float32; integers 32 n_used, 33
    stride in bytes, a multiple of 64, 34 whether there is a shared expert, 35 step in bytes. A unit is a token."""
    results, rows, weights, y, gates = (
        buffer(args, 0),
        buffer(args, 1),
        buffer(args, 2),
        buffer(args, 3),
        buffer(args, 4),
    )
    used, stride, shared, step = integer(args, 32), integer(args, 33), integer(args, 34), integer(args, 35)
    for t in range(lo, hi):
        share = splat_f32(np.float32(0))
        if shared:
            minus = splat_f32(np.float32(0)) - splat_f32(load_f32(gates, t * step))
            share = splat_f32(np.float32(1)) / (exp(minus) + np.float32(1))
        for i in range(0, stride, 64):
            at = t * used
            total = load_f32x16(results, np.int64(load_i32(rows, at * 4)) * stride + i) * load_f32(weights, at * 4)
            for place in range(at + 1, at + used):
                row = np.int64(load_i32(rows, place * 4))
                total += load_f32x16(results, row * stride + i) * load_f32(weights, place * 4)
            if shared:
                total += load_f32x16(y, t * stride + i) * share
            store_f32x16(y, t * stride + i, total)


def route_numpy(scores: np.ndarray, n_used: int, normalized: bool) -> tuple[np.ndarray, np.ndarray]:
    """The twin of `route` on (tokens, n_expert) float32 without NaN: experts int32, weights float32."""
    tokens, n = scores.shape
    p = np.zeros((tokens, -(-n // 16) * 16), np.float32)
    p[:, :n] = exp_numpy(scores - scores.max(axis=-1, keepdims=True))
    lanes = np.add.accumulate(p.reshape(tokens, -1, 16), axis=1)[:, -1]
    for width in (8, 4, 2, 1):
        lanes = lanes[:, :width] + lanes[:, width:]
    experts = np.argsort(-p[:, :n], axis=-1, kind="stable")[:, :n_used]
    weights = np.take_along_axis(p, experts, axis=-1) / lanes
    if normalized:
        weights = weights / np.add.accumulate(weights, axis=-1)[:, -1:]
    return experts.astype(np.int32), weights


def combine_numpy(
    results: np.ndarray, weights: np.ndarray, shared: np.ndarray | None = None, gates: np.ndarray | None = None
) -> np.ndarray:
    """The twin of `combine`: results (tokens, n_used, n), weights (tokens, n_used), shared (tokens, n), gates
    (tokens,), all float32; y (tokens, n)."""
    y = np.add.accumulate(results * weights[..., None], axis=1)[:, -1]
    if shared is None:
        return y
    return y + shared * (np.float32(1) / (exp_numpy(np.float32(0) - gates) + np.float32(1)))[:, None]
