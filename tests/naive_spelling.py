"""Names of formats read once more, and who shares a scale, as lists of places. Imports the standard library only.

parse("int4-g16-zmid-f16@gptq")   head int4, grain g16, fields {"zero_kind": "mid", ...}, dialect gptq
members((4, 6), "b2x3")           the shape of the scales, and for each of them the places of its weights in C order
"""

import itertools
import math
import re
from types import SimpleNamespace

ROUNDINGS = ("half_even", "half_away", "half_to_zero", "half_up", "half_down", "toward_zero")
WORDS = {
    "sym": ("symmetric", True),
    "asym": ("symmetric", False),
    **{name: ("range_mode", name) for name in ("half", "restricted", "full", "signedmax", "covering")},
    **{f"z{name}": ("zero_kind", name) for name in ("int", "float", "min", "mid")},
    **{f"z{name}": ("zero_added", name) for name in ("after", "before")},
    "f32": ("scale_dtype", "float32"),
    "f16": ("scale_dtype", "float16"),
    "bf16": ("scale_dtype", "bfloat16"),
    "stored": ("codes_from", "stored"),
    "wide": ("codes_from", "wide"),
    **{name: ("rounding", name) for name in ROUNDINGS},
    **{name: ("scale_rule", name) for name in ("floor", "ceil", "even", "rceil", "rne", "nearest")},
    "cast": ("scaled", False),
    "raw": ("scaled", False),
    "own": ("own", True),
    "dq": ("double", True),
    "saturate": ("overflow", "saturate"),
    "special": ("overflow", "special"),
}
GRAINS = {"nf4": "b64", "af4": "b64", "bnb_fp4": "b64", "dynamic8": "b256", "udynamic8": "b256", "nvfp4": "g16"}
GRAIN = re.compile(r"tensor|token|channel\d?|g\d+|b\d+(x\d+)?")


def parse(spelling):
    """head, grain, fields that the words say, dialect."""
    text, _, dialect = spelling.partition("@")
    head, *words = text.split("-")
    grain, fields = GRAINS.get(head, "g32" if head.startswith("mx") else "tensor"), {}
    for word in words:
        if GRAIN.fullmatch(word):
            grain = word
        else:
            name, value = WORDS[word]
            fields[name] = value
    return SimpleNamespace(head=head, grain=grain, fields=fields, dialect=dialect)


def members(shape, grain):
    """(shape of the scales, places of each)."""
    lengths = lengths_of(shape, grain)
    flat = grain.startswith("b") and "x" not in grain
    scales = (math.prod(shape) // int(grain[1:]),) if flat else tuple(n // k for n, k in zip(shape, lengths))
    found = [[] for _ in range(math.prod(scales))]
    for place, index in enumerate(itertools.product(*map(range, shape))):
        if flat:
            found[place // int(grain[1:])].append(place)
            continue
        at = 0
        for i, k, n in zip(index, lengths, scales):
            at = at * n + i // k
        found[at].append(place)
    return (() if grain == "tensor" else scales), found


def lengths_of(shape, grain):
    """Members along each axis of who shares a scale."""
    ones = [1] * len(shape)
    if grain == "tensor":
        return list(shape)
    if grain.startswith("channel"):
        kept = int(grain[7:] or 0)
        return [1 if axis == kept else n for axis, n in enumerate(shape)]
    if grain == "token":
        return [*ones[:-1], shape[-1]]
    if grain.startswith("g"):
        return [*ones[:-1], int(grain[1:])]
    rows, columns = (int(n) for n in grain[1:].split("x")) if "x" in grain else (1, 1)
    return [*ones[:-2], rows, columns]


# ggml-common.h: weights and bytes of a block
BLOCKS = {
    "F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22),
    "Q5_1": (32, 24), "Q8_0": (32, 34), "Q8_1": (32, 36), "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144),
    "Q5_K": (256, 176), "Q6_K": (256, 210), "Q8_K": (256, 292), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74),
    "IQ3_XXS": (256, 98), "IQ1_S": (256, 50), "IQ4_NL": (32, 18), "IQ3_S": (256, 110), "IQ2_S": (256, 82),
    "IQ4_XS": (256, 136), "IQ1_M": (256, 56), "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17),
    "NVFP4": (64, 36), "Q1_0": (128, 18), "Q2_0": (64, 18),
}  # fmt: skip


def size(spelling, shape):
    """(bits of a weight in a large array, with nested scales and tables; bytes of codes, scales, zeros of this one)."""
    count = math.prod(shape)
    if spelling in BLOCKS:
        values, length = BLOCKS[spelling]
        return 8 * length / values, count // values * length
    said = parse(spelling)
    weight, group = stored(said)
    groups, places = members(shape, said.grain)
    total = math.ceil(count * weight / 8) + math.ceil(math.prod(groups) * group / 8)
    each = len(places[0]) if said.grain[0] in "gb" else math.inf
    nested = 8 + 32 / 256 if said.fields.get("double") else 0
    tables = 0 if not said.fields.get("own") else 32 * 2**weight
    return weight + (group + nested + tables) / each, total


def stored(said):
    """Bits of a code, bits of a group."""
    head, fields = said.head, said.fields
    linear = re.fullmatch(r"(u?)int(\d)", head)
    narrow = 32 if fields.get("scale_dtype", "float32") == "float32" else 16
    if linear:
        bits = int(linear[2])
        symmetric = fields.get("symmetric", not linear[1])
        kind = "int" if symmetric else _zero_kind(said)
        return bits, narrow + (0 if symmetric else bits if kind == "int" else narrow)
    if head in ("nf4", "af4", "bnb_fp4"):
        return 4, 0 if fields.get("double") else 32
    if head.startswith("mx") or head == "nvfp4":
        return (8 if head == "mxint8" else 4 if head == "nvfp4" else int(head[4 if head[2:4] == "fp" else 5])), 8
    bits = int(re.search(r"\d", head)[0])
    return bits, narrow if fields.get("scaled", True) else 0


def _zero_kind(said):
    """Some people's zero points are floats."""
    return {"quanto": "min", "tinygemm": "mid", "hqq": "float"}.get(said.dialect, said.fields.get("zero_kind", "int"))
