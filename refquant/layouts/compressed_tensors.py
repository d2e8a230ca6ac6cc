"""compressed-tensors checkpoints, the integer formats (the floating ones are in microscaled.py).

    x^ = (q - z) * weight_scale          q, z signed in the format's own terms; here both have 2^(bits-1) added

pack-quantized, 1 to 8 bits:

    weight_packed      int32 (out, words)       q + 2^(bits-1) along the inputs, a dense stream, low first: words.py
    weight_scale       (out, groups)            the dtype of the model; one group is the strategy "channel"
    weight_shape       int64 (2,)               (out, in), since the last word may not be full
    weight_zero_point  int32 (words, groups)    asymmetric only: z + 2^(bits-1) along the outputs
    weight_g_idx       int32 (in,)              act-order; written until 2026

    4 bits             HHHHGGGG FFFFEEEE DDDDCCCC BBBBAAAA      A = input 8c

  Releases up to 0.9 and some later padded every word instead (words.py, aligned): for 3, 5, 6 and 7 bits the number of
  words tells which it is. 7 bits aligned take the words of 8 bits: `bits` has to be said there.

int-quantized, naive-quantized:

    weight             int8 (out, in)
    weight_scale       (out, groups), or (1,) and () for one scale of all
    weight_zero_point  int8, the same shape; absent means 0

Source    compressed_tensors 0.19 and 0.9 compressors/pack_quantized, compressors/naive_quantized.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.layouts import words
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, shape_of, stored
from refquant.layouts.linear import Linear, group_size_of, integers, middle, neighbours


def unpack_packed(arrays: Arrays, bits: int | None = None, group_size: int | None = None) -> Linear:
    """Read one pack-quantized weight; bits follow from the width unless it fits several.

    Raises QuantError (missing, dtype), ShapeError, RangeError (bits, g_idx).
    """
    where = "compressed_tensors.unpack_packed"
    outs, ins = shape_of(where, "weight_shape", field(where, arrays, "weight_shape", ("int64", "int32"), (2,)))
    packed = field(where, arrays, "weight_packed", "int32", (outs, None))
    bits, aligned = _width(where, ins, packed.shape[1], bits)
    scales = field(where, arrays, "weight_scale", FLOATS, (outs, None))
    groups = scales.shape[1]
    scale, dtype = floats(scales)
    read = words.unpack_aligned if aligned else words.unpack
    zero = middle(bits, scale.shape)
    if "weight_zero_point" in arrays:
        wide = words.count(outs, bits, aligned)
        packed_zero = field(where, arrays, "weight_zero_point", "int32", (wide, groups))
        zero = np.ascontiguousarray(read(np.ascontiguousarray(packed_zero.T), bits, outs).T).astype(np.int16)
    g_idx = None
    size = group_size_of(where, ins, groups, group_size)
    if "weight_g_idx" in arrays:
        g_idx = field(where, arrays, "weight_g_idx", ("int32", "int64"), (ins,)).astype(np.int32)
        g_idx = None if (g_idx == np.arange(ins) // size).all() else g_idx
    return Linear(read(packed, bits, ins), scale, zero, bits, size, dtype, g_idx=g_idx)


def pack_packed(linear: Linear, dtype: str | None = None, aligned: bool = False) -> dict[str, np.ndarray]:
    """Write one pack-quantized weight, symmetric without zero points. Raises RangeError."""
    where = "compressed_tensors.pack_packed"
    zero = _zero_codes(where, linear)
    write = words.pack_aligned if aligned else words.pack
    arrays = {
        "weight_packed": write(linear.codes, linear.bits),
        "weight_scale": stored(where, "weight_scale", linear.scale, dtype or linear.dtype),
        "weight_shape": np.array(linear.codes.shape, np.int64),
    }
    if (zero != 1 << (linear.bits - 1)).any():
        arrays["weight_zero_point"] = np.ascontiguousarray(write(np.ascontiguousarray(zero.T), linear.bits).T)
    if linear.g_idx is not None:
        arrays["weight_g_idx"] = linear.g_idx
    return arrays


def unpack_int(arrays: Arrays, bits: int = 8) -> Linear:
    """Read one int-quantized or naive-quantized weight. `bits` below 8 are codes of that many bits in whole bytes."""
    where = "compressed_tensors.unpack_int"
    weight = field(where, arrays, "weight", "int8", (None, None))
    outs, ins = weight.shape
    half = 1 << (bits - 1) if bits in range(1, 9) else 0
    if not half or weight.min() < -half or weight.max() >= half:
        raise RangeError(f"{where}: weight in {weight.min()}..{weight.max()}, expected codes of bits = {bits}")
    scales = field(where, arrays, "weight_scale", FLOATS, None)
    if scales.size == 1:
        scale = np.broadcast_to(scales.reshape(1, 1), (outs, 1))
    else:
        scale = field(where, arrays, "weight_scale", FLOATS, (outs, None))
    values, dtype = floats(np.ascontiguousarray(scale))
    zero = middle(bits, values.shape)
    if "weight_zero_point" in arrays:
        points = field(where, arrays, "weight_zero_point", "int8", scales.shape)
        zero = (zero + points.reshape(1, 1) if points.size == 1 else zero + points).astype(np.int16)
    codes = (weight.astype(np.int16) + half).astype(np.uint8)
    return Linear(codes, values, zero, bits, group_size_of(where, ins, values.shape[1]), dtype)


def pack_int(linear: Linear, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Write one int-quantized weight. Raises RangeError."""
    where = "compressed_tensors.pack_int"
    neighbours(where, linear, "int-quantized")
    zero = _zero_codes(where, linear)
    half = 1 << (linear.bits - 1)
    arrays = {
        "weight": (linear.codes.astype(np.int16) - half).astype(np.int8),
        "weight_scale": stored(where, "weight_scale", linear.scale, dtype or linear.dtype),
    }
    if (zero != half).any():
        arrays["weight_zero_point"] = (zero.astype(np.int16) - half).astype(np.int8)
    return arrays


def _zero_codes(where: str, linear: Linear) -> np.ndarray:
    """Zero points as codes, (out, groups) uint8."""
    if linear.shape is not None:
        raise RangeError(f"{where}: groups run across the outputs, expected groups along the inputs")
    zero = integers(where, linear)
    if zero.min() < 0 or zero.max() >> linear.bits:
        raise RangeError(f"{where}: zero_point in {zero.min()}..{zero.max()}, expected codes of {linear.bits} bits")
    return zero.astype(np.uint8)


def _width(where: str, ins: int, width: int, bits: int | None) -> tuple[int, bool]:
    """(bits, aligned) of a row of `width` words."""
    dense = [(b, False) for b in range(1, 9) if words.count(ins, b) == width]
    fitting = dense + [(b, True) for b in range(1, 9) if 32 % b and words.count(ins, b, aligned=True) == width]
    if bits is not None:
        fitting = [f for f in fitting if f[0] == bits][:1]
    elif len(dense) == 1:
        fitting = dense
    if len(fitting) != 1:
        shown = ", ".join(f"{b} bits{' aligned' * a}" for b, a in fitting) or "none of 1 to 8 bits"
        raise ShapeError(f"{where}: {width} words for {ins} inputs fit {shown}, expected one: say bits")
    return fitting[0]
