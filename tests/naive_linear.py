"""Linear quantization by every field of a rule, one group at a time in float32. Imports the standard library only.

    settings   bits, signed, symmetric, and the fields in DEFAULTS by names of refquant/affine.py, which states the rule

A float32 operation is a float64 one rounded once more. Customs of other people's code are values of the fields,
in a table of their own: they were read in the projects that refquant/linear_dialects.py names.
"""

import math
from fractions import Fraction

from naive import FLT_MAX, FORMATS, round_integer, to_float
from naive_gguf import f32

LARGEST = f32(0.99 * float(FLT_MAX))
DEFAULTS = {
    "range_mode": "half", "zero_kind": "int", "zero_added": "after", "scale_dtype": "float32", "codes_from": "stored",
    "rounding": "half_even", "min_scale": 0.0, "min_range": 0.0, "flat_range": 0.0, "flat_scale": 0.0,
    "flat_zero": None, "arithmetic": "divide", "include_zero": True, "mirror": "always", "zero_rounded": "quotient",
}  # fmt: skip


def dialect(who, bits, signed):
    """What somebody's code does otherwise."""
    steps, half = 2**bits - 1, 2 ** (bits - 1)
    if who in ("awq", "smoothquant", "quanto", "bitsandbytes") and signed:
        fields = {"range_mode": "restricted"}
        if who == "bitsandbytes":
            fields["arithmetic"] = "reciprocal_multiplier"
        return fields | ({"min_range": 1e-5} if who in ("awq", "smoothquant") else {})
    return {
        "": {},
        "gptq": {
            "mirror": "negative", "flat_scale": 2 / steps, "flat_zero": round(f32(1 / f32(2 / steps))) - signed * half,
        },
        "compressed-tensors": {
            "zero_rounded": "difference", "zero_added": "before", "flat_scale": 2.0**-23, "flat_zero": 0.0,
        },
        "torchao": {"arithmetic": "reciprocal", "min_scale": 2.0**-126},
        "torch.ao": {"arithmetic": "reciprocal", "min_scale": 2.0**-23},
        "onnx": {"zero_rounded": "difference", "flat_scale": 1 / steps},
        "onnxruntime": {"zero_rounded": "difference", "flat_scale": 1.0},
        "awq": {"include_zero": False, "min_range": 1e-5},
        "quanto": {"include_zero": False, "zero_kind": "min"},
        "tinygemm": {"include_zero": False, "zero_kind": "mid", "min_scale": 1e-6},
        "hqq": {
            "include_zero": False, "zero_kind": "float", "zero_added": "before",
            "arithmetic": "reciprocal_multiplier", "min_scale": 1 / 2e4, "flat_range": 1e-4, "flat_scale": 1.0,
        },
    }[who]  # fmt: skip


def narrow(x, dtype):
    """The nearest number of a wider or narrower float, an infinity beyond it."""
    if dtype == "float32" or not math.isfinite(x):
        return f32(x)
    found = to_float(Fraction(x), FORMATS[dtype])
    return math.copysign(math.inf, x) if found is None else float(found)


def quotient(a, b):
    """In float32; x / 0 is an infinity."""
    return f32(a / b) if b else math.copysign(math.inf, a) * math.copysign(1, b)


def rounded(x, mode):
    """To an integer, as a float."""
    return float(round_integer(Fraction(x), mode)) if math.isfinite(x) else x


