"""Schemes beyond the list: every word and dialect, every way to share a scale, given scales."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.arrays import inputs
from conformance.cases.judgement import judged
from refquant.heads import HEADS
from refquant.schemes import SCHEMES

NOTES = {
    "Word": {
        "kind": "ordinary",
        "description": "One word of a spelling, or one field of a rule, other than usual.",
        "effect": "The option does nothing, or something else: files say one rule and follow another.",
    },
    "Dialect": {
        "kind": "ordinary",
        "description": "The customs of one implementation, at a width that is not listed.",
        "effect": "The bytes are not those of the implementation that is named.",
    },
    "Steps": {
        "kind": "tie",
        "description": "The scale is 1, the numbers lie half way between codes, or one unit in the last place beside.",
        "effect": "A sum that is rounded, or an arithmetic of another width, shows as another code.",
    },
    "Shared": {
        "kind": "ordinary",
        "description": "Arrays of one to three axes, and who shares a scale in them.",
        "effect": "Scales are those of other weights.",
    },
    "Given": {
        "kind": "ordinary",
        "description": "Scale, zero point or levels come from the caller.",
        "effect": "Static quantization finds its own scale after all, or accepts one that no code fits.",
    },
    "Size": {
        "kind": "ordinary",
        "description": "What a format stores, in bits of a weight and in bytes of an array.",
        "effect": "Memory is planned wrongly.",
    },
    "Spelling": {
        "kind": "refusal",
        "description": "A name, a word or a value that means nothing, or two that contradict each other.",
        "effect": "A misspelled option is ignored: the file is not what was asked for.",
    },
    "Many": {
        "kind": "edge",
        "description": "More numbers than a table of levels is searched one by one for.",
        "effect": "A faster search finds other levels.",
    },
}
HEADS_OF_WORDS = ("int4", "uint4", "int8", "int1")
SMALL = ("steps", "random")
DIALECT_INPUTS = ("steps", "one-sign", "zero-block")
FLOAT_WORDS = {
    "fp8_e4m3fn": "fp8_e4m3fn",
    "fp6_e2m3": "fp6_e2m3",
    "mxfp4": "mxfp4",
    "mxfp8_e4m3": "mxfp8_e4m3",
    "mxint8": "mxint8",
    "nvfp4": "nvfp4",
    "fp8_e5m2": "fp8_e5m2",
}


def cases() -> Iterator[Case]:
    """Words, dialects, shapes, given arrays, sizes, and what is refused."""
    yield from _words()
    yield from _dialects()
    yield from _shapes()
    yield from _given()
    yield from _sizes()
    yield from _spellings()
    yield from _many()


def shared() -> dict[str, np.ndarray]:
    """Inputs of many tests, by the names of tensors in inputs.safetensors."""
    return {f"{name}-2": data()[name] for name in ("steps", "huge", "half-huge")} | {"many": _many_numbers()}


def data() -> dict[str, np.ndarray]:
    largest = np.finfo(np.float32).max
    huge = (np.random.default_rng(9).uniform(-1, 1, (2, 128)) * largest).astype(np.float32)
    huge[0, [0, 16, 17, 33]], huge[1, [0, 16]] = [largest, -largest, largest, largest], [-largest, largest]
    return {name: x for name, (_, x) in inputs(2).items()} | {
        "steps": _steps(), "huge": huge, "half-huge": huge * np.float32(0.49),
    }  # fmt: skip


def _steps() -> np.ndarray:
    """(2, 128): groups of 16, each with the extremes that make the scale of one width 1, and ties."""
    groups = []
    for low, high in (
        (-7.5, 7.5),
        (0, 15),
        (-8, 7),
        (-127.5, 127.5),
        (0, 255),
        (-7, 7),
        (-127, 127),
        (0, 7),
        (-1.5, 1.5),
        (-3.5, 3.5),
        (-8, 7.5),
        (-6, 6),
        (-448, 448),
        (0, 3),
        (-1, 1),
        (-8, 8),
    ):
        ties = np.array([0.5, 1.5, 2.5, -0.5, -1.5, low / 2 + 0.25], np.float32)
        near = np.concatenate([np.nextafter(ties[:4], np.float32(9)), np.nextafter(ties[:4], np.float32(-9))])
        group = np.concatenate([np.array([low, high], np.float32), ties, near])
        groups.append(np.clip(group, low, high).astype(np.float32))
    return np.stack(groups).reshape(2, 128)


def _many_numbers() -> np.ndarray:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((10, 256), np.float32)
    x[3] = 0
    x[4] *= np.float32(1e-39)
    x[5] = np.abs(x[5])
    return x


def _both(head: str, group: str, label: str, x: np.ndarray, params: Mapping[str, object], flag: str) -> Iterator[Case]:
    """encode, and decode of what came of it."""
    case, found = judged(f"variant.{head}", group, label, "encode", {"x": x}, params, flag)
    yield case
    if found:
        said = {**params, "shape": list(x.shape)}
        words = {"values": "exact"}
        yield Case(f"variant.{head}", f"{group}-decode", label, "decode", found, said, (flag,), words=words)


def _words() -> Iterator[Case]:
    for head in (*HEADS_OF_WORDS, *FLOAT_WORDS):
        for word in HEADS[head].words:
            if word == "stochastic":
                continue
            grain = "" if head.startswith(("mx", "nv")) else "-g16"
            for label in SMALL if head in ("int4", "uint4") else SMALL[:1]:
                flag = "Steps" if label == "steps" else "Word"
                params = {"words": f"{word}{grain}"}
                case, found = judged(f"variant.{head}", word, label, "encode", {"x": data()[label]}, params, flag)
                if found or label == "steps":
                    yield case
    for head, words in (
        ("uint4", "zmin-g16"),
        ("uint4", "zmid-g16"),
        ("uint4", "zfloat-g16"),
        ("int4", "signedmax-g16"),
        ("int1", "g16"),
        ("uint1", "sym-g16"),
        ("int8", "full-g16"),
        ("uint2", "zmid-f16-g16"),
    ):
        for label in ("huge", "half-huge", "large", "zero-block"):
            yield judged(f"variant.{head}", words, label, "encode", {"x": data()[label]}, {"words": words}, "Word")[0]
    for words in (
        "asym-zfloat-g16",
        "asym-zmin-g16",
        "asym-zmid-g16",
        "asym-zmid-zbefore-f16-g16",
        "asym-zmin-bf16-g16",
        "f16-wide-g16",
        "asym-f16-wide-g16",
        "asym-zbefore-g16",
        "covering-f16-g16",
        "asym-zfloat-f16-g16",
        "signedmax-g4",
    ):
        for label in ("steps", "large"):
            for case in _both("int4", words, label, data()[label], {"words": words}, "Word"):
                if case.result == "valid" or label == "large":
                    yield case


def _dialects() -> Iterator[Case]:
    listed = set(SCHEMES)
    for head in (
        "int4",
        "uint4",
        "int8",
        "uint8",
        "int1",
        "uint1",
        "mxfp8_e4m3",
        "mxfp8_e5m2",
        "mxint8",
        "mxfp6_e2m3",
        "nf4",
        "bnb_fp4",
        "dynamic8",
        "udynamic8",
        "fp8_e4m3fn",
        "fp8_e5m2",
    ):
        for dialect in HEADS[head].dialects:
            if f"{head}@{dialect}" in listed:
                continue
            words = "" if head.startswith("mx") else {"nf4": "b64", "bnb_fp4": "b64"}.get(head, "g16")
            for label in DIALECT_INPUTS:
                flag = "Steps" if label == "steps" else "Dialect"
                params = {"words": words} if words else {}
                algorithm = f"variant.{head}@{dialect}"
                yield judged(algorithm, "encode", label, "encode", {"x": data()[label]}, params, flag)[0]


def _shapes() -> Iterator[Case]:
    rng = np.random.default_rng(3)
    arrays = {
        "x".join(map(str, shape)) or "scalar": rng.standard_normal(shape, np.float32)
        for shape in ((), (8,), (4, 6), (6, 4), (2, 4, 6), (1, 1), (3, 0))
    }
    for word in (
        "tensor",
        "token",
        "channel",
        "channel1",
        "channel2",
        "g2",
        "g3",
        "g24",
        "b2",
        "b4",
        "b5",
        "b2x3",
        "b3x2",
        "b2x5",
        "b4x6",
        "g0",
        "b0",
        "b0x2",
        "channel0",
    ):
        for label, x in arrays.items():
            case, found = judged("variant.int8", word, label, "encode", {"x": x}, {"words": word}, "Shared", "Spelling")
            yield case
            if found and x.ndim == 3:
                said = {"words": word, "shape": list(x.shape)}
                words = {"values": "exact"}
                yield Case("variant.int8", f"{word}-decode", label, "decode", found, said, ("Shared",), words=words)


def _given() -> Iterator[Case]:
    x = data()["random"]
    one = np.float32(0.25)
    column = (np.arange(1, 17) / 32).astype(np.float32).reshape(2, 8)
    tries = {
        "int4": {
            "one": {"scale": one},
            "each": {"scale": column},
            "too-many": {"scale": np.ones(17, np.float32)},
            "nan": {"scale": np.float32(np.nan)},
            "with-zero": {"scale": one, "zero_point": np.float32(3)},
            "zero": {"scale": np.float32(0)},
            "negative": {"scale": -one},
            "only-zero": {"zero_point": np.float32(3)},
        },
        "uint4": {
            "alone": {"scale": one},
            "each": {"scale": column, "zero_point": np.arange(16, dtype=np.float32)},
            **{f"zero-{z}": {"scale": one, "zero_point": np.float32(z)} for z in (0, 15, 16, -1, -0.5, 3.5, np.nan)},
        },
        "int1": {"one": {"scale": one}},
        "fp8_e4m3fn": {
            "one": {"scale": one},
            "each": {"scale": column},
            "zero": {"scale": np.float32(0)},
            "nan": {"scale": np.float32(np.nan)},
            "negative": {"scale": -one},
        },
        "nvfp4": {
            "one": {"scale": np.float32(0.01)},
            "zero": {"scale": np.float32(0)},
            "nan": {"scale": np.float32(np.nan)},
            "negative": {"scale": -one},
        },
        "codebook2": {
            "levels": {"levels": np.array([-1, -0.25, 0.5, 1], np.float32)},
            "none": {},
            "three": {"levels": np.array([-1, 0, 1], np.float32)},
            "five": {"levels": np.arange(5, dtype=np.float32)},
            "falling": {"levels": np.array([1, 0.5, 0, -1], np.float32)},
        },
        "kmeans2": {
            "weights": {"weights": np.abs(data()["heavy-tail"])},
            "wrong": {"weights": np.ones(3, np.float32)},
            "negative": {"weights": -np.ones((2, 128), np.float32)},
            "zeros": {"weights": np.zeros((2, 128), np.float32)},
        },
    }
    for head, kinds in tries.items():
        for label, given in kinds.items():
            words = {"nvfp4": "", "codebook2": "", "kmeans2": ""}.get(head, "g16")
            params = {"words": words} if words else {}
            yield judged(f"variant.{head}", "given", label, "encode", {"x": x, **given}, params, "Given")[0]
    for dtype, words in (("float16", "f16"), ("bfloat16", "bf16")):
        for label, scale in (("inexact", np.float32(0.1)), ("huge", np.float32(1e38)), ("tiny", np.float32(1e-39))):
            params = {"words": f"g16-{words}"}
            yield judged(
                "variant.int4", "given", f"{dtype}-{label}", "encode", {"x": x, "scale": scale}, params, "Given"
            )[0]
    for words in ("g16-zfloat-f16", "g16-zmin", "g16-zmid-bf16"):
        given = {"x": x, "scale": column, "zero_point": np.linspace(-1, 16.3, 16, dtype=np.float32)}
        yield judged("variant.uint4", "given", words, "encode", given, {"words": words}, "Given")[0]


def _sizes() -> Iterator[Case]:
    for name in (
        *SCHEMES,
        "int5-g16-f16",
        "int5-g16-bf16",
        "int5-asym-g16",
        "int5-asym-zfloat-f16-g16",
        "int5-asym-zmin-g16",
    ):
        params = {"scheme": name, "shape": [256, 512]}
        yield Case("variant.schemes", "size", name.replace("/", "-"), "size", {}, params, ("Size",))


def _spellings() -> Iterator[Case]:
    x = {"x": data()["random"]}
    for head, words in (
        ("int4", "nonsense"),
        ("int4", "g16-g32"),
        ("int4", "sym-asym"),
        ("int4", "restricted-asym"),
        ("int1", "restricted"),
        ("int4", "zfloat"),
        ("int4", "stochastic"),
        ("mxfp4", "stochastic"),
        ("fp8_e4m3fn", "stochastic"),
        ("nvfp4", "stochastic"),
        ("Q4_0", "g32"),
        ("nf4", "half_up"),
        ("int4@nonsense", ""),
        ("int4", "g99999999999"),
        ("int9", ""),
        ("INT4", ""),
        ("codebook9", ""),
    ):
        name, at, dialect = head.partition("@")
        params = {"scheme": f"{name}-{words}{at}{dialect}" if words else head}
        yield judged("variant.schemes", "spelling", params["scheme"], "encode", x, params, "Spelling")[0]


def _many() -> Iterator[Case]:
    x = _many_numbers()
    for head in ("dynamic8", "udynamic8", "dynamic8@bitsandbytes-cpu", "kmeans7", "quantile8"):
        yield judged(f"variant.{head}", "many", "numbers", "encode", {"x": x}, {}, "Many")[0]
