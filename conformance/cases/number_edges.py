"""Numbers beside the places where a code changes, under scales that no division gives exactly; many groups; misfits.

A quotient that is rounded once more, or in another width, or a product with a reciprocal, lands on the other side.
"""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged
from conformance.cases.number_inputs import (
    around,
    ascending_bounds,
    beside,
    beside_linear,
    blocks_of_33,
    exponents,
    parting_powers,
)
from refquant import codebook, minifloat
from refquant.heads import HEADS
from refquant.schemes import parse

NOTES = {
    "Beside": {
        "kind": "tie",
        "description": "Numbers at most two units in the last place from where the code changes.",
        "effect": "An arithmetic of another width, or a reciprocal for a division, shows as another code.",
    },
    "ManyGroups": {
        "kind": "ordinary",
        "description": "More groups than weights in a group.",
        "effect": "Weights are coded or decoded with the scale of another group.",
    },
    "Exponents": {
        "kind": "edge",
        "description": "Blocks whose largest magnitude has the exponent -149 to 127, below a power of two and on it.",
        "effect": "The shared exponent is off by one, or leaves its eight bits.",
    },
    "Misfit": {
        "kind": "refusal",
        "description": "Codes of more bits, scales that are none, fields of a rule that contradict each other.",
        "effect": "What no encoder wrote is decoded to something.",
    },
    "Edge": {
        "kind": "edge",
        "description": "The first number, width or size that is allowed, or that is treated in another way.",
        "effect": "A condition is off by one.",
    },
}
LINEAR = ("int4", "uint4", "int8", "uint8", "int2")
CODEBOOKS = ("nf4", "bnb_fp4", "af4", "dynamic8", "udynamic8")
FLOATS = ("fp8_e4m3fn", "fp8_e5m2", "fp6_e2m3", "fp6_e3m2", "fp4_e2m1")
BLOCKS = ("mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4")
EXACT = {"values": "exact"}


def cases() -> Iterator[Case]:
    """Linear formats, codebooks, minifloats, blocks; then codes and settings that are refused."""
    yield from _linear()
    yield from _dialects()
    yield from _codebooks()
    yield from _floats()
    yield from _blocks()
    yield from _minifloats()
    yield from _levels()
    yield from _sizes()
    yield from _misfits()


def shared() -> dict[str, np.ndarray]:
    """Inputs of more than one test, by the names of tensors in inputs.safetensors."""
    found: dict[bytes, tuple[str, np.ndarray]] = {}
    for case in cases():
        x = case.inputs.get("x")
        if x is not None and x.nbytes >= 256:
            found.setdefault(x.tobytes(), (f"{case.algorithm}-{case.group}-{case.name}", x))
    return dict(found.values())


def _spelled(head: str, dialect: str = "") -> str:
    return f"{head}@{dialect}" if dialect else head


def _encoded(head: str, group: str, label: str, x: np.ndarray, params: dict[str, object], flag: str, back: bool = True):
    """encode, and decode of what came of it."""
    case, found = judged(f"variant.{head}", group, label, "encode", {"x": x}, params, flag, "Misfit")
    yield case
    if found and back:
        said = {**params, "shape": list(x.shape)}
        yield Case(f"variant.{head}", f"{group}-decode", label, "decode", found, said, (flag,))


