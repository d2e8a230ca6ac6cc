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

from refquant import affine, codebook, double_quant, fitted, gguf, mx, nvfp4, scaled_minifloat
from refquant.groups import Granularity

Rule = affine.Rule | codebook.Rule | fitted.Rule | scaled_minifloat.Rule | mx.Rule | nvfp4.Rule | gguf.BlockFormat


class Parts(NamedTuple):
    """What an encoder returns. `codes` is like x, or the block bytes (..., row bytes) of a GGUF type."""

    codes: np.ndarray
    scale: np.ndarray | None = None
    zero_point: np.ndarray | None = None
    extras: Mapping[str, np.ndarray] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Codec:
    """A family of formats. Arrays are float32 and were checked by inputs.as_float32."""

    encode: Callable[..., Parts]  # (x, rule, granularity, rng, **arrays that `options` names)
    decode: Callable[[Parts, Rule, Granularity], np.ndarray]
    stored_bits: Callable[[Rule], tuple[float, int]]  # for each weight, and for each group besides; without extras
    extra_bits: Callable[[Rule], float] = lambda rule: 0  # what the extras of a large array add to each group
    options: tuple[str, ...] = ()  # what the caller may hand to encode besides: arrays, never part of the rule


def _codebook(x: np.ndarray, rule: codebook.Rule, granularity: Granularity) -> Parts:
    if not rule.double:
        return Parts(*codebook.encode(x, rule, granularity))
    codes, scale, extras = double_quant.encode(x, rule, granularity)
    return Parts(codes, scale, extras=extras)


def _fitted(x: np.ndarray, rule: fitted.Rule, granularity: Granularity, **given: np.ndarray) -> Parts:
    codes, scale, extras = fitted.encode(x, rule, granularity, **given)
    return Parts(codes, scale, extras=extras)


def _nvfp4(x: np.ndarray, rule: nvfp4.Rule, granularity: Granularity, *rest: object, **given: np.ndarray) -> Parts:
    codes, scale, extras = nvfp4.encode(x, rule, granularity, *rest, **given)
    return Parts(codes, scale, extras=extras)


CODECS: dict[type, Codec] = {
    affine.Rule: Codec(
        encode=lambda x, rule, granularity, rng, **given: Parts(*affine.encode(x, rule, granularity, rng, **given)),
        decode=lambda parts, rule, granularity: affine.decode(
            parts.codes, parts.scale, parts.zero_point, granularity, rule
        ),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
        options=("scale", "zero_point"),
    ),
    codebook.Rule: Codec(
        encode=lambda x, rule, granularity, rng: _codebook(x, rule, granularity),
        decode=lambda parts, rule, granularity: codebook.decode(parts.codes, parts.scale, rule, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
        extra_bits=lambda rule: (8 + 32 / double_quant.BLOCK) * rule.double,
    ),
    fitted.Rule: Codec(
        encode=lambda x, rule, granularity, rng, **given: _fitted(x, rule, granularity, **given),
        decode=lambda parts, rule, granularity: fitted.decode(
            parts.codes, parts.scale, parts.extras, rule, granularity
        ),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
        extra_bits=lambda rule: rule.extra_bits,
        options=("levels", "weights"),
    ),
    scaled_minifloat.Rule: Codec(
        encode=lambda x, rule, granularity, rng, **given: Parts(
            *scaled_minifloat.encode(x, rule, granularity, rng, **given)
        ),
        decode=lambda parts, rule, granularity: scaled_minifloat.decode(parts.codes, parts.scale, rule, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
        options=("scale",),
    ),
    mx.Rule: Codec(
        encode=lambda x, rule, granularity, rng: Parts(*mx.encode(x, rule, granularity, rng)),
        decode=lambda parts, rule, granularity: mx.decode(parts.codes, parts.scale, rule, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
    ),
    nvfp4.Rule: Codec(
        encode=_nvfp4,
        decode=lambda parts, rule, granularity: nvfp4.decode(parts.codes, parts.scale, parts.extras, rule, granularity),
        stored_bits=lambda rule: (rule.bits, rule.group_bits),
        options=("scale",),
    ),
    gguf.BlockFormat: Codec(
        encode=lambda x, rule, granularity, rng: Parts(gguf.quantize(x, rule.name)),
        decode=lambda parts, rule, granularity: gguf.dequantize(parts.codes, rule.name),
        stored_bits=lambda rule: (rule.bits_per_weight, 0),
    ),
}
