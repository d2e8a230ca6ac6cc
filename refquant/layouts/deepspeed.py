"""DeepSpeed ZeRO-Inference, 4 and 8 bits.

    x^ = q / scale + min            scale = (2^bits - 1) / (max - min): it divides, unlike everywhere else

    weight        4 bits: uint8 (out, in / 2), the first code in the high nibble;   8 bits: uint8 (out, in)
    quant_scale   (out, groups, 1)     float16 or bfloat16, the dtype of the model
    quant_min     (out, groups, 1)

    a byte        AAAABBBB      A = input 2i, B = input 2i + 1

DeepSpeed concatenates the three to one flat parameter of the model's dtype; the names above are those of its functions.
`group_dim` other than the last is not read. A constant group has max = min: its scale is infinite (0 / 0 while
encoding), and it decodes to min, since q / infinity is 0.
Source    deepspeed 0.19.8 inference/quantization/utils.py, Quantizer and DeQuantizer.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import RangeError
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, group_size_of, neighbours


def unpack(arrays: Arrays, bits: int = 4, group_size: int | None = None) -> Linear:
    """Read one weight. Raises QuantError (missing, dtype), ShapeError, RangeError (bits)."""
    where = "deepspeed.unpack"
    _check_bits(where, bits)
    weight = field(where, arrays, "weight", "uint8", (None, None))
    outs, ins = len(weight), weight.shape[1] * (8 // bits)
    scales = field(where, arrays, "quant_scale", FLOATS, (outs, None, 1))
    scale, dtype = floats(scales[..., 0])
    offset, _ = floats(field(where, arrays, "quant_min", scales.dtype.name, scales.shape)[..., 0])
    return Linear(
        codes=streams.unpack(weight, bits, ins, "high"),
        scale=scale,
        zero_point=np.zeros(scale.shape, np.int16),
        bits=bits,
        group_size=group_size_of(where, ins, scale.shape[1], group_size),
        dtype=dtype,
        offset=offset,
        divide=True,
    )


def pack(linear: Linear) -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError for numbers that are not of the form q / scale + min."""
    where = "deepspeed.pack"
    _check_bits(where, linear.bits)
    neighbours(where, linear, "DeepSpeed")
    if not linear.divide or linear.offset is None or linear.zero_point.any():
        raise RangeError(f"{where}: a scale that multiplies, expected q / scale + min: 1/scale is rounded")
    if linear.codes.shape[1] % linear.group_size or linear.codes.shape[1] % (8 // linear.bits):
        raise RangeError(
            f"{where}: in = {linear.codes.shape[1]}, expected whole groups of {linear.group_size} and bytes"
        )
    return {
        "weight": streams.pack(linear.codes, linear.bits, "high"),
        "quant_scale": stored(where, "quant_scale", linear.scale, linear.dtype)[..., None],
        "quant_min": stored(where, "quant_min", linear.offset, linear.dtype)[..., None],
    }


def _check_bits(where: str, bits: int) -> None:
    if bits not in (4, 8):
        raise RangeError(f"{where}: bits = {bits!r}, expected 4 or 8")
