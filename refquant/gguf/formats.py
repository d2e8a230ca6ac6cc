"""Every tensor type of ggml as one record, and quantization of whole arrays by the name of the type.

FORMATS         {"Q4_0": BlockFormat(...), ...} in the order of ids
FORMATS_BY_ID   the same by the u32 that a tensor info of a .gguf file holds
REJECTED_IDS    {id: why it is refused and what to do}, from `rejected_ids`

quantize     (..., n) float -> (..., n / values * block_bytes) uint8, with or without an importance matrix
dequantize   the inverse up to rounding: float32
"""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np

from refquant.errors import (
    QuantError,
    RangeError,
    SchemeError,
    ShapeError,
    UnsupportedError,
    require_finite,
    require_multiple,
)
from refquant.gguf import (
    bit_streams,
    fp4,
    i_encoders,
    i_quants,
    iq1_encoders,
    iq4_encoders,
    k_encoders,
    k_quants,
    k_weighted,
    legacy,
    legacy_weighted,
    scalars,
    ternary,
)
from refquant.gguf.rejected_ids import REJECTED_IDS

__all__ = ["FORMATS", "FORMATS_BY_ID", "REJECTED_IDS", "BlockFormat", "dequantize", "quantize"]

Codec = Callable[[np.ndarray], np.ndarray]
WeightedEncoder = Callable[[np.ndarray, np.ndarray], np.ndarray]
SLAB = 1 << 16  # weights coded at a time, so that intermediate arrays stay within the caches


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """One tensor type: how many weights a block has, which bytes, and the functions between them."""

    name: str  # the spelling of ggml: "Q4_0"
    ggml_id: int  # the u32 in the tensor info of a .gguf file
    values: int  # weights in a block; 1 for scalars
    layout: np.dtype  # the bytes of one block in file order, unpadded, little-endian; BF16 is uint16
    decode: Codec  # (...) layout -> (..., values) float32, total and without warnings
    encode: Codec | None  # (..., values) float32 -> (...) layout, ggml's bytes; absent where ggml wants importance
    encode_weighted: WeightedEncoder | None  # whole rows (rows, blocks, values) and the importance of their columns
    # (blocks, values) float32 -> (rows, blocks) layout; absent where ggml ignores importance
    source: str  # where the bytes are defined, in the sources of ggml

    @property
    def block_bytes(self) -> int:
        return self.layout.itemsize

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.layout.itemsize / self.values

    @property
    def is_scalar(self) -> bool:
        """One value a block, no scale: `layout` is a plain dtype and tensors are typed arrays."""
        return self.values == 1

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        stored = "one value" if self.is_scalar else f"{self.values} weights in {self.block_bytes} bytes"
        return f"ggml type {self.ggml_id}, {stored}"


def _format(
    name: str,
    ggml_id: int,
    values: int,
    layout: np.dtype,
    decode: Codec,
    encode: Codec | None = None,
    encode_weighted: WeightedEncoder | None = None,
) -> BlockFormat:
    source = f"ggml/src/ggml-common.h block_{name.lower()}, ggml-quants.c dequantize_row_{name.lower()}"
    if values == 1:
        source = "ggml/src/ggml-impl.h"
    return BlockFormat(name, ggml_id, values, layout, decode, encode, encode_weighted, source)


def _both(encode: Callable[..., np.ndarray]) -> tuple[Codec, WeightedEncoder]:
    """One function that takes importance or goes without."""
    return encode, encode


