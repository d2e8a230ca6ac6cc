"""naive_dialects as a witness of schemes whose rule is somebody's code, and of codebooks that are fitted."""

import naive
import naive_dialects
import naive_floats
import naive_scaled
import numpy as np

from conformance.protocol import Unsupported
from refquant import affine, fitted, groups, mx, nvfp4, scaled_minifloat
from refquant.affine import Rule as PLAIN
from refquant.linear_dialects import dialects
from refquant.schemes import Scheme

FP4_ORDER = [0, 1, 6, 7, 4, 5, 2, 3]


def run(scheme: Scheme, op, params, inputs):
    """encode and decode."""
    if op == "decode":
        return {"values": decoded(scheme, inputs, tuple(params["shape"]))}
    x, rule, who = inputs["x"], scheme.rule, scheme.dialect
    if not x.size or not np.isfinite(x).all():
        raise Unsupported("refusals")
    if isinstance(rule, fitted.Rule):
        return fit(scheme, x)
    rows = [[float(v) for v in row] for row in groups.split("witness", x, scheme.granularity)]
    if isinstance(rule, nvfp4.Rule):
        codes, scales, kept = naive_dialects.nvfp4(rows, who)
        extra = {} if kept is None else {rule.extra: np.float32(kept)}
        return arranged(scheme, x, codes, scales) | extra
    if isinstance(rule, mx.Rule) and not who.startswith("torchao"):
        name = "int8" if rule.element is None else {"mxfp4": "e2m1", "mxfp8_e4m3": "e4m3fn"}[scheme.head]
        found = [naive_dialects.mx(row, name, who) for row in rows]
        dtype = np.int8 if name == "int8" else np.uint8
        return arranged(scheme, x, [c for c, _ in found], [2.0**e for _, e in found], dtype)
    if who == "bitsandbytes-cuda" and scheme.head in ("nf4", "bnb_fp4") and not rule.double:
        bounds, order = (
            (naive_scaled.NF4_CUDA, None) if scheme.head == "nf4" else (naive_scaled.FP4_LITERALS, FP4_ORDER)
        )
        found = [naive_dialects.cuda_codebook(row, None, bounds, order) for row in rows]
        return arranged(scheme, x, [c for c, _ in found], [s for _, s in found])
    if isinstance(rule, affine.Rule):
        return linear(scheme, x, rows)
    if isinstance(rule, scaled_minifloat.Rule):
        return scaled(scheme, x, rows)
    raise Unsupported(str(scheme))


def arranged(scheme, x, codes, scales, dtype=np.uint8):
    """Codes in the shape of x, scales in theirs."""
    scale = np.array(scales, np.float32).reshape(groups.scale_shape("witness", x.shape, scheme.granularity))
    return {"codes": groups.join(np.array(codes).astype(dtype), x.shape, scheme.granularity), "scale": scale}


def linear(scheme, x, rows):
    """Somebody's customs; and, without a dialect, a float zero point that is added before rounding."""
    rule, f32 = scheme.rule, naive_dialects.f32
    own = PLAIN(rule.bits, rule.signed, rule.symmetric, **dialects(rule.bits, rule.signed).get(scheme.dialect, {}))
    if scheme.dialect and rule == own:
        found = [naive_dialects.linear(row, rule.bits, rule.signed, rule.symmetric, scheme.dialect) for row in rows]
    elif rule == PLAIN(4, False, False, zero_kind="float", zero_added="before"):
        found = [_float_zero(row, f32) for row in rows]
    else:
        found = [None]
    if None in found:
        raise Unsupported(str(scheme))
    dtype = np.int8 if rule.signed else np.uint8
    made = arranged(scheme, x, [codes for codes, _, _ in found], [scale for _, scale, _ in found], dtype)
    zeros = np.array([float(zero) for _, _, zero in found], np.float32)
    zeros = zeros.astype(dtype) if rule.zero_kind == "int" and not rule.binary else zeros
    return made | {"zero_point": zeros[0] if rule.symmetric else zeros.reshape(made["scale"].shape)}


def _float_zero(row, f32):
    lo, hi = min(*row, 0.0), max(*row, 0.0)
    scale = f32(f32(hi - lo) / 15)
    zero = f32(0 - f32(lo / scale)) if scale else 0.0
    return [min(max(round(f32((f32(v / scale) if scale else 0.0) + zero)), 0), 15) for v in row], scale, zero


