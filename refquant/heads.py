"""First words of scheme names: the rule and the granularity that each stands for, and what may be said after it.

    HEADS["int4"]     Head(rule, granularity, words, dialects)       schemes.py reads and writes names by this table
    LISTED            the names that `python -m refquant schemes` prints, which are schemes.SCHEMES

A new format is a module with its rule and its codec (codecs.py), one line in HEADS and its names in LISTED.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from refquant import af4, affine, dynamic_map, fitted, fp4, gguf, groups, mx, mx_scale, nf4, nvfp4, scaled_minifloat
from refquant.codecs import Rule
from refquant.groups import Granularity
from refquant.linear_dialects import dialects
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
    "zmin": ("zero_kind", "min"),
    "zmid": ("zero_kind", "mid"),
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
_ROUNDING_WORDS = {name: ("rounding", name) for name in (*ROUNDINGS, "stochastic")}
_SMALL_FLOAT_WORDS = {
    "cast": ("scaled", False),
    "saturate": ("overflow", "saturate"),
    "special": ("overflow", "special"),
    **{word: _LINEAR_WORDS[word] for word in ("f32", "f16", "bf16")},
    **_ROUNDING_WORDS,
}
_MX_WORDS = {**{name: ("scale_rule", name) for name in mx_scale.SCALE_RULES}, **_ROUNDING_WORDS}
_DOUBLE = {"dq": ("double", True)}
_FITTED_WORDS = {"own": ("own", True), "raw": ("scaled", False)}
_fitted = partial(Head, granularity=groups.TENSOR, words=_FITTED_WORDS)
HEADS: dict[str, Head] = {
    **{f"int{b}": _linear(affine.Rule(b), dialects=dialects(b, signed=True)) for b in range(1, 9)},
    **{
        f"uint{b}": _linear(affine.Rule(b, signed=False, symmetric=False), dialects=dialects(b, signed=False))
        for b in range(1, 9)
    },
    "nf4": Head(nf4.RULE, groups.block(64), _DOUBLE, nf4.DIALECTS),
    "af4": Head(af4.RULE, groups.block(64), _DOUBLE),
    "bnb_fp4": Head(fp4.RULE, groups.block(64), _DOUBLE, fp4.DIALECTS),
    "dynamic8": Head(dynamic_map.RULE, groups.block(256), dialects=dynamic_map.DIALECTS),
    "udynamic8": Head(dynamic_map.UNSIGNED, groups.block(256), dialects=dynamic_map.UNSIGNED_DIALECTS),
    **{f"quantile{b}": _fitted(fitted.Rule(b, "quantile")) for b in range(1, 9)},
    **{f"kmeans{b}": _fitted(fitted.Rule(b, "kmeans")) for b in range(1, 9)},
    **{f"codebook{b}": _fitted(fitted.Rule(b, "given")) for b in range(1, 9)},
    **{
        name: Head(rule, groups.TENSOR, _SMALL_FLOAT_WORDS, scaled_minifloat.DIALECTS[name])
        for name, rule in scaled_minifloat.RULES.items()
    },
    **{name: Head(rule, mx.BLOCK, _MX_WORDS, mx.DIALECTS[name]) for name, rule in mx.RULES.items()},
    "nvfp4": Head(nvfp4.RULE, nvfp4.BLOCK, _ROUNDING_WORDS, nvfp4.DIALECTS),
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
    *("nf4", "nf4-dq", "nf4-b128", "nf4-g64", "nf4@bitsandbytes-cuda", "nf4-dq@bitsandbytes-cpu", "af4"),
    *("bnb_fp4", "bnb_fp4@bitsandbytes-cuda", "dynamic8", "udynamic8", "dynamic8@bitsandbytes-cpu"),
    *("quantile4-g64", "quantile8", "kmeans4-g64", "kmeans3-channel-own-raw", "kmeans2"),
    *("int4-g128@gptq", "uint4-g128@gptq", "uint4-g128@awq", "int4-g128@compressed-tensors", "int8-channel@torchao"),
    *("uint8-token@torch.ao", "int8-channel@quanto", "uint4-g128@quanto", "uint4-g128@tinygemm", "uint4-g64@hqq"),
    *("uint8@onnx", "int8-token@bitsandbytes", "int8-token@smoothquant"),
    *scaled_minifloat.RULES,
    *("fp8_e4m3fn-token", "fp8_e4m3fn-channel", "fp8_e4m3fn-g128", "fp8_e4m3fn-b128x128", "fp8_e4m3fn-cast"),
    *("fp8_e5m2-cast", "fp8_e4m3fn-channel@compressed-tensors", "fp8_e4m3fn-token@auto-round"),
    *("mxfp4", "mxfp4-even", "mxfp4-rceil", "mxfp4-ceil", "mxfp4-rne", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3"),
    *("mxfp8_e5m2", "mxint8", "mxfp8_e4m3-b128x128-rceil", *(f"mxfp4@{name}" for name in mx.DIALECTS["mxfp4"])),
    *("mxfp8_e4m3@compressed-tensors", "mxfp8_e4m3@modelopt", "mxfp8_e4m3@torchao-rceil", "mxint8@microxcaling"),
    *("nvfp4", *(f"nvfp4@{name}" for name in nvfp4.DIALECTS)),
    *(name for name, f in gguf.FORMATS.items() if f.encode is not None),
]
