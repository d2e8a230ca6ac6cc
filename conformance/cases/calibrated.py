"""Every option of the calibrated methods on layers of 4 x 16, whose numbers make sums of products exact in float32."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Small": {
        "kind": "ordinary",
        "description": "A layer of 4 x 16; weights are eighths and inputs halves, so that no sum of products rounds.",
        "effect": "One step of a method is another than published: codes and scales look plausible and are worse.",
    },
    "Option": {
        "kind": "ordinary",
        "description": "One setting of a method other than usual.",
        "effect": "The setting does nothing, or something else.",
    },
    "Edge": {
        "kind": "edge",
        "description": "Columns or groups of zeros, weights of one sign, few tokens, one input far above the others.",
        "effect": "A division by zero, a NaN or a dead column spoils the layer.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "A setting out of range, a word that means nothing, a format that the method cannot fill.",
        "effect": "Another method is run than was asked for.",
    },
}
GPTQ = "gptq gptq@ist gptq@llm-compressor gptq@gptqmodel"
SCHEMES = ("int4-channel", "int3-g4", "uint3-g4", "int4-g8-full", "int4", "uint2-token", "int4-b4")
FORMATS = ("nf4-g8", "fp8_e4m3fn-channel", "mxfp4-g8", "mxint8", "nvfp4", "int1-g8", "Q4_0", "kmeans2", "int3-channel1",
           "int4-b2x4", "uint4-g8-zmin", "int4-g8-signedmax", "int4-g8-restricted", "uint4-g8-zfloat", "int4-g16-f16",
           "uint4-g8-sym", "nf4-dq", "fp8_e4m3fn-cast")  # fmt: skip
AWQ = ("", "llm-awq", "autoawq", "llm-compressor", "modelopt", "nonsense")
HQQ = (
    *(("norm", p) for p in (-0.5, 0, 0.5, 1, 1.5)),
    *(("beta", b) for b in (-0.5, 0, 0.5, 20)),
    *(("kappa", k) for k in (0.5, 1, 1.5)),
    *(("iterations", n) for n in (0, 1, 2, 40)),
)  # fmt: skip
TRIES: dict[str, list[tuple[str, dict[str, object]]]] = {
    "gptq": [
        *(("uint3-g4", {"order": word}) for word in ("activation", "group-aware", "natural", "nonsense")),
        *(("uint3-g4", {"order": "activation", "static_groups": flag}) for flag in (False, True)),
        *(("int3-g4", {"block": n}) for n in (0, 1, 3, 4, 6, 16)),
        *(("int3-g4", {"block": n, "statistics": "stale"}) for n in (1, 3, 6, 16)),
        *(("int3-g8", {"block": 3, "statistics": "stale", "order": "activation"}),),
        *(("uint3-g8", {"search": word}) for word in ("gptq", "llm-compressor", "torchao", "nonsense")),
        *(("uint3-g8", {"search": "gptq", "ranges": word}) for word in ("ist", "format", "nonsense")),
        *((scheme, {"ranges": "ist"}) for scheme in ("int4-g8-full", "nf4-g8", "int1-g8", "int3-g8", "uint3-channel")),
        *((scheme, {"search": "gptq"}) for scheme in ("int4-g8-full", "nf4-g8", "int1-g8")),
        *(("int3-g8", {"damp": d}) for d in (0, 0.5, 0.999, 1, -0.1)),
        *(("int3-g8", {"damp": 0.5, "damp_step": d}) for d in (0.25, 1, -0.1)),
        *(("int3-g8", {"hessian": word}) for word in ("sum", "sequences", "running", "nonsense")),
        *(("int3-g8", {name: "nonsense"}) for name in ("precision", "fallback", "statistics", "nonsense")),
        *(("int3-g8", {"damp": 0.0, "fallback": word}) for word in ("raise", "nearest")),
    ],
    "obq": [
        *(("int3-g8", {"order": word}) for word in ("greedy", "natural", "activation", "nonsense")),
        *(("int3-g8", {"outliers_first": flag}) for flag in (False, True)),
        *(("int3-g8", {"damp": d}) for d in (0, 0.5, 1, -0.1)),
    ],
    "ldlq": [("int3-g8", {"damp": d, "precision": "exact"}) for d in (0, 0.5, 1, -0.1)],
    "hqq": [
        *(("uint2-g8@hqq", {"dialect": word}) for word in ("", "last", "best", "nonsense")),
        *(("uint3-g8@hqq", {"dialect": word, "round_zero": True}) for word in ("", "last", "best")),
        *(("uint2-g8@hqq", {"settings": {name: value}}) for name, value in HQQ),
        *((s, {}) for s in ("int4-g8", "uint4-g8", "uint4-g8-zfloat", "nf4", "int4-asym-zfloat-g8", "uint4-sym")),
    ],
    "awq": [
        *(("uint2-g8", {"dialect": word}) for word in AWQ),
        *(("uint2-g8", {"dialect": word, "clip": flag}) for word in ("", "modelopt") for flag in (False, True)),
        *((scheme, {"dialect": "autoawq"}) for scheme in ("int2-channel", "int3-token", "int2", "int2-channel1")),
    ],
    "smoothquant": [
        *(("int3-g8", {"alpha": a}) for a in (0, 0.25, 1, 1.5, -0.5)),
        *(("int3-g8", {"dialect": word}) for word in ("llm-compressor", "nonsense")),
    ],
    "weighted": [("int3-g8-signedmax", {}), ("int3-g8", {}), ("int3-g8-signedmax", {"dialect": "nonsense"})],
    "easyquant": [("int3-g8", {"deviations": d, "steps": n}) for d in (0, 0.5, 1.5, 3) for n in (-1, 0, 1, 5)],
    "sparsegpt": [
        *(("int3-g8", {"sparsity": s, "precision": "exact"}) for s in (0, 0.25, 0.5, 1, 1.5, -0.5)),
        *(("int3-g8", {"pattern": [n, m], "precision": "exact"}) for n, m in ((1, 2), (2, 4), (0, 4), (5, 4), (2, 5))),
        *(("uint3-g8", {"precision": "exact"}),),
    ],
    "wanda": [
        *(("int3-g8", {"sparsity": s}) for s in (0, 0.25, 0.5, 1, 1.5, -0.5)),
        *(("int3-g8", {"pattern": [n, m]}) for n, m in ((1, 2), (2, 4), (0, 4), (5, 4), (2, 5))),
    ],
    "magnitude": [("int3-g8", {"sparsity": s}) for s in (0, 0.25, 1, 1.5)],
    "sparse": [
        ("int3-g8", {"share": s, "score": word})
        for s, word in ((0.0, "error"), (0.1, "magnitude"), (0.1, "nonsense"), (1.5, "error"), (0.1, "error"))
    ],
    "nearest": [("int3-g8", {})],
    "adaround": [(s, {"steps": n, "lr": 0.1, "strength": 0.5}) for s in ("int3-g8", "uint3-g4") for n in (0, 1, 12)],
    "autoround": [(s, {"iterations": n}) for s in ("int3-g8", "uint3-g4", "uint2-channel") for n in (0, 1, 6)],
    "zeroquant": [("int3-g8", {"steps": n, "lr": 0.01, "inputs": x}) for n in (-1, 0, 3) for x in (None, "int8-token")],
    "low_rank": [("int2-g8", {"rank": r, "sweeps": n}) for r in (0, 1, 3, 5) for n in (-1, 0, 2)],
}  # fmt: skip
EXACT = {name: {"precision": "exact"} for name in ("gptq", "gptaq")}  # unless a test says otherwise
BOUNDED = (
    "awq",
    "smoothquant",
    "easyquant",
    "adaround",
    "autoround",
    "zeroquant",
    "low_rank",
)  # powers and square roots of a library, in what is not a code


def cases() -> Iterator[Case]:
    """Methods x options on one layer, methods x layers with their usual options."""
    layers = _layers()
    for method, tries in TRIES.items():
        for scheme, options in tries:
            label = "-".join([scheme.replace("/", "-"), *(f"{k}-{_short(v)}" for k, v in options.items())])
            yield from _cases(method, "options", label, layers["plain"][1], scheme, options, "Option")
    for method in GPTQ.split():
        for scheme in SCHEMES:
            yield from _cases(method, "schemes", scheme, layers["plain"][1], scheme, {}, "Small")
    for method in ("gptq", "gptq@gptqmodel"):
        for scheme in FORMATS:
            yield from _cases(method, "formats", scheme, layers["plain"][1], scheme, {}, "Small")
    for method, scheme in (
        *((name, scheme) for name in GPTQ.split() for scheme in ("int3-g4", "uint3-g8")),
        ("obq", "int3-g8"),
        ("hqq", "uint2-g8@hqq"),
        ("hqq@last", "uint2-g8@hqq"),
        ("hqq@best", "uint3-g8@hqq"),
        ("hqq", "uint3-g8@hqq"),
        ("awq", "uint2-g8"),
        ("awq@modelopt", "int3-g8"),
        ("smoothquant", "int3-g8"),
        ("smoothquant@llm-compressor", "int3-g8"),
        ("weighted", "int3-g8-signedmax"),
        ("easyquant", "int3-g8"),
        ("wanda", "int3-g8"),
    ):
        for label, (flag, both) in layers.items():
            if label != "plain":
                yield from _cases(method, "layers", f"{label}-{scheme}", both, scheme, {}, flag)
    for method in ("gptq", "obq", "ldlq", "awq", "smoothquant", "hqq", "wanda", "weighted", "sparsegpt"):
        scheme = {"hqq": "uint2-g8@hqq", "weighted": "int3-g8-signedmax"}.get(method, "int3-g8")
        yield from _cases(method, "layers", "no-inputs", {"W": layers["plain"][1]["W"]}, scheme, {}, "Small")
    W, X = layers["plain"][1].values()
    for scheme, options in (("int3-g4", {}), ("uint3-g8", {}), ("int3-g4", {"carried": "quantized"}),
                            ("int3-g4", {"carried": "weights"}), ("int3-g4", {"carried": "nonsense"})):  # fmt: skip
        label = "-".join([scheme, *options.values()])
        both = {"W": W, "X": X, "native": X + np.float32(0.25) * np.roll(X, 1, axis=0)}
        yield from _cases("gptaq", "options", label, both, scheme, options, "Option")
    yield from _transforms(W, X)
    x = np.float32([[0.5, 6, -6, 1], [5.9999995, 6.0000005, 0, -2], [0, 0, 0, 0], [1, 2, -3, 0.25]])
    for threshold in (0.0, 0.5, 6.0, 7.0, -1.0):
        for method in ("llm_int8", "llm_int8@bitsandbytes-default"):
            params = {"threshold": threshold}
            yield judged(
                f"method.{method}", "thresholds", f"{threshold:g}", "encode", {"x": x}, params, "Option", "Refused"
            )[0]


def shared() -> dict[str, np.ndarray]:
    """The layers by the names of tensors in inputs.safetensors."""
    return {f"small-{label}-{part}": x for label, (_, both) in _layers().items() for part, x in both.items()}


def _cases(
    method: str, group: str, label: str, both: dict[str, np.ndarray], scheme: str, options: dict[str, object], flag: str
) -> Iterator[Case]:
    name = method.partition("@")[0]
    params = {"scheme": scheme, **EXACT.get(name, {}), **options}
    op = "weight" if name in (*BOUNDED, "sparse") else "quantize"
    case, found = judged(f"method.{method}", group, label, op, both, params, flag, "Refused")
    words = {"values": ("max_abs", 1e-5)} if found and op == "weight" else {}
    yield Case(**{field: getattr(case, field) for field in case.__dataclass_fields__} | {"words": words})


def _layers() -> dict[str, tuple[str, dict[str, np.ndarray]]]:
    rng = np.random.default_rng(41)
    W = (rng.integers(-24, 25, (4, 16)) / 8).astype(np.float32)
    X = (rng.integers(-4, 5, (24, 16)) / 2).astype(np.float32)
    X[:, 1::4] = X[:, ::4] + X[:, 1::4]
    few, dead, sided, empty, far = X[:5], X.copy(), np.abs(W), W.copy(), X.copy()
    dead[:, [3, 8]] = 0
    sided[1::2] *= -1
    empty[1, :8], empty[2] = 0, 0
    far[:, 5] *= 32
    peaks = W.copy()
    peaks[[0, 2], [1, 9]] = 9, -11
    return {
        "plain": ("Small", {"W": W, "X": X}),
        "batches": ("Small", {"W": W, "X": X.reshape(3, 8, 16)}),
        "few": ("Edge", {"W": W, "X": few}),
        "dead": ("Edge", {"W": W, "X": dead}),
        "sided": ("Edge", {"W": sided, "X": X}),
        "zero-groups": ("Edge", {"W": empty, "X": X}),
        "far": ("Edge", {"W": W, "X": far}),
        "peaks": ("Edge", {"W": peaks, "X": X}),
        "tiny": ("Edge", {"W": W * np.float32(2.0**-16), "X": X}),
        "narrow": ("Edge", {"W": _narrow(), "X": X}),
    }


def _transforms(W: np.ndarray, X: np.ndarray) -> Iterator[Case]:
    """Functions that fold scales and shifts into neighbours."""
    s, gain, bias = (np.float32(start) + np.arange(16, dtype=np.float32) / 4 for start in (0.5, -1, 2))
    four = s[:4]
    for member, function, tries in (
        ("awq", "fold_norm", ({"gain": gain, "s": s}, {"gain": gain, "s": s, "bias": bias}, {"gain": gain, "s": s[1:]},
                              {"gain": gain, "s": gain}, {"gain": X, "s": X}, {"gain": gain, "s": s - s[0]})),
        ("awq", "fold_rows", ({"previous": W, "s": four}, {"previous": W, "s": four[:3], "bias": four},
                              {"previous": W, "s": s[:5]}, {"previous": W, "s": -four}, {"previous": W, "s": W},
                              {"previous": W, "s": four - four[0]}, {"previous": W, "s": four[:1]})),
        ("smoothquant", "log_equalization", ({"a": s}, {"a": s - s[0]}, {"a": gain})),
        ("smoothquant", "migrate_gain", ({"gain": gain, "layers": W}, {"gain": four, "layers": W})),
        ("smoothquant", "channel_shift", ({"X": X, "W": W}, {"X": X + 3, "W": W, "bias": four},
                                          {"X": X[:, 1:], "W": W})),
    ):  # fmt: skip
        for number, given in enumerate(tries):
            case, found = judged(
                f"method.{member}",
                function,
                str(number),
                "transform",
                given,
                {"function": function},
                "Option",
                "Refused",
            )
            words = dict.fromkeys(found, ("max_abs", 1e-5)) if function == "log_equalization" else {}
            yield Case(**{field: getattr(case, field) for field in case.__dataclass_fields__} | {"words": words})


def _narrow() -> np.ndarray:
    """(4, 16): eight groups of eight, of ranges around 1e-4, some below and some above zero."""
    ranges = np.float32([1e-4, np.nextafter(np.float32(1e-4), np.float32(1)), 3e-4, 3.5e-4, 0.5, 2, 5e-5, 1e-3])
    shape = np.float32([0, 1, 0.4, 0.6, 0.1, 0.85, 0.3, 0.55])
    return (ranges[:, None] * shape * np.float32([[1], [1], [1], [-1]] * 2)).reshape(4, 16)


def _short(value: object) -> str:
    if isinstance(value, dict):
        return "-".join(f"{name}-{each}" for name, each in value.items())
    return "of".join(map(str, value)) if isinstance(value, list) else str(value)
