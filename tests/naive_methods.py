"""Observers and calibrated methods once more, weight by weight on lists of floats. Imports the standard library only.

A matrix is a list of rows. Arithmetic is that of Python's float64; f32 rounds where a method stores float32. Inverses
are found by Gauss and Jordan, updates follow the definitions of the papers and not their triangular factors.
"""

import math
from itertools import accumulate

from naive_gguf import f32


def hessian(X):
    """2 / n X^T X."""
    n, width = len(X), len(X[0])
    return [[2 / n * math.fsum(x[i] * x[j] for x in X) for j in range(width)] for i in range(width)]


def damped(H, damp=0.01):
    """(H with ones for columns without inputs and the mean of its diagonal added, those columns)."""
    dead = [j for j in range(len(H)) if H[j][j] == 0]
    H = [[1.0 if i == j and j in dead else value for j, value in enumerate(row)] for i, row in enumerate(H)]
    added = damp * math.fsum(H[j][j] for j in range(len(H))) / len(H)
    return [[value + added * (i == j) for j, value in enumerate(row)] for i, row in enumerate(H)], dead


def inverse(A):
    """By elimination, with the largest pivot of each column."""
    n = len(A)
    rows = [[*row, *(float(i == j) for j in range(n))] for i, row in enumerate(A)]
    for j in range(n):
        best = max(range(j, n), key=lambda i: abs(rows[i][j]))
        rows[j], rows[best] = rows[best], rows[j]
        rows[j] = [value / rows[j][j] for value in rows[j]]
        for i in range(n):
            if i != j and rows[i][j]:
                factor = rows[i][j]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[j])]
    return [row[n:] for row in rows]


def eliminated(inverse, j):
    """The inverse of H without row and column j, in the shape of H; row and column j are zeros."""
    pivot = inverse[j][j]
    return [[a - row[j] * b / pivot for a, b in zip(row, inverse[j])] for row in inverse]


def sweep(W, X, order, rounded, damp=0.01):
    """Optimal brain quantization in a fixed order: what is free makes up for each error; returns rounded values.

    rounded(i, j, W)  the value that weight j of row i becomes, given all weights as they are now
    """
    H, dead = damped(hessian(X), damp)
    left = inverse(H)
    W = [[0.0 if j in dead else w for j, w in enumerate(row)] for row in W]
    out = [row[:] for row in W]
    for j in order:
        for i, row in enumerate(W):
            out[i][j] = rounded(i, j, W)
            error = (row[j] - out[i][j]) / left[j][j]
            for k in range(len(row)):
                row[k] -= error * left[j][k]
        left = eliminated(left, j)
    return out


def wanda(W, X, gone):
    """Zeros where |w| |X_j| is among the least of the row; `gone(scores)` says which."""
    norms = [math.sqrt(math.fsum(x[j] ** 2 for x in X) / len(X)) for j in range(len(X[0]))]
    return [cut(row, gone([abs(w) * norm for w, norm in zip(row, norms)])) for row in W]


def cut(row, gone):
    """A row with zeros in the columns of `gone`."""
    return [0.0 if j in gone else w for j, w in enumerate(row)]


def least(share):
    """Which columns have the least scores, int(n * share) of them; the lower column first."""
    return lambda scores: set(sorted(range(len(scores)), key=lambda j: (scores[j], j))[: int(len(scores) * share)])


def least_of(n, m):
    """n of every m."""

    def gone(scores):
        found = set()
        for start in range(0, len(scores), m):
            found |= set(sorted(range(start, start + m), key=lambda j: (scores[j], j))[:n])
        return found

    return gone


def sparsegpt(W, X, share, pattern=None, damp=0.01):
    """Prune what costs least, w^2 / U_jj^2, and let later columns make up for it: one block.

    1 / U_jj^2 is the diagonal of the inverse at the time when column j is visited.
    """
    H, dead = damped(hessian(X), damp)
    W = [[0.0 if j in dead else w for j, w in enumerate(row)] for row in W]
    steps, left = [], inverse(H)
    for j in range(len(H)):
        steps.append([value / left[j][j] for value in left[j]])
        steps[j].append(left[j][j])
        left = eliminated(left, j)
    cost = lambda i, j: W[i][j] ** 2 / steps[j][-1]
    gone = [set() for _ in W]
    if pattern is None:
        scores = sorted(cost(i, j) for i in range(len(W)) for j in range(len(H)))
        limit = scores[int(len(scores) * share)]
        gone = [{j for j in range(len(H)) if cost(i, j) <= limit} for i in range(len(W))]
    for j in range(len(H)):
        for i, row in enumerate(W):
            if pattern is not None and j % pattern[1] == 0:
                group = range(j, j + pattern[1])
                gone[i] |= set(sorted(group, key=lambda k: (cost(i, k), k))[: pattern[0]])
            if j in gone[i]:
                error = row[j]
                for k in range(j, len(row)):
                    row[k] -= error * steps[j][k]
                row[j] = 0.0
    return W