def _linear() -> Iterator[Case]:
    for head in LINEAR:
        x = beside_linear(255 if head.endswith("8") else 15)
        for dialect in ("", *HEADS[head].dialects):
            yield from _encoded(_spelled(head, dialect), "beside", "g16", x, {"words": "g16"}, "Beside", False)
    x = beside_linear(15)
    for words in ("asym", "asym-zmin", "asym-zmid", "asym-zfloat", "asym-zbefore", "covering", "full", "restricted",
                  "signedmax", "f16", "bf16", "asym-zmin-bf16", "asym-f16-wide"):  # fmt: skip
        yield from _encoded("int4", "beside", words, x, {"words": f"{words}-g16"}, "Beside")
    for words in ("g4", "asym-zmin-g4", "asym-zmid-g4", "asym-zbefore-g4", "asym-zfloat-g4"):
        yield from _encoded("int4", "many-groups", words, x, {"words": words}, "ManyGroups")
    for fields in (
        {"arithmetic": "multiplier"}, {"arithmetic": "reciprocal"}, {"arithmetic": "reciprocal_multiplier"},
        {"arithmetic": "multiplier", "symmetric": False}, {"flat_range": 3.3, "flat_scale": 0.7},
        {"arithmetic": "multiplier", "flat_range": 3.3, "flat_scale": 0.7}, {"flat_range": 3.3, "flat_zero": 0.3},
        {"symmetric": False, "flat_range": 3.3, "flat_scale": 0.7, "flat_zero": 1.3}, {"min_scale": 0.3},
        {"symmetric": False, "zero_rounded": "difference"}, {"min_range": 3.3},
    ):  # fmt: skip
        label = "-".join(str(value) for value in fields.values())
        params = {"words": "g4", "fields": fields}
        yield from _encoded("int4", "many-groups", label, x, params, "ManyGroups", False)
    for words in ("restricted", "full", "covering"):
        given = {"x": x, "scale": np.float32(0.25)}
        params = {"words": f"{words}-g16"}
        yield judged("variant.int4", "given", f"{words}-clipped", "encode", given, params, "Edge")[0]
    low = np.concatenate([x[:12], x[12:] * np.float32(1e-41)])
    params = {"words": "g4", "fields": {"arithmetic": "reciprocal"}}
    yield from _encoded("int4", "many-groups", "reciprocal-subnormal", low, params, "ManyGroups", False)
    given = {"x": x, "scale": np.float32(0.3), "zero_point": np.float32(np.nan)}
    yield judged("variant.uint4", "given", "zfloat-nan", "encode", given, {"words": "zfloat-g16"}, "Misfit")[0]
    yield from _flat()
    sided = np.abs(x) * np.where(np.arange(16)[:, None] % 2, 1, -1).astype(np.float32)
    for words in ("covering", "signedmax", "asym-zmin", "asym"):
        yield from _encoded(
            "int4", "one-sided", words, sided * np.float32(0.01), {"words": f"{words}-g16"}, "Edge", False
        )
    mirrored = np.concatenate([x[:, :1], -x[:, :1], np.clip(x[:, 2:], -1, 1)], axis=1)
    mirrored[8:] *= -1
    mirrored[3] = 0
    yield from _encoded("int4", "mirrored", "signedmax", mirrored, {"words": "signedmax-g16"}, "Edge", False)


def _flat() -> Iterator[Case]:
    """Groups on the bound below which they are flat, and scales that vanish or leave float32."""
    tenth, least = np.float32(0.1), np.float32(1e-45)
    x = np.float32(
        [[0, tenth, 0.05, -0.03], [-tenth, 0, 0.05, 0], [0, least, 0, 0], [-least, 0, 0, 0], [1, -2, 3, 0.7]]
    )
    ties = np.resize(around(((np.arange(-7, 7) + 0.5) * 0.7).astype(np.float32)), (10, 4))
    mid = {"symmetric": False, "signed": False, "zero_kind": "mid", "flat_scale": 0.7}
    for label, values, fields in (
        ("on-the-bound", x, {"flat_range": 0.1, "flat_scale": 0.7}),
        ("asymmetric-on-the-bound", x, {"flat_range": 0.1, "flat_scale": 0.7, "symmetric": False}),
        ("multiplier", ties, {"flat_range": 100.0, "flat_scale": 0.7, "arithmetic": "multiplier"}),
        ("mid", x, mid),
        ("mid-without-zero", x, mid | {"include_zero": False}),
        ("float", x, {"symmetric": False, "zero_kind": "float", "flat_range": 0.2, "flat_zero": 1.3}),
        ("vanishing", x * np.float32(1e-8), {"flat_scale": 0.7, "scale_dtype": "float16"}),
        ("wide", x, {"flat_scale": 0.7, "scale_dtype": "float16", "codes_from": "wide"}),
    ):  # fmt: skip
        yield from _encoded("int4", "flat", label, values, {"words": "g4", "fields": fields}, "Edge", False)
    low = np.float32(-0.50000006)
    beside = np.float32([[low, low + 15, 3, 7], [-7.5, 7.5, 0.5, 1], [np.float32(-1.5000001), 13.5, 2, 3]])
    for rounded in ("difference", "quotient"):
        params = {"words": "g4", "fields": {"symmetric": False, "zero_rounded": rounded}}
        yield from _encoded("int4", "flat", f"beside-{rounded}", beside, params, "Beside", False)
    top = np.float32(3.4028235e38)
    huge = np.float32([[top, 0.5 * top, 0.1 * top, 0], [-top, 0.9 * top, 0, 1], [0.6 * top, -0.6 * top, 0, 1],
                       [top, 0.97 * top, 0.98 * top, 0.99 * top], [-top, -0.3 * top, -0.9 * top, -1]])  # fmt: skip
    for head in ("int1", "uint1", "int2", "uint4", "int4", "uint8"):
        zeros = ("", "asym-", "asym-zfloat-", "asym-zmin-") if head[0] == "i" else ("", "zfloat-", "zmin-")
        for spelled in (*(f"{zero}g4" for zero in zeros), "signedmax-g4", "full-g4"):
            for label, values in (("all", huge), ("one", huge[:1]), ("wide", huge[2:3]), ("high", huge[3:4])):
                params = {"words": spelled}
                yield from _encoded(head, "huge", f"{spelled}-{label}", values, params, "Edge", False)


