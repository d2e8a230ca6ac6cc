"""NVIDIA ModelOpt, 4-bit integers. Its NVFP4 is in microscaled.py.

int4_awq, the checkpoints that ModelOpt exports, packed in pairs of outputs:

    weight            uint8 (out / 2, in)       two's complement, output 2r in the low nibble, 2r + 1 in the high one
    weight_scale      (out, groups)             amax / 7: x^ = q * weight_scale

    a byte            BBBBAAAA      A = output 2r, B = output 2r + 1, of the same input

  `pre_quant_scale` (in,), the smoothing factor of the inputs, belongs to the layer and is left alone.

INT4QTensor, ModelOpt's compressed weights in memory and in its own files:

    quantized_data    uint8 (out, in / 2)       q + 8, the FIRST code in the high nibble: AAAABBBB
    scale             (out * groups, 1)         7 / amax: x^ = q / scale

Source    nvidia-modelopt 0.47 torch/export/quant_utils.py, pack_int4_in_uint8;
          torch/quantization/qtensor/int4_tensor.py.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import RangeError, require_multiple
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, group_size_of, integers, middle, neighbours


def unpack_int4(arrays: Arrays, group_size: int | None = None) -> Linear:
    """Read one exported int4_awq weight. Raises QuantError (missing, dtype), ShapeError."""
    where = "modelopt.unpack_int4"
    weight = field(where, arrays, "weight", ("uint8", "int8"), (None, None)).view(np.uint8)
    outs, ins = 2 * len(weight), weight.shape[1]
    scale, dtype = floats(field(where, arrays, "weight_scale", FLOATS, (outs, None)))
    codes = np.stack([weight & np.uint8(15), weight >> np.uint8(4)], axis=1).reshape(outs, ins) ^ np.uint8(8)
    size = group_size_of(where, ins, scale.shape[1], group_size)
    return Linear(codes, scale, middle(4, scale.shape), 4, size, dtype)


def pack_int4(linear: Linear, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Write one int4_awq weight. Raises RangeError (not symmetric), ShapeError (an odd number of outputs)."""
    where = "modelopt.pack_int4"
    neighbours(where, linear, "ModelOpt")
    _require_symmetric(where, linear, integers(where, linear))
    require_multiple(where, "out", len(linear.codes), 2)
    signed = linear.codes ^ np.uint8(8)
    return {
        "weight": signed[::2] | (signed[1::2] << np.uint8(4)),
        "weight_scale": stored(where, "weight_scale", linear.scale, dtype or linear.dtype),
    }


def unpack_qtensor(arrays: Arrays) -> Linear:
    """Read one INT4QTensor. Raises QuantError (missing, dtype), ShapeError."""
    where = "modelopt.unpack_qtensor"
    data = field(where, arrays, "quantized_data", "uint8", (None, None))
    outs, ins = len(data), 2 * data.shape[1]
    scales = field(where, arrays, "scale", FLOATS, (None, 1))
    require_multiple(where, "scale.shape[0]", len(scales), outs)
    scale, dtype = floats(scales.reshape(outs, -1))
    size = group_size_of(where, ins, scale.shape[1])
    return Linear(streams.unpack(data, 4, ins, "high"), scale, middle(4, scale.shape), 4, size, dtype, divide=True)


def pack_qtensor(linear: Linear) -> dict[str, np.ndarray]:
    """Write one INT4QTensor from numbers of the form q / scale. Raises RangeError, ShapeError."""
    where = "modelopt.pack_qtensor"
    neighbours(where, linear, "ModelOpt")
    if not linear.divide or linear.offset is not None:
        raise RangeError(f"{where}: a scale that multiplies, expected (q - 8) / scale: 1/scale is rounded")
    _require_symmetric(where, linear, linear.zero_point)
    require_multiple(where, "in", linear.codes.shape[1], linear.group_size)
    require_multiple(where, "in", linear.codes.shape[1], 2)
    return {
        "quantized_data": streams.pack(linear.codes, 4, "high"),
        "scale": stored(where, "scale", linear.scale.reshape(-1, 1), linear.dtype),
    }


def _require_symmetric(where: str, linear: Linear, zero: np.ndarray) -> None:
    if linear.bits != 4 or (zero != 8).any():
        got = f"{linear.bits} bits, zero_point in {zero.min()}..{zero.max()}"
        raise RangeError(f"{where}: {got}, expected 4 bits and 8 everywhere: the layout is symmetric")
