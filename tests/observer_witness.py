"""naive_methods as a witness of observers, alone and merged; scale and zero point by exact fractions."""

import math

import naive_linear
import naive_methods
import naive_spelling
import numpy as np
from naive_gguf import f32

from conformance.protocol import Unsupported

SEARCHES = {  # factors, patience, power of the error, whether the range is mirrored
    "llm-compressor": ([1 - i / 100 for i in range(20)], 5, 2.4, False),
    "gptq": ([1 - i / 100 for i in range(80)], None, 2.4, False),
    "torchao": ([i / 100 for i in range(1, 101)], None, 2.0, True),
}


def run(member, params, inputs):
    """range."""
    try:
        return _observe(member, dict(params), inputs)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError) as why:
        raise Unsupported(f"refusals: {why}") from why


def _observe(member, params, inputs):
    name, _, dialect = member.partition("@")
    scheme, other = naive_spelling.parse(params.pop("scheme")), params.pop("other", {})
    batches = [inputs[f"batch{i}"] for i in range(len(inputs))]
    merge = params.pop("merge", None)
    merge = None if merge in (0, len(batches)) else merge  # one of the two saw nothing
    if any(params.get(key) != value for key, value in other.items()) or not all(np.isfinite(b).all() for b in batches):
        raise Unsupported("refusals")
    grain = scheme.grain if name in ("min-max", "moving-average", "mean-squared-error") else "tensor"
    shape, _ = naive_spelling.members(batches[0].shape, grain)
    rows = []  # of each batch, of each group
    for batch in batches:
        flat = batch.reshape(-1).tolist()
        rows.append([[flat[place] for place in places] for places in naive_spelling.members(batch.shape, grain)[1]])
    settings = _settings(scheme)
    ranges = [_range(name, dialect, params, group, settings, merge) for group in zip(*rows)]
    if name == "mean-squared-error":
        ranges = _searched(params, settings, rows, merge)
    lo, hi = (np.array(ends, np.float32).reshape(shape) for ends in zip(*ranges))
    found = [naive_linear.Group([float(a), float(b)], settings).encoded() for a, b in zip(lo.ravel(), hi.ravel())]
    answer = {"lo": lo, "hi": hi, "scale": np.array([s for _, s, _ in found], np.float32).reshape(shape)}
    if not settings["symmetric"]:
        whole = settings.get("zero_kind", "int") == "int"
        kind = np.float32 if not whole else np.int8 if settings["signed"] else np.uint8
        answer["zero_point"] = np.array([z for _, _, z in found], np.float32).astype(kind).reshape(shape)
    return answer


def _settings(scheme):
    signed = scheme.head[0] == "i"
    return {"bits": int(scheme.head[-1]), "signed": signed, "symmetric": signed} | scheme.fields


def _range(name, dialect, params, batches, settings, merge):
    """(lo, hi) of one group."""
    if name == "min-max":
        return tuple(v + 0.0 for v in naive_methods.extremes(batches))
    if name == "moving-average":
        parts = [p for p in (batches[:merge], batches[merge:]) if p] if merge is not None else [batches]
        return _joined([(naive_methods.moving(part, params.get("constant", 0.01)), len(part)) for part in parts])
    if name == "mean-squared-error":
        return None
    if name == "histogram":
        return Histogram(params.get("bins", 2048), params.get("bits", 8)).seen(batches, merge)
    if merge is not None and dialect:
        raise Unsupported("bins of different widths")
    largest = max(abs(v) for batch in batches for v in batch)
    bins = params.get("bins", 2048)
    if largest == 0:
        top = 0.0
    elif name == "percentile":
        top = naive_methods.percentile(batches, params.get("percentile", 99.99), bins, bool(dialect))
    else:
        levels = 2 ** (params.get("bits", 8) - params.get("signed", True))
        top = naive_methods.entropy(batches, levels, bins, bool(dialect))
    top = f32(top)
    return (-top if any(v < 0 for batch in batches for v in batch) else 0.0), top


def _joined(parts):
    """Means weighted by batches."""
    if len(parts) == 1:
        return parts[0][0]
    count = sum(n for _, n in parts)
    return tuple(f32(sum(n * ends[i] for ends, n in parts) / count) for i in (0, 1))


