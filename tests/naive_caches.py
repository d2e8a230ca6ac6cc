"""KIVI and KVQuant once more, a group at a time; ZeRO++ a rank at a time. Imports the standard library only."""

import math

import naive
from naive_gguf import f32
from naive_vectors import f16


def kivi_group(x, bits):
    """What a group of float16 numbers decodes to, every operation rounded to float16."""
    lo, hi, steps = min(x), max(x), 2**bits - 1
    extent = f16(hi - lo)
    if math.isinf(extent):
        raise OverflowError("a group wider than float16")
    scale = f16(extent / steps)
    if scale == 0:
        return [lo] * len(x)
    codes = [round(min(max(f16(f16(v - lo) / scale), 0.0), float(steps))) for v in x]
    return [f16(f16(q * scale) + lo) for q in codes]


def kivi(k, v, bits, group, residual):
    """(keys, values, bytes) of tokens of heads of numbers; k, v float32."""
    k, v = ([[[f16(x) for x in head] for head in token] for token in tokens] for tokens in (k, v))
    whole, old = len(k) // residual * residual, max(0, len(v) - residual)
    counted, bytes_ = 0, 0.0
    for start in range(0, whole, group):
        for h in range(len(k[0])):
            for c in range(len(k[0][0])):
                decoded = kivi_group([k[t][h][c] for t in range(start, start + group)], bits)
                for t, x in enumerate(decoded):
                    k[start + t][h][c] = x
                counted += 1
    for t in range(old):
        for head in v[t]:
            for start in range(0, len(head), group):
                head[start : start + group] = kivi_group(head[start : start + group], bits)
                counted += 1
    bytes_ = counted * (group * bits / 8 + 4)
    bytes_ += 2 * sum(len(head) for token in k[whole:] for head in token)
    bytes_ += 2 * sum(len(head) for token in v[old:] for head in token)
    return k, v, bytes_


def quantile(numbers, share):
    """By linear interpolation between the sorted numbers, rounded to float32."""
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 1)
    above = min(below + 1, len(ordered) - 1)
    return f32(ordered[below] + (place - below) * (ordered[above] - ordered[below]))


def middle(lower, upper):
    """(mid, reach) in float32."""
    return f32(f32(upper + lower) / 2), f32(f32(upper - lower) / 2)


def kvquant_value(x, mid, reach, levels):
    """What one number decodes to, in float32; outliers stay float16."""
    u = 0.0 if x == mid else math.inf if reach == 0 else f32(f32(x - mid) / reach)
    if abs(u) > 1:
        return f16(x)
    code, _ = naive.nearest_level(naive.Fraction(u), levels)
    return f32(f32(levels[code] * reach) + mid)


def kvquant(k, v, key_levels, lower, upper, value_levels, outliers, first):
    """(keys, values); lower and upper [head][channel]."""
    keys, values = [], []
    for t, (ks, vs) in enumerate(zip(k, v)):
        if t < first:
            keys.append([[f16(x) for x in head] for head in ks])
            values.append([[f16(x) for x in head] for head in vs])
            continue
        bounds = [[middle(a, b) for a, b in zip(*ends)] for ends in zip(lower, upper)]
        keys.append([[kvquant_value(x, *b, key_levels) for x, b in zip(*pair)] for pair in zip(ks, bounds)])
        line = []
        for head in vs:
            mid, reach = middle(quantile(head, outliers / 2), quantile(head, 1 - outliers / 2))
            line.append([kvquant_value(x, f16(mid), f16(reach), value_levels) for x in head])
        values.append(line)
    return keys, values


def rounded(row, rule, size):
    """What groups of `size` of a row decode to. rule: bits, signed, symmetric."""
    out = []
    for start in range(0, len(row), size):
        codes, scale, zero = naive.linear(row[start : start + size], *rule)
        out += [float(x) for x in naive.decode_linear(codes, scale, zero)]
    return out


def reduce_scatter(ranks, local, rule, size):
    """(a row for each rank, values sent within nodes, values sent between nodes)."""
    count, n = len(ranks), len(ranks[0])
    nodes, chunk = count // local, n // count
    piece = lambda row, owner: row[owner * chunk : (owner + 1) * chunk]
    partial, within, between = {}, 0, 0
    for node in range(nodes):
        for to in range(local):
            total = [0.0] * (nodes * chunk)
            for source in range(local):
                row = ranks[node * local + source]
                sent = [x for m in range(nodes) for x in piece(row, m * local + to)]
                total = [f32(a + b) for a, b in zip(total, rounded(sent, rule, size))]
                within += len(sent) * (source != to)
            partial[node, to] = total
    rows = []
    for to in range(nodes):
        for rank in range(local):
            total = [0.0] * chunk
            for source in range(nodes):
                sent = partial[source, rank][to * chunk : (to + 1) * chunk]
                total = [f32(a + b) for a, b in zip(total, rounded(sent, rule, size))]
                between += chunk * (source != to)
            rows.append(total)
    return rows, within, between
