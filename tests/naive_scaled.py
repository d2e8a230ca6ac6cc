"""Small floats, microscaling and codebooks by every field of a rule, one group at a time. Standard library only.

A float32 operation is a float64 one rounded once more; the nearest small float is found among exact fractions. Customs
of other people's code are values of the fields, read in the projects that refquant/mx.py, nf4.py and fp4.py name.
"""

import bisect
import math
from fractions import Fraction
from itertools import pairwise

import naive
import naive_floats
from naive_gguf import f32
from naive_linear import narrow, quotient

TINY = 2.0**-126
MIRROR = {"half_up": "half_down", "half_down": "half_up"}
ELEMENTS = {
    "mxfp4": "e2m1", "mxfp6_e2m3": "e2m3", "mxfp6_e3m2": "e3m2", "mxfp8_e4m3": "e4m3fn", "mxfp8_e5m2": "e5m2",
    "mxint8": "int8", "nvfp4": "e2m1",
}  # fmt: skip


def code(x, name, rounding="half_even", zero_sign="kept"):
    """Of one float32 number, saturating; `zero_sign` says which zeros take the code of -0."""
    values = naive_floats.magnitudes(name)
    negative = math.copysign(1, x) < 0
    mode = MIRROR.get(rounding, rounding) if negative else rounding
    size = len(values) - 1 if math.isinf(x) else naive_floats.nearest(abs(Fraction(x)), values, mode)
    if size == 0:
        negative = {"kept": negative, "negative": x < 0, "dropped": False, "inverted": not x > 0}[zero_sign]
        negative = negative and not name.endswith("fnuz")
    return size + (negative << sum(naive_floats.FORMATS[name][:2]))


def value(number, name):
    """The float of a code."""
    half = 1 << sum(naive_floats.FORMATS[name][:2])
    size = float(naive_floats.magnitudes(name)[number % half])
    return -size if number >= half else size


def float_dialect(who, top):
    """compressed-tensors, auto-round."""
    return {"": {}, "compressed-tensors": {"zero_scale": 2.0**-23}, "auto-round": {"min_scale": 1 / (512 * top)}}[who]


def scaled_float(row, name, fields, given=None):
    """(codes, scale): the largest magnitude becomes the largest value."""
    top = float(naive_floats.magnitudes(name)[-1])
    if not fields.get("scaled", True):
        scale = 1.0
    elif given is None:
        amax = max(map(abs, row))
        held = f32(f32(0.99 * float(naive.FLT_MAX)) / top)
        scale = min(f32(amax / top), held) if amax else fields.get("zero_scale", 0.0)
        scale = narrow(max(scale, f32(fields.get("min_scale", 0.0))), fields.get("scale_dtype", "float32"))
    else:
        scale = narrow(given, fields.get("scale_dtype", "float32"))
    line = [quotient(v, scale) if scale else math.copysign(0.0, v) for v in row]
    return [code(v, name, fields.get("rounding", "half_even")) for v in line], scale


def mx_dialect(who, head):
    """Fields of a microscaled rule."""
    top = 127 / 64 if head == "mxint8" else float(naive_floats.magnitudes(ELEMENTS[head])[-1])
    emax = math.frexp(top)[1] - 1
    logged, minus, fp8 = {"logarithm": "float32"}, {"zero_sign": "negative"}, head == "mxfp8_e4m3"
    return {
        "": {}, "ocp": {},
        "microxcaling": {**logged, **minus, "rounding": "half_away"},
        "torchao": {"lowest_divisor": -126},
        "torchao-even": {"lowest_divisor": -126, "scale_rule": "even"},
        "torchao-ceil": {"lowest_divisor": -126, "scale_rule": "ceil"},
        "torchao-rceil": {"lowest_divisor": 0, "scale_rule": "rceil", **logged},
        "compressed-tensors": {"scale_rule": "even", "even_bits": 1, "zero_sign": "kept" if fp8 else "negative"},
        "modelopt": {"scale_rule": "rceil", **logged}
        | ({} if fp8 else {"rounding": "half_to_zero", "zero_sign": "inverted"}),
        "auto-round": {**logged, **minus, "zero_exponent": 1 - emax},
        "auto-round-rceil": {**logged, **minus, "zero_exponent": 1, "scale_rule": "rceil"},
        "ggml": {**logged, "rounding": "half_to_zero", "zero_sign": "dropped"},
    }[who]  # fmt: skip