_ALL = (
    _format("F32", 0, 1, scalars.F32, scalars.decode_number, scalars.encode_f32),
    _format("F16", 1, 1, scalars.F16, scalars.decode_number, scalars.encode_f16),
    _format("Q4_0", 2, 32, legacy.Q4_0, legacy.decode_q4_0, legacy.encode_q4_0, legacy_weighted.encode_q4_0),
    _format("Q4_1", 3, 32, legacy.Q4_1, legacy.decode_q4_1, legacy.encode_q4_1, legacy_weighted.encode_q4_1),
    _format("Q5_0", 6, 32, legacy.Q5_0, legacy.decode_q5_0, legacy.encode_q5_0, legacy_weighted.encode_q5_0),
    _format("Q5_1", 7, 32, legacy.Q5_1, legacy.decode_q5_1, legacy.encode_q5_1, legacy_weighted.encode_q5_1),
    _format("Q8_0", 8, 32, legacy.Q8_0, legacy.decode_q8, legacy.encode_q8_0),
    _format("Q8_1", 9, 32, legacy.Q8_1, legacy.decode_q8, legacy.encode_q8_1),
    _format("Q2_K", 10, 256, k_quants.Q2_K, k_quants.decode_q2_k, k_encoders.encode_q2_k, k_weighted.encode_q2_k),
    _format("Q3_K", 11, 256, k_quants.Q3_K, k_quants.decode_q3_k, k_encoders.encode_q3_k, k_weighted.encode_q3_k),
    _format("Q4_K", 12, 256, k_quants.Q4_K, k_quants.decode_q4_k, k_encoders.encode_q4_k, k_weighted.encode_q4_k),
    _format("Q5_K", 13, 256, k_quants.Q5_K, k_quants.decode_q5_k, k_encoders.encode_q5_k, k_weighted.encode_q5_k),
    _format("Q6_K", 14, 256, k_quants.Q6_K, k_quants.decode_q6_k, k_encoders.encode_q6_k, k_weighted.encode_q6_k),
    _format("Q8_K", 15, 256, k_quants.Q8_K, k_quants.decode_q8_k, k_encoders.encode_q8_k),
    _format("IQ2_XXS", 16, 256, i_quants.IQ2_XXS, i_quants.decode_iq2_xxs, None, i_encoders.encode_iq2_xxs),
    _format("IQ2_XS", 17, 256, i_quants.IQ2_XS, i_quants.decode_iq2_xs, None, i_encoders.encode_iq2_xs),
    _format("IQ3_XXS", 18, 256, i_quants.IQ3_XXS, i_quants.decode_iq3_xxs, *_both(i_encoders.encode_iq3_xxs)),
    _format("IQ1_S", 19, 256, i_quants.IQ1_S, i_quants.decode_iq1_s, None, iq1_encoders.encode_iq1_s),
    _format("IQ4_NL", 20, 32, i_quants.IQ4_NL, i_quants.decode_iq4_nl, *_both(iq4_encoders.encode_iq4_nl)),
    _format("IQ3_S", 21, 256, i_quants.IQ3_S, i_quants.decode_iq3_s, *_both(i_encoders.encode_iq3_s)),
    _format("IQ2_S", 22, 256, i_quants.IQ2_S, i_quants.decode_iq2_s, *_both(i_encoders.encode_iq2_s)),
    _format("IQ4_XS", 23, 256, i_quants.IQ4_XS, i_quants.decode_iq4_xs, *_both(iq4_encoders.encode_iq4_xs)),
    _format("I8", 24, 1, scalars.I8, scalars.decode_number),
    _format("I16", 25, 1, scalars.I16, scalars.decode_number),
    _format("I32", 26, 1, scalars.I32, scalars.decode_number),
    _format("I64", 27, 1, scalars.I64, scalars.decode_number),
    _format("F64", 28, 1, scalars.F64, scalars.decode_number),
    _format("IQ1_M", 29, 256, i_quants.IQ1_M, i_quants.decode_iq1_m, *_both(iq1_encoders.encode_iq1_m)),
    _format("BF16", 30, 1, scalars.BF16, scalars.decode_bf16, scalars.encode_bf16),
    _format("TQ1_0", 34, 256, ternary.TQ1_0, ternary.decode_tq1_0, ternary.encode_tq1_0),
    _format("TQ2_0", 35, 256, ternary.TQ2_0, ternary.decode_tq2_0, ternary.encode_tq2_0),
    _format("MXFP4", 39, 32, fp4.MXFP4, fp4.decode_mxfp4, fp4.encode_mxfp4),
    _format("NVFP4", 40, 64, fp4.NVFP4, fp4.decode_nvfp4, fp4.encode_nvfp4),
    _format("Q1_0", 41, 128, bit_streams.Q1_0, bit_streams.decode_q1_0, bit_streams.encode_q1_0),
    _format("Q2_0", 42, 64, bit_streams.Q2_0, bit_streams.decode_q2_0, bit_streams.encode_q2_0),
)
FORMATS: dict[str, BlockFormat] = {f.name: f for f in _ALL}
FORMATS_BY_ID: dict[int, BlockFormat] = {f.ggml_id: f for f in _ALL}


