"""First words of scheme names: the rule and the granularity that each stands for, and what may be said after it.

    HEADS["int4"]     Head(rule, granularity, words, dialects)       schemes.py reads and writes names by this table
    LISTED            the names that `python -m refquant schemes` prints, which are schemes.SCHEMES

A new format is a module with its rule and its codec (codecs.py), one line in HEADS and its names in LISTED.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from refquant import affine, gguf, groups, nf4
from refquant.codecs import Rule
from refquant.groups import Granularity
from refquant.rounding import ROUNDINGS


@dataclass(frozen=True, slots=True)
class Head:
    """A first word: the rule and granularity it means alone, and what may be said after it."""

    rule: Rule
    granularity: Granularity
    words: Mapping[str, tuple[str, object]] = field(default_factory=dict)  # word -> (field of the rule, value)
    dialects: Mapping[str, Mapping[str, object]] = field(default_factory=dict)  # name -> values of fields
    fixed: bool = False  # no other granularity


_LINEAR_WORDS = {
    "sym": ("symmetric", True),
    "asym": ("symmetric", False),
    **{name: ("range_mode", name) for name in affine.RANGES},
    "zint": ("zero_kind", "int"),
    "zfloat": ("zero_kind", "float"),
    "zafter": ("zero_added", "after"),
    "zbefore": ("zero_added", "before"),
    "f32": ("scale_dtype", "float32"),
    "f16": ("scale_dtype", "float16"),
    "bf16": ("scale_dtype", "bfloat16"),
    "stored": ("codes_from", "stored"),
    "wide": ("codes_from", "wide"),
    **{name: ("rounding", name) for name in (*ROUNDINGS, "stochastic")},
}
_linear = partial(Head, granularity=groups.TENSOR, words=_LINEAR_WORDS)
HEADS: dict[str, Head] = {
    **{f"int{b}": _linear(affine.Rule(b)) for b in range(1, 9)},
    **{f"uint{b}": _linear(affine.Rule(b, signed=False, symmetric=False)) for b in range(1, 9)},
    "nf4": Head(nf4.RULE, groups.block(64), dialects=nf4.DIALECTS),
    **{name: Head(f, groups.group(f.values), fixed=True) for name, f in gguf.FORMATS.items()},
}
LISTED = [
    *(f"{sign}{b}" for b in range(8, 0, -1) for sign in ("int", "uint")),
    *(
        "int8-channel",
        "int8-token",
        "uint8-token",
        "int4-channel",
        "int4-g128",
        "int4-g64",
        "int4-g32",
        "int4-b128x128",
    ),
    *("int4-g128-asym", "int4-g128-asym-f16", "int4-g64-restricted", "int4-g64-full", "int4-g32-signedmax-f16"),
    *("uint4-g128", "uint4-g64", "uint4-g64-zfloat-zbefore", "uint3-g64", "uint2-g32", "int1-channel", "int1-g128"),
    *("nf4", "nf4-b128", "nf4-g64", "nf4@bitsandbytes-cuda"),
    *(name for name, f in gguf.FORMATS.items() if f.encode is not None),
]
