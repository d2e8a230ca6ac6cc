"""The naive references as a witness: exact fractions in plain Python, which share no code with refquant.

    PYTHONPATH=tests python -m conformance run --backend tests/exact_witness.py --json

They know no sign of zero: codes of small floats that are zero are taken with the sign of x, and nothing is said about
NaN.
"""

from collections.abc import Mapping
from fractions import Fraction

import checkpoint_witness
import dialect_witness
import layout_witness
import level_witness
import method_witness
import minifloat_witness
import model_witness
import naive
import naive_floats
import numpy as np
import stream_witness
import variant_witness

from conformance.protocol import Arrays, Unsupported
from refquant import affine, fitted, groups, mx, nf4, nvfp4, scaled_minifloat
from refquant.errors import QuantError
from refquant.schemes import SCHEMES

NAME = "naive.py (exact fractions)"
RULES = {"nf4": nf4.RULE, "af4": SCHEMES["af4"].rule}
LARGEST = Fraction(0.99 * float(np.finfo(np.float32).max))


def version() -> str:
    """Of the tree."""
    return "of this tree"


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """Outputs; nothing is said about refusals, which are rules and no arithmetic."""
    try:
        return answer(algorithm, op, params, inputs)
    except QuantError as why:
        raise Unsupported(f"refusals: {why}") from why


def answer(algorithm, op, params, inputs):
    """By the family, a module each; here linear schemes, codebooks, scaled floats and microscaling by the book."""
    family, _, member = algorithm.partition(".")
    if family == "checkpoint":
        return checkpoint_witness.run(member, op, params, inputs)
    if family == "layout":
        return layout_witness.run(member, op, params, inputs)
    if family in ("bits", "words", "tensor"):
        return stream_witness.run(family, member, op, params, inputs)
    if family == "levels":
        return level_witness.run(member, params, inputs)
    if family == "gguf":
        return model_witness.decode_blocks(member, op, inputs)
    if family in ("product", "layer", "sampler", "model"):
        return model_witness.run(member, op, params, inputs)
    if family in ("observer", "method"):
        return method_witness.run(family, member, op, params, inputs)
    if family == "minifloat":
        return minifloat_witness.run(member, op, params, inputs)
    if family == "variant":
        return variant_witness.run(member, op, params, inputs)
    if family != "scheme" or member not in SCHEMES:
        raise Unsupported(f"{algorithm} {op}")
    return of_scheme(SCHEMES[member], algorithm, op, params, inputs)


def of_scheme(scheme, algorithm, op, params, inputs):
    """encode and decode of a scheme, by the kind of its rule."""
    if scheme.dialect or isinstance(scheme.rule, fitted.Rule | nvfp4.Rule) or _is_odd(scheme):
        return dialect_witness.run(scheme, op, params, inputs)
    if op == "encode" and (not inputs["x"].size or not np.isfinite(inputs["x"]).all()):
        raise Unsupported("refusals")
    rule = scheme.rule
    kinds = {
        "linear": isinstance(rule, affine.Rule) and rule.zero_kind == "int" and (op == "decode" or _is_plain(rule)),
        "codebook": scheme.head in ("nf4", "af4") and rule == RULES[scheme.head],
        "microscaled": isinstance(rule, mx.Rule) and (op == "decode" or rule == mx.Rule(rule.element, rule.scale_rule)),
        "float": isinstance(rule, scaled_minifloat.Rule) and (op == "decode" or rule.rounding == "half_even"),
    }
    if (
        op == "encode"
        and getattr(scheme.rule, "scale_dtype", "float32") == "float16"
        and np.abs(inputs["x"]).max() > 1e5
    ):
        raise Unsupported("scales beyond float16")
    for name, is_it in kinds.items():
        if is_it and op == "encode":
            return FUNCTIONS[name](scheme, inputs["x"])
        if is_it:
            return decoded(scheme, name, inputs, params["shape"])
    return variant_witness.run(algorithm.partition(".")[2], op, params, inputs)


def _is_plain(rule):
    """Whether naive.linear knows all that the rule says."""
    known = {name: getattr(rule, name) for name in ("range_mode", "scale_dtype", "rounding")}
    return rule.range_mode != "covering" and rule == affine.Rule(rule.bits, rule.signed, rule.symmetric, **known)


def _is_odd(scheme):
    """Float zero points, and small floats without a negative zero."""
    return getattr(scheme.rule, "zero_kind", "int") == "float" or scheme.head.endswith("fnuz")


def linear(scheme, x):
    """codes, scale, zero_point."""
    rule = scheme.rule
    options = (rule.bits, rule.signed, rule.symmetric, rule.range_mode, rule.scale_dtype, rule.rounding)
    found = [naive.linear([float(v) for v in row], *options) for row in groups.split("naive", x, scheme.granularity)]
    dtype = np.int8 if rule.signed else np.uint8
    zeros = np.array([float(z) for _, _, z in found], np.float32)
    zeros = zeros if rule.symmetric and rule.bits == 1 else zeros.astype(dtype)
    made = arranged(scheme, x.shape, np.array([c for c, _, _ in found], dtype), [float(s) for _, s, _ in found])
    return made | {"zero_point": zeros[0] if rule.symmetric else zeros.reshape(made["scale"].shape)}