def scaled(scheme, x, rows):
    """FP8 under a scale, in formats without a negative zero, or with floors for the scale."""
    rule, name = scheme.rule, scheme.head.split("_")[-1]
    if rule.scale_dtype != "float32" or not rule.scaled or rule.rounding != "half_even":
        raise Unsupported(str(scheme))
    top = naive_dialects.value(len(naive_floats.magnitudes(name)) - 1, name)
    half = 1 << sum(naive_floats.FORMATS[name][:2])
    codes, scales = [], []
    for row in rows:
        amax = max(map(abs, row))
        scale = naive_dialects.f32(amax / top)
        if scheme.dialect == "auto-round":
            scale = max(scale, naive_dialects.f32(1 / (512 * top)))
        elif scheme.dialect == "compressed-tensors" and amax == 0:
            scale = 2.0**-23
        kind = "never" if name.endswith("fnuz") else "of x"
        line = []
        for v in row:
            code = naive_dialects.small_float(naive_dialects.f32(v / scale) if scale else 0.0, name)
            line.append(code + half * naive_dialects.sign(v, code, kind))
        codes.append(line)
        scales.append(scale)
    return arranged(scheme, x, codes, scales)


def fit(scheme, x):
    """Equal mass and k-means."""
    rule = scheme.rule
    rows = groups.split("witness", x, scheme.granularity).tolist()
    scales = [max(map(abs, row)) for row in rows] if rule.scaled else [1.0] * len(rows)
    units = [[naive_dialects.f32(v / s) if s else 0.0 for v in row] for row, s in zip(rows, scales)]
    make = naive_dialects.equal_mass if rule.fit == "quantile" else naive_dialects.lloyd
    k = 1 << rule.bits
    tables = [make(row, k) for row in units] if rule.own else [make([v for row in units for v in row], k)] * len(rows)
    codes = [[naive.nearest_level(naive.Fraction(v), table)[0] for v in row] for row, table in zip(units, tables)]
    made = (
        arranged(scheme, x, codes, scales)
        if rule.scaled
        else {"codes": groups.join(np.array(codes, np.uint8), x.shape, scheme.granularity)}
    )
    return made | {"levels": np.array(tables if rule.own else tables[0], np.float32)}


def decoded(scheme, inputs, shape):
    """Values of stored codes, one float32 product for each."""
    rule, f32 = scheme.rule, naive_dialects.f32
    rows = groups.split("witness", inputs["codes"], scheme.granularity).tolist()
    scales = inputs["scale"].reshape(-1).tolist() if "scale" in inputs else [None] * len(rows)
    if isinstance(rule, nvfp4.Rule) and "tensor_scale" in inputs:
        scales = [naive_dialects.mul(s, float(inputs["tensor_scale"])) for s in scales]
    elif isinstance(rule, nvfp4.Rule) and "global_scale" in inputs:
        scales = [naive_dialects.div(s, float(inputs["global_scale"])) for s in scales]
    out = []
    for i, (row, scale) in enumerate(zip(rows, scales)):
        if isinstance(rule, affine.Rule) and rule.zero_kind in ("int", "float", "min"):
            zero = inputs["zero_point"].reshape(-1)
            z = float(zero[min(i, len(zero) - 1)])
            if rule.zero_kind == "min":
                out.append([f32(f32(code * scale) + z) for code in row])
                continue
            out.append([f32(f32(code - z) * scale) for code in row])
            continue
        levels = _levels(scheme, inputs, i)
        out.append([levels[code] if scale is None else f32(levels[code] * scale) for code in row])
    return groups.join(np.array(out, np.float32), shape, scheme.granularity)


def _levels(scheme, inputs, i):
    """Exact floats by code."""
    rule = scheme.rule
    if isinstance(rule, fitted.Rule):
        return (inputs["levels"][i] if rule.own else inputs["levels"]).tolist()
    if isinstance(rule, mx.Rule) and rule.element is None:
        return {code: code / 64 for code in range(-128, 128)}
    names = {"nvfp4": "e2m1", "mxfp4": "e2m1", "mxfp8_e4m3": "e4m3fn"}
    name = names.get(scheme.head, scheme.head.split("_")[-1])
    if name in naive_floats.FORMATS:
        half = 1 << sum(naive_floats.FORMATS[name][:2])
        found = {}
        for code, value in enumerate(naive_floats.magnitudes(name)):
            found |= {code: float(value), code + half: -float(value)}
        return found
    if hasattr(rule, "levels"):
        return list(rule.levels)
    raise Unsupported(str(scheme))