def _dialects() -> Iterator[Case]:
    """Asymmetric ranges of dialects that have them, flat groups among them; ranges so small that a floor holds."""
    x = beside_linear(15)[:8].copy()
    x[1], x[2], x[3] = 0, 0.3, -1.7
    for head in ("int2", "int4", "uint4", "int8"):
        for dialect in HEADS[head].dialects:
            params = {"scheme": f"{head}-asym-g16@{dialect}" if head[0] == "i" else f"{head}-g16@{dialect}"}
            label = params["scheme"]
            yield judged("variant.schemes", "flat", label, "encode", {"x": x}, params, "Edge", "Misfit")[0]
    reach = (x.max(axis=1) - x.min(axis=1))[:, None]
    reach[reach == 0] = 1
    for size in (0.9e-4, 2e-4, 7e-4, 2e-6, 1e-5):
        small = (x / reach * np.float32(size)).astype(np.float32)
        for head in ("uint4-g16@hqq", "uint4-g16@awq", "int4-g16@awq", "uint4-g16@tinygemm", "int4-g16@torch.ao"):
            label = f"{head}-{size:g}"
            yield judged("variant.schemes", "small", label, "encode", {"x": small}, {"scheme": head}, "Edge")[0]
    for scheme in ("int1@awq", "int2@awq", "uint4@smoothquant", "uint4@bitsandbytes", "int4@hqq"):
        params = {"scheme": scheme}
        yield judged("variant.schemes", "spelling", scheme, "encode", {"x": x}, params, "Edge", "Misfit")[0]
    ties = np.float32([1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 5 * 2.0**-8, 2.0**-126 * (1 + 2.0**-8)] * 2)
    for words in ("bf16-g16", "f16-g16"):
        given = {"x": x, "scale": ties / (1 if words[0] == "b" else 8)}
        yield judged("variant.int4", "given", f"{words}-ties", "encode", given, {"words": words}, "Beside")[0]


