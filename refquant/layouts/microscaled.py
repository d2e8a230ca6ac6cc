"""Small floats in checkpoints: NVFP4, MXFP4, MXFP6, MXFP8 and FP8, of compressed-tensors, ModelOpt and ggml.

    layout                 codes                                         scales
    nvfp4-pack-quantized   weight_packed  uint8 (out, in / 2)            weight_scale e4m3fn (out, in / 16), divided by
                                                                         weight_global_scale float32 (1,) = 2688 / amax
    modelopt NVFP4         weight         uint8 (out, in / 2)            weight_scale e4m3fn (out, in / 16), times
                                                                         weight_scale_2 float32 () = amax / 2688
    mxfp4-pack-quantized   weight_packed  uint8 (out, in / 2)            weight_scale e8m0 (out, in / 32)
    mxfp6                  weight_packed  uint8 (out, 3 * in / 4), e2m3  weight_scale e8m0 (out, in / 32)
    mxfp8-quantized        weight         e4m3fn (out, in)               weight_scale e8m0 (out, in / 32)
    float-quantized,       weight         e4m3fn (out, in)               weight_scale float: (out, 1), (1,) or (), or
    naive-quantized                                                      (out / 128, in / 128) rounded up
    ggml MXFP4, NVFP4      weight         uint8 rows of blocks           in the blocks; NVFP4: and scale float32 (1,)

    4 bits   BBBBAAAA                     A = input 2i (ggml: inputs j and j + 16, NVFP4: j and j + 8 of 16)
    6 bits   BBAAAAAA CCCCBBBB DDDDDDCC   A = input 4i: three bytes of four codes, low first

2688 = 448 * 6, the largest e4m3fn times the largest e2m1. Reading a weight_global_scale as a weight_scale_2 is wrong by
the factor of its square. The two are reciprocals, and 1 / g is rounded: a transcode is lossless only where the scales
of all blocks come out the same (`transcode`).
Source   compressed_tensors 0.19 compressors/{nvfp4,mxfp4,mxfp8,naive_quantized}; nvidia-modelopt 0.47
         torch/quantization/qtensor/nvfp4_tensor.py; ggml-common.h; DeepSeek-V3 for tiles of 128 x 128.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import QuantError, RangeError, ShapeError, require_multiple
from refquant.gguf import fp4, legacy
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.floating import Floating

E4M3 = ("uint8", "float8_e4m3fn")
E8M0 = ("uint8", "float8_e8m0fnu")
NVFP4_BLOCK, MX_BLOCK = 16, 32


def unpack_nvfp4(arrays: Arrays, convention: str = "compressed-tensors") -> Floating:
    """Read NVFP4 by the names of compressed-tensors or of modelopt. Raises QuantError (missing, dtype), ShapeError."""
    where = f"microscaled.unpack_nvfp4 ({convention})"
    data, tensor, divide = _nvfp4_names(convention)
    codes = _nibbles(where, arrays, data)
    scale = field(where, arrays, "weight_scale", E4M3, (len(codes), _blocks(where, codes, NVFP4_BLOCK))).view(np.uint8)
    factor = field(where, arrays, tensor, "float32", None)
    if factor.size != 1:
        raise ShapeError(f"{where}: {tensor}.shape = {factor.shape}, expected one number")
    return Floating(codes, "e2m1", scale, "e4m3fn", (1, NVFP4_BLOCK), np.float32(factor.reshape(())), divide)


def pack_nvfp4(floating: Floating, convention: str = "compressed-tensors") -> dict[str, np.ndarray]:
    """Write NVFP4. A tensor scale of the other convention becomes its reciprocal, rounded to float32.

    Raises RangeError (another element, block or scale; a reciprocal of 0), ShapeError (inputs that 16 does not divide).
    """
    where = f"microscaled.pack_nvfp4 ({convention})"
    data, tensor, divide = _nvfp4_names(convention)
    _require(where, floating, "e2m1", "e4m3fn", (1, NVFP4_BLOCK))
    factor = np.float32(1) if floating.tensor_scale is None else np.float32(floating.tensor_scale)
    if divide != floating.divide and floating.tensor_scale is not None:
        with np.errstate(all="ignore"):
            factor = np.float32(1) / factor
        if not np.isfinite(factor):
            raise RangeError(f"{where}: tensor_scale = {floating.tensor_scale}, expected one with a finite reciprocal")
    return {
        data: streams.pack(floating.codes, 4),
        "weight_scale": floating.scale,
        tensor: np.full((1,) if divide else (), factor, np.float32),
    }


def unpack_mxfp4(arrays: Arrays) -> Floating:
    """Read mxfp4-pack-quantized. Raises QuantError (missing, dtype), ShapeError."""
    codes = _nibbles("microscaled.unpack_mxfp4", arrays, "weight_packed")
    return _mx("microscaled.unpack_mxfp4", arrays, codes, "e2m1")


def pack_mxfp4(floating: Floating) -> dict[str, np.ndarray]:
    """Write mxfp4-pack-quantized. Raises RangeError (another element, block or scale), ShapeError (whole blocks)."""
    _require("microscaled.pack_mxfp4", floating, "e2m1", "e8m0", (1, MX_BLOCK))
    return {"weight_packed": streams.pack(floating.codes, 4), "weight_scale": floating.scale}


def unpack_mxfp6(arrays: Arrays, element: str = "e2m3") -> Floating:
    """Read FP6 codes, four in three bytes. Raises QuantError (missing, dtype), ShapeError."""
    where = "microscaled.unpack_mxfp6"
    data = field(where, arrays, "weight_packed", "uint8", (None, None))
    require_multiple(where, "weight_packed.shape[1]", data.shape[1], 3)
    return _mx(where, arrays, streams.unpack(data, 6, data.shape[1] // 3 * 4), element)


def pack_mxfp6(floating: Floating) -> dict[str, np.ndarray]:
    """Write FP6 codes. Raises RangeError (another element, block or scale), ShapeError (whole blocks)."""
    if floating.element not in ("e2m3", "e3m2"):
        raise RangeError(f"microscaled.pack_mxfp6: element = {floating.element}, expected e2m3 or e3m2")
    _require("microscaled.pack_mxfp6", floating, floating.element, "e8m0", (1, MX_BLOCK))
    return {"weight_packed": streams.pack(floating.codes, 6), "weight_scale": floating.scale}


def unpack_mxfp8(arrays: Arrays) -> Floating:
    """Read mxfp8-quantized. Raises QuantError (missing, dtype), ShapeError."""
    where = "microscaled.unpack_mxfp8"
    codes = field(where, arrays, "weight", E4M3, (None, None)).view(np.uint8)
    return _mx(where, arrays, codes, "e4m3fn")


def pack_mxfp8(floating: Floating) -> dict[str, np.ndarray]:
    """Write mxfp8-quantized. Raises RangeError (another element, block or scale), ShapeError (whole blocks)."""
    _require("microscaled.pack_mxfp8", floating, "e4m3fn", "e8m0", (1, MX_BLOCK))
    return {"weight": floating.codes, "weight_scale": floating.scale}


def unpack_fp8(arrays: Arrays, block: tuple[int, int] = (128, 128)) -> Floating:
    """Read float-quantized: a scale for the tensor, for each output, or for tiles of `block`.

    Raises QuantError (missing, dtype), ShapeError.
    """
    where = "microscaled.unpack_fp8"
    codes = field(where, arrays, "weight", E4M3, (None, None)).view(np.uint8)
    outs, ins = codes.shape
    scales = field(where, arrays, "weight_scale", FLOATS, None)
    scale, dtype = floats(scales)
    tiles = -(-outs // block[0]), -(-ins // block[1])
    if scale.size == 1:
        return Floating(codes, "e4m3fn", scale.reshape(1, 1), dtype, (outs, ins))
    if scale.shape in ((outs, 1), (outs,)):
        return Floating(codes, "e4m3fn", scale.reshape(outs, 1), dtype, (1, ins))
    if scale.shape != tiles:
        raise ShapeError(f"{where}: weight_scale.shape = {scale.shape}, expected (), (1,), {(outs, 1)} or {tiles}")
    return Floating(codes, "e4m3fn", scale, dtype, block)


def pack_fp8(floating: Floating) -> dict[str, np.ndarray]:
    """Write float-quantized; a single scale has the shape (1,). Raises RangeError (another element, a tensor scale)."""
    where = "microscaled.pack_fp8"
    if floating.element != "e4m3fn" or floating.scale.dtype != np.float32 or floating.tensor_scale is not None:
        raise RangeError(
            f"{where}: {floating.element} with {floating.scale_dtype} scales, expected e4m3fn, float scales"
        )
    scale = stored(where, "weight_scale", floating.scale, floating.scale_dtype)
    return {"weight": floating.codes, "weight_scale": scale.reshape(1) if scale.size == 1 else scale}


def unpack_ggml(arrays: Arrays, type_name: str) -> Floating:
    """Read rows of ggml's MXFP4 or NVFP4 blocks; NVFP4 takes `scale` too, 1 where it is absent.

    The bytes to which ggml and OCP give different values are refused with RangeError: MXFP4 255, NVFP4 0x7F and bit 7;
    so the element and scale tables of Floating hold. Raises QuantError (missing, dtype), ShapeError.
    """
    where = "microscaled.unpack_ggml"
    layout = _ggml(where, type_name)
    data = field(where, arrays, "weight", "uint8", (None, None))
    require_multiple(where, "weight.shape[1]", data.shape[1], layout.itemsize)
    blocks = np.ascontiguousarray(data).view(layout)
    if type_name == "MXFP4":
        scale, codes = blocks["e"], legacy.nibbles(blocks["qs"])
        odd, unsaid = (scale == 255), "255, which is 2^127 to ggml and NaN to OCP"
    else:
        scale = blocks["d"].reshape(len(data), -1)
        qs = blocks["qs"].reshape(*blocks.shape, 4, 1, 8)
        codes = np.concatenate([qs & np.uint8(15), qs >> np.uint8(4)], axis=-2)
        odd, unsaid = (scale >= 0x7F), "0x7F or above, which ggml reads as 0 or without its sign"
    if odd.any():
        raise RangeError(f"{where}: a scale byte of {unsaid}, expected one with the same value in both")
    tensor = None
    if type_name == "NVFP4":
        given = field(where, arrays, "scale", "float32", (1,)) if "scale" in arrays else np.ones(1, np.float32)
        tensor = np.float32(given[0])
    codes = np.ascontiguousarray(codes).reshape(len(data), -1)
    block = (1, MX_BLOCK if type_name == "MXFP4" else NVFP4_BLOCK)
    return Floating(codes, "e2m1", np.ascontiguousarray(scale), "e8m0" if tensor is None else "e4m3fn", block, tensor)


def pack_ggml(floating: Floating, type_name: str) -> dict[str, np.ndarray]:
    """Write blocks of ggml's MXFP4 or NVFP4, and `scale` for NVFP4. Raises RangeError, ShapeError (whole blocks)."""
    where = "microscaled.pack_ggml"
    layout = _ggml(where, type_name)
    outs, ins = floating.codes.shape
    if type_name == "MXFP4":
        _require(where, floating, "e2m1", "e8m0", (1, MX_BLOCK))
        blocks = np.zeros((outs, ins // 32), layout)
        if (floating.scale == 255).any():
            raise RangeError(f"{where}: a scale byte of 255, expected none: NaN becomes 2^127 in ggml")
        blocks["e"], blocks["qs"] = floating.scale, legacy.pack_nibbles(floating.codes.reshape(outs, -1, 32))
        return {"weight": blocks.view(np.uint8).reshape(outs, -1)}
    require_multiple(where, "in", ins, 64)
    named = pack_nvfp4(floating, "modelopt")
    if (floating.scale >= 0x7F).any():
        raise RangeError(f"{where}: a scale byte of 0x7F or above, expected none: ggml has no sign there and no NaN")
    blocks = np.zeros((outs, ins // 64), layout)
    codes = floating.codes.reshape(outs, -1, 4, 2, 8)
    blocks["d"] = floating.scale.reshape(outs, -1, 4)
    blocks["qs"] = (codes[..., 0, :] | (codes[..., 1, :] << np.uint8(4))).reshape(outs, -1, 32)
    return {"weight": blocks.view(np.uint8).reshape(outs, -1), "scale": named["weight_scale_2"].reshape(1)}


def _nvfp4_names(convention: str) -> tuple[str, str, bool]:
    """(name of the codes, name of the tensor scale, whether it divides)."""
    known = {
        "compressed-tensors": ("weight_packed", "weight_global_scale", True),
        "modelopt": ("weight", "weight_scale_2", False),
    }
    if convention not in known:
        raise RangeError(f"microscaled: convention = {convention!r}, expected one of {', '.join(known)}")
    return known[convention]


def _nibbles(where: str, arrays: Arrays, name: str) -> np.ndarray:
    data = field(where, arrays, name, "uint8", (None, None))
    return streams.unpack(data, 4, 2 * data.shape[1])


def _blocks(where: str, codes: np.ndarray, block: int) -> int:
    require_multiple(where, "in", codes.shape[1], block)
    return codes.shape[1] // block


def _mx(where: str, arrays: Arrays, codes: np.ndarray, element: str) -> Floating:
    scale = field(where, arrays, "weight_scale", E8M0, (len(codes), _blocks(where, codes, MX_BLOCK))).view(np.uint8)
    return Floating(codes, element, scale, "e8m0", (1, MX_BLOCK))


def _require(where: str, floating: Floating, element: str, scale_dtype: str, block: tuple[int, int]) -> None:
    got = (floating.element, floating.scale_dtype, floating.block)
    if got != (element, scale_dtype, block):
        raise RangeError(f"{where}: element, scale, block = {got}, expected {(element, scale_dtype, block)}")
    require_multiple(where, "in", floating.codes.shape[1], block[1])
    if scale_dtype == "e8m0" and floating.tensor_scale is not None:
        raise RangeError(f"{where}: tensor_scale = {floating.tensor_scale}, expected none")


def _ggml(where: str, type_name: str) -> np.dtype:
    layouts = {"MXFP4": fp4.MXFP4, "NVFP4": fp4.NVFP4}
    if type_name not in layouts:
        raise QuantError(f"{where}: type_name = {type_name!r}, expected MXFP4 or NVFP4")
    return layouts[type_name]
