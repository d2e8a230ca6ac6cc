"""Other people's encoders of small floats and codebooks, one number at a time. Imports the standard library only.

Written from their sources as refquant/mx.py, nvfp4.py, nf4.py and fp4.py name them, not from those pages: a float32
operation is a float64 one that is rounded once more, and the nearest small float is found among exact fractions.
"""

import math
from fractions import Fraction
from itertools import pairwise

import naive_floats
from naive_gguf import f32

LARGEST = float(naive_floats.FLT_MAX)
TINY = 2.0**-126


def div(a, b):
    """IEEE: x / 0 is an infinity, 0 / 0 is NaN."""
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    return f32(a / b)


def mul(a, b):
    """One float32 product."""
    return f32(a * b)


def small_float(x, name, mode="half_even"):
    """Code of |x|, saturating; infinity is the largest."""
    values = naive_floats.magnitudes(name)
    return len(values) - 1 if math.isinf(x) else naive_floats.nearest(abs(Fraction(x)), values, mode)


def value(code, name):
    """The float of a code without sign."""
    return float(naive_floats.magnitudes(name)[code])


def sign(x, code, kind):
    """Whether the sign bit is set."""
    if kind == "of x":
        return math.copysign(1, x) < 0
    if kind == "negative":
        return x < 0
    if kind == "not positive":
        return not x > 0
    return x < 0 and code > 0  # "never" for zeros


def nvfp4(rows, who, given=None):
    """(codes, block scales, scale of the tensor or None). rows: blocks of 16 floats; given: the scale of the tensor."""
    amax = max(abs(v) for row in rows for v in row)
    g, t = _tensor(amax, who)
    if given is not None:
        g, t = (given, div(1.0, given)) if who in ("compressed-tensors", "auto-round") else (div(1.0, given), given)
        amax = mul(given, 2688)
    codes, scales = [], []
    for row in rows:
        a = max(abs(v) for v in row)
        s = _block(a, g, t, amax, who)
        line = []
        for v in row:
            if who == "ggml":  # the first of the least distances, in float32
                code = min(range(8), key=lambda k: abs(f32(value(k, "e2m1") * s) - abs(v)) if k else abs(v))
                line.append(code + 8 * (v < 0 and code > 0))
                continue
            scaled = _scaled(v, s, g, t, who)
            code = small_float(scaled, "e2m1")
            kind = "of x" if who in ("", "torchao", "torchao-local") else "negative"
            line.append(code + 8 * sign(scaled, code, kind))
        codes.append(line)
        scales.append(s)
    kept = None if who in ("torchao-local", "ggml") else g if who in ("compressed-tensors", "auto-round") else t
    return codes, scales, kept


def _tensor(amax, who):
    if amax == 0 or who in ("torchao-local", "ggml"):
        return 1.0, 1.0
    if who in ("modelopt", "modelopt-static", "torchao"):
        t = f32(amax / 2688)
        return (div(1.0, t), t) if t else (1.0, 1.0)
    g = mul(2688, div(1.0, amax)) if who in ("compressed-tensors", "auto-round") else div(2688.0, amax)
    if math.isinf(g):
        g = 1.0 if who == "compressed-tensors" else LARGEST
    return g, div(1.0, g)


def _block(a, g, t, amax, who):
    if who == "ggml":
        return _ue4m3(f32(a / 6))
    sixth = f32(1 / 6)
    wide = {
        "transformer-engine": lambda: mul(a, mul(g, sixth)),
        "auto-round": lambda: mul(g, mul(a, sixth)),
        "modelopt": lambda: div(a, mul(6, t)),
        "modelopt-static": lambda: div(mul(f32(a / 6) if a else 1.0, 448), f32(amax / 6)),
        "torchao": lambda: div(f32(a / 6), t),
    }.get(who, lambda: mul(f32(a / 6), g))()
    least = {"modelopt": 2.0**-9, "modelopt-static": 2.0**-9, "torchao": 2.0**-6, "torchao-local": 2.0**-6}
    if who == "modelopt" and wide == 0:
        wide = 1.0
    s = value(small_float(max(wide, least.get(who, 0.0)), "e4m3fn"), "e4m3fn")
    return 0.125 if who == "compressed-tensors" and s == 0 else s


def _ue4m3(x):
    """ggml: ties go up, since only the first dropped bit is looked at; 448 is the end."""
    x = min(x, 448.0)
    if x < 2.0**-6:
        return min(math.floor(x * 512 + 0.5), 7) / 512
    exponent = math.frexp(x)[1] - 1
    return min(math.floor(x / 2.0 ** (exponent - 3) + 0.5) * 2.0 ** (exponent - 3), 448.0)


