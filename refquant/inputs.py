"""What may be quantized: the one gate that turns an argument into float32.

Accepted  float16, bfloat16 (the ml_dtypes scalar type), float32, float64; any layout; at least one axis and one value.
Returned  float32, C-contiguous; the argument itself when it is that already, so treat the result as read-only.
Rounding  float64 is rounded to nearest, ties to even; what underflows float32 becomes a subnormal or zero.
Refused   NaN and infinities (NonFiniteError), float64 beyond float32 (RangeError), no axis or no value (ShapeError),
          every other dtype (QuantError): an integer array is more often a mistake than a weight.
"""

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError, require_finite

ACCEPTED = ("float16", "bfloat16", "float32", "float64")


def as_float32(where: str, x: object, name: str = "x") -> np.ndarray:
    """Return `x` as a finite, non-empty, C-contiguous float32 array; `where` and `name` go into the errors."""
    try:
        array = np.asarray(x)
    except ValueError as error:  # a ragged list
        raise ShapeError(f"{where}: {name} = {type(x).__name__}, expected a rectangular array ({error})") from error
    if array.dtype.name not in ACCEPTED:
        raise QuantError(f"{where}: {name}.dtype = {array.dtype}, expected one of {', '.join(ACCEPTED)}")
    if array.ndim == 0:
        raise ShapeError(f"{where}: {name}.ndim = 0, expected at least one axis; reshape(1) makes a scalar an array")
    if array.size == 0:
        raise ShapeError(f"{where}: {name}.shape = {array.shape}, expected at least one value")
    require_finite(where, array, name)
    with np.errstate(over="ignore", under="ignore"):
        narrowed = np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype == np.float64 and not np.isfinite(narrowed).all():
        first = int(np.argmin(np.isfinite(narrowed)))
        raise RangeError(
            f"{where}: {name}.flat[{first}] = {array.flat[first]}, expected a magnitude below 2^128 (float32)"
        )
    return narrowed
