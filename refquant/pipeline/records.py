"""Quantized tensors as the records of refquant.layouts: what a layout writes, proved to be the same numbers.

    fitted(scheme, layout, dtype)     the scheme with scales in the dtype that the layout stores
    record(tensor, layout, dtype)     Linear, Floating, FourBit or RowInt8

    layout here            of layouts.LAYOUTS                                         scales
    compressed-tensors     pack-quantized, int-quantized (8 bits), float-quantized    the model's dtype
    gptq, gptq_v2          the same                                                   float16
    awq-gemm, -gemv        the same                                                   float16
    bitsandbytes           bitsandbytes-nf4, -fp4, -int8                              float32

The codes are found with scales that were rounded to their dtype already, so writing changes nothing.
"""

import numpy as np

from refquant import affine, codebook, dynamic_map, scaled_minifloat
from refquant.errors import RangeError, SchemeError
from refquant.layouts.bitsandbytes import FourBit, Nested, RowInt8
from refquant.layouts.catalogue import Record
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear, middle
from refquant.schemes import Scheme
from refquant.tensor import QuantizedTensor

HALF_SCALES = ("gptq", "awq")
FOUR_BIT = {"nf4": "nf4", "bnb_fp4": "fp4"}


def layout_of(scheme: Scheme, layout: str, packed: bool = True) -> str:
    """The entry of layouts.LAYOUTS for a scheme. Raises SchemeError where the layout has no such numbers."""
    rule = scheme.rule
    if layout == "compressed-tensors":
        if isinstance(rule, affine.Rule):
            return "int-quantized" if rule.bits == 8 and not packed else "pack-quantized"
        if isinstance(rule, scaled_minifloat.Rule) and scheme.head == "fp8_e4m3fn" and rule.scaled:
            return "float-quantized"
    elif layout == "bitsandbytes":
        if scheme.head in FOUR_BIT:
            return f"bitsandbytes-{FOUR_BIT[scheme.head]}"
        if scheme.head == "int8" and scheme.granularity.kind == "token":
            return "bitsandbytes-int8"
    elif layout.startswith(HALF_SCALES) and isinstance(rule, affine.Rule):
        return layout
    raise SchemeError(f"records: {scheme} as {layout}, expected a format that this layout holds")


def fitted(scheme: Scheme, layout: str, dtype: str) -> Scheme:
    """`scheme` with the scale dtype of the layout; `dtype` is the model's."""
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
    elif isinstance(rule, scaled_minifloat.Rule):
        outs, ins = tensor.shape
        size = (
            ins if tensor.scheme.granularity.kind in ("channel", "token", "tensor") else tensor.scheme.granularity.size
        )
        scale = np.broadcast_to(
            tensor.scale.reshape(len(tensor.scale) if tensor.scale.ndim else 1, -1), (outs, -(-ins // size))
        )
        made = Floating(tensor.codes, "e4m3fn", np.ascontiguousarray(scale), rule.scale_dtype, (1, size))
    elif isinstance(rule, codebook.Rule):
        made = _four_bit(tensor, layout, dtype)
    else:
        raise SchemeError(f"records: {tensor.scheme}, expected integers, fp8_e4m3fn or a 4-bit codebook")
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
