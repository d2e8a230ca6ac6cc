"""Schemes: what a format is called, and which rule the name stands for.

    scheme  = head {"-" word} ["@" dialect]              int4-g128-asym    nf4    nf4@bitsandbytes-cuda    Q4_0

    head        int1 .. int8     linear, signed codes, symmetric unless -asym is said        granularity tensor
                uint1 .. uint8   linear, unsigned codes, asymmetric unless -sym is said      granularity tensor
                nf4 af4 bnb_fp4  4-bit codebooks                                             granularity b64
                dynamic8 udynamic8   8-bit dynamic map, signed and unsigned                  granularity b256
                quantile1 .. 8, kmeans1 .. 8   a table fitted to the array                   granularity tensor
                codebook1 .. 8   a table that is handed in: quantize(x, "codebook4", levels=...)
                fp8_e4m3fn fp8_e5m2 ... fp6_e2m3 fp6_e3m2 fp4_e2m1   a minifloat and a scale  granularity tensor
                mxfp4 mxfp6_e2m3 mxfp6_e3m2 mxfp8_e4m3 mxfp8_e5m2 mxint8   microscaling      granularity g32
                nvfp4            E2M1 under an E4M3 and a float32 scale                      granularity g16
                Q4_0, F16, ...   every type of ggml, by ggml's name; takes no words
    word        who shares a scale   tensor channel channel1 token g128 b64 b128x128         groups.py
                linear only          sym asym | half restricted full signedmax covering | zafter zbefore
                                     zint zfloat zmin zmid |
                                     f32 f16 bf16 (scale) | stored wide (codes from which scale) | half_even half_away
                                     half_to_zero half_up half_down toward_zero stochastic                   affine.py
                codebooks            dq: the scales are quantized too                       double_quant.py
                fitted tables        own: a table for each group | raw: no scale                 fitted.py
                small floats         half_even ... stochastic as above; fp8: cast (no scale) special saturate f32 f16
                                     bf16; mx: floor even rceil ceil rne nearest               mx_scale.py
    dialect     the customs of one implementation, as values of the rule; without it, the published specification

Words come in any order, each question is answered once, and what a head means anyway may be said: `int8-tensor-sym` is
`int8`. `str(scheme)` is the canonical spelling, and `parse(str(scheme)) == scheme`. Spelling is case-sensitive.
"""

import dataclasses
import math
from dataclasses import dataclass
from difflib import get_close_matches

from refquant import gguf, groups
from refquant.codecs import CODECS, Rule
from refquant.errors import SchemeError
from refquant.groups import Granularity
from refquant.heads import HEADS, LISTED


@dataclass(frozen=True, slots=True)
class Scheme:
    """One number format, completely: two schemes that are equal give equal bytes."""

    head: str
    granularity: Granularity
    rule: Rule
    dialect: str = ""

    def __str__(self) -> str:
        head, base = HEADS[self.head], _dialect_rule(self.head, self.dialect)
        said = [] if self.granularity == head.granularity else [str(self.granularity)]
        said += [
            w for w, (name, value) in head.words.items() if getattr(self.rule, name) == value != getattr(base, name)
        ]
        return "-".join([self.head, *said]) + (f"@{self.dialect}" if self.dialect else "")

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight of a large array, where a scale for a whole tensor, channel or token is free."""
        codec = CODECS[type(self.rule)]
        weight, group = codec.stored_bits(self.rule)
        group += codec.extra_bits(self.rule)
        return weight + (group / self.granularity.members if self.granularity.members else 0)

    @property
    def can_encode(self) -> bool:
        """False for the ggml types that this package only decodes."""
        return not isinstance(self.rule, gguf.BlockFormat) or self.rule.encode is not None

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Bytes of an array of `shape`: codes packed without gaps, scales, zero points. May raise ShapeError.

        What a format stores besides (QuantizedTensor.extras: tables, nested scales) is not counted here.
        """
        weight, group = CODECS[type(self.rule)].stored_bits(self.rule)
        count = math.prod(groups.scale_shape("Scheme.nbytes", shape, self.granularity))
        return math.ceil(math.prod(shape) * weight / 8) + math.ceil(count * group / 8)

    def with_options(self, **options: object) -> "Scheme":
        """The same scheme with other values of its rule: `with_options(range_mode="full")` says `-full`."""
        said = HEADS[self.head].words.values()
        for name, value in options.items():
            if (name, value) not in said:
                allowed = [v for n, v in said if n == name]
                wanted = f"one of {allowed}" if allowed else _nearest(name, sorted({n for n, _ in said}), "option")
                raise SchemeError(f"schemes: option {name} of {self} = {value!r}, expected {wanted}")
        return dataclasses.replace(self, rule=dataclasses.replace(self.rule, **options))


def parse(spelling: str | Scheme) -> Scheme:
    """Read a spelling. Raises SchemeError that names the nearest known ones. A Scheme is returned as it is."""
    if isinstance(spelling, Scheme):
        return spelling
    if not isinstance(spelling, str):
        raise SchemeError(f"schemes: scheme = {type(spelling).__name__}, expected a str such as 'int4-g128' or 'Q4_0'")
    shown = repr(spelling if len(spelling) <= 80 else spelling[:77] + "...")
    text, at, dialect = spelling.partition("@")
    name, *words = text.split("-")
    if name not in HEADS:
        raise SchemeError(f"schemes: scheme = {shown}, expected {_nearest(spelling, [*SCHEMES, *HEADS], 'scheme')}")
    head = HEADS[name]
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
    head = HEADS[name]
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
SCHEMES: dict[str, Scheme] = {}
SCHEMES.update((spelling, parse(spelling)) for spelling in LISTED)
