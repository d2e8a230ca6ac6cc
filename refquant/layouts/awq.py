"""AWQ checkpoints of 4 bits: the three layouts that AutoAWQ and llm-awq write.

GEMM ("version": "gemm"), packed along the outputs, eight of them interleaved so that a GPU unpacks even and odd ones
apart:

    qweight   int32   (in, out / 8)       nibble i of word c is output 8c + ORDER[i],  ORDER = 0 2 4 6 1 3 5 7
    qzeros    int32   (groups, out / 8)   the same; z itself, nothing subtracted
    scales    float16 (groups, out)

    a word    HHHHFFFF DDDDBBBB GGGGEEEE CCCCAAAA      A = output 8c, B = 8c + 1, ... H = 8c + 7

GEMV, packed along the inputs in order; zero points and scales are padded with zeros to whole words:

    qweight   int32   (out, in / 8)       HHHHGGGG FFFFEEEE DDDDCCCC BBBBAAAA      A = input 8c
    qzeros    int32   (out, words)        words = ceil(groups / 8), rounded up to 2 for groups of 64 and to 4 for 32
    scales    float16 (out, 8 * words)

GEMVFast ("gemv_fast", llm-awq's second), four outputs interleaved in 16-bit words, and z is not there:

    qweight   int16   (out / 4, in)       of outputs 4r .. 4r + 3 and inputs 64b .. 64b + 63, words 64b + 16j .. + 15
                                          hold output 4r + j: 16 words of 4 nibbles, its inputs in the order FAST
    scales    float16 (8 * words, out)    padded as above
    qzeros    float16 (8 * words, out)    -(s * z) rounded to float16:  x^ = q * s + qzeros

    FAST, of 32 inputs                    0 8 16 24 1 9 17 25  2 10 18 26 3 11 19 27  4 12 ...  6 14 22 30 7 15 23 31

    x^ = (q - z) * s        GEMM and GEMV

So GEMVFast holds the numbers of the others only where s * z fits the 11 bits of a float16 (z = 8 always does);
`pack_gemv_fast` refuses the rest.
Source    autoawq 0.2.9 modules/linear/{gemm,gemv,gemv_fast}.py, utils/packing_utils.py.
Differs   codes are not clamped there before they are packed, so that a code of 16 spills into its neighbour; ours are
          checked.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError, require_multiple
from refquant.layouts import words
from refquant.layouts.arrays import Arrays, field, floats, stored
from refquant.layouts.linear import Linear, group_size_of, integers, neighbours, offsets

ORDER = np.array([0, 2, 4, 6, 1, 3, 5, 7])
INVERSE = np.argsort(ORDER)
FAST = np.arange(32).reshape(4, 4, 2).transpose(1, 2, 0).reshape(32)  # see the drawing
BITS = 4
DTYPES = ("float16", "bfloat16", "uint16")


def unpack_gemm(arrays: Arrays, group_size: int | None = None) -> Linear:
    """Read one weight. Raises QuantError (missing, dtype), ShapeError."""
    where = "awq.unpack_gemm"
    qweight = field(where, arrays, "qweight", "int32", (None, None))
    ins, width = qweight.shape
    qzeros = field(where, arrays, "qzeros", "int32", (None, width))
    scales = field(where, arrays, "scales", DTYPES, (len(qzeros), 8 * width))
    scale, dtype = floats(scales)
    return Linear(
        codes=np.ascontiguousarray(_interleaved(qweight).T),
        scale=np.ascontiguousarray(scale.T),
        zero_point=np.ascontiguousarray(_interleaved(qzeros).T.astype(np.int16)),
        bits=BITS,
        group_size=group_size_of(where, ins, len(qzeros), group_size),
        dtype=dtype,
    )


def pack_gemm(linear: Linear, dtype: str = "float16") -> dict[str, np.ndarray]:
    """Write one weight; the outputs must be a multiple of 8. Raises RangeError, ShapeError."""
    where = "awq.pack_gemm"
    zero = _writable(where, linear, 8)
    order = (np.arange(0, len(zero), 8)[:, None] + ORDER).reshape(-1)
    return {
        "qweight": words.pack(np.ascontiguousarray(linear.codes[order].T), BITS),
        "qzeros": words.pack(np.ascontiguousarray(zero[order].T), BITS),
        "scales": stored(where, "scales", linear.scale.T, dtype),
    }


def unpack_gemv(arrays: Arrays, group_size: int | None = None) -> Linear:
    """Read one weight; without `group_size` the scales that are not 0 are counted. Raises QuantError, ShapeError."""
    where = "awq.unpack_gemv"
    qweight = field(where, arrays, "qweight", "int32", (None, None))
    outs, ins = len(qweight), 8 * qweight.shape[1]
    qzeros = field(where, arrays, "qzeros", "int32", (outs, None))
    scale, dtype = floats(field(where, arrays, "scales", DTYPES, (outs, 8 * qzeros.shape[1])))
    size = _padded_size(where, ins, scale, group_size)
    groups = ins // size
    return Linear(
        codes=words.unpack(qweight, BITS, ins),
        scale=np.ascontiguousarray(scale[:, :groups]),
        zero_point=words.unpack(qzeros, BITS, 8 * qzeros.shape[1])[:, :groups].astype(np.int16),
        bits=BITS,
        group_size=size,
        dtype=dtype,
    )


def pack_gemv(linear: Linear, dtype: str = "float16") -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError, ShapeError (outputs and inputs are multiples of 8)."""
    where = "awq.pack_gemv"
    zero = _writable(where, linear, 8)
    require_multiple(where, "in", linear.codes.shape[1], 8)
    padded = 8 * zeros_width(where, linear.codes.shape[1], linear.group_size)
    return {
        "qweight": words.pack(linear.codes, BITS),
        "qzeros": words.pack(_padded(zero, padded), BITS),
        "scales": stored(where, "scales", _padded(linear.scale, padded), dtype),
    }


