"""torchao's plain 4-bit weights (Int4Tensor), as its safetensors support flattens them.

    x^ = q * scale + zero_point       q in -8..7: with c = q + 8,  x^ = (c - 8) * scale + zero_point

    _weight_qdata        int8 (out, in / 2)      low nibble first, two's complement; uint8 is read too
    _weight_scale        (groups, out)           the dtype of the model, often bfloat16
    _weight_zero_point   (groups, out)           the same dtype; a float, the value of q = 0

    a byte               BBBBAAAA      A = input 2i

Source    torchao 0.18 quantization/quantize_/workflows/int4/int4_tensor.py; FBGEMM pack_int4, int4_row_quantize_zp.
Differs   Int4TilePackedTo4dTensor and Int4PreshuffledTensor hold the order of one processor's registers: not read.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import RangeError, ShapeError
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, group_size_of, middle, neighbours

DATA, SCALE, ZERO = "_weight_qdata", "_weight_scale", "_weight_zero_point"


def unpack(arrays: Arrays, group_size: int | None = None) -> Linear:
    """Read one weight. Raises QuantError (missing, dtype), ShapeError."""
    where = "torchao.unpack"
    data = field(where, arrays, DATA, ("uint8", "int8"), (None, None))
    outs, ins = len(data), 2 * data.shape[1]
    scales = field(where, arrays, SCALE, FLOATS, (None, outs))
    offset = floats(field(where, arrays, ZERO, scales.dtype.name, scales.shape))[0]
    scale, dtype = floats(scales)
    return Linear(
        codes=streams.unpack(data.view(np.uint8), 4, ins) ^ np.uint8(8),  # q + 8 of two's complement
        scale=np.ascontiguousarray(scale.T),
        zero_point=middle(4, (outs, len(scales))),
        bits=4,
        group_size=group_size_of(where, ins, len(scales), group_size),
        dtype=dtype,
        offset=np.ascontiguousarray(offset.T),
    )


def pack(linear: Linear) -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError (another zero code, a zero that is no `dtype`), ShapeError."""
    where = "torchao.pack"
    neighbours(where, linear, "torchao")
    if linear.bits != 4 or linear.divide:
        raise RangeError(
            f"{where}: {linear.bits} bits, divide = {linear.divide}, expected 4 bits, a scale that multiplies"
        )
    if linear.codes.shape[1] % 2 or linear.codes.shape[1] % linear.group_size:
        raise ShapeError(f"{where}: in = {linear.codes.shape[1]}, expected whole groups and an even number")
    # (8 - zero_point) * scale + offset is the value of q = 0; float64 holds it unless the two are far apart
    value = (8 - linear.zero_point.astype(np.float64)) * linear.scale
    value = value if linear.offset is None else value + linear.offset
    narrow = value.astype(np.float32)
    if not (narrow == value).all():
        raise RangeError(f"{where}: the value of code 8 needs more than 24 bits, expected one that a float32 holds")
    return {
        DATA: streams.pack(linear.codes ^ np.uint8(8), 4).view(np.int8),
        SCALE: stored(where, SCALE, linear.scale.T, linear.dtype),
        ZERO: stored(where, ZERO, narrow.T, linear.dtype),
    }
