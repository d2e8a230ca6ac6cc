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

from importlib import import_module
from typing import TYPE_CHECKING

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
from refquant.quantize import dequantize, quantize

if TYPE_CHECKING:
    from refquant.groups import Granularity
    from refquant.pipeline import oneshot
    from refquant.presets import PRESETS, Preset
    from refquant.schemes import SCHEMES, Scheme
    from refquant.tensor import QuantizedTensor

__version__ = "0.1.0"

# Imported when they are asked for: whoever quantizes arrays loads no pipeline, whoever runs a model no formats.
LATER = {"Granularity": "groups", "PRESETS": "presets", "Preset": "presets", "QuantizedTensor": "tensor"}
LATER |= {"SCHEMES": "schemes", "Scheme": "schemes", "oneshot": "pipeline"}


def __getattr__(name: str) -> object:
    if name not in LATER:
        raise AttributeError(f"module 'refquant' has no attribute {name!r}")
    return getattr(import_module(f"refquant.{LATER[name]}"), name)


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
