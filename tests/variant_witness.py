"""naive_spelling, naive_linear and naive_scaled as a witness of schemes said in words, of fields of rules, of sizes."""

import math
import re

import naive
import naive_dialects
import naive_floats
import naive_levels
import naive_linear
import naive_scaled
import naive_spelling
import numpy as np

from conformance.protocol import Unsupported


def run(member, op, params, inputs):
    """encode, decode and size of variant.*"""
    try:
        return _answer(member, op, params, inputs)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError, ZeroDivisionError) as why:
        raise Unsupported(f"refusals: {why}") from why


def _answer(member, op, params, inputs):
    name = params.get("scheme", member)
    if op == "size":
        bits, count = naive_spelling.size(name, params["shape"])
        return {"bits_per_weight": np.float64(bits), "bytes": np.int64(count)}
    if params.get("words"):
        head, at, who = name.partition("@")
        name = f"{head}-{params['words']}{at}{who}"
    said = naive_spelling.parse(name)
    said.fields |= params.get("fields", {})
    if op == "decode":
        return {"values": Array(said, tuple(params["shape"]), inputs["codes"]).decoded(inputs)}
    x = inputs["x"]
    if not x.size or not np.isfinite(x).all():
        raise Unsupported("refusals")
    return Array(said, x.shape, x).encoded(inputs)


