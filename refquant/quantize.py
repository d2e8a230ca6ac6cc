"""The entry: an array and the name of a format in, a QuantizedTensor out.

All formats are imported by the first call: whoever only reads a model file need not wait for them.
"""

from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import SchemeError, UnsupportedError

if TYPE_CHECKING:
    from refquant.schemes import Scheme
    from refquant.tensor import QuantizedTensor


def quantize(
    array: np.ndarray,
    scheme: "str | Scheme",
    *,
    rng: np.random.Generator | None = None,
    method: str = "",
    calibration: object = None,
    **options: object,
) -> "QuantizedTensor":
    """Quantize `array` by `scheme`.

    array     float16, bfloat16, float32 or float64, one axis or more, any layout; it is not changed. It is rounded to
              float32 first: all arithmetic of the linear and codebook formats is float32, and ggml's starts from it.
    scheme    a spelling such as "int4-g128-asym", "nf4" or "Q4_0" (schemes.py has the grammar), or a Scheme; of a
              preset such as "W4A16" (presets.py) its weights.
    rng       needed for stochastic rounding, unused otherwise.
    options   values of the scheme's rule by the names of its fields: range_mode="full" is the word "full".
              Arrays that a family takes besides: scale and zero_point of linear schemes (static quantization: codes by
              a scale that was found elsewhere), scale of fp8_e4m3fn and its like and of nvfp4 (there the tensor's),
              levels of codebook4, weights of kmeans4.
    method    how the codes are chosen, where not by rounding each number to nearest: "gptq", "gptq@ist" and more of
              methods.METHODS, for weights (out, in). It takes the options that the rule does not know.
    calibration  what the layer is fed, X (tokens, in), for the methods that look at it (methods.py).

    Raises SchemeError (unknown scheme or option), ShapeError (no axis, no value, a length that the group does not
    divide), NonFiniteError (NaN, infinity), RangeError (beyond float32, or a scale beyond its dtype),
    UnsupportedError (a ggml type without an encoder here), QuantError (any other dtype).

    >>> q = quantize(np.linspace(-1, 1, 8), "int4")
    >>> q.codes.tolist(), float(q.scale)
    ([-7, -5, -3, -1, 1, 3, 5, 7], 0.13333334028720856)
    """
    from refquant import groups, presets
    from refquant.codecs import CODECS
    from refquant.inputs import as_float32
    from refquant.schemes import parse
    from refquant.tensor import QuantizedTensor

    scheme = presets.weights(scheme) if isinstance(scheme, str) and scheme in presets.PRESETS else parse(scheme)
    if method:
        return _by_method(array, scheme, method, calibration, options)
    codec = CODECS[type(scheme.rule)]
    given = {name: options.pop(name) for name in codec.options if name in options}
    if options:
        scheme = scheme.with_options(**options)
    if not scheme.can_encode:
        raise UnsupportedError(
            f"quantize: scheme = {scheme}, expected one with an encoder; this type is only decoded here"
        )
    x = as_float32("quantize", array, "array")
    groups.scale_shape("quantize", x.shape, scheme.granularity)  # a bad shape is named here, before any work
    parts = codec.encode(x, scheme.rule, scheme.granularity, rng, **given)
    return QuantizedTensor(parts.codes, parts.scale, parts.zero_point, scheme, x.shape, parts.extras)


def _by_method(
    array: np.ndarray, scheme: "Scheme", method: str, calibration: object, options: dict
) -> "QuantizedTensor":
    from refquant import methods
    from refquant.heads import HEADS

    of_rule = {field for field, _ in HEADS[scheme.head].words.values()}
    scheme = scheme.with_options(**{name: value for name, value in options.items() if name in of_rule})
    function, said = methods.find(method)
    of_method = {name: value for name, value in options.items() if name not in of_rule}
    unknown = [name for name in (*said, *of_method) if not methods.takes(function, name)]
    if unknown:
        raise SchemeError(
            f"quantize: option {unknown[0]} is unknown to method {method!r}, expected those of its module"
        )
    return function(array, scheme, calibration, **{**said, **of_method})


def dequantize(tensor: "QuantizedTensor") -> np.ndarray:
    """The float32 array that `tensor` stands for."""
    return tensor.dequantize()