def _levels() -> Iterator[Case]:
    """Values that occur several times, with weights, far from 0: sums in less than float64 move a level."""
    for seed in range(6):
        rng = np.random.default_rng([81, seed])
        values = (rng.integers(0, 13, 40) * 0.37 + (0, 0, 300, 4000, 0, 70000)[seed]).astype(np.float32)
        if seed == 4:
            values[:5] = [1e10, -7e5, 1e-10, 3.3, -1e-3]
        weights = rng.gamma(0.5, 1, 40) * (rng.random(40) < 0.8)
        for k in (2, 5):
            for label, given in (("plain", {}), ("weighted", {"weights": weights})):
                for member in ("kmeans-optimal", "kmeans-lloyd"):
                    name, inputs = f"{seed}-{k}-{label}", {"x": values, **given}
                    yield judged(f"levels.{member}", "repeated", name, "table", inputs, {"k": k}, "Edge")[0]
    few = np.float32([1e10, 1e-10, 3.3, -7e5])
    for k in (2, 3, 4, 5):
        for label, given in (("few", {}), ("few-weighted", {"weights": np.float64([1 / 3, 7, 0, 0.1])})):
            inputs = {"x": few, **given}
            if (label, k) == ("few-weighted", 3):  # a difference of sums of 10^10, of which float64 keeps too little
                continue
            yield judged("levels.kmeans-optimal", "repeated", f"{label}-{k}", "table", inputs, {"k": k}, "Edge")[0]
    for seed in range(8):
        rng = np.random.default_rng([82, seed])
        values = rng.integers(0, 7, 12).astype(np.float32)
        weights = rng.integers(0, 3, 12) * (0.01, 1.0)[seed % 2] + np.eye(12)[0]
        for k in (2, 3, 4):
            for label, given in (("plain", {}), ("weighted", {"weights": weights})):
                name, inputs = f"whole-{seed}-{k}-{label}", {"x": values, **given}
                yield judged("levels.kmeans-lloyd", "repeated", name, "table", inputs, {"k": k}, "Edge")[0]
    x = blocks_of_33()[:2]
    for head, given in {
        "kmeans2": {"levels": np.float32([0, 1, 2])},
        "quantile2": {"weights": np.ones_like(x)},
        "kmeans3": {"weights": np.ones_like(x).T.copy()},
    }.items():
        yield judged("variant.schemes", "given", head, "encode", {"x": x, **given}, {"scheme": head}, "Misfit")[0]
    for scheme in ("kmeans2", "kmeans4", "quantile3", "codebook2"):
        yield Case(
            "variant.schemes", "size", f"{scheme}-edge", "size", {}, {"scheme": scheme, "shape": [32, 64]}, ("Edge",)
        )
    for head in ("quantile1", "kmeans1"):
        x = {"x": blocks_of_33()[:2]}
        yield judged("variant.schemes", "levels", head, "encode", x, {"scheme": head}, "Edge", "Misfit")[0]


def _sizes() -> Iterator[Case]:
    """Just a block of 256 scales, one more, and two blocks; groups of one; nothing at all."""
    for count in (255, 256, 257, 512, 513):
        x = np.random.default_rng(count).standard_normal((count, 2), np.float32)
        yield from _encoded("nf4", "scales", str(count), x, {"words": "dq-b2"}, "Edge", count == 257)
    x = blocks_of_33()[:3, :4]
    for words in ("g1", "b1", "b1x1", "b1x4", "b3x1"):
        yield from _encoded("int8", "single", words, x, {"words": words}, "Edge")
    empty = {"codes": np.zeros((0,), np.int8), "scale": np.zeros((0,), np.float32), "zero_point": np.zeros((), np.int8)}
    for words in ("g2", "b2", "tensor"):
        params = {"words": words, "shape": [0]}
        yield judged("variant.int8", "single", f"none-{words}", "decode", empty, params, "Edge", "Misfit")[0]


