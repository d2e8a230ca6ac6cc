"""MLX affine quantization (`mx.quantize`, mlx-lm checkpoints).

    x^ = q * scales + biases

    weight   uint32 (out, in * bits / 32)     codes along the inputs, a dense stream, low first: words.py
    scales   (out, groups)                    float16, bfloat16 or float32, the dtype of the model
    biases   (out, groups)                    the same dtype: the value of code 0; not the bias of the layer

    4 bits   HHHHGGGG FFFFEEEE DDDDCCCC BBBBAAAA      A = input 8c

Bits and group size are in config.json only ({"quantization": {"group_size": 64, "bits": 4}}). The shapes fix their
product, bits * group_size = 32 * words / groups: 4 bits in groups of 64 look like 8 bits in groups of 32. One of the
two has to be said. MLX has bits 2, 3, 4, 5, 6, 8 and groups of 32, 64, 128.
Source   ml-explore/mlx mlx/ops.cpp, affine_quantize and affine_dequantize; checked against mlx 0.32.
"""

import numpy as np

from refquant.errors import RangeError
from refquant.layouts import words
from refquant.layouts.arrays import FLOATS, Arrays, field, floats, stored
from refquant.layouts.linear import Linear, neighbours, offsets

BITS = (2, 3, 4, 5, 6, 8)
GROUPS = (32, 64, 128)


def candidates(arrays: Arrays) -> list[tuple[int, int]]:
    """Every (bits, group_size) of MLX that the shapes of weight and scales allow."""
    where = "mlx.candidates"
    weight = field(where, arrays, "weight", "uint32", (None, None))
    groups = field(where, arrays, "scales", FLOATS, (len(weight), None)).shape[1]
    return [(b, g) for b in BITS for g in GROUPS if b * g * groups == 32 * weight.shape[1]]


def unpack(arrays: Arrays, bits: int | None = None, group_size: int | None = None) -> Linear:
    """Read one weight; `bits` or `group_size` must be given where the shapes leave a choice.

    Raises RangeError (ambiguous, or none fits), QuantError (missing, dtype), ShapeError.
    """
    where = "mlx.unpack"
    fitting = [c for c in candidates(arrays) if bits in (None, c[0]) and group_size in (None, c[1])]
    if len(fitting) != 1:
        shown = " or ".join(f"{b} bits in groups of {g}" for b, g in fitting) or "no bits and group size of MLX"
        raise RangeError(f"{where}: the shapes fit {shown}, expected exactly one: say bits or group_size")
    bits, size = fitting[0]
    weight, scales = arrays["weight"], np.asarray(arrays["scales"])
    scale, dtype = floats(scales)
    offset, _ = floats(field(where, arrays, "biases", scales.dtype.name, scales.shape))
    return Linear(
        codes=words.unpack(weight, bits, size * scales.shape[1]),
        scale=scale,
        zero_point=np.zeros(scale.shape, np.int16),
        bits=bits,
        group_size=size,
        dtype=dtype,
        offset=offset,
    )


def pack(linear: Linear, dtype: str | None = None) -> dict[str, np.ndarray]:
    """Write one weight. Raises RangeError where -scale * zero_point is no `dtype`, or MLX has no such groups."""
    where = "mlx.pack"
    neighbours(where, linear, "MLX")
    ins = linear.codes.shape[1]
    if linear.bits not in BITS or linear.group_size not in GROUPS or ins % linear.group_size:
        got = f"{linear.bits} bits, groups of {linear.group_size}, {ins} inputs"
        raise RangeError(f"{where}: {got}, expected bits in {BITS} and whole groups of one of {GROUPS}")
    dtype = dtype or linear.dtype
    return {
        "weight": words.pack(linear.codes, linear.bits).view(np.uint32),
        "scales": stored(where, "scales", linear.scale, dtype),
        "biases": stored(where, "biases (-scale * zero_point)", offsets(where, linear), dtype),
    }
