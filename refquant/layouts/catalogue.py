"""Every layout by name: the arrays it has, how to read them into a record and how to write them from one.

    LAYOUTS["awq-gemm"].unpack(arrays) -> Linear          .pack(Linear) -> arrays

    record     Linear (integers), Floating (small floats), FourBit and RowInt8 (bitsandbytes)
    required   names of the arrays, without the prefix of the layer
    optional   names that belong to it where they are present
    told       options of `unpack` that the arrays do not always tell, from a record: bits, group_size, shape
    dtypes     safetensors dtypes of arrays that are uint8 here and eight-bit floats there

A new layout is a module with its two functions and a line here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType

import numpy as np

from refquant.errors import SchemeError
from refquant.layouts import (
    awq,
    bitsandbytes,
    blocks,
    compressed_tensors,
    deepspeed,
    gptq,
    hqq,
    microscaled,
    mlx,
    modelopt,
    onnx,
    quanto,
    torchao,
)
from refquant.layouts.arrays import Arrays
from refquant.layouts.bitsandbytes import FourBit, RowInt8
from refquant.layouts.floating import Floating
from refquant.layouts.linear import Linear

Record = Linear | Floating | FourBit | RowInt8
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout; see the module for the fields."""

    name: str
    record: type
    required: tuple[str, ...]
    unpack: Callable[..., Record]
    pack: Callable[[Record], dict[str, np.ndarray]]
    optional: tuple[str, ...] = ()
    told: Callable[[Record], dict[str, object]] = lambda record: {}
    dtypes: Mapping[str, str] = field(default_factory=lambda: NONE)


_GPTQ = ("qweight", "qzeros", "scales")
_CODE = {"weight": "F8_E4M3"}
_E4M3 = {"weight_scale": "F8_E4M3"}


def _sizes(linear: Linear) -> dict[str, object]:
    return {"bits": linear.bits, "group_size": linear.group_size}


def _group(linear: Linear) -> dict[str, object]:
    return {"group_size": linear.group_size}


def _bits(linear: Linear) -> dict[str, object]:
    return {"bits": linear.bits}


