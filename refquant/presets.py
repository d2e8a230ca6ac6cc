"""Presets: what W4A16 and its like say about weights and activations together.

    WxAy     weights in x bits, activations in y bits; 16 is not quantized

    preset   weights            activations
    W16A16   none               none
    W8A16    int8-channel       none
    W4A16    int4-g128          none
    W8A8     int8-channel       int8-token, dynamic
    W4A8     int4-g128          int8-token, dynamic

    >>> preset = PRESETS["W4A8"]
    >>> q = refquant.quantize(W, preset.weights)                    or refquant.quantize(W, "W4A8")
    >>> Y = refquant.quantize(X, preset.activations).dequantize() @ q.dequantize().T

Dynamic  a scale for each token of each input, found when the input is there; a static one is
         quantize(X, "int8", scale=...) with a scale from observers.
Source   the names and their granularities are those of compressed-tensors' preset schemes (quant_scheme.py); ranges are
         refquant's default, half, which is theirs too.
"""

from dataclasses import dataclass

from refquant.errors import SchemeError
from refquant.schemes import Scheme, parse


@dataclass(frozen=True, slots=True)
class Preset:
    """Formats of a linear layer's weights and of its input; None is 16 or 32-bit floating point, left alone."""

    weights: Scheme | None
    activations: Scheme | None

    def __str__(self) -> str:
        return f"weights {self.weights or 'as they are'}, activations {self.activations or 'as they are'}"


PRESETS: dict[str, Preset] = {
    "W16A16": Preset(None, None),
    "W8A16": Preset(parse("int8-channel"), None),
    "W4A16": Preset(parse("int4-g128"), None),
    "W8A8": Preset(parse("int8-channel"), parse("int8-token")),
    "W4A8": Preset(parse("int4-g128"), parse("int8-token")),
}


def weights(name: str) -> Scheme:
    """The scheme of a preset's weights; SchemeError for W16A16, whose weights are not quantized."""
    scheme = PRESETS[name].weights
    if scheme is None:
        raise SchemeError(f"quantize: scheme = {name!r}, expected one that quantizes weights; F16 and BF16 are schemes")
    return scheme