class Array:
    """An array cut into who shares a scale."""

    def __init__(self, said, shape, array):
        self.said, self.shape = said, shape
        self.scales, self.places = naive_spelling.members(shape, said.grain)
        flat = array.reshape(-1).tolist()
        self.rows = [[flat[place] for place in places] for places in self.places]

    def arranged(self, codes, scales, dtype=np.uint8):
        """codes in the shape of x, scales in theirs."""
        made = np.zeros(math.prod(self.shape), dtype)
        for places, row in zip(self.places, codes):
            made[places] = row
        found = {"codes": made.reshape(self.shape)}
        return found if scales is None else found | {"scale": np.array(scales, np.float32).reshape(self.scales)}

    def each(self, values):
        """One for each group of what is given."""
        flat = values.reshape(-1).tolist()
        if len(flat) not in (1, len(self.rows)):
            raise Unsupported("refusals")
        return flat * len(self.rows) if len(flat) == 1 else flat

    def encoded(self, inputs):
        """By the family of the head."""
        head, fields, who = self.said.head, self.said.fields, self.said.dialect
        if re.fullmatch(r"u?int\d", head):
            return self.linear(inputs)
        if head.startswith("mx"):
            fields = naive_scaled.mx_dialect(who, head) | fields
            codes, scales = zip(*(naive_scaled.mx(row, head, fields) for row in self.rows))
            return self.arranged(codes, scales, np.int8 if head == "mxint8" else np.uint8)
        if head == "nvfp4" and who and not fields and ("scale" not in inputs or who not in ("ggml", "torchao-local")):
            codes, scales, kept = naive_dialects.nvfp4(self.rows, who, *self.given(inputs))
            name = "global_scale" if who in ("compressed-tensors", "auto-round") else "tensor_scale"
            return self.arranged(codes, scales) | ({} if kept is None else {name: np.float32(kept)})
        if head == "nvfp4" and not who:
            codes, scales, t = naive_scaled.nvfp4(self.rows, fields, *self.given(inputs))
            return self.arranged(codes, scales) | {"tensor_scale": np.float32(t)}
        if head.startswith("fp") and "_" in head:
            return self.scaled_floats(inputs)
        if head == "nf4" and "double" not in fields and not who:
            rule = {"levels": naive_scaled.NF4} | fields
            return self.arranged(*zip(*(naive_scaled.codebook(row, rule) for row in self.rows)))
        if head == "af4" and not fields:
            rule = {"levels": naive_scaled.AF4}
            return self.arranged(*zip(*(naive_scaled.codebook(row, rule) for row in self.rows)))
        if head in ("nf4", "bnb_fp4") and fields == {"double": True} and not who:
            codes, scales = zip(*(naive_scaled.four_bits(row, head, "") for row in self.rows))
            table = naive_levels.dynamic_map(8, 7, True)
            decoded, inner, largest, mean = naive_scaled.double_quantized(list(scales), table)
            found = {"scale_codes": np.array(inner, np.uint8), "scale_absmax": np.float32(largest)}
            return self.arranged(codes, decoded) | found | {"scale_offset": np.float32(mean)}
        if head in ("nf4", "bnb_fp4") and not fields:
            return self.arranged(*zip(*(naive_scaled.four_bits(row, head, who) for row in self.rows)))
        if head.endswith("dynamic8"):
            table = naive_levels.dynamic_map(8, 7, head == "dynamic8")
            return self.arranged(*zip(*(naive_scaled.dynamic(row, table, who) for row in self.rows)))
        if head.startswith(("kmeans", "quantile", "codebook")) and not fields:
            return self.fitted(inputs)
        raise Unsupported(str(self.said))

    def given(self, inputs):
        """The one scale of a tensor that the caller knows, if any."""
        return [float(inputs["scale"].item())] if "scale" in inputs else []

    def settings(self):
        """All fields of a linear rule."""
        head, fields = self.said.head, self.said.fields
        bits, signed = int(head[-1]), fields.get("signed", head[0] == "i")
        bits = fields.get("bits", bits)
        own = naive_linear.dialect(self.said.dialect, bits, signed)
        return {"bits": bits, "signed": signed, "symmetric": head[0] == "i"} | own | fields

    def linear(self, inputs):
        """codes, scale, zero_point."""
        settings, given = self.settings(), [None] * len(self.rows)
        if "scale" in inputs:
            zeros = self.each(inputs["zero_point"]) if "zero_point" in inputs else [0.0] * len(self.rows)
            given = list(zip(self.each(inputs["scale"]), zeros))
        groups = [naive_linear.Group(row, settings) for row in self.rows]
        codes, scales, zeros = zip(*(group.encoded(each) for group, each in zip(groups, given)))
        if not all(map(math.isfinite, scales)):
            raise Unsupported("refusals")
        dtype = np.int8 if settings["signed"] else np.uint8
        kind = dtype if groups[0].s["zero_kind"] == "int" and not groups[0].binary else np.float32
        zero = np.array(zeros[:1] if settings["symmetric"] else zeros, np.float32).astype(kind)
        zero = zero.reshape(() if settings["symmetric"] else self.scales)
        return self.arranged(codes, scales, dtype) | {"zero_point": zero}

    def scaled_floats(self, inputs):
        """codes, scale."""
        name = self.said.head.split("_")[1]
        top = float(naive_floats.magnitudes(name)[-1])
        fields = naive_scaled.float_dialect(self.said.dialect, top) | self.said.fields
        given = self.each(inputs["scale"]) if "scale" in inputs else [None] * len(self.rows)
        found = [naive_scaled.scaled_float(row, name, fields, each) for row, each in zip(self.rows, given)]
        codes, scales = zip(*found)
        clips = any(abs(v) > s * top * 1.001 for row, s in zip(self.rows, scales) for v in row)
        if not all(map(math.isfinite, scales)) or (clips and fields.get("overflow") == "special"):
            raise Unsupported("refusals, and infinities")
        return self.arranged(codes, scales if fields.get("scaled", True) else None)

    def fitted(self, inputs):
        """codes, scale, levels; one table for all."""
        k, kind = 1 << int(self.said.head[-1]), self.said.head[:-1]
        scales = [max(map(abs, row)) for row in self.rows]
        units = [[naive_dialects.f32(v / s) if s else 0.0 for v in row] for row, s in zip(self.rows, scales)]
        flat = [v for row in units for v in row]
        if kind == "codebook":
            table = inputs["levels"].tolist()
        elif kind == "quantile":
            table = naive_dialects.equal_mass(flat, k)
        else:
            given = inputs["weights"].reshape(-1).tolist() if "weights" in inputs else None
            weights = given and [given[place] for places in self.places for place in places]
            table = naive_levels.lloyd(flat, k, weights)
        codes = [[naive.nearest_level(naive.Fraction(v), table)[0] for v in row] for row in units]
        return self.arranged(codes, scales) | {"levels": np.array(table, np.float32)}

    def decoded(self, inputs):
        """Values of stored codes."""
        head = self.said.head
        scales = self.each(inputs["scale"]) if "scale" in inputs else [1.0] * len(self.rows)
        if re.fullmatch(r"u?int\d", head):
            zeros = self.each(inputs["zero_point"])
            parts, settings = zip(self.rows, scales, zeros), self.settings()
            rows = [naive_linear.decoded(*each, settings) for each in parts]
            return self.arranged(rows, None, np.float32)["codes"]
        levels = self.levels(inputs)
        if head == "nvfp4" and "tensor_scale" in inputs:
            scales = [naive_dialects.mul(s, float(inputs["tensor_scale"])) for s in scales]
        elif head == "nvfp4" and "global_scale" in inputs:
            scales = [naive_dialects.div(s, float(inputs["global_scale"])) for s in scales]
        rows = [[naive_dialects.f32(levels[code] * s) for code in row] for row, s in zip(self.rows, scales)]
        return self.arranged(rows, None, np.float32)["codes"]

    def levels(self, inputs):
        """The float of every code."""
        head = self.said.head
        if head == "mxint8":
            return {code: code / 64 for code in range(-128, 128)}
        if "levels" in inputs:
            return inputs["levels"].tolist()
        if head in ("nf4", "af4"):
            return [naive_dialects.f32(v) for v in getattr(naive_scaled, head.upper())]
        if head == "bnb_fp4":
            return [*naive_scaled.FP4, 0.0, *(-v for v in naive_scaled.FP4[1:])]  # -0 is written as an integer
        if head.endswith("dynamic8"):
            return naive_levels.dynamic_map(8, 7, head == "dynamic8")
        name = naive_scaled.ELEMENTS.get(head, head.split("_")[-1])
        count = 2 * (1 << sum(naive_floats.FORMATS[name][:2]))
        finite = len(naive_floats.magnitudes(name))
        return {c: naive_scaled.value(c, name) for c in range(count) if c % (count // 2) < finite}