def mx(row, head, fields):
    """(codes, scale) of one block."""
    name, amax = ELEMENTS[head], max(map(abs, row))
    e = exponent(amax, name, fields) if amax else fields.get("zero_exponent", -127)
    divisor = fields.get("lowest_divisor", -127) if e == -127 else e
    rounding, codes = fields.get("rounding", "half_even"), []
    for v in row:
        scaled = f32(v * 2.0**-divisor)
        if name == "int8":
            codes.append(min(max(naive.round_integer(Fraction(f32(scaled * 64)), rounding), -127), 127))
        else:
            codes.append(code(scaled, name, rounding, fields.get("zero_sign", "kept")))
    return codes, 2.0**e


def exponent(amax, name, fields):
    """Of the shared scale of a block that is not all zeros."""
    top = Fraction(127, 64) if name == "int8" else naive_floats.magnitudes(name)[-1]
    bits = 6 if name == "int8" else naive_floats.FORMATS[name][1]
    rule = fields.get("scale_rule", "floor")
    if fields.get("logarithm") != "float32" or rule == "nearest":
        even_bits = fields.get("even_bits")
        return naive_floats.mx_exponent(Fraction(amax), rule, top, bits if even_bits is None else even_bits)
    of_quotient = rule in ("rceil", "rne")
    size = f32(amax / float(top)) if of_quotient else amax
    if size == 0:
        return -127
    log = f32(math.log2(size))
    e = math.ceil(log) if rule.endswith("ceil") else round(log) if rule == "rne" else math.floor(log)
    return min(max(e - (0 if of_quotient else naive_floats.exponent(top)), -127), 127)


def nvfp4(rows, fields, given=None):
    """(codes, block scales, t): the default rule with another rounding, or another scale of the tensor."""
    amax = max(abs(v) for row in rows for v in row)
    if given is not None:
        t, g = given, quotient(1.0, given)
    else:
        g = min(quotient(2688.0, amax), float(naive.FLT_MAX)) if amax else 1.0
        t = quotient(1.0, g)
    codes, scales = [], []
    for row in rows:
        a = max(map(abs, row))
        s = value(code(f32(f32(a / 6) * g), "e4m3fn"), "e4m3fn")
        factor = min(quotient(1.0, f32(s * t)), float(naive.FLT_MAX)) if s else 0.0
        codes.append([code(f32(v * factor), "e2m1", fields.get("rounding", "half_even")) for v in row])
        scales.append(s)
    return codes, scales, t


def middles(levels):
    """Where the nearest level changes, in float32."""
    return [f32(f32(a / 2) + f32(b / 2)) for a, b in pairwise(levels)]


def flushed(x, fields):
    """Nothing for subnormal numbers, where a rule says so."""
    return 0.0 if fields.get("flush") and abs(x) < TINY else x


def codebook(row, fields):
    """(codes, scale): how many bounds lie below x over its largest magnitude."""
    scale = flushed(max(*map(abs, row), f32(fields.get("min_scale", 0.0))), fields)
    divisor = max(scale, f32(fields.get("min_divisor", 0.0)))
    levels, order = fields["levels"], fields.get("order")
    bounds = fields.get("bounds")
    if bounds is None:
        bounds = middles([f32(levels[i]) for i in order] if order else [f32(level) for level in levels])
    bounds, codes = [f32(b) for b in bounds], []
    for v in row:
        v = flushed(v, fields)
        if fields.get("reciprocal"):
            factor = quotient(1.0, divisor)
            x = math.nan if v == 0 and math.isinf(factor) else f32(v * factor)
        else:
            x = quotient(v, divisor) if divisor else 0.0
        x = flushed(x, fields)
        count = 0 if math.isnan(x) else bisect.bisect_left(bounds, x)
        codes.append(order[count] if order and not math.isnan(x) else count)
    if scale == 0 and fields.get("zero_code") is not None:
        codes = [fields["zero_code"]] * len(row)
    return codes, scale


