"""ONNX: the blocked weight of com.microsoft's MatMulNBits, and tensors of int2, uint2, int4 and uint4.

MatMulNBits, bits 2, 4, 8, the inputs cut into blocks of block_size (a power of two, 16 or more), the last padded:

    B            uint8 (out, blocks, block_size * bits / 8)     low first: BBBBAAAA, A = input 2i
    scales       (out * blocks,) or (out, blocks)               float32, float16, bfloat16
    zero_points  uint8 (out * ceil(blocks * bits / 8),)         packed low first, every output begins a byte; or as
                 (out, ...); absent means 2^(bits-1)
                 or a float dtype, (out * blocks,): not rounded
    x^ = (q - z) * s        x y = A B^T; K of the node says how many inputs are not padding

Tensors (TensorProto INT4, UINT4, INT2, UINT2, raw_data): flat, low first, an odd count leaves the last high bits 0.
`pack_tensor` and `unpack_tensor` do them; QuantizeLinear's blocked scales are the groups of Linear along its axis.
FLOAT4E2M1 packs as UINT4 does: its codes are the bit patterns.
Source    onnxruntime docs/ContribOperators.md, MatMulNBits; onnx TensorProto.DataType.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, integers, middle, neighbours


def unpack_matmul(arrays: Arrays, bits: int = 4, ins: int | None = None) -> Linear:
    """Read B, scales, zero_points of one MatMulNBits; `ins` is its K, all of B by default.

    Raises QuantError (missing, dtype), ShapeError, RangeError (bits, K).
    """
    where = "onnx.unpack_matmul"
    if bits not in (2, 4, 8):
        raise RangeError(f"{where}: bits = {bits!r}, expected 2, 4 or 8")
    data = field(where, arrays, "B", "uint8", (None, None, None))
    outs, blocks, width = data.shape
    size = width * 8 // bits
    ins = ins or blocks * size
    if size < 16 or size & (size - 1) or -(-ins // size) != blocks:
        raise ShapeError(f"{where}: block_size = {size}, {blocks} blocks, K = {ins}, expected a power of two that fits")
    scales = np.asarray(arrays.get("scales", ()))
    shape = (outs, blocks) if scales.ndim == 2 else (outs * blocks,)
    scale, dtype = floats(field(where, arrays, "scales", FLOATS, shape).reshape(outs, blocks))
    zero = _zeros(where, arrays, bits, outs, blocks) if "zero_points" in arrays else middle(bits, scale.shape)
    codes = streams.unpack(data.reshape(outs, -1), bits, blocks * size)[:, :ins]
    return Linear(np.ascontiguousarray(codes), scale, zero, bits, size, dtype)


def pack_matmul(linear: Linear, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Write B, scales and, unless symmetric, zero_points. Padding is coded as zero. Raises RangeError, ShapeError."""
    where = "onnx.pack_matmul"
    neighbours(where, linear, "MatMulNBits")
    size, bits, (outs, ins) = linear.group_size, linear.bits, linear.codes.shape
    if bits not in (2, 4, 8) or size < 16 or size & (size - 1):
        raise RangeError(f"{where}: {bits} bits in groups of {size}, expected 2, 4, 8 and a power of two from 16 on")
    dtype = dtype or linear.dtype
    fractions = not linear.integer_zero and bool((linear.zero_point % 1 != 0).any())
    float_zero = fractions and linear.offset is None and not linear.divide
    zero = linear.zero_point if float_zero else integers(where, linear)
    if not float_zero and (zero.min() < 0 or zero.max() >> bits):
        raise RangeError(f"{where}: zero_point in {zero.min()}..{zero.max()}, expected codes of {bits} bits")
    padded = np.zeros((outs, linear.groups * size), np.uint8)
    padded[:, :ins] = linear.codes
    if not float_zero and padded.shape[1] > ins:
        padded[:, ins:] = zero[:, -1:].astype(np.uint8)
    arrays = {
        "B": streams.pack(padded, bits).reshape(outs, linear.groups, -1),
        "scales": stored(where, "scales", linear.scale.reshape(-1), dtype),
    }
    if float_zero:
        arrays["zero_points"] = stored(where, "zero_points", zero.reshape(-1), dtype)
    elif (zero != 1 << (bits - 1)).any():
        arrays["zero_points"] = streams.pack(zero.astype(np.uint8), bits).reshape(-1)
    return arrays


def unpack_tensor(data: np.ndarray, shape: tuple[int, ...], bits: int = 4, signed: bool = False) -> np.ndarray:
    """raw_data (uint8) of an INT4 or UINT4 (INT2, UINT2) tensor as int8 or uint8 of `shape`."""
    count = 1
    for n in shape:
        count *= n
    if bits not in (2, 4) or data.dtype != np.uint8 or min(shape, default=1) < 0 or data.size != -(-count * bits // 8):
        got = f"{data.size} bytes of {data.dtype}"
        raise ShapeError(f"onnx.unpack_tensor: {got}, expected uint8 for {shape} of 2 or 4 bits, here {bits}")
    return streams.unpack(data.reshape(-1), bits, count, signed=signed).reshape(shape)


def pack_tensor(codes: np.ndarray, bits: int = 4) -> np.ndarray:
    """Inverse of `unpack_tensor`: flat raw_data. Raises RangeError for a code that does not fit."""
    return streams.pack(codes.reshape(-1), bits)


def _zeros(where: str, arrays: Arrays, bits: int, outs: int, blocks: int) -> np.ndarray:
    zeros = np.asarray(arrays["zero_points"])
    if zeros.dtype != np.uint8:
        if zeros.size != outs * blocks:
            raise ShapeError(f"{where}: zero_points.shape = {zeros.shape}, expected {outs} x {blocks} floats")
        return floats(field(where, arrays, "zero_points", FLOATS, None))[0].reshape(outs, blocks)
    width = streams.packed_bytes(blocks, bits)
    if zeros.size != outs * width or zeros.ndim > 2:
        raise QuantError(f"{where}: zero_points.shape = {zeros.shape}, expected {outs} x {width} bytes")
    return streams.unpack(zeros.reshape(outs, width), bits, blocks).astype(np.int16)