def unpack_gemv_fast(arrays: Arrays, group_size: int | None = None) -> Linear:
    """Read one weight as codes, scales and offsets. Raises QuantError, ShapeError."""
    where = "awq.unpack_gemv_fast"
    qweight = field(where, arrays, "qweight", "int16", (None, None))
    outs, ins = 4 * len(qweight), qweight.shape[1]
    require_multiple(where, "qweight.shape[1]", ins, 64)
    scales = field(where, arrays, "scales", "float16", (None, outs))
    offset, _ = floats(field(where, arrays, "qzeros", "float16", scales.shape))
    scale, dtype = floats(scales)
    size = _padded_size(where, ins, np.ascontiguousarray(scale.T), group_size)
    groups = ins // size
    # (out / 4, in / 64, 4 outputs, 2 halves of 32 inputs, 32 nibbles in the order FAST)
    nibbles = (qweight.view(np.uint16)[..., None] >> np.uint16([0, 4, 8, 12])) & np.uint16(15)
    nibbles = nibbles.astype(np.uint8).reshape(outs // 4, ins // 64, 4, 2, 32)
    codes = np.empty_like(nibbles)
    codes[..., FAST] = nibbles
    return Linear(
        codes=np.ascontiguousarray(codes.swapaxes(1, 2)).reshape(outs, ins),
        scale=np.ascontiguousarray(scale[:groups].T),
        zero_point=np.zeros((outs, groups), np.int16),
        bits=BITS,
        group_size=size,
        dtype=dtype,
        offset=np.ascontiguousarray(offset[:groups].T),
    )


def pack_gemv_fast(linear: Linear) -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError (an offset that no float16 holds), ShapeError (4 outputs, 64 inputs)."""
    where = "awq.pack_gemv_fast"
    _require_plain(where, linear, 4)
    outs, ins = linear.codes.shape
    require_multiple(where, "in", ins, 64)
    padded = 8 * zeros_width(where, ins, linear.group_size)
    codes = linear.codes.reshape(outs // 4, 4, ins // 64, 2, 32).swapaxes(1, 2)[..., FAST]
    fields = np.ascontiguousarray(codes).reshape(outs // 4, ins, 4).astype(np.uint16) << np.uint16([0, 4, 8, 12])
    offset = _padded(offsets(where, linear), padded)
    return {
        "qweight": np.bitwise_or.reduce(fields, axis=-1).view(np.int16),
        "qzeros": stored(where, "qzeros (-scale * zero_point)", offset.T, "float16"),
        "scales": stored(where, "scales", _padded(linear.scale, padded).T, "float16"),
    }


def zeros_width(where: str, ins: int, group_size: int) -> int:
    """Words of 8 zero points of one output, padding included. Raises ShapeError: AutoAWQ has no other group sizes."""
    if group_size < 128 and group_size not in (32, 64):
        raise ShapeError(f"{where}: group_size = {group_size}, expected 32, 64, or 128 and more")
    whole = -(-128 // group_size)
    wide = -(-(ins // group_size) // 8)
    return -(-wide // whole) * whole


def _interleaved(packed: np.ndarray) -> np.ndarray:
    """(rows, out / 8) words to (rows, out) codes, outputs in their natural order."""
    fields = words.unpack(packed, BITS, 8 * packed.shape[1])
    return fields.reshape(len(packed), -1, 8)[..., INVERSE].reshape(len(packed), -1)


def _padded(values: np.ndarray, width: int) -> np.ndarray:
    """Zeros to the right, up to `width` columns; zero points become uint8."""
    wide = np.zeros((len(values), width), np.uint8 if values.dtype.kind in "iu" else values.dtype)
    wide[:, : values.shape[1]] = values
    return wide


def _padded_size(where: str, ins: int, scale: np.ndarray, group_size: int | None) -> int:
    """The group size behind padded scales (out, columns)."""
    used = int(np.flatnonzero(scale.any(axis=0))[-1]) + 1 if scale.any() else 0
    size = group_size or (ins // used if used else 0)
    if size < 1 or ins % size or 8 * zeros_width(where, ins, size) != scale.shape[1] or ins // size < used:
        got = f"scales have {scale.shape[1]} columns, {used} of them not zero, for {ins} inputs"
        raise ShapeError(f"{where}: {got}, expected those of group_size {size or 'any'}")
    return size


def _require_plain(where: str, linear: Linear, multiple: int) -> None:
    neighbours(where, linear, "AWQ")
    if linear.bits != BITS:
        raise RangeError(f"{where}: bits = {linear.bits}, expected 4")
    require_multiple(where, "out", len(linear.codes), multiple)
    require_multiple(where, "in", linear.codes.shape[1], linear.group_size)


def _writable(where: str, linear: Linear, multiple: int) -> np.ndarray:
    """The zero points, (out, groups) uint8."""
    _require_plain(where, linear, multiple)
    zero = integers(where, linear)
    if zero.min() < 0 or zero.max() > 15:
        raise RangeError(f"{where}: zero_point in {zero.min()}..{zero.max()}, expected 0..15")
    return zero.astype(np.uint8)
