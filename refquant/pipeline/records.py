"""Quantized tensors as the records of refquant.layouts: what a layout writes, proved to be the same numbers.

    fitted(scheme, layout, dtype)     the scheme with the scales that the layout stores
    record(tensor, layout, dtype)     Linear, Floating, FourBit or RowInt8

    layout here            of layouts.LAYOUTS                                         scales
    compressed-tensors     pack-quantized, int-quantized (8 bits), float-quantized    the model's dtype
                           mxfp4-pack-quantized, mxfp8-quantized                      e8m0
                           nvfp4-pack-quantized                                       e4m3fn, divided by a float32
    gptq, gptq_v2          the same                                                   float16
    awq-gemm, -gemv        the same                                                   float16
    bitsandbytes           bitsandbytes-nf4, -fp4, -int8                              float32

nvfp4 multiplies by a scale t of the tensor; compressed-tensors stores its inverse g and divides. 1 / t is rounded, so
`fitted` makes of `nvfp4` the dialect that finds g, and the other dialects that store t are refused.

The codes are found with scales that were rounded to their dtype already, so writing changes nothing.
"""

from dataclasses import replace

import numpy as np

from refquant import affine, codebook, dynamic_map, minifloat, mx, nvfp4, scaled_minifloat
from refquant.errors import RangeError, SchemeError
from refquant.layouts.bitsandbytes import FourBit, Nested, RowInt8
from refquant.layouts.catalogue import Record
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear, middle
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

HALF_SCALES = ("gptq", "awq")
FOUR_BIT = {"nf4": "nf4", "bnb_fp4": "fp4"}
FP8_GRANULARITIES = ("tensor", "channel", "token", "b128x128")
MICROSCALED = {"mxfp4": ("e2m1", "mxfp4-pack-quantized"), "mxfp8_e4m3": ("e4m3fn", "mxfp8-quantized")}


def layout_of(scheme: Scheme, layout: str, packed: bool = True) -> str:
    """The entry of layouts.LAYOUTS for a scheme. Raises SchemeError where the layout has no such numbers."""
    rule = scheme.rule
    if layout == "compressed-tensors":
        if isinstance(rule, affine.Rule):
            return "int-quantized" if rule.bits == 8 and not packed else "pack-quantized"
        if scheme.head == "fp8_e4m3fn" and rule.scaled and str(scheme.granularity) in FP8_GRANULARITIES:
            return "float-quantized"
        if isinstance(rule, mx.Rule) and scheme.head in MICROSCALED and scheme.granularity == mx.BLOCK:
            return MICROSCALED[scheme.head][1]
        if isinstance(rule, nvfp4.Rule) and rule.stored != "t" and scheme.granularity == nvfp4.BLOCK:
            return "nvfp4-pack-quantized"
    elif layout == "bitsandbytes":
        if scheme.head in FOUR_BIT:
            return f"bitsandbytes-{FOUR_BIT[scheme.head]}"
        if scheme.head == "int8" and scheme.granularity.kind == "token":
            return "bitsandbytes-int8"
    elif layout.startswith(HALF_SCALES) and isinstance(rule, affine.Rule):
        return layout
    raise SchemeError(f"records: {scheme} as {layout}, expected a format that this layout holds")


def fitted(scheme: Scheme, layout: str, dtype: str) -> Scheme:
    """`scheme` with the scales of the layout; `dtype` is the model's."""
    if scheme.rule == nvfp4.RULE and layout == "compressed-tensors":
        return replace(scheme, rule=nvfp4.Rule(**nvfp4.DIALECTS["compressed-tensors"]))
    if not isinstance(scheme.rule, affine.Rule | scaled_minifloat.Rule) or layout.startswith("bitsandbytes"):
        return scheme
    return scheme.with_options(scale_dtype="float16" if layout.startswith(HALF_SCALES) else dtype)


