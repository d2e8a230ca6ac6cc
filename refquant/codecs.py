"""One shape for every family of formats: how to encode, how to decode, and how many bits are stored.

    CODECS[type(scheme.rule)]     affine.Rule, codebook.Rule, gguf.BlockFormat

A new family is a module with a frozen rule record (its property `summary` is a few words for lists of formats) and two
functions, one entry here and a line in heads.py. What it returns besides codes, scale and zero point (nested scales, a
fitted table, outliers) goes into `Parts.extras` by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from refquant import affine, codebook, gguf
from refquant.groups import Granularity

Rule = affine.Rule | codebook.Rule | gguf.BlockFormat


class Parts(NamedTuple):
    """What an encoder returns. `codes` is like x, or the block bytes (..., row bytes) of a GGUF type."""

    codes: np.ndarray
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Codec:
    """A family of formats. Arrays are float32 and were checked by inputs.as_float32."""

    encode: Callable[[np.ndarray, Rule, Granularity, np.random.Generator | None], Parts]
    decode: Callable[[Parts, Rule, Granularity], np.ndarray]
    stored_bits: Callable[[Rule], tuple[float, int]]  # for each weight, and for each group besides


CODECS: dict[type, Codec] = {
    affine.Rule: Codec(
        encode=lambda x, rule, granularity, rng: Parts(*affine.encode(x, rule, granularity, rng)),
        decode=lambda parts, rule, granularity: affine.decode(parts.codes, parts.scale, parts.zero_point, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
    ),
    codebook.Rule: Codec(
        encode=lambda x, rule, granularity, rng: Parts(*codebook.encode(x, rule, granularity)),
        decode=lambda parts, rule, granularity: codebook.decode(parts.codes, parts.scale, rule, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
    ),
    gguf.BlockFormat: Codec(
        encode=lambda x, rule, granularity, rng: Parts(gguf.quantize(x, rule.name)),
        decode=lambda parts, rule, granularity: gguf.dequantize(parts.codes, rule.name),
        stored_bits=lambda rule: (rule.bits_per_weight, 0),
    ),
}
