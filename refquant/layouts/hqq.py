"""HQQ (half-quadratic quantization) layers, as HQQLinear.state_dict() gives them.

    x^ = (q - zero) * scale        zero a float, not an integer (except where round_zero was chosen)

    W_q          the codes of the grouped matrix, packed in slabs along its rows
    scale, zero  float16, bfloat16 or float32, one for each group: (groups, 1) for axis 1, (1, groups) for axis 0
    shape        (out, in), int64;   nbits, group_size, axis   int32 scalars

    axis 1       W.reshape(-1, group_size): a row is a group of neighbouring inputs
    axis 0       W.reshape(group_size, -1): a column is a group; its members are out / group_size outputs apart

    4 bits       uint8, 2 slabs     AAAABBBB          A = row r, B = row r + h: the first slab is high
    2 bits       uint8, 4 slabs     AABBCCDD
    1 bit        uint8, 8 slabs     ABCDEFGH
    3 bits       int32, 10 slabs    00AAABBB CCCDDDEE EFFFGGGH HHIIIJJJ     rows padded with zeros to a multiple of 10
    5, 6, 8      uint8, one code a byte

Read with axis 0, a Linear has a row for each group and `shape` set. W_q viewed as floats (view_as_float) is not read;
neither are the older files with quantized scales and zeros.
Source    hqq 0.2.8 core/bitpack.py, core/quantize.py.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, shape_of, stored
from refquant.layouts.linear import Linear, integers

SLABS = {8: 1, 6: 1, 5: 1, 4: 2, 3: 10, 2: 4, 1: 8}


def unpack(arrays: Arrays) -> Linear:
    """Read one weight. Raises QuantError (missing, dtype), ShapeError, RangeError (nbits, axis)."""
    where = "hqq.unpack"
    shape = shape_of(where, "shape", field(where, arrays, "shape", ("int64", "int32"), (2,)))
    bits, size, axis = (_scalar(where, arrays, name) for name in ("nbits", "group_size", "axis"))
    total = shape[0] * shape[1]
    if bits not in SLABS or axis not in (0, 1) or size < 1 or total % size:
        got = f"nbits, group_size, axis = {bits}, {size}, {axis}"
        raise RangeError(f"{where}: {got}, expected nbits in {sorted(SLABS)}, a divisor of {total}, 0 or 1")
    rows, columns = (total // size, size) if axis == 1 else (size, total // size)
    packed = field(where, arrays, "W_q", "int32" if bits == 3 else "uint8", (-(-rows // SLABS[bits]), columns))
    grouped = _unpack_slabs(packed, bits)[:rows]
    per_group = (total // size, 1) if axis == 1 else (1, total // size)
    scales = field(where, arrays, "scale", FLOATS, per_group)
    scale, dtype = floats(scales.reshape(-1, 1))
    zero = floats(field(where, arrays, "zero", scales.dtype.name, per_group).reshape(-1, 1))[0]
    if axis == 0:
        return Linear(np.ascontiguousarray(grouped.T), scale, zero, bits, size, dtype, shape=shape)
    if shape[1] % size:
        raise ShapeError(f"{where}: group_size = {size}, expected a divisor of {shape[1]} inputs")
    across = shape[0], shape[1] // size
    return Linear(grouped.reshape(shape), scale.reshape(across), zero.reshape(across), bits, size, dtype)


def pack(linear: Linear) -> dict[str, np.ndarray]:
    """Write one weight; axis is 0 where `shape` is set. Raises RangeError, ShapeError."""
    where = "hqq.pack"
    if linear.bits not in SLABS or linear.g_idx is not None:
        got = f"{linear.bits} bits{'' if linear.g_idx is None else ' with g_idx'}"
        raise RangeError(f"{where}: {got}, expected bits in {sorted(SLABS)} and groups of neighbouring inputs")
    zero = integers(where, linear) if linear.offset is not None or linear.divide else linear.zero_point
    if linear.codes.shape[1] % linear.group_size:
        raise ShapeError(f"{where}: in = {linear.codes.shape[1]}, expected whole groups of {linear.group_size}")
    axis = 1 if linear.shape is None else 0
    if axis == 0 and linear.groups > 1:
        raise ShapeError(f"{where}: {linear.groups} groups in a row, expected a row for each group along axis 0")
    rows = linear.codes.reshape(-1, linear.group_size)
    per_group = (-1, 1) if axis == 1 else (1, -1)
    return {
        "W_q": _pack_slabs(rows if axis == 1 else np.ascontiguousarray(rows.T), linear.bits),
        "scale": stored(where, "scale", linear.scale.reshape(per_group), linear.dtype),
        "zero": stored(where, "zero", zero.astype(np.float32).reshape(per_group), linear.dtype),
        "shape": np.array(linear.weight_shape, np.int64),
        "nbits": np.array(linear.bits, np.int32),
        "group_size": np.array(linear.group_size, np.int32),
        "axis": np.array(axis, np.int32),
    }


def _shifts(bits: int) -> np.ndarray:
    """Where the slabs begin in a byte or word, the first slab highest; (slabs, 1, 1)."""
    return (np.arange(SLABS[bits])[::-1] * bits)[:, None, None]


def _pack_slabs(rows: np.ndarray, bits: int) -> np.ndarray:
    height = -(-len(rows) // SLABS[bits])
    if bits != 3 and height * SLABS[bits] != len(rows):
        raise ShapeError(f"hqq.pack: {len(rows)} rows, expected a multiple of {SLABS[bits]} for {bits} bits")
    padded = np.zeros((SLABS[bits], height, rows.shape[1]), np.int32 if bits == 3 else np.uint8)
    padded.reshape(-1, rows.shape[1])[: len(rows)] = rows
    return np.bitwise_or.reduce(padded << _shifts(bits).astype(padded.dtype), axis=0)


def _unpack_slabs(packed: np.ndarray, bits: int) -> np.ndarray:
    fields = (packed >> _shifts(bits).astype(packed.dtype)) & packed.dtype.type((1 << bits) - 1)
    return fields.astype(np.uint8).reshape(-1, packed.shape[1])


def _scalar(where: str, arrays: Arrays, name: str) -> int:
    array = field(where, arrays, name, ("int32", "int64", "uint8"), None)
    if array.size != 1:
        raise ShapeError(f"{where}: {name}.shape = {array.shape}, expected one number")
    return int(array.reshape(()))