def _searched(params, settings, rows, merge):
    """Each batch searched alone; the answers averaged."""
    factors, patience, norm, mirrored = SEARCHES[params.get("search", "llm-compressor")]
    if settings["bits"] == 1 and settings["symmetric"]:
        raise Unsupported("refusals")
    low = -(2 ** (settings["bits"] - 1)) if settings["signed"] else 0

    def scale_of(lo, hi):
        _, scale, zero = naive_linear.Group([lo, hi], settings).encoded()
        return scale, zero, low, low + 2 ** settings["bits"] - 1

    c = f32(params.get("constant", 0.01))
    parts = [part for part in (rows[:merge], rows[merge:]) if part] if merge is not None else [rows]
    found = []
    for part in parts:
        now = None
        for batch in part:
            best = naive_methods.searched(batch, factors, patience, scale_of, norm, mirrored)
            best = [tuple(map(f32, ends)) for ends in best]
            move = lambda m, x: f32(m + f32(c * f32(x - m)))
            now = best if now is None else [tuple(map(move, old, new)) for old, new in zip(now, best)]
        found.append((now, len(part)))
    return [_joined([(now[g], n) for now, n in found]) for g in range(len(rows[0]))]


class Histogram:
    """torch.ao's HistogramObserver in plain numbers: counts, wider ranges, and the search for the least error."""

    def __init__(self, bins, bits):
        self.bins, self.levels, self.counts, self.ends = bins, 2**bits, None, None

    def seen(self, batches, merge=None):
        """(lo, hi) after the batches, those from `merge` on counted by another one."""
        for batch in batches if merge is None else batches[:merge]:
            self.widen(min(batch), max(batch))
            for v in batch:
                self.counts[self.bin(v, f32)] += 1
        if merge is not None and batches[merge:]:
            second = Histogram(self.bins, 0)
            second.seen(batches[merge:])
            self.widen(*second.ends)
            self.counts = [a + b for a, b in zip(self.counts, second.moved(*self.ends))]
        lo, hi = self.ends
        if lo == hi or self.levels == 1:
            return lo, hi
        first, last = self.search()
        width = (hi - lo) / self.bins
        return f32(lo + width * first), f32(lo + width * (last + 1))

    def bin(self, v, rounded=float, ends=None):
        """Which bin holds v."""
        lo, hi = ends or self.ends
        if lo == hi:
            return 0
        span, start = rounded(hi - lo), rounded(v - lo)
        if math.isinf(span):
            span, start = rounded(hi / 2 - lo / 2), rounded(v / 2 - lo / 2)
        return min(max(int(rounded(rounded(start / span) * self.bins)), 0), self.bins - 1)

    def widen(self, lo, hi):
        """To a range that holds both."""
        if self.counts is None:
            self.counts, self.ends = [0.0] * self.bins, (lo, hi)
        ends = min(lo, self.ends[0]), max(hi, self.ends[1])
        self.counts, self.ends = self.moved(*ends), ends

    def moved(self, lo, hi):
        """The counts in bins of another range: sixteenths of bins go where their middles are."""
        if (lo, hi) == self.ends:
            return self.counts
        out, (a, b) = [0.0] * self.bins, self.ends
        for i in range(16 * self.bins):
            middle = a + (b - a) * ((i + 0.5) / (16 * self.bins))
            out[self.bin(middle, float, (lo, hi))] += self.counts[i // 16] / 16
        return out

    def search(self):
        """First and last bin that stay."""
        total, shares = math.fsum(self.counts), []
        for count in self.counts:
            shares.append(count + (shares[-1] if shares else 0.0))
        first, last, least, alpha, beta = 0, self.bins - 1, math.inf, 0.0, 1.0
        while alpha < beta:
            low, high = alpha + 1e-5, beta - 1e-5
            left, right = first, last
            while left < last and shares[left] < low * total:
                left += 1
            while right > first and shares[right] > high * total:
                right -= 1
            if left - first > last - right:
                alpha, tried = low, (left, last)
            else:
                beta, tried = high, (first, right)
            if tried == (first, last):
                continue
            error = self.error(*tried)
            if error > least:
                break
            (first, last), least = tried, error
        return first, last

    def error(self, first, last):
        """Sum over bins of the count times the integral of the square of the distance to the nearest level."""
        cell = (last - first + 1) / self.levels
        cube = lambda a, b: (b**3 - a**3) / 3
        terms = []
        for i, count in enumerate(self.counts):
            begin, end = i - first, i + 1 - first
            of_begin, of_end = (min(max(math.floor(x / cell), 0), self.levels - 1) for x in (begin, end))
            whole = (of_end - of_begin - 1) * cube(-cell / 2, cell / 2)
            tail, head = cube(begin - (of_begin + 0.5) * cell, cell / 2), cube(-cell / 2, end - (of_end + 0.5) * cell)
            terms.append(count * (tail + whole + head))
        return math.fsum(terms)