class Group:
    """One group under one rule."""

    def __init__(self, row, settings):
        self.row, self.s = row, {**DEFAULTS, **settings}
        bits, signed, symmetric = (self.s[name] for name in ("bits", "signed", "symmetric"))
        self.half = 2 ** (bits - 1)
        lowest = -self.half if signed else 0
        self.low = lowest + (symmetric and self.s["range_mode"] == "restricted")
        self.high = lowest + 2**bits - 1
        self.binary = symmetric and bits == 1
        self.middle = lowest + self.half - 0.5 * self.binary
        self.in_units_of_x = self.s["zero_kind"] in ("min", "mid")
        self.base = self.low + (self.s["zero_kind"] == "mid") * self.half

    def encoded(self, given=None):
        """(codes, scale, zero point)."""
        s, multiplier = self.s, None
        if given is None:
            wide, stored, flat, multiplier = self.scales()
            zero = self.zero(wide, stored, flat, multiplier)
            stored = self.held(stored, zero)
        else:
            stored = wide = narrow(given[0], s["scale_dtype"])
            zero = self.middle if s["symmetric"] else given[1]
            if not s["symmetric"] and s["zero_kind"] != "int":
                zero = narrow(zero, s["scale_dtype"])
        scale = wide if s["codes_from"] == "wide" and given is None else stored
        if s["arithmetic"] == "reciprocal":
            multiplier = quotient(1.0, scale) if scale else 0.0
            multiplier = None if math.isinf(multiplier) else multiplier
        elif multiplier is not None and math.isinf(multiplier):
            multiplier = 0.0
        return [self.code(v, scale, zero, multiplier) for v in self.row], stored, zero

    def code(self, v, scale, zero, multiplier):
        """Of one number."""
        if self.binary:
            return self.low if v < 0 else self.high
        if self.in_units_of_x:
            least = f32(zero - f32(scale * (self.base - self.low)))
            v, zero = f32(v - least), self.low
        q = self.divided(v, scale, multiplier)
        if self.s["zero_added"] == "before":
            q = rounded(f32(q + zero), self.s["rounding"])
        else:
            q = f32(rounded(q, self.s["rounding"]) + zero)
        return int(min(max(q, self.low), self.high))

    def divided(self, v, scale, multiplier):
        """v / scale, nothing where the scale is."""
        if multiplier is not None:
            return f32(v * multiplier)
        return quotient(v, scale) if scale else 0.0

    def ends(self):
        """lo, hi."""
        lo, hi = min(self.row), max(self.row)
        return (min(lo, 0.0), max(hi, 0.0)) if self.s["include_zero"] else (lo, hi)

    def reach(self):
        """(what is divided, by how many steps)."""
        mode, half, steps = self.s["range_mode"], self.half, 2 * self.half - 1
        if not self.s["symmetric"]:
            lo, hi = self.ends()
            return f32(hi - lo), steps
        amax = max(map(abs, self.row))
        if self.binary:
            mean = math.fsum(map(abs, self.row)) / len(self.row)
            return f32(2 * min(mean, 0.99 * float(FLT_MAX) / 2)), 1
        if mode == "signedmax":
            return next(v for v in self.row if abs(v) == amax), -half
        if mode == "covering":
            below, above = max(-min(self.row), 0.0), max(*self.row, 0.0)
            return (below, half) if f32(below / half) > f32(above / (half - 1)) else (above, half - 1)
        divisor = {"half": half - 0.5, "restricted": half - 1, "full": half}[mode]
        return amax, divisor * (2 if self.s["mirror"] == "negative" and min(self.row) >= 0 else 1)

    def scales(self):
        """(before narrowing, as stored, whether the group is flat, what x is multiplied by)."""
        s, multiplier = self.s, None
        reach, divisor = self.reach()
        flat = abs(reach) <= f32(s["flat_range"])
        if s["min_range"]:
            reach = math.copysign(max(abs(reach), f32(s["min_range"])), reach or 0.0)
        if s["arithmetic"].endswith("multiplier"):
            by_reciprocal = s["arithmetic"] == "reciprocal_multiplier"
            inverse = quotient(1.0, reach or 0.0)
            multiplier = f32(inverse * divisor) if by_reciprocal else quotient(divisor, reach or 0.0)
            if s["flat_scale"] and flat:
                multiplier = quotient(1.0, f32(s["flat_scale"]))
            if s["min_scale"]:
                multiplier = min(multiplier, quotient(1.0, f32(s["min_scale"])))
            wide = 0.0 if math.isinf(multiplier) else quotient(1.0, multiplier)
        else:
            wide = quotient(reach, divisor) + 0.0
            if math.isinf(reach):
                wide = f32(f32(max(self.row) / divisor) - f32(min(self.row) / divisor))
            if s["min_scale"]:
                wide = math.copysign(max(abs(wide), f32(s["min_scale"])), wide)
            if s["flat_scale"] and flat:
                wide = f32(s["flat_scale"])
        wide = min(max(wide, -LARGEST), LARGEST)
        stored = narrow(wide, s["scale_dtype"]) + 0.0
        if s["flat_scale"]:
            flat = flat or stored == 0
            stored = narrow(f32(s["flat_scale"]), s["scale_dtype"]) if flat else stored
            wide = wide or stored
        return wide, stored, flat, multiplier

    def zero(self, wide, stored, flat, multiplier):
        """The zero point."""
        s = self.s
        if s["symmetric"]:
            return self.middle
        lo, _ = self.ends()
        if self.in_units_of_x:
            zero = narrow(f32(lo + f32(wide * (self.base - self.low))), s["scale_dtype"])
        else:
            exact = self.divided(lo, wide if s["codes_from"] == "wide" else stored, multiplier)
            if s["zero_kind"] == "float":
                zero = narrow(f32(self.low - exact), s["scale_dtype"])
            else:
                if s["zero_rounded"] == "difference":
                    zero = rounded(f32(self.low - exact), s["rounding"])
                else:
                    zero = f32(self.low - rounded(exact, s["rounding"]))
                zero = min(max(zero, self.low), self.high)
        return f32(s["flat_zero"]) if s["flat_zero"] is not None and flat else zero

    def held(self, scale, zero):
        """Such that every code decodes to a finite number."""
        if abs(scale) * 2 ** self.s["bits"] <= 0.99 * float(FLT_MAX):
            return scale
        base = self.base if self.in_units_of_x else zero
        reach = max(abs(f32(self.low - base)), abs(f32(self.high - base)), 1)
        held = min(abs(scale), f32(0.99 * float(FLT_MAX) / reach))
        return narrow(math.copysign(held, scale), self.s["scale_dtype"])


def decoded(codes, scale, zero, settings):
    """Values of codes."""
    group = Group([0.0], settings)
    if group.in_units_of_x:
        return [f32(f32((q - group.base) * scale) + zero) for q in codes]
    return [f32(f32(q - zero) * scale) for q in codes]
