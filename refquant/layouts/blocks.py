"""ggml's linear blocks (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0) as Linear: 32 inputs, float16 scales.

    Q4_0, Q5_0, Q8_0    x^ = (q - z) * d        z = 8, 16, 128 (Q8_0 holds q - 128 as int8)
    Q4_1, Q5_1          x^ = q * d + m

    weight    uint8 (out, in / 32 * block bytes), the rows of a GGUF tensor

    18 bytes of Q4_0   dd BBBBAAAA ...   byte j holds weight j (low) and weight 16 + j (high): refquant/gguf/legacy.py

A larger group of another layout becomes several blocks with the same scale. Codes are not changed, so what these
blocks cannot say is refused: a zero point that is not the middle (Q4_0), a minimum that is no float16 (Q4_1).
"""

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.gguf import legacy
from refquant.layouts.arrays import Arrays, field, stored
from refquant.layouts.linear import Linear, integers, middle, neighbours, offsets

TYPES = {"Q4_0": (4, legacy.Q4_0), "Q4_1": (4, legacy.Q4_1), "Q5_0": (5, legacy.Q5_0), "Q5_1": (5, legacy.Q5_1)}
TYPES["Q8_0"] = (8, legacy.Q8_0)
BLOCK = 32


def unpack(arrays: Arrays, type_name: str) -> Linear:
    """Read one weight. Raises QuantError (missing, dtype), ShapeError, RangeError (another type)."""
    where = "blocks.unpack"
    bits, layout = _type(where, type_name)
    data = field(where, arrays, "weight", "uint8", (None, None))
    if data.shape[1] % layout.itemsize:
        raise ShapeError(f"{where}: weight.shape[1] = {data.shape[1]}, expected a multiple of {layout.itemsize}")
    blocks = np.ascontiguousarray(data).view(layout)  # (out, in / 32)
    if type_name == "Q8_0":
        codes = blocks["qs"].view(np.uint8) ^ np.uint8(128)
    else:
        codes = legacy.nibbles(blocks["qs"])
        if bits == 5:
            codes = codes | (_high_bits(blocks["qh"]) << np.uint8(4))
    has_minimum = "m" in layout.names
    return Linear(
        codes=np.ascontiguousarray(codes).reshape(len(data), -1),
        scale=blocks["d"].astype(np.float32),
        zero_point=np.zeros(blocks.shape, np.int16) if has_minimum else middle(bits, blocks.shape),
        bits=bits,
        group_size=BLOCK,
        offset=blocks["m"].astype(np.float32) if has_minimum else None,
    )


def pack(linear: Linear, type_name: str) -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError, ShapeError (inputs or groups that 32 does not divide)."""
    where = "blocks.pack"
    bits, layout = _type(where, type_name)
    neighbours(where, linear, f"GGUF {type_name}")
    outs, ins = linear.codes.shape
    if linear.bits != bits:
        raise RangeError(f"{where}: bits = {linear.bits}, expected {bits} for {type_name}")
    if (linear.group_size % BLOCK and linear.groups > 1) or ins % BLOCK:
        raise ShapeError(f"{where}: groups of {linear.group_size}, {ins} inputs, expected multiples of {BLOCK}")
    blocks = np.zeros((outs, ins // BLOCK), layout)
    blocks["d"] = stored(where, "d", linear.per_input(linear.scale)[:, ::BLOCK], "float16")
    if "m" in layout.names:
        minimum = linear.per_input(offsets(where, linear))[:, ::BLOCK]
        blocks["m"] = stored(where, "m (-scale * zero_point)", minimum, "float16")
    else:
        zero = integers(where, linear)
        wrong = np.argwhere(zero != 1 << (bits - 1))
        if len(wrong):
            row, group = (int(i) for i in wrong[0])
            got = f"zero_point[{row}, {group}] = {zero[row, group]}"
            raise RangeError(f"{where}: {got}, expected {1 << (bits - 1)}, the only one of {type_name}")
    codes = linear.codes.reshape(outs, -1, BLOCK)
    if type_name == "Q8_0":
        blocks["qs"] = (codes ^ np.uint8(128)).view(np.int8)
    else:
        blocks["qs"] = legacy.pack_nibbles(codes & np.uint8(15))
        if bits == 5:
            blocks["qh"] = np.packbits(codes >> np.uint8(4), axis=-1, bitorder="little")
    return {"weight": blocks.view(np.uint8).reshape(outs, -1)}


def _high_bits(qh: np.ndarray) -> np.ndarray:
    """(..., 4) bytes to (..., 32) bits, bit i of the little-endian word for weight i."""
    return np.unpackbits(qh, axis=-1, bitorder="little")


def _type(where: str, type_name: str) -> tuple[int, np.dtype]:
    if type_name not in TYPES:
        raise RangeError(f"{where}: type_name = {type_name!r}, expected one of {', '.join(TYPES)}")
    return TYPES[type_name]