def record(tensor: QuantizedTensor, layout: str, dtype: str) -> Record:
    """The numbers of `tensor` (out, in) for `layout`, an entry of LAYOUTS; `dtype` is the model's.

    Raises RangeError if the record does not stand for the same numbers, SchemeError for other formats.
    """
    rule = tensor.scheme.rule
    if layout == "bitsandbytes-int8":
        made: Record = RowInt8(tensor.codes, (tensor.scale[:, 0] * np.float32(127)).astype(np.float32))
        return made  # q * SCB / 127 is bitsandbytes' own arithmetic: an ulp beside q * scale
    if isinstance(rule, affine.Rule):
        made = _linear(tensor, rule)
    elif isinstance(rule, scaled_minifloat.Rule | mx.Rule | nvfp4.Rule):
        made = _floating(tensor, rule)
    elif isinstance(rule, codebook.Rule):
        made = _four_bit(tensor, layout, dtype)
    else:
        raise SchemeError(f"records: {tensor.scheme}, expected integers, small floats or a 4-bit codebook")
    if not np.array_equal(made.dequantize(), tensor.dequantize()):
        raise RangeError(f"records: {tensor.scheme} as {layout} gives other numbers, expected the same")
    return made


def _linear(tensor: QuantizedTensor, rule: affine.Rule) -> Linear:
    outs, ins = tensor.shape
    half = 1 << (rule.bits - 1) if rule.signed else 0
    granularity = tensor.scheme.granularity
    size = granularity.size if granularity.kind == "group" else ins
    if granularity.kind not in ("group", "channel", "token", "tensor"):
        raise SchemeError(f"records: granularity = {granularity}, expected groups within a row")
    codes = (tensor.codes.astype(np.int16) + half).astype(np.uint8)
    shape = (outs, -(-ins // size))
    scale = np.ascontiguousarray(np.broadcast_to(tensor.scale.reshape(-1, shape[1]), shape))
    if rule.symmetric:
        zero = middle(rule.bits, shape)
    else:
        zero = np.ascontiguousarray(np.broadcast_to(tensor.zero_point.reshape(-1, shape[1]), shape))
        zero = zero if zero.dtype == np.float32 else (zero.astype(np.int16) + half).astype(np.int16)
    return Linear(codes, scale, zero, rule.bits, size, rule.scale_dtype, g_idx=tensor.extras.get("g_idx"))


def _floating(tensor: QuantizedTensor, rule: scaled_minifloat.Rule | mx.Rule | nvfp4.Rule) -> Floating:
    outs, ins = tensor.shape
    if isinstance(rule, mx.Rule):
        scale = minifloat.encode(tensor.scale, minifloat.FORMATS["e8m0"])
        return Floating(tensor.codes, MICROSCALED[tensor.scheme.head][0], scale, "e8m0", (1, mx.BLOCK.size))
    if isinstance(rule, nvfp4.Rule):
        scale = minifloat.encode(tensor.scale, nvfp4.E4M3)
        g = None if rule.extra is None else np.float32(tensor.extras[rule.extra])
        return Floating(tensor.codes, "e2m1", scale, "e4m3fn", (1, nvfp4.BLOCK.size), g, divide=rule.stored == "g")
    granularity = tensor.scheme.granularity
    rows, size = (granularity.rows, granularity.size) if granularity.size else (1, ins)
    scale = np.broadcast_to(tensor.scale.reshape(-1, -(-ins // size)), (-(-outs // rows), -(-ins // size)))
    return Floating(tensor.codes, "e4m3fn", np.ascontiguousarray(scale), rule.scale_dtype, (rows, size))


def _four_bit(tensor: QuantizedTensor, layout: str, dtype: str) -> FourBit:
    rule, extras = tensor.scheme.rule, tensor.extras
    absmax: np.ndarray | Nested = tensor.scale.reshape(-1)
    if "scale_codes" in extras:
        table = dynamic_map.RULE.table
        absmax = Nested(extras["scale_codes"], extras["scale_absmax"], table, float(extras["scale_offset"]))
    kind = layout.removeprefix("bitsandbytes-")
    size = tensor.scheme.granularity.size
    table = np.zeros(16, np.float32)
    table[: len(rule.table)] = rule.table
    return FourBit(tensor.codes.reshape(-1), absmax, table, kind, size, tuple(tensor.shape), dtype)