def quantize(x: np.ndarray, type_name: str, imatrix: np.ndarray | None = None) -> np.ndarray:
    """Encode `x` as ggml stores it: (..., n) float -> (..., row_bytes) uint8, row_bytes = n / values * block_bytes.

    imatrix   (n,) float >= 0 or None: how much an error in each column of x matters, in any unit; usually the mean
              square of the activations that the column is multiplied with.

    The bytes are those of ggml_quantize_chunk for x and imatrix rounded to float32 (half to even). Scales past the
    range of float16 become infinite or zero, as there; see `legacy`. Scalars, Q8_0, Q8_1, Q8_K, Q1_0, Q2_0, TQ1_0,
    TQ2_0, MXFP4 and NVFP4 ignore importance; IQ2_XXS, IQ2_XS and IQ1_S need it; elsewhere a matrix of ones is not the
    same as none. A zero says that a column does not matter at all, and ggml takes its word: where a whole group or
    block has no importance, some types store a scale of 0 and so lose its weights (`legacy_weighted`, `k_weighted`).

    Raises SchemeError (unknown type), UnsupportedError (no encoder, or none without an imatrix), ShapeError (n
    not a positive multiple of `values`, imatrix not (n,)), NonFiniteError (NaN or infinity, in x for every type, F32
    included), RangeError (a float64 beyond float32, a negative importance, weights for which ggml aborts: I-quants).
    """
    fmt = _lookup("gguf.quantize", type_name)
    if fmt.encode is None and fmt.encode_weighted is None:
        able = ", ".join(f.name for f in _ALL if f.encode is not None or f.encode_weighted is not None)
        raise UnsupportedError(f"gguf.quantize: type_name = {type_name!r}, expected a type with an encoder: {able}")
    x = _weights("x", x)
    if x.ndim == 0:
        raise ShapeError("gguf.quantize: x.ndim = 0, expected rows of weights")
    n = x.shape[-1]
    require_multiple("gguf.quantize", "x.shape[-1]", n, fmt.values)
    if imatrix is not None:
        imatrix = _weights("imatrix", imatrix)
        if imatrix.shape != (n,):
            raise ShapeError(
                f"gguf.quantize: imatrix.shape = {imatrix.shape}, expected ({n},), one for each column of x"
            )
        if imatrix.min() < 0:
            raise RangeError(f"gguf.quantize: min(imatrix) = {imatrix.min()}, expected values of at least 0")
    elif fmt.encode is None:
        raise UnsupportedError(f"gguf.quantize: imatrix = None, expected an importance matrix, which {fmt.name} needs")
    out = np.empty((*x.shape[:-1], n // fmt.values * fmt.block_bytes), np.uint8)
    if imatrix is None or fmt.encode_weighted is None:
        source, blocks = x.reshape(-1, fmt.values), out.reshape(-1).view(fmt.layout)
        for part in _slabs(len(blocks), SLAB // fmt.values):
            blocks[part] = fmt.encode(source[part].astype(np.float32))
    else:
        across = n // fmt.values, fmt.values
        source, blocks = x.reshape(-1, *across), out.view(fmt.layout).reshape(-1, across[0])
        importance = imatrix.astype(np.float32).reshape(across)
        for part in _slabs(len(blocks), max(1, SLAB // n)):
            blocks[part] = fmt.encode_weighted(source[part].astype(np.float32), importance)
    return out


def dequantize(data: np.ndarray, type_name: str) -> np.ndarray:
    """Decode what `quantize` returns or a GGUF tensor holds: a new float32 array.

    data   (..., row_bytes) uint8 -> (..., n) for every type; for scalar types also an array of the type's own dtype
           (BF16: uint16), of any shape -> the same shape.

    Any bytes decode, without a warning. Beyond the result it needs a few megabytes. Raises SchemeError, QuantError
    (wrong dtype), ShapeError (row_bytes not a positive multiple of block_bytes).
    """
    fmt = _lookup("gguf.dequantize", type_name)
    data = np.asarray(data)
    if fmt.is_scalar and data.dtype == fmt.layout:
        shape, blocks = data.shape, data.reshape(-1)
    elif data.dtype == np.uint8:
        if data.ndim == 0:
            raise ShapeError("gguf.dequantize: data.ndim = 0, expected rows of bytes")
        require_multiple("gguf.dequantize", "data.shape[-1]", data.shape[-1], fmt.block_bytes)
        shape = (*data.shape[:-1], data.shape[-1] // fmt.block_bytes * fmt.values)
        blocks = np.ascontiguousarray(data).reshape(-1).view(fmt.layout)
    else:
        own = f" or {fmt.layout.name}" if fmt.is_scalar else ""
        raise QuantError(f"gguf.dequantize: data.dtype = {data.dtype}, expected uint8{own} for {type_name}")
    out = np.empty(shape, np.float32)
    rows = out.reshape(-1, fmt.values)
    for part in _slabs(len(blocks), SLAB // fmt.values):
        rows[part] = fmt.decode(blocks[part])
    return out


def _slabs(count: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, count, step)]


def _weights(name: str, values: np.ndarray) -> np.ndarray:
    """`values` as an array of floats that float32 can hold."""
    values = np.asarray(values)
    if values.dtype.kind != "f":
        raise QuantError(f"gguf.quantize: {name}.dtype = {values.dtype}, expected a floating dtype")
    require_finite("gguf.quantize", values, name)
    if values.dtype.itemsize > 4 and values.size and np.abs(values).max() > np.finfo(np.float32).max:
        raise RangeError(f"gguf.quantize: max|{name}| = {np.abs(values).max()}, expected a value within float32")
    return values


def _lookup(where: str, type_name: str) -> BlockFormat:
    if type_name in FORMATS:
        return FORMATS[type_name]
    near = get_close_matches(str(type_name), FORMATS, n=3, cutoff=0.5) or list(FORMATS)
    raise SchemeError(f"{where}: type_name = {type_name!r}, expected a ggml type such as {', '.join(near)}")