def _scaled(v, s, g, t, who):
    if s == 0:
        return mul(v, LARGEST if who == "transformer-engine" else 0.0)
    if who == "compressed-tensors":
        return div(v, div(s, g))
    if who in ("modelopt", "modelopt-static"):
        return div(v, mul(s, t))
    if who in ("torchao", "torchao-local"):
        return mul(v, div(g, s))
    return mul(v, min(div(1.0, mul(s, t)), LARGEST))


def mx(row, name, who):
    """(codes, exponent) of one block of 32. name: a small float, or int8."""
    amax = max(abs(v) for v in row)
    top = 127 / 64 if name == "int8" else value(len(naive_floats.magnitudes(name)) - 1, name)
    emax = math.frexp(top)[1] - 1
    ceiling = who in ("modelopt", "auto-round-rceil", "torchao-rceil")
    if amax == 0:
        e = {"auto-round": 1 - emax, "auto-round-rceil": 1}.get(who, -127)
    elif who == "compressed-tensors":
        e = naive_floats.mx_exponent(Fraction(amax), "even", Fraction(top), 1)
    elif who in ("", "ocp"):
        e = naive_floats.mx_exponent(Fraction(amax), "floor", Fraction(top), 1)
    else:
        size = f32(amax / top) if ceiling else amax
        log = f32(math.log2(size)) if size else -math.inf
        e = -127 if math.isinf(log) else math.ceil(log) if ceiling else math.floor(log) - emax
    e = min(max(e, -127), 127)
    mode = {"microxcaling": "half_away", "ggml": "half_to_zero"}.get(who, "half_even")
    if who == "modelopt" and name == "e2m1":
        mode = "half_to_zero"
    kind = {"": "of x", "ocp": "of x", "modelopt": "of x", "ggml": "never"}.get(who, "negative")
    if who == "modelopt" and name == "e2m1":
        kind = "not positive"
    if who == "compressed-tensors" and name != "e2m1":
        kind = "of x"
    codes = []
    for v in row:
        scaled = f32(v * 2.0**-e)
        if name == "int8":
            whole = math.floor(abs(scaled) * 64 + 0.5) if mode == "half_away" else round(abs(scaled) * 64)
            codes.append(int(math.copysign(min(whole, 127), v)))
            continue
        code = small_float(scaled, name, mode)
        half = 1 << sum(naive_floats.FORMATS[name][:2])
        codes.append(code + half * sign(v, code, kind))
    return codes, e


def flushed(x):
    """What GPU code with fast math makes of a subnormal number."""
    return 0.0 if abs(x) < TINY else x


def cuda_codebook(row, levels, bounds, signed_zero):
    """(codes, scale): x * (1 / s) against ascending bounds; signed_zero: codes of magnitudes under a sign bit."""
    scale = flushed(max(abs(v) for v in row))
    factor = div(1.0, scale)
    codes = []
    for v in row:
        v = flushed(v)
        scaled = math.nan if v == 0 and math.isinf(factor) else flushed(mul(v, factor))
        if signed_zero is None:
            codes.append(sum(scaled > bound for bound in bounds))
        else:
            codes.append(signed_zero[sum(abs(scaled) > bound for bound in bounds)] + 8 * (scaled < 0))
    return codes, scale


def quantile(sorted_values, share):
    """By straight lines between order statistics, as float32."""
    position = share * (len(sorted_values) - 1)
    left = int(position)
    right = min(left + 1, len(sorted_values) - 1)
    part = position - left
    return f32(sorted_values[left] * (1 - part) + sorted_values[right] * part)


def equal_mass(values, k):
    """Levels at the middle of k equal shares, each above the one before."""
    values = sorted(values)
    return ascending([quantile(values, (i + 0.5) / k) for i in range(k)])


def ascending(levels):
    """Each level moved to the next float32 where it does not exceed the one before."""
    out = [levels[0]]
    for level in levels[1:]:
        out.append(level if level > out[-1] else next_float(out[-1]))
    return out


def next_float(x):
    """The float32 above x."""
    unit = 2.0**-149
    while f32(x + unit) <= x:
        unit *= 2
    step = unit
    while step > 2.0**-149 and f32(x + step / 2) > x:
        step /= 2
    return f32(x + step)