NF4 = [  # QLoRA, appendix E
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def literals(text):
    """float32 numbers of decimals in a source: rounded once, as a compiler does, and not by way of float64."""
    return [float(naive.to_float(Fraction(word))) for word in text.split()]


NF4_CUDA = literals(  # csrc/kernels.cu
    "-0.8480964004993439 -0.6106329262256622 -0.4599952697753906 -0.33967943489551544 -0.23460740596055984 "
    "-0.13791173323988914 -0.045525018125772476 0.03979014977812767 0.1202552504837513 0.2035212516784668 "
    "0.2920137718319893 0.3893125355243683 0.5016634166240692 0.6427869200706482 0.8614784181118011"
)
AF4 = [  # Yoshida 2023, arXiv:2306.06965
    -1.0, -0.69441008, -0.51243739, -0.3736951, -0.25607552, -0.14982478, -0.04934812, 0.0, 0.04273164, 0.12934483,
    0.21961274, 0.31675666, 0.42563882, 0.55496234, 0.72424863, 1.0,
]  # fmt: skip
FP4 = [f32(n / 12) for n in (0, 1 / 16, 8, 12, 4, 6, 2, 3)]  # get_4bit_type, by code
FP4_ASCENDING = [0, 1, 6, 7, 4, 5, 2, 3]
FP4_LITERALS = literals("0.00260417 0.0859375 0.20833333 0.29166667 0.4166667 0.583333 0.8333333")


def four_bits(row, head, who):
    """(codes, scale) of bitsandbytes' NF4 and FP4, by the code of each back end."""
    clamped = {"reciprocal": True, "min_divisor": 1e-38}
    fields = {
        "": {}, "bitsandbytes-default": clamped, "bitsandbytes-cpu": clamped,
        "bitsandbytes-default-tail": {"min_scale": 1e-38},
        "bitsandbytes-cuda": {"reciprocal": True, "flush": True},
        "bitsandbytes-triton": {"zero_code": 15 if head == "nf4" else 3},
    }[who]  # fmt: skip
    if head == "nf4":
        return codebook(row, fields | {"levels": NF4} | ({"bounds": NF4_CUDA} if who == "bitsandbytes-cuda" else {}))
    sizes = [FP4[i] for i in FP4_ASCENDING]
    if fields is clamped:  # sorted by value, so that the code of -0 (a zero) comes after that of +0
        bounds = [-b for b in reversed(middles(sizes))] + [0.0] + middles(sizes)
        order = [i + 8 for i in reversed(FP4_ASCENDING[1:])] + [0, 8] + FP4_ASCENDING[1:]
        return codebook(row, fields | {"levels": FP4, "bounds": bounds, "order": order})
    bounds = middles(sizes) if who == "" else FP4_LITERALS
    codes, scale = codebook([abs(v) for v in row], fields | {"levels": sizes, "bounds": bounds, "order": FP4_ASCENDING})
    if scale == 0:
        return codes, scale
    return [c + 8 * (flushed(v, fields) < 0) for c, v in zip(codes, row)], scale


def dynamic(row, levels, who):
    """(codes, scale) of bitsandbytes' 8 bits. Its CPU library rounds to one of 65536 points of -1 .. 1 first."""
    fields = {
        "": {}, "bitsandbytes-cuda": {"reciprocal": True, "flush": True},
        "bitsandbytes-default": {"reciprocal": True, "min_divisor": 1e-38}, "bitsandbytes-cpu": None,
    }[who]  # fmt: skip
    if fields is not None:
        return codebook(row, fields | {"levels": levels})
    scale = max(map(abs, row))
    if scale == 0:
        return [0] * len(row), scale
    bounds, factor, codes = middles(levels), quotient(1.0, scale), []
    for v in row:
        if v == 0 and math.isinf(factor):
            codes.append(0)
            continue
        x = min(max(f32(v * factor), -1.0), 1.0)
        point = int(f32(f32(f32(f32(x + 1.0) * 0.5) * 65535.0) + 0.5))
        at = f32(-1.0 + f32(f32(point * 2.0) / 65535.0))
        codes.append(bisect.bisect_left(bounds, at))
    return codes, scale


def double_quantized(scales, levels):
    """(decoded scales, codes, largest of each 256, mean) of bitsandbytes' compress_statistics by the published rule."""
    mean = f32(math.fsum(scales) / len(scales))
    codes, largest, decoded = [], [], []
    for at in range(0, len(scales), 256):
        line, top = dynamic([f32(s - mean) for s in scales[at : at + 256]], levels, "")
        codes, largest = codes + line, [*largest, top]
        decoded += [f32(f32(levels[c] * top) + mean) for c in line]
    return decoded, codes, largest, mean