def _codebooks() -> Iterator[Case]:
    for head in CODEBOOKS:
        for dialect in ("", *HEADS[head].dialects):
            spelled = _spelled(head, dialect)
            rule = parse(spelled).rule
            x = beside(rule.thresholds, 1.0, 8, 256 if "dynamic" in head else 64)
            yield from _encoded(spelled, "beside", "blocks", x, {"words": f"b{x.shape[1]}"}, "Beside", spelled == "nf4")
            near = around(rule.thresholds)
            near = np.resize(near, (-(-near.size // 63), 63))
            units = np.concatenate([np.ones((len(near), 1), np.float32), np.clip(near, -1, 1)], axis=1)
            yield from _encoded(spelled, "beside", "scale-of-1", units, {"words": "b64"}, "Beside", False)
            least = units[:1] * np.float32(2.0**-126) * np.float32([[0.5], [1], [1.5], [64]])
            yield from _encoded(spelled, "beside", "least", least, {"words": "b64"}, "Edge", False)
    x = beside(parse("nf4").rule.thresholds, 1.0, 64, 4)
    yield from _encoded("nf4", "many-groups", "b4", x, {"words": "b4"}, "ManyGroups")
    yield from _encoded("bnb_fp4", "many-groups", "b4", x, {"words": "b4"}, "ManyGroups", False)
    least = np.float32([[1, -1, 0.5, 0], [2, 1, -1, 0.5], [0, 0, 0, 0], [1.5, 0.75, -0.5, 2**-10]]) * np.float32(
        2.0**-126
    )
    yield from _encoded(
        "nf4", "fields", "flush-at-least", least, {"words": "b4", "fields": {"flush": True}}, "Edge", False
    )
    wide = {"min_divisor": 0.7}
    for fields in (wide, wide | {"reciprocal": True}, {"min_scale": 0.7}):
        label = "-".join(fields)
        low = x * np.float32(0.3)
        yield from _encoded("nf4", "beside", label, low, {"words": "b4", "fields": fields}, "Beside", False)
    for label, fields in {
        "order-twice": {"levels": [-1.0, 0.0, 1.0], "order": [0, 0, 1]},
        "order-none": {"levels": [-1.0, 0.0, 1.0], "order": []},
    }.items():
        yield from _encoded("nf4", "fields", label, x, {"words": "b4", "fields": fields}, "Edge", False)
    for count in (49, 50, 255):
        bounds = ascending_bounds(count)
        fields = {"levels": [(2 * n - count) / count for n in range(count + 1)], "bounds": bounds.tolist()}
        for size in (48, 49):
            many = np.resize(around(np.unique(bounds)), (size, size)).copy()
            many[:, 0] = 1
            if count == 255 or size == 48:
                params = {"words": f"b{size}", "fields": fields}
                yield from _encoded("nf4", "fields", f"{count}-bounds-{size}", many, params, "Beside", False)


def _floats() -> Iterator[Case]:
    for head in FLOATS:
        values = minifloat.values(parse(head).rule.element)
        known = np.unique(values[np.isfinite(values)])
        x = beside(codebook.midpoints(known[known >= 0]), float(known[-1]), 8, 64)
        for dialect in ("", *HEADS[head].dialects):
            yield from _encoded(_spelled(head, dialect), "beside", "g64", x, {"words": "g64"}, "Beside", False)
        if head == "fp8_e4m3fn":
            for words in ("g4", "f16-g4", "bf16-g4"):
                yield from _encoded(head, "many-groups", words, x.reshape(-1, 16)[:16], {"words": words}, "ManyGroups")
    top = np.float32([[3.4028235e38, -1, 0, 3.3e38], [3.38e38, 3.4e38, 0, 1]])
    for head in ("fp8_e4m3fn", "fp4_e2m1"):
        yield from _encoded(head, "largest", "g4", top, {"words": "g4"}, "Edge")
    for words, x in (("f16-g4", top), ("bf16-g4", top)):
        yield from _encoded("fp4_e2m1", "largest", words, x, {"words": words}, "Edge")


def _blocks() -> Iterator[Case]:
    for head in BLOCKS:
        for dialect in ("", *HEADS[head].dialects):
            yield from _encoded(
                _spelled(head, dialect), "exponents", "all", exponents(), {}, "Exponents", dialect == ""
            )
    for head in ("mxfp4", "mxint8", "nvfp4"):
        yield from _encoded(head, "many-groups", "33", blocks_of_33(), {}, "ManyGroups", head == "mxfp4")
    x = beside(codebook.midpoints(np.float32([0, 0.5, 1, 1.5, 2, 3, 4, 6])), 6.0, 16, 16)
    for dialect in ("", *HEADS["nvfp4"].dialects):
        yield from _encoded(_spelled("nvfp4", dialect), "beside", "16", x, {}, "Beside", False)
    params = {"fields": {"scale_rule": "nearest"}}
    yield from _encoded("mxfp4", "exponents", "nearest", exponents(), params, "Exponents", False)
    ones = np.eye(1, 32, 3, dtype=np.float32)
    for dialect in ("", *HEADS["nvfp4"].dialects):
        for label, x in (("zeros", 0 * ones), ("one", ones)):
            yield from _encoded(_spelled("nvfp4", dialect), "single", label, x, {}, "Edge", False)
        given = {"x": blocks_of_33()[:1], "scale": np.float32(0.3)}
        algorithm = f"variant.{_spelled('nvfp4', dialect)}"
        yield judged(algorithm, "given", "tensor-scale", "encode", given, {}, "Edge", "Misfit")[0]
    for logarithm in ("exact", "float32"):
        for scale_rule in ("floor", "ceil", "even", "rceil", "rne", "nearest"):
            params = {"fields": {"logarithm": logarithm, "scale_rule": scale_rule}}
            label = f"{logarithm}-{scale_rule}"
            yield from _encoded("mxfp4", "powers", label, parting_powers(), params, "Exponents", False)


def _minifloats() -> Iterator[Case]:
    numbers = np.array([0.3, -7.25, 500, 0, 1e-9])
    for dtype in ("float16", "float64"):
        x = {"x": numbers.astype(dtype)}
        yield judged("minifloat.e4m3fn", "dtypes", dtype, "encode", x, {"overflow": "saturate"}, "Edge")[0]
    first = {"codes": np.arange(8, dtype=np.uint8)}
    yield judged("minifloat.e4m3fn", "codes", "first", "decode", first, {}, "Edge")[0]
    past = np.float32([449, 480, 1e9, -464, -3e38, 447, 0.3, -0.0])
    for overflow in ("special", "saturate"):
        params = {"words": "cast", "fields": {"rounding": "toward_zero", "overflow": overflow}}
        yield from _encoded("fp8_e4m3fn", "past", f"toward_zero-{overflow}", past, params, "Edge", False)
    for head, codes in (
        ("fp4_e2m1", np.uint8(16)), ("fp6_e2m3", np.uint8(64)), ("fp6_e3m2", np.uint8(64)), ("fp4_e2m1", np.uint8(15)),
        ("fp6_e2m3", np.uint8(63)), ("fp8_e4m3fn", np.int16(1)),
    ):  # fmt: skip
        params = {"words": "cast", "shape": [3]}
        given = {"codes": np.full(3, codes, codes.dtype)}
        label = f"cast-{codes.dtype}-{codes}"
        yield judged(f"variant.{head}", "misfit", label, "decode", given, params, "Edge", "Misfit")[0]


def _misfits() -> Iterator[Case]:
    one = {"scale": np.ones((2, 1), np.float32)}
    for head, codes, parts in (
        ("mxfp4", 16, one), ("mxfp6_e2m3", 64, one), ("nvfp4", 16, {"scale": np.ones((2, 2), np.float32),
         "tensor_scale": np.float32(1)}), ("fp6_e2m3", 64, {"scale": np.float32(1)}), ("nf4", 16, None),
        ("codebook2", 2, {"levels": np.float32([0, 1])}), ("codebook2", 1, {"levels": np.float32([[0, 1]])}),
    ):  # fmt: skip
        parts = {"scale": np.ones(1, np.float32)} if parts is None else parts
        given = {"codes": np.full((2, 32), codes, np.uint8), **{name: np.asarray(part) for name, part in parts.items()}}
        params = {"shape": [2, 32]}
        label = f"{codes}-{len(next(iter(parts.values())).shape)}-axes"
        yield judged(f"variant.{head}", "misfit", label, "decode", given, params, "Misfit")[0]
    x = blocks_of_33()[:1, :32]
    for head, given in {
        "fp8_e4m3fn-cast": {"scale": np.float32(1)},
        "nvfp4@ggml": {"scale": np.float32(1)},
        "nvfp4": {"scale": np.float32(np.inf)},
    }.items():
        yield judged("variant.schemes", "given", head, "encode", {"x": x, **given}, {"scheme": head}, "Misfit")[0]
    for fields in ({"block": "nonsense"}, {"stored": "s"}, {"rounding": "nonsense"}):
        yield from _encoded("nvfp4", "fields", "-".join(fields), x, {"fields": fields}, "Misfit", False)
    for fields in ({"scale_dtype": "float64"}, {"overflow": "wrap"}, {"rounding": "nonsense"}):
        yield from _encoded("fp8_e4m3fn", "fields", "-".join(fields), x, {"fields": fields}, "Misfit", False)
    for name, fields in (("codebook2", {"bits": 0}), ("codebook2", {"bits": 9}), ("codebook2", {"fit": "nonsense"})):
        label = "-".join(f"{key}-{value}" for key, value in fields.items())
        given = {"x": x, "levels": np.float32([0, 1])}
        yield judged(f"variant.{name}", "fields", label, "encode", given, {"fields": fields}, "Misfit")[0]
    for levels in ([0.5], [-1.0, 1.0], [0.0, 0.0]):
        given = {"x": x, "levels": np.float32(levels)}
        yield judged(
            "variant.codebook2", "given", f"{len(levels)}-{levels[-1]}", "encode", given, {}, "Edge", "Misfit"
        )[0]
    for words in ("tensor-f16", "g32-f16", "g32-bf16"):
        params = {"scheme": f"fp8_e4m3fn-{words}", "shape": [32, 64]}
        yield Case("variant.fp8_e4m3fn", "size", words, "size", {}, params, ("Edge",))