_ALL = (
    *(
        Layout(v, Linear, _GPTQ, partial(gptq.unpack, version=v), partial(gptq.pack, version=v), ("g_idx",), _sizes)
        for v in gptq.VERSIONS
    ),
    Layout("awq-gemm", Linear, _GPTQ, awq.unpack_gemm, awq.pack_gemm, told=_group),
    Layout("awq-gemv", Linear, _GPTQ, awq.unpack_gemv, awq.pack_gemv, told=_group),
    Layout("awq-gemv_fast", Linear, _GPTQ, awq.unpack_gemv_fast, awq.pack_gemv_fast, told=_group),
    Layout(
        "pack-quantized",
        Linear,
        ("weight_packed", "weight_scale", "weight_shape"),
        compressed_tensors.unpack_packed,
        compressed_tensors.pack_packed,
        ("weight_zero_point", "weight_g_idx"),
        _sizes,
    ),
    Layout(
        "int-quantized",
        Linear,
        ("weight", "weight_scale"),
        compressed_tensors.unpack_int,
        compressed_tensors.pack_int,
        ("weight_zero_point",),
        _bits,
    ),
    Layout("modelopt-int4", Linear, ("weight", "weight_scale"), modelopt.unpack_int4, modelopt.pack_int4, told=_group),
    Layout("modelopt-qtensor", Linear, ("quantized_data", "scale"), modelopt.unpack_qtensor, modelopt.pack_qtensor),
    Layout(
        "onnx-matmulnbits",
        Linear,
        ("B", "scales"),
        onnx.unpack_matmul,
        onnx.pack_matmul,
        ("zero_points",),
        lambda linear: {"bits": linear.bits, "ins": linear.codes.shape[1]},
    ),
    Layout("hqq", Linear, ("W_q", "scale", "zero", "shape", "nbits", "group_size", "axis"), hqq.unpack, hqq.pack),
    Layout(
        "quanto",
        Linear,
        (quanto.DATA, quanto.SCALE),
        quanto.unpack,
        quanto.pack,
        (quanto.SHIFT,),
        lambda linear: {"shape": linear.codes.shape},
    ),
    Layout("deepspeed", Linear, ("weight", "quant_scale", "quant_min"), deepspeed.unpack, deepspeed.pack, told=_sizes),
    Layout("mlx", Linear, ("weight", "scales", "biases"), mlx.unpack, mlx.pack, told=_sizes),
    Layout(
        "torchao-int4", Linear, (torchao.DATA, torchao.SCALE, torchao.ZERO), torchao.unpack, torchao.pack, told=_group
    ),
    *(
        Layout(f"gguf-{t}", Linear, ("weight",), partial(blocks.unpack, type_name=t), partial(blocks.pack, type_name=t))
        for t in blocks.TYPES
    ),
    Layout(
        "nvfp4-pack-quantized",
        Floating,
        ("weight_packed", "weight_scale", "weight_global_scale"),
        microscaled.unpack_nvfp4,
        microscaled.pack_nvfp4,
        dtypes=_E4M3,
    ),
    Layout(
        "modelopt-nvfp4",
        Floating,
        ("weight", "weight_scale", "weight_scale_2"),
        partial(microscaled.unpack_nvfp4, convention="modelopt"),
        partial(microscaled.pack_nvfp4, convention="modelopt"),
        dtypes=_E4M3,
    ),
    Layout(
        "mxfp4-pack-quantized",
        Floating,
        ("weight_packed", "weight_scale"),
        microscaled.unpack_mxfp4,
        microscaled.pack_mxfp4,
    ),
    Layout(
        "mxfp6",
        Floating,
        ("weight_packed", "weight_scale"),
        microscaled.unpack_mxfp6,
        microscaled.pack_mxfp6,
        told=lambda floating: {"element": floating.element},
    ),
    Layout(
        "mxfp8-quantized",
        Floating,
        ("weight", "weight_scale"),
        microscaled.unpack_mxfp8,
        microscaled.pack_mxfp8,
        dtypes=_CODE,
    ),
    Layout(
        "float-quantized",
        Floating,
        ("weight", "weight_scale"),
        microscaled.unpack_fp8,
        microscaled.pack_fp8,
        dtypes=_CODE,
    ),
    *(
        Layout(
            f"gguf-{t}",
            Floating,
            ("weight",),
            partial(microscaled.unpack_ggml, type_name=t),
            partial(microscaled.pack_ggml, type_name=t),
            ("scale",),
        )
        for t in ("MXFP4", "NVFP4")
    ),
    Layout(
        "bitsandbytes-nf4",
        FourBit,
        ("weight", "weight.absmax", "weight.quant_map", bitsandbytes.STATE + "nf4"),
        bitsandbytes.unpack,
        bitsandbytes.pack,
        ("weight.nested_absmax", "weight.nested_quant_map"),
    ),
    Layout(
        "bitsandbytes-fp4",
        FourBit,
        ("weight", "weight.absmax", "weight.quant_map", bitsandbytes.STATE + "fp4"),
        bitsandbytes.unpack,
        bitsandbytes.pack,
        ("weight.nested_absmax", "weight.nested_quant_map"),
    ),
    Layout(
        "bitsandbytes-int8",
        RowInt8,
        ("weight", "SCB"),
        bitsandbytes.unpack_int8,
        bitsandbytes.pack_int8,
        ("weight_format",),
    ),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}


def layout(name: str) -> Layout:
    """LAYOUTS[name]; an unknown name is a SchemeError that lists the known ones."""
    if name not in LAYOUTS:
        raise SchemeError(f"layouts: layout = {str(name)[:60]!r}, expected one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def unpack(arrays: Arrays, name: str, **options: object) -> Record:
    """Read the arrays of one weight as the layout `name`; options are those of its module (bits, group_size, shape)."""
    try:
        return layout(name).unpack(arrays, **options)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise SchemeError(f"layouts: options {sorted(options)} of {name}, expected those of its module") from error


def pack(record: Record, name: str) -> dict[str, np.ndarray]:
    """Write `record` as the layout `name`. Raises SchemeError where the layout holds another kind of numbers."""
    target = layout(name)
    if not isinstance(record, target.record):
        got, want = type(record).__name__, target.record.__name__
        raise SchemeError(f"layouts: record = {got}, expected {want} for {name}: these are other levels")
    return target.pack(record)
