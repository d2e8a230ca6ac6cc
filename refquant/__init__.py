"""refquant: every quantization rule as a NumPy page.

    >>> import numpy as np, refquant
    >>> W = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    >>> q = refquant.quantize(W, "int4-g128-asym")
    >>> q
    QuantizedTensor(int4-g128-asym, shape=(64, 256), 4.281 bits per weight, 8,768 bytes)
    >>> W_hat = q.dequantize()

Conventions, everywhere unless a docstring says otherwise in its first line
    x^ = (q - zero_point) * scale; the scale has the units of x.
    Weights are (out, in), activations (tokens, in); groups lie along the last axis.
    Arithmetic is float32 and stated; rounding is a named function of rounding.py, to nearest, ties to even by default.
    Where a scale is stored in fewer bits, codes are computed with the value that is stored.
    A group of zeros decodes to zeros. Encoders refuse NaN and infinities; decoders answer for any bytes.
    The default of every format is its published specification; the customs of an implementation are its dialect,
    `scheme@dialect`.
    Arguments are never changed; randomness comes only from an `rng` argument; the same input gives the same bytes.
    Errors are ValueErrors of errors.py and read `where: what = got, expected want`.

`refquant.oneshot(folder, "W4A16", output="folder-q4")` quantizes whole models (refquant.pipeline).
`SCHEMES` lists names that `quantize` knows, `python -m refquant schemes` prints them; `refquant.gguf` reads and writes
model files.
"""

from refquant.errors import (
    ContextFullError,
    GGUFError,
    NonFiniteError,
    QuantError,
    RangeError,
    SchemeError,
    ShapeError,
    UnsupportedError,
)
from refquant.groups import Granularity
from refquant.presets import PRESETS, Preset
from refquant.quantize import dequantize, quantize
from refquant.schemes import SCHEMES, Scheme
from refquant.tensor import QuantizedTensor

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`oneshot` is imported when it is asked for: whoever quantizes arrays does not load the pipeline."""
    if name == "oneshot":
        from refquant.pipeline import oneshot

        return oneshot
    raise AttributeError(f"module 'refquant' has no attribute {name!r}")


__all__ = [
    "PRESETS",
    "SCHEMES",
    "ContextFullError",
    "GGUFError",
    "Granularity",
    "NonFiniteError",
    "Preset",
    "QuantError",
    "QuantizedTensor",
    "RangeError",
    "Scheme",
    "SchemeError",
    "ShapeError",
    "UnsupportedError",
    "dequantize",
    "oneshot",
    "quantize",
]
