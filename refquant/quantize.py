"""The entry: an array and the name of a format in, a QuantizedTensor out."""

import numpy as np

from refquant import groups
from refquant.codecs import CODECS
from refquant.errors import UnsupportedError
from refquant.inputs import as_float32
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


def quantize(
    array: np.ndarray, scheme: str | Scheme, *, rng: np.random.Generator | None = None, **options: object
) -> QuantizedTensor:
    """Quantize `array` by `scheme`.

    array     float16, bfloat16, float32 or float64, one axis or more, any layout; it is not changed. It is rounded to
              float32 first: all arithmetic of the linear and codebook formats is float32, and ggml's starts from it.
    scheme    a spelling such as "int4-g128-asym", "nf4" or "Q4_0" (schemes.py has the grammar), or a Scheme.
    rng       needed for stochastic rounding, unused otherwise.
    options   values of the scheme's rule by the names of its fields: range_mode="full" is the word "full".

    Raises SchemeError (unknown scheme or option), ShapeError (no axis, no value, a length that the group does not
    divide), NonFiniteError (NaN, infinity), RangeError (beyond float32, or a scale beyond its dtype),
    UnsupportedError (a ggml type without an encoder here), QuantError (any other dtype).

    >>> q = quantize(np.linspace(-1, 1, 8), "int4")
    >>> q.codes.tolist(), float(q.scale)
    ([-7, -5, -3, -1, 1, 3, 5, 7], 0.13333334028720856)
    """
    scheme = parse(scheme)
    if options:
        scheme = scheme.with_options(**options)
    if not scheme.can_encode:
        raise UnsupportedError(
            f"quantize: scheme = {scheme}, expected one with an encoder; this type is only decoded here"
        )
    x = as_float32("quantize", array, "array")
    groups.scale_shape("quantize", x.shape, scheme.granularity)  # a bad shape is named here, before any work
    parts = CODECS[type(scheme.rule)].encode(x, scheme.rule, scheme.granularity, rng)
    return QuantizedTensor(parts.codes, parts.scale, parts.zero_point, scheme, x.shape, parts.extras)


def dequantize(tensor: QuantizedTensor) -> np.ndarray:
    """The float32 array that `tensor` stands for."""
    return tensor.dequantize()
