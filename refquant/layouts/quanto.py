"""quanto (optimum-quanto) weights: qint2, qint4 in groups, qint8 per output.

    qint4, qint2    x^ = scale * q - shift     float shift = -min;  an integer shift:  x^ = (q - shift) * scale
    qint8           x^ = q * scale

    weight._data    qint4, qint2   uint8   the codes as (out * groups, group_size), a row for each group, cut along the
                                           rows into 2 (4) slabs of equal height; the first slab takes the low bits
                    qint8          int8    (out, in)
    weight._scale   (out * groups, 1), qint8 (out, 1)     the dtype of the model
    weight._shift   (out * groups, 1)                     the same dtype, or int8

    a byte, 4 bits  BBBBAAAA   A = row r, B = row r + h of the same column, h = ceil(rows / 2)
            2 bits  DDCCBBAA   A = row r, B = r + h, C = r + 2h, D = r + 3h, h = ceil(rows / 4)

quanto writes weights with axis = 0, which is what is read here. A weight that quanto holds for its TinyGemm or AWQ
kernels is converted back to this form when it is saved. Without groups group_size is the whole row.
Source    optimum-quanto 0.2.7 tensor/packed.py, tensor/qbits.py, tensor/grouped.py.
Differs   HQQ cuts the same slabs, the first one in the high bits.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, integers, middle, neighbours

DATA, SCALE, SHIFT = "weight._data", "weight._scale", "weight._shift"


def unpack(arrays: Arrays, shape: tuple[int, int] | None = None, bits: int | None = None) -> Linear:
    """Read one weight. qint2 and qint4 need `shape`, (out, in), which no array holds; bits follow from the sizes.

    Raises RangeError (no shape, sizes that fit neither), QuantError (missing, dtype), ShapeError.
    """
    where = "quanto.unpack"
    data = field(where, arrays, DATA, ("uint8", "int8"), (None, None))
    if data.dtype == np.int8:
        scale, dtype = floats(field(where, arrays, SCALE, FLOATS, (len(data), 1)))
        codes = (data.view(np.uint8)) ^ np.uint8(128)  # q + 128
        return Linear(codes, scale, middle(8, scale.shape), 8, data.shape[1], dtype)
    if shape is None or len(shape) != 2 or min(shape) < 1:
        raise RangeError(f"{where}: shape = {shape!r}, expected (out, in): packed slabs do not tell it")
    outs, ins = shape
    scales = field(where, arrays, SCALE, FLOATS, (None, 1))
    rows, size = len(scales), data.shape[1]
    if rows * size != outs * ins or rows % outs:
        raise ShapeError(f"{where}: {rows} groups of {size}, expected them to fill {outs} outputs x {ins} inputs")
    bits = bits or next((b for b in (2, 4) if len(data) == -(-rows // (8 // b))), 0)
    if bits not in (2, 4) or len(data) != -(-rows // (8 // bits)):
        raise RangeError(
            f"{where}: {len(data)} rows of bytes for {rows} groups and bits = {bits}, expected 2 or 4 bits"
        )
    scale, dtype = floats(scales.reshape(outs, -1))
    linear = {
        "codes": np.ascontiguousarray(_slabs(data, bits)[:rows]).reshape(outs, ins),
        "scale": scale,
        "bits": bits,
        "group_size": size,
        "dtype": dtype,
    }
    shift = field(where, arrays, SHIFT, ("int8", scales.dtype.name), scales.shape).reshape(outs, -1)
    if shift.dtype == np.int8:
        return Linear(zero_point=shift.astype(np.int16), **linear)
    return Linear(zero_point=np.zeros(scale.shape, np.int16), offset=0 - floats(shift)[0], **linear)


def pack(linear: Linear) -> dict[str, np.ndarray]:
    """Write one weight: 8 bits symmetric per output, or 2 and 4 bits in groups.

    An offset alone becomes a float shift, everything else an integer one. Raises RangeError.
    """
    where = "quanto.pack"
    neighbours(where, linear, "quanto")
    if linear.bits not in (2, 4, 8) or linear.codes.shape[1] % linear.group_size:
        got = f"{linear.bits} bits, groups of {linear.group_size} for {linear.codes.shape[1]} inputs"
        raise RangeError(f"{where}: {got}, expected 2, 4 or 8 bits and whole groups")
    if linear.offset is not None and not linear.zero_point.any() and not linear.divide and linear.bits < 8:
        return _packed(linear, stored(where, SHIFT, 0 - linear.offset.reshape(-1, 1), linear.dtype))
    zero = integers(where, linear)
    if linear.bits < 8:
        if np.abs(zero).max() > 127:
            raise RangeError(f"{where}: max|zero_point| = {np.abs(zero).max()}, expected an int8")
        return _packed(linear, zero.reshape(-1, 1).astype(np.int8))
    if linear.groups > 1 or (zero != 128).any():
        got = f"{linear.groups} groups, zero_point in {zero.min()}..{zero.max()}"
        raise RangeError(f"{where}: {got}, expected qint8: one scale a row, 128")
    return {
        DATA: (linear.codes ^ np.uint8(128)).view(np.int8),
        SCALE: stored(where, SCALE, linear.scale, linear.dtype),
    }


def _packed(linear: Linear, shift: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of 2 and 4 bits."""
    rows = linear.codes.reshape(-1, linear.group_size)
    height = -(-len(rows) // (8 // linear.bits))
    padded = np.zeros((8 // linear.bits, height, linear.group_size), np.uint8)
    padded.reshape(-1, linear.group_size)[: len(rows)] = rows
    shifts = np.arange(0, 8, linear.bits, dtype=np.uint8)[:, None, None]
    return {
        DATA: np.bitwise_or.reduce(padded << shifts, axis=0),
        SCALE: stored("quanto.pack", SCALE, linear.scale.reshape(-1, 1), linear.dtype),
        SHIFT: shift,
    }


def _slabs(data: np.ndarray, bits: int) -> np.ndarray:
    """(height, size) bytes to (height * 8 / bits, size) codes, the low bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:, None, None]
    return ((data >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1, data.shape[1])