def smooth_scale(W, X, alpha, spans):
    """a^alpha / w^(1 - alpha); `spans` takes max - min of inputs and twice the largest weight."""
    scale = []
    for j in range(len(W[0])):
        column, w = [x[j] for x in X], max(abs(row[j]) for row in W)
        if spans:
            a = max(column) - min(column)
            s = a**alpha / (2 * w) ** (1 - alpha)
        else:
            s = max(abs(v) for v in column) ** alpha / max(w, 1e-5) ** (1 - alpha)
        scale.append(max(s, 1e-5))
    return scale


def awq_scale(W, X, points, size, bits, epsilon):
    """The s of least loss; points are (ratio, whether the weights take part)."""
    outs, ins = len(W), len(W[0])
    x = [math.fsum(abs(row[j]) for row in X) / len(X) for j in range(ins)]
    w = []
    for j in range(ins):
        group = range(j // size * size, j // size * size + size)
        shares = [abs(row[j]) / (max(abs(row[k]) for k in group) + epsilon) for row in W]
        w.append(math.fsum(shares) / outs)
    best, least_loss = None, math.inf
    for ratio, weights in points:
        s = [x[j] ** ratio / (w[j] ** (1 - ratio) + 1e-4 if weights else 1) for j in range(ins)]
        s = [max(v, 1e-4) for v in s]
        middle = math.sqrt(max(s) * min(s))
        s = [v / middle for v in s]
        error = []
        for row in W:
            scaled = [f32(a * f32(b)) for a, b in zip(row, s)]
            again = [q / b for q, b in zip(asymmetric(scaled, size, bits), s)]
            error.append([a - b for a, b in zip(row, again)])
        loss = math.fsum(math.fsum(a * b for a, b in zip(inputs, e)) ** 2 for inputs in X for e in error)
        if loss < least_loss:
            best, least_loss = s, loss
    return best


def asymmetric(row, size, bits):
    """Values of a row after rounding to 2^bits levels from min(x, 0) to max(x, 0) of each group."""
    out, top = [], 2**bits - 1
    for start in range(0, len(row), size):
        group = row[start : start + size]
        lo, hi = min(*group, 0.0), max(*group, 0.0)
        scale = f32(f32(hi - lo) / top)
        zero = -round(f32(lo / scale))
        out += [f32((min(max(round(f32(v / scale)) + zero, 0), top) - zero) * scale) for v in group]
    return out


def int8_rows(x, threshold, entries, reciprocal):
    """(codes, absmax, outlier columns) of LLM.int8()."""
    outliers = [j for j in range(len(x[0])) if threshold and any(abs(row[j]) >= threshold for row in x)]
    codes, largest = [], []
    for row in x:
        counted = lambda j, v: not threshold or (abs(v) < threshold if entries else j not in outliers)
        a = max((abs(v) for j, v in enumerate(row) if counted(j, v)), default=0.0)
        factor = 0.0 if a == 0 else f32(f32(1 / a) * 127) if reciprocal else f32(127 / a)
        line = [min(max(round(f32(v * factor)), -127), 127) for v in row]
        codes.append([0 if j in outliers else q for j, q in enumerate(line)])
        largest.append(a)
    return codes, largest, outliers


def int8_product(x, W, threshold, entries, reciprocal, constant):
    """x W^T with both in int8; outlier columns apart, decoded from int8 where `entries`, else as they were."""
    qx, ax, outliers = int8_rows(x, threshold, entries, reciprocal)
    qw, aw, _ = int8_rows(W, 0, entries, reciprocal)
    out = []
    for i, row in enumerate(x):
        line = []
        for o, weights in enumerate(W):
            y = sum(a * b for a, b in zip(qx[i], qw[o])) * ax[i] * aw[o] * constant
            wide = [qw[o][j] * aw[o] / 127 if entries else weights[j] for j in outliers]
            line.append(y + math.fsum(row[j] * w for j, w in zip(outliers, wide)))
        out.append(line)
    return out


def extremes(batches):
    """Smallest and largest of all."""
    return min(map(min, batches)), max(map(max, batches))


def moving(batches, constant):
    """Averages of the extremes in float32."""
    c, found = f32(constant), None
    for batch in batches:
        new = min(batch), max(batch)
        found = new if found is None else tuple(f32(m + f32(c * f32(v - m))) for m, v in zip(found, new))
    return found


def magnitude_counts(batches, bins, appending):
    """(counts, width, largest): bins of a power of two that hold all, or those of the first batch and more of them."""
    largest = max(abs(v) for batch in batches for v in batch)
    if not appending:
        width = 2.0**-160
        while largest >= bins * width:
            width *= 2
        counts = [0] * bins
        for batch in batches:
            for v in batch:
                counts[int(abs(v) / width)] += 1
        return counts, width, largest
    counts, width, seen = [0] * bins, 0.0, 0.0
    for batch in batches:
        amax = max(map(abs, batch))
        if not seen:
            width, seen = amax / bins, amax
        counts += [0] * ((math.ceil(amax / width) if width else 0) - len(counts))
        for v in batch:
            counts[min(int(abs(v) / width) if width else 0, len(counts) - 1)] += 1  # the end belongs to the last bin
    return counts, width, largest


def percentile(batches, share, bins, lower_edge):
    """The edge of the first bin at which the share is reached."""
    counts, width, largest = magnitude_counts(batches, bins, lower_edge)
    seen = list(accumulate(counts))
    i = next(i for i, total in enumerate(seen) if total / seen[-1] >= share / 100)
    return min((i + (not lower_edge)) * width, largest)


def entropy(batches, levels, bins, modelopt=False):
    """The clipping of least divergence."""
    counts, width, largest = magnitude_counts(batches, bins, modelopt)
    if modelopt:
        counts = [counts[1], *counts[1:]]
        found = [divergence(counts, kept, levels) for kept in range(128, len(counts) + 1)]
        best = max(i for i, each in enumerate(found) if each == min(found))
        return min((128 + best) * width, largest)
    counts = counts[: max(levels, max(i for i, c in enumerate(counts) if c) + 1)]
    found = [divergence(counts, kept, levels) for kept in range(levels, len(counts) + 1)]
    return min((levels + found.index(min(found)) + 0.5) * width, largest)


def divergence(counts, kept, levels):
    """Of the first bins, with what is beyond in the last of them, from themselves in so many stretches."""
    stretch = [i * levels // kept for i in range(kept)]
    sums, filled = [0] * levels, [0] * levels
    for i in range(kept):
        sums[stretch[i]] += counts[i]
        filled[stretch[i]] += counts[i] > 0
    Q = [sums[g] / filled[g] if c else 0.0 for c, g in zip(counts, stretch)]
    P = list(counts[:kept])
    P[-1] += sum(counts[kept:])
    pairs = [(p / sum(P), q) for p, q in zip(P, Q) if p]
    whole = sum(q for _, q in pairs)
    if any(q == 0 for _, q in pairs):
        return math.inf
    return math.fsum(p * math.log(p / (q / whole)) for p, q in pairs)


def searched(rows, factors, patience, scale_of, norm=2.4, mirrored=False):
    """For each row the shrunk range of least sum |x - x^|^norm; all stop after `patience` steps that helped none.

    scale_of(lo, hi)  (scale, zero_point, lowest and highest code) of a range
    """
    best = [(min(row), max(row)) for row in rows]
    if mirrored:
        best = [(-(max(-lo, hi) + 0.0), max(-lo, hi) + 0.0) for lo, hi in best]
    ends = best[:]
    least_error, idle = [math.inf] * len(rows), 0
    for factor in factors:
        helped = False
        for i, row in enumerate(rows):
            lo, hi = (f32(f32(factor) * end) for end in ends[i])
            scale, zero, low, high = scale_of(lo, hi)
            codes = [min(max(round(f32(v / scale)) + zero, low), high) if scale else zero for v in row]
            error = math.fsum(abs(v - f32((q - zero) * scale)) ** norm for v, q in zip(row, codes))
            if error < least_error[i]:
                least_error[i], best[i], helped = error, (lo, hi), True
        idle = 0 if helped else idle + 1
        if patience and idle >= patience:
            break
    return best
