"""Steps of calibrated methods once more, on lists of floats. Imports the standard library only.

Arithmetic is Python's float64; f32 rounds where a step is defined in float32.
"""

import math

from naive_gguf import f32
from naive_methods import inverse


def outer_sum(tokens, factor=1.0):
    """factor^2 times the sum of x x^T."""
    width = len(tokens[0])
    return [[math.fsum(factor * x[i] * factor * x[j] for x in tokens) for j in range(width)] for i in range(width)]


def hessian(batches, rule):
    """H of batches, each a list of sequences of tokens, and what was counted."""
    sequences = [sequence for batch in batches for sequence in batch]
    tokens = [x for sequence in sequences for x in sequence]
    if rule == "sum":
        count = len(tokens)
        return [[2 * v / count for v in row] for row in outer_sum(tokens)], count
    count = len(sequences)
    return [[2 * v / count for v in row] for row in outer_sum(tokens)], count


def upper(H):
    """R with H = R R^T, upper triangular, from the last column on."""
    n = len(H)
    R = [[0.0] * n for _ in range(n)]
    for k in range(n - 1, -1, -1):
        pivot = H[k][k] - math.fsum(R[k][m] ** 2 for m in range(k + 1, n))
        if pivot <= 0:
            raise ValueError("not definite")
        R[k][k] = math.sqrt(pivot)
        for i in range(k):
            R[i][k] = (H[i][k] - math.fsum(R[i][m] * R[k][m] for m in range(k + 1, n))) / R[k][k]
    return R


def factors(H):
    """(R, R^-1)."""
    R = upper(H)
    return R, inverse(R)


def adam(p, gradients, lr, first, second, epsilon):
    """p after all steps."""
    mean, square = 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        mean, square = first * mean + (1 - first) * g, second * square + (1 - second) * g * g
        p -= lr * (mean / (1 - first**t)) / (math.sqrt(square / (1 - second**t)) + epsilon)
    return p


def stretched_sigmoid(v):
    """AdaRound's h and its slope; no slope where it is clipped."""
    s = 1 / (1 + math.exp(-v))
    wide = 1.2 * s - 0.1
    inside = 0 <= wide <= 1
    return min(max(wide, 0.0), 1.0), 1.2 * s * (1 - s) if inside else 0.0


def unstretched(h):
    """The v of an h."""
    return -6.0 if h <= 0 else 6.0 if h >= 1 else -math.log(1.2 / (h + 0.1) - 1)


def pull(h, beta):
    """The slope of 1 - |2h - 1|^beta."""
    c = 2 * h - 1
    return -2 * beta * ((c > 0) - (c < 0)) * abs(c) ** (beta - 1)


def smooth(layers, X, alpha, spans):
    """SmoothQuant's scale of layers that share an input; `spans`: llm-compressor's ranges."""
    found = []
    for j in range(len(X[0])):
        column, w = [x[j] for x in X], max(abs(row[j]) for W in layers for row in W)
        if spans:
            a = max(column) - min(column)
            s = a**alpha / (2 * w) ** (1 - alpha) if w else a
        else:
            s = max(map(abs, column)) ** alpha / max(w, f32(1e-5)) ** (1 - alpha)
        found.append(max(s, f32(1e-5)))
    return found


def awq_point(x, w, ratio, duo, added, low, high):
    """AWQ's scale of one ratio."""
    s = [a**ratio / (b ** (1 - ratio) + added if duo else 1) for a, b in zip(x, w)]
    s = [min(max(v, low), high) for v in s]
    middle = math.sqrt(max(s) * min(s))
    return [v / middle for v in s]


def shrunk(x, v, a, b, kind, plain, narrow):
    """AutoRound's pass over one group: codes, scale, zero, inside, slopes of the scale in a and b.

    kind: (bits, signed, "symmetric" | "signedmax" | "asymmetric"); plain: the scale of the format; narrow: its type
    """
    bits, signed, how = kind
    low = -(2 ** (bits - 1)) if signed else 0
    high, half, lo, hi = low + 2**bits - 1, 2 ** (bits - 1), min(*x, 0.0), max(*x, 0.0)
    if how == "asymmetric":
        s = f32(f32(f32(hi * b) - f32(lo * a)) / (high - low))
        by_a, by_b = f32(-lo / (high - low)), f32(hi / (high - low))
    elif how == "signedmax":
        negative = f32(hi * b) < -f32(lo * a)
        s = (-f32(lo * a) if negative else -f32(hi * b)) / half
        by_a, by_b = (-lo / half, 0.0) if negative else (0.0, -hi / half)
    else:
        s, by_a, by_b = f32(plain * b), 0.0, plain
    s = narrow(s)
    s = min(s, -f32(1e-5)) if s < 0 else max(s, f32(1e-5))
    zero = min(max(low + round(f32(-f32(lo * a) / s)), low), high) if how == "asymmetric" else 0 if signed else half
    wanted = [round(f32(f32(each / s) + shift)) + zero for each, shift in zip(x, v)]
    codes = [min(max(q, low), high) for q in wanted]
    return codes, s, zero, [q == c for q, c in zip(wanted, codes)], by_a, by_b


def shrinking(x, a, found, loads, asymmetric):
    """Slopes of the loss in v, a and b of one group from those in the decoded weights."""
    codes, s, zero, inside, by_a, by_b = found
    lo = min(*x, 0.0)
    terms = [q - zero - (each / s if i else a * lo / s if asymmetric else 0.0) for q, i, each in zip(codes, inside, x)]
    by_s = math.fsum(load * term for load, term in zip(loads, terms))
    by_zero = math.fsum(load for load, i in zip(loads, inside) if not i) * lo if asymmetric else 0.0
    return [load * s if i else 0.0 for load, i in zip(loads, inside)], by_s * by_a + by_zero, by_s * by_b


def beyond(row, deviations):
    """EasyQuant's outliers of a row."""
    mean = math.fsum(row) / len(row)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in row) / len(row))
    return [abs(v - mean) > deviations * spread for v in row]


def corrected(values, extras):
    """Decoded weights with scales of channels undone, a thin product added and sparse entries put in place."""
    W = [row[:] for row in values]
    if "channel_scale" in extras:
        W = [[f32(w / s) for w, s in zip(row, extras["channel_scale"])] for row in W]
    if "up" in extras:
        columns = list(zip(*extras["down"]))
        thin = [[f32(math.fsum(f32(a * b) for a, b in zip(u, column))) for column in columns] for u in extras["up"]]
        W = [[f32(a + b) for a, b in zip(*rows)] for rows in zip(W, thin)]
    if "sparse_values" in extras:
        start = extras["sparse_start"]
        for i, row in enumerate(W):
            for at in range(start[i], start[i + 1]):
                row[extras["sparse_columns"][at]] = extras["sparse_values"][at]
    return W
