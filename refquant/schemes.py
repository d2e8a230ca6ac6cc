"""Schemes: what a format is called, and which rule the name stands for.

    scheme  = head {"-" word} ["@" dialect]              int4-g128-asym    nf4    nf4@bitsandbytes-cuda    Q4_0

    head        int1 .. int8     linear, signed codes, symmetric unless -asym is said        granularity tensor
                uint1 .. uint8   linear, unsigned codes, asymmetric unless -sym is said      granularity tensor
                nf4              NormalFloat                                                 granularity b64
                Q4_0, F16, ...   every type of ggml, by ggml's name; takes no words
    word        who shares a scale   tensor channel channel1 token g128 b64 b128x128         groups.py
                linear only          sym asym | half restricted full signedmax | zint zfloat | zafter zbefore
                                     f32 f16 bf16 (scale) | stored wide (codes from which scale) | half_even half_away
                                     half_to_zero half_up half_down toward_zero stochastic                   affine.py
    dialect     the customs of one implementation, as values of the rule; without it, the published specification

Words come in any order, each question is answered once, and what a head means anyway may be said: `int8-tensor-sym` is
`int8`. `str(scheme)` is the canonical spelling, and `parse(str(scheme)) == scheme`. Spelling is case-sensitive.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial

from refquant import affine, gguf, groups, nf4
from refquant.codecs import CODECS, Rule
from refquant.errors import SchemeError
from refquant.groups import Granularity
from refquant.rounding import ROUNDINGS


@dataclass(frozen=True, slots=True)
class Scheme:
    """One number format, completely: two schemes that are equal give equal bytes."""

    head: str
    granularity: Granularity
    rule: Rule
    dialect: str = ""

    def __str__(self) -> str:
        head, base = _HEADS[self.head], _dialect_rule(self.head, self.dialect)
        said = [] if self.granularity == head.granularity else [str(self.granularity)]
        said += [
            w for w, (name, value) in head.words.items() if getattr(self.rule, name) == value != getattr(base, name)
        ]
        return "-".join([self.head, *said]) + (f"@{self.dialect}" if self.dialect else "")

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of a large array, where a scale for a whole tensor, channel or token is free."""
        weight, group = CODECS[type(self.rule)].stored_bits(self.rule)
        return weight + (group / self.granularity.members if self.granularity.members else 0)

    @property
    def can_encode(self) -> bool:
        """False for the ggml types that this package only decodes."""
        return not isinstance(self.rule, gguf.BlockFormat) or self.rule.encode is not None

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of an array of `shape`: codes packed without gaps, scales, zero points. May raise ShapeError."""
        weight, group = CODECS[type(self.rule)].stored_bits(self.rule)
        count = math.prod(groups.scale_shape("Scheme.nbytes", shape, self.granularity))
        return math.ceil(math.prod(shape) * weight / 8) + math.ceil(count * group / 8)

    def with_options(self, **options: object) -> "Scheme":
        """The same scheme with other values of its rule: `with_options(range_mode="full")` says `-full`."""
        said = _HEADS[self.head].words.values()
        for name, value in options.items():
            if (name, value) not in said:
                allowed = [v for n, v in said if n == name]
                wanted = f"one of {allowed}" if allowed else _nearest(name, sorted({n for n, _ in said}), "option")
                raise SchemeError(f"schemes: option {name} of {self} = {value!r}, expected {wanted}")
        return dataclasses.replace(self, rule=dataclasses.replace(self.rule, **options))


@dataclass(frozen=True, slots=True)
class _Head:
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
_linear = partial(_Head, granularity=groups.TENSOR, words=_LINEAR_WORDS)
_HEADS: dict[str, _Head] = {
    **{f"int{b}": _linear(affine.Rule(b)) for b in range(1, 9)},
    **{f"uint{b}": _linear(affine.Rule(b, signed=False, symmetric=False)) for b in range(1, 9)},
    "nf4": _Head(nf4.RULE, groups.block(64), dialects=nf4.DIALECTS),
    **{name: _Head(f, groups.group(f.values), fixed=True) for name, f in gguf.FORMATS.items()},
}


def parse(spelling: str | Scheme) -> Scheme:
    """Read a spelling. Raises SchemeError that names the nearest known ones. A Scheme is returned as it is."""
    if isinstance(spelling, Scheme):
        return spelling
    if not isinstance(spelling, str):
        raise SchemeError(f"schemes: scheme = {type(spelling).__name__}, expected a str such as 'int4-g128' or 'Q4_0'")
    shown = repr(spelling if len(spelling) <= 80 else spelling[:77] + "...")
    text, at, dialect = spelling.partition("@")
    name, *words = text.split("-")
    if name not in _HEADS:
        raise SchemeError(f"schemes: scheme = {shown}, expected {_nearest(spelling, [*SCHEMES, *_HEADS], 'scheme')}")
    head = _HEADS[name]
    if at and dialect not in head.dialects:
        raise SchemeError(f"schemes: dialect of {shown}, expected {_nearest(dialect, list(head.dialects), 'dialect')}")
    fields: dict[str, object] = {}
    for word in words:
        shared = None if head.fixed else groups.parse(word)
        if shared is None and word not in head.words:
            known = [*([] if head.fixed else _SHARING), *head.words]
            raise SchemeError(f"schemes: word {word[:40]!r} of {shown}, expected {_nearest(word, known, 'word')}")
        question, answer = ("granularity", shared) if shared else head.words[word]
        if question in fields:
            raise SchemeError(f"schemes: {question} is said twice in {shown}, expected once")
        fields[question] = answer
    granularity = fields.pop("granularity", head.granularity)
    return Scheme(name, granularity, dataclasses.replace(_dialect_rule(name, dialect), **fields), dialect)


def _dialect_rule(name: str, dialect: str) -> Rule:
    head = _HEADS[name]
    return dataclasses.replace(head.rule, **head.dialects[dialect]) if dialect else head.rule


def _nearest(got: str, known: list[str], what: str) -> str:
    """`a known scheme; the nearest are int8, int7, int6`: what an error proposes. Case is ignored in the search."""
    folded = {name.lower(): name for name in known}
    near = [folded[n] for n in get_close_matches(got.lower()[:80], folded, n=3, cutoff=0.5)]
    if near:
        return f"a known {what}; the nearest are {', '.join(near)}"
    listed = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"a known {what}: {listed}" if known else f"no {what}: it has none"


_SHARING = ["tensor", "channel", "token", "g32", "g64", "g128", "b64", "b128x128"]
_LISTED = [
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
SCHEMES: dict[str, Scheme] = {}
SCHEMES.update((spelling, parse(spelling)) for spelling in _LISTED)
