"""Tables of levels once more: k-means by cuts, the dynamic map by its recipe. Imports the standard library only.

optimal   every way to cut the sorted values into intervals, the last cut by dynamic programming in exact fractions
lloyd     the alternation of the papers, from the start that refquant/kmeans.py states
"""

from fractions import Fraction
from itertools import pairwise

from naive import to_float
from naive_dialects import _interpolated, ascending, quantile
from naive_gguf import f32


def dynamic_map(bits, exponent_bits, signed):
    """bitsandbytes' create_dynamic_map: middles of equal parts of 0.1 .. 1, times a power of ten."""
    spare = 2 ** (bits - 1 - exponent_bits) - 1
    levels = [0.0, 1.0]
    parts = [(e, 2 ** (e + bits - exponent_bits - signed)) for e in range(exponent_bits)]
    for e, count in [*parts, *([(exponent_bits - 1, spare)] if spare else [])]:
        factor = f32(10.0 ** (e - exponent_bits + 1))
        for middle in middles(count):
            levels += [f32(factor * middle), -f32(factor * middle)] if signed else [f32(factor * middle)]
    return sorted(levels)


def middles(count):
    """Means of the neighbours of torch.linspace(0.1, 1, count + 1): counted from the nearer end."""
    low = f32(0.1)
    step = f32(f32(1 - low) / count)
    cuts = [f32(low + step * i) if i < (count + 1) // 2 else f32(1 - step * (count - i)) for i in range(count + 1)]
    return [f32(f32(a + b) / 2) for a, b in pairwise(cuts)]


def lloyd(values, k, weights=None, rounds=1000):
    """Ascending float32 levels; means are exact and rounded to float64."""
    pairs = sorted(zip(values, weights or [1.0] * len(values)), key=lambda pair: pair[0])
    values = [v for v, _ in pairs]
    edges = [quantile(values, i / (16 * k)) for i in range(16 * k + 1)]
    filled = [0.0]
    for a, b in pairwise(edges):
        filled.append(filled[-1] + (b - a) ** (2 / 3))
    levels, cuts = [_interpolated((i + 0.5) / k * filled[-1], filled, edges) for i in range(k)], None
    for _ in range(rounds):
        before, cuts = cuts, [sum(v <= (a + b) / 2 for v in values) for a, b in pairwise(levels)]
        if cuts == before:
            break
        for i, (a, b) in enumerate(pairwise([0, *cuts, len(values)])):
            mass = sum(Fraction(w) for _, w in pairs[a:b])
            if mass:
                levels[i] = float(sum(Fraction(v) * Fraction(w) for v, w in pairs[a:b]) / mass)
    return ascending(sorted(f32(level) for level in levels))


def optimal(values, k, weights=None):
    """The levels of least weighted squared error; of equal costs the earliest cut."""
    mass = {}
    for v, w in zip(values, weights or [1.0] * len(values)):
        mass[v] = mass.get(v, Fraction(0)) + Fraction(w)
    distinct = sorted(mass)
    n = len(distinct)
    if n <= k:
        return ascending(distinct + [distinct[-1]] * (k - n))

    def mean(a, b):
        total = sum(mass[v] for v in distinct[a:b])
        return sum(Fraction(v) * mass[v] for v in distinct[a:b]) / total if total else Fraction(distinct[a])

    def error(a, b):
        middle = mean(a, b)
        return sum(mass[v] * (Fraction(v) - middle) ** 2 for v in distinct[a:b])

    best = {(1, b): (error(0, b), [0]) for b in range(1, n + 1)}
    for j in range(2, k + 1):
        for b in range(j, n + 1):
            tries = [(best[j - 1, a][0] + error(a, b), a) for a in range(j - 1, b)]
            cost, a = min(tries)
            best[j, b] = cost, [*best[j - 1, a][1], a]
    return ascending([float(to_float(mean(a, b))) for a, b in pairwise([*best[k, n][1], n])])