def lloyd(values, k):
    """k-means from levels whose density is the cube root of that of the data; cuts half way, means in between."""
    values = sorted(values)
    edges = [quantile(values, i / (16 * k)) for i in range(16 * k + 1)]
    filled = [0.0]
    for a, b in pairwise(edges):
        filled.append(filled[-1] + (b - a) ** (2 / 3))
    levels, cuts = [_interpolated((i + 0.5) / k * filled[-1], filled, edges) for i in range(k)], None
    for _ in range(1000):
        before = cuts
        middles = [(a + b) / 2 for a, b in pairwise(levels)]
        cuts = [sum(v <= m for v in values) for m in middles]
        if cuts == before:
            break
        ends = [0, *cuts, len(values)]
        for i, (a, b) in enumerate(pairwise(ends)):
            if b > a:
                levels[i] = math.fsum(values[a:b]) / (b - a)
    return ascending(sorted(f32(level) for level in levels))


def _interpolated(x, xs, ys):
    if x >= xs[-1]:
        return ys[-1]
    i = max(j for j in range(len(xs)) if xs[j] <= x)
    return ys[i] + (ys[i + 1] - ys[i]) * (x - xs[i]) / (xs[i + 1] - xs[i])


def linear(row, bits, signed, symmetric, who):
    """(codes, scale, zero point) of a group by somebody's customs; None where they are not written here."""
    n, h = 2**bits - 1, 2 ** (bits - 1)
    low = -h if signed else 0
    amax, lo, hi = max(map(abs, row)), min(*row, 0.0), max(*row, 0.0)
    if who in ("smoothquant", "bitsandbytes") or (symmetric and who in ("awq", "quanto")):
        return _restricted(row, h, amax, who, 0 if signed else h)
    if who in ("awq", "quanto", "tinygemm", "hqq"):
        return _own_range(row, n, low, h, who)
    if bits == 1 or who not in ("gptq", "compressed-tensors", "torchao", "torch.ao", "onnx", "onnxruntime"):
        return None
    scale = f32(amax / (h - 0.5)) if symmetric else f32(f32(hi - lo) / n)
    if who == "gptq" and symmetric and min(row) >= 0:
        scale = f32(amax / n)
    flat = {"gptq": 2 / n, "compressed-tensors": 2.0**-23, "onnx": 1 / n, "onnxruntime": 1.0}
    if who in ("torchao", "torch.ao"):
        scale = max(scale, 2.0**-126 if who == "torchao" else 2.0**-23)
    is_flat = amax == 0 or scale == 0
    if is_flat and who in flat:
        scale = f32(flat[who])
    if symmetric:
        zero = low + h
    else:
        shift = mul(lo, div(1.0, scale)) if who in ("torchao", "torch.ao") else f32(lo / scale)
        whole = who in ("gptq", "torchao", "torch.ao")
        zero = low - round(shift) if whole else round(f32(low - shift))
        zero = min(max(zero, low), low + n)
    if is_flat and who == "gptq":
        zero = round(f32(1 / f32(2 / n))) - signed * h
    if is_flat and who == "compressed-tensors":
        zero = 0
    codes = []
    for v in row:
        q = mul(v, div(1.0, scale)) if who in ("torchao", "torch.ao") else f32(v / scale)
        q = round(f32(q + zero)) if who == "compressed-tensors" else round(q) + zero
        codes.append(min(max(q, low), low + n))
    return codes, scale, zero


def _restricted(row, h, amax, who, zero):
    """As many steps above zero as below it."""
    if who == "bitsandbytes":
        factor = mul(div(1.0, amax), h - 1)
        scale = 0.0 if math.isinf(factor) else div(1.0, factor)
        return [(0 if math.isinf(factor) else round(mul(v, factor))) + zero for v in row], scale, zero
    scale = f32((amax if who == "quanto" else max(amax, f32(1e-5))) / (h - 1))
    return [(min(max(round(f32(v / scale)), 1 - h), h - 1) if scale else 0) + zero for v in row], scale, zero


def _own_range(row, n, low, h, who):
    """From the least to the largest number, zero among them or not."""
    lo, hi = min(row), max(row)
    span = f32(hi - lo)
    if who == "awq":
        scale = f32(max(span, f32(1e-5)) / n)
        zero = min(max(low - round(f32(lo / scale)), low), low + n)
        return [min(max(round(f32(v / scale)) + zero, low), low + n) for v in row], scale, zero
    if who == "hqq":
        factor = 1.0 if span <= f32(1e-4) else min(mul(div(1.0, span), n), f32(1 / f32(1 / 2e4)))
        zero = f32(low - mul(lo, factor))
        codes = [min(max(round(f32(mul(v, factor) + zero)), low), low + n) for v in row]
        return codes, div(1.0, factor), zero
    scale = f32(span / n)
    if who == "tinygemm":
        scale = max(scale, f32(1e-6))
        zero = f32(lo + mul(scale, h))
        lo = f32(zero - mul(scale, h))
    else:
        zero = lo
    return [min(max(round(f32(f32(v - lo) / scale)) if scale else 0, 0), n) + low for v in row], scale, zero