def codebook(scheme, x):
    """codes, scale."""
    rows = groups.split("naive", x, scheme.granularity)
    found = [naive.codebook([float(v) for v in row], list(map(float, scheme.rule.levels))) for row in rows]
    return arranged(scheme, x.shape, np.array([c for c, _ in found], np.uint8), [float(s) for _, s in found])


def microscaled(scheme, x):
    """codes, scale."""
    name = scheme.head.removeprefix("mx").split("_")[-1] if scheme.head != "mxfp4" else "e2m1"
    name = {"e4m3": "e4m3fn", "mxint8": "int8"}.get(name, name)
    name = "int8" if scheme.head == "mxint8" else name
    codes, scales = [], []
    for row in groups.split("naive", x, scheme.granularity):
        values, exponent = naive_floats.mx([float(v) for v in row], name, scheme.rule.scale_rule)
        units = [v / Fraction(2) ** exponent for v in values]
        scales.append(float(Fraction(2) ** exponent))
        codes.append([int(64 * u) for u in units] if name == "int8" else signed_codes(name, units, row))
    return arranged(scheme, x.shape, np.array(codes, np.int8 if name == "int8" else np.uint8), scales)


def scaled_float(scheme, x):
    """codes, scale."""
    name, rule = scheme.head.split("_")[-1], scheme.rule
    values, codes, scales = naive_floats.magnitudes(name), [], []
    if name.endswith("fnuz") or rule.scale_dtype != "float32":
        raise Unsupported("zeros without a sign")
    for row in groups.split("naive", x, scheme.granularity) if rule.scaled else x.reshape(1, -1):
        scale = naive.to_float(max(abs(Fraction(float(v))) for v in row) / values[-1]) if rule.scaled else Fraction(1)
        if scale is None or scale > LARGEST / values[-1]:
            raise Unsupported("scales that are held")
        scales.append(float(scale))
        units = [naive.to_float(Fraction(float(v)) / scale) if scale else Fraction(0) for v in row]
        units = [(1 if u > 0 else -1) * values[naive_floats.nearest(abs(u), values)] for u in units]
        codes.append(signed_codes(name, units, row))
    if not rule.scaled:
        return {"codes": np.array(codes, np.uint8).reshape(x.shape)}
    return arranged(scheme, x.shape, np.array(codes, np.uint8), scales)


def signed_codes(name, units, row):
    """Codes of exact values; the sign is that of x."""
    values = naive_floats.magnitudes(name)
    half = 1 << sum(naive_floats.FORMATS[name][:2])
    code = {value: i for i, value in enumerate(values)}
    return [code[abs(u)] + half * bool(np.signbit(v)) for u, v in zip(units, row)]


def arranged(scheme, shape, codes, scales):
    """codes in the shape of x, scales in theirs."""
    scale = np.array(scales, np.float32).reshape(groups.scale_shape("naive", shape, scheme.granularity))
    return {"codes": groups.join(codes, shape, scheme.granularity), "scale": scale}


def decoded(scheme, kind, inputs, shape):
    """Values of stored codes."""
    shape, scales = tuple(shape), inputs.get("scale", np.float32(1)).reshape(-1)
    kind_of = scheme.granularity
    rows = groups.split("naive", inputs["codes"], kind_of) if "scale" in inputs else inputs["codes"].reshape(1, -1)
    zeros = np.broadcast_to(inputs.get("zero_point", np.float32(0)).reshape(-1), len(rows)).astype(float)
    out = []
    for row, scale, zero in zip(rows.tolist(), map(Fraction, scales.tolist()), map(Fraction, zeros.tolist())):
        if kind == "linear":
            values = naive.decode_linear(row, scale, zero)
        else:
            table = levels(scheme, kind)
            values = [naive.to_float(table[c] * scale) for c in row]
        out.append([np.inf if v is None else float(v) for v in values])
    values = np.array(out, np.float32)
    return {"values": groups.join(values, shape, kind_of) if "scale" in inputs else values.reshape(shape)}


def levels(scheme, kind):
    """Exact values by code."""
    if kind == "codebook":
        return [Fraction(float(v)) for v in scheme.rule.levels]
    if scheme.head == "mxint8":
        return {c: Fraction(c, 64) for c in range(-128, 128)}
    name = {"mxfp4": "e2m1", "mxfp8_e4m3": "e4m3fn"}.get(scheme.head, scheme.head.split("_")[-1])
    if name.endswith("fnuz"):
        raise Unsupported("zeros without a sign")
    values = naive_floats.magnitudes(name)
    half = 1 << sum(naive_floats.FORMATS[name][:2])
    return {c + half * s: (1 - 2 * s) * v for c, v in enumerate(values) for s in (0, 1)}


FUNCTIONS = {"linear": linear, "codebook": codebook, "microscaled": microscaled, "float": scaled_float}
