"""Calibrated methods where they are hard: dead columns, outliers, ties, blocks, settings at their ends."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case, calibrated
from conformance.cases.judgement import judged

NOTES = {name: calibrated.NOTES[name] for name in ("Option", "Edge", "Refused")}
EXACT = {"precision": "exact"}
LEARNED = ("adaround", "autoround", "zeroquant", "low_rank", "awq", "smoothquant", "easyquant")
Layer = Mapping[str, np.ndarray]
# found by bisection: the tie lies within 1e-7 of these weights, which float64 tells and float32 does not
BESIDE = {
    ("ldlq", 5): "-0x1.6ba5cap+0",
    ("ldlq", 7): "0x1.2890ep+0",
    ("ldlq", 9): "0x1.a5c92ep-3",
    ("obq", 0): "-0x1.70ed56p-3",
    ("obq", 4): "0x1.73c0bap-1",
    ("obq", 6): "0x1.535212p-2",
    ("obq", 9): "0x1.267504p-3",
    ("obq", 12): "0x1.aae98p-4",
    ("obq", 13): "-0x1.ca1412p-1",
}


def cases() -> Iterator[Case]:
    """Options by method on a plain layer, and layers that are hard."""
    plain = _layers()
    for method, tries in _options().items():
        for label, scheme, options in tries:
            yield _case(method, "ends", label, plain["plain"], scheme, options, "Option")
    for method, scheme, options, names in (
        ("gptq", "int3-g8", EXACT, ("tied", "upside", "three-rows")),
        ("gptq", "int4-b4", EXACT, ("three-rows",)),
        ("gptq", "int4-g4-signedmax", EXACT, ("mirrored", "plain")),
        ("gptq", "mxint8", EXACT, ("wide",)),
        ("gptq", "nvfp4", EXACT, ("wide",)),
        ("ldlq", "int3-g8", EXACT, ("dead", "wide", "tied")),
        ("obq", "int3-g8", {}, ("tied", "upside", "dead", "half-sided", "skewed")),
        ("obq", "int3-g8-signedmax", {}, ("tied", "upside", "skewed", "half-sided")),
        ("obq", "int2-g4", {}, ("tied", "upside", "skewed", "half-sided")),
        ("obq", "int2-g4", {"outliers_first": False}, ("tied", "skewed")),
        ("sparsegpt", "int3-g8", EXACT, ("dead", "tied", "wide")),
        ("sparsegpt", "int3-g8", {**EXACT, "block": 4}, ("wide",)),
        ("gptaq", "int3-g4", EXACT, ("native", "native-dead", "native-batches", "native-short")),
        ("gptaq", "int3-g4", {**EXACT, "hessian": "running"}, ("native", "native-batches")),
        ("gptaq", "int3-g4", {**EXACT, "hessian": "sequences"}, ("native-batches",)),
        ("gptaq", "int3-g4", {**EXACT, "order": "activation", "block": 6}, ("native",)),
        ("gptaq@gptqmodel", "int3-g4", {**EXACT, "block": 6}, ("native",)),
        ("sparse", "int3-g8", {"share": 0.3, "score": "magnitude"}, ("plain", "thousandths", "mirrored")),
        ("sparse", "int3-g8", {"share": 0.3, "score": "sensitivity"}, ("plain", "dead", "tied")),
        ("weighted", "int3-g8-signedmax", {}, ("mirrored", "upside", "zeros", "unfed", "half-sided", "dead", "tie")),
        ("weighted@auto-round", "int3-g8-signedmax", {}, ("plain", "mirrored", "upside", "zeros", "unfed", "tiny")),
        ("weighted@auto-round", "int2-g8-signedmax", {}, ("plain", "upside", "half-sided", "tie")),
        ("weighted@auto-round", "int4-g8-signedmax", {}, ("plain", "tie")),
        ("weighted", "int3-g8-signedmax-f16", {}, ("plain", "third")),
        ("weighted", "int3-g8-signedmax", {}, ("third", "ones")),
        ("easyquant", "int3-g8", {"deviations": 1.5, "steps": 6}, ("third", "zeros", "peaks")),
        ("easyquant", "int3-g8-signedmax", {"deviations": 1.5, "steps": 6}, ("third", "upside")),
        ("easyquant", "int3-g8-f16", {"deviations": 2.0, "steps": 6}, ("third",)),
        ("hqq", "uint3-g8@hqq", {"round_zero": True}, ("half-zero", "zeros", "ones")),
        ("hqq", "uint3-g8@hqq", {}, ("half-zero", "zeros", "ones", "third")),
        ("hqq@last", "uint3-g8@hqq", {}, ("zeros", "ones", "third")),
        ("hqq@best", "uint2-g8@hqq", {}, ("zeros", "ones", "third")),
        ("adaround", "int3-g8", {"steps": 25, "lr": 0.3}, ("plain", "zeros", "dead", "halves", "level")),
        ("adaround", "uint3-g8", {"steps": 25, "lr": 0.3}, ("plain", "third", "peaks", "halves")),
        ("adaround", "int3-g8-restricted", {"steps": 25, "lr": 0.3}, ("third",)),
        ("adaround", "uint2-g8", {"steps": 25, "lr": 0.3, "strength": 0}, ("third", "tied")),
        ("autoround", "int3-g8", {"iterations": 12}, ("third", "zeros", "dead", "tied")),
        ("autoround", "uint2-g8", {"iterations": 12, "lr": 0.3}, ("third", "half-sided", "peaks")),
        ("autoround", "int2-g8-signedmax", {"iterations": 12, "lr": 0.3}, ("third", "half-sided", "upside")),
        ("autoround", "int3-g8-signedmax", {"iterations": 1, "lr": 1.0}, ("third", "upside")),
        ("zeroquant", "int3-g8", {"steps": 8, "lr": 0.1}, ("third", "tied", "dead", "zeros")),
        ("zeroquant", "uint2-g8", {"steps": 8, "lr": 0.3}, ("plain", "tied")),
        ("low_rank", "int2-g8", {"rank": 2, "dialect": "l2qer"}, ("plain", "dead", "unfed")),
        ("low_rank", "int2-g8", {"rank": 2, "sweeps": 3}, ("tied", "third", "mirrored")),
    ):
        for name in names:
            extra = "-".join(f"{key}-{value}" for key, value in options.items() if key != "precision")
            label = f"{name}-{scheme}-{extra}".replace("@", "-at-").rstrip("-")
            yield _case(method, "hard", label, plain[name], scheme, options, "Edge")
    for (method, seed), weight in BESIDE.items():
        settings = EXACT if method == "ldlq" else {}
        yield _case(method, "hard", f"beside-{seed}", _beside(seed, weight), "int3-channel", settings, "Edge")
    yield from _pruned(plain)


def _beside(seed: int, weight: str) -> Layer:
    """A row whose first weight is one unit in the last place away from where a code of another weight changes."""
    rng = np.random.default_rng([121, seed])
    W = rng.standard_normal((1, 8)).astype(np.float32)
    X = (rng.integers(-4, 5, (12, 8)) / 3).astype(np.float32)
    W[0, 0] = float.fromhex(weight)
    return {"W": W, "X": X}


def _options() -> dict[str, list[tuple[str, str, dict[str, object]]]]:
    """Method -> (label, scheme, options)."""
    named = lambda scheme, name, *values: [(f"{name}-{v}", scheme, {name: v}) for v in values]
    exact = lambda tries: [(label, scheme, {**EXACT, **options}) for label, scheme, options in tries]
    return {
        "gptq": exact(
            [
                ("eight-bits", "uint8-g8", {}),
                *named("int3-g8", "damp", -0.001),
                *named("int3-g8", "dialect", "x"),
                *named("int3-g8", "option", 1),
                ("ist-unsigned", "uint3-g4", {"ranges": "ist"}),
            ]
        ),
        "ldlq": exact([("eight-bits", "uint8-g8", {}), *named("int3-g8", "damp", -0.001, 0.999)]),
        "obq": [("eight-bits", "uint8-g8", {}), *named("int3-g8", "damp", -0.001)],
        "sparsegpt": exact(
            [
                ("eight-bits", "uint8-g8", {"sparsity": 0.25}),
                ("no-zero", "int1-g8", {}),
                ("three", "int3-g8", {"pattern": [1, 3]}),
                ("no-zero-level", "int4-g8-restricted", {}),
                *(
                    (f"block-{b}-of-{m}", "int3-g8", {"pattern": [1, m], "block": b})
                    for b, m in ((6, 4), (4, 4), (8, 2), (4, 8))
                ),
                ("three-of-four", "int3-g8", {"pattern": [3, 4], "block": 4}),
                *named("int3-g8", "block", -1, 0, 1, 2, 5),
                *named("int3-g8", "order", "activation"),
                ("usual", "int3-g8", {}),
            ]
        ),
        "gptaq": exact([("no-native", "int3-g8", {"alpha": 0.5})]),
        "sparse": [
            ("all", "int3-g8", {"share": 1.0, "score": "magnitude"}),
            *named("int3-g8", "share", -0.5, 1.01),
            ("float16", "int3-g8", {"share": 0.1, "score": "magnitude", "value_dtype": "float16"}),
            ("float32", "int3-g8", {"share": 0.1, "score": "magnitude", "value_dtype": "float32"}),
            ("float64", "int3-g8", {"share": 0.1, "score": "magnitude", "value_dtype": "float64"}),
            ("usual", "int3-g8", {}),
        ],
        "magnitude": [
            ("usual", "int3-g8", {}),
            *named("int3-g8", "scope", "row", "layer", "column"),
            ("pattern", "int3-g8", {"pattern": [1, 4], "scope": "layer"}),
        ],
        "wanda": [("usual", "int3-g8", {})],
        "smoothquant": [("usual", "int3-g8", {}), ("two-scales", "nvfp4", {})],
        "weighted": [
            ("unsigned", "uint3-g8-signedmax", {}),
            ("asymmetric", "uint3-g8", {}),
            *named("int3-g8-signedmax", "dialect", "x"),
        ],
        "easyquant": [
            ("asymmetric", "uint3-g8", {}),
            *named("int3-g8", "lr", 0, -0.5, 0.25),
            *named("int3-g8", "steps", 1, 3),
            ("usual", "int3-g8", {"steps": 4}),
            ("wide", "int3-g8", {"deviations": 1.0}),
        ],
        "low_rank": [
            *((f"{d}-{r}", "int2-g8", {"dialect": d, "rank": r}) for d in ("lqer", "l2qer", "x") for r in (1, 4)),
            *((f"lqer-sweeps-{n}", "int2-g8", {"dialect": "lqer", "rank": 2, "sweeps": n}) for n in (1, 3)),
            *named("int2-g8", "rank", 4, 5, 17),
            ("usual", "int2-g8", {}),
        ],
        "zeroquant": [
            *named("int3-g8", "lr", 0, -0.5),
            *((f"steps-{n}", "int3-g8", {"steps": n, "lr": 0.2}) for n in (1, 2, 5)),
            ("usual", "int3-g8", {"steps": 6}),
        ],
        "adaround": [
            *named("int3-g8", "lr", 0, -0.5),
            *((f"strength-{s}", "int3-g8", {"strength": s, "steps": 10, "lr": 0.3}) for s in (-0.5, 0, 100)),
            ("usual", "int3-g8", {"steps": 40}),
            *named("int3-g8", "steps", 5),
        ],
        "autoround": [
            *named("int3-g8", "lr", 0, -0.5),
            *((f"{lr}", "uint3-g8", {"lr": lr, "iterations": 4}) for lr in (0.5, 2.0)),
            ("two-bits", "uint2-g8", {"iterations": 3}),
            ("four-bits", "int4-g8", {"iterations": 3}),
        ],
    }


def _case(
    method: str, group: str, label: str, both: Layer, scheme: str, options: Mapping[str, object], flag: str
) -> Case:
    name = method.partition("@")[0]
    op = "weight" if name in LEARNED else "quantize"
    case, found = judged(f"method.{method}", group, label, op, both, {"scheme": scheme, **options}, flag, "Refused")
    words = {"values": ("max_abs", 1e-5)} if found and op == "weight" else {}
    return Case(**{field: getattr(case, field) for field in case.__dataclass_fields__} | {"words": words})


def _pruned(layers: Mapping[str, Layer]) -> Iterator[Case]:
    """What stays of the weights: float64 in a fixed order, rounded once."""
    for name, method, params in (
        *(
            (name, "sparsegpt", {**EXACT, **how})
            for name in ("plain", "third", "dead")
            for how in ({}, {"sparsity": 0.25}, {"pattern": [1, 4]}, {"sparsity": 0.5, "block": 4})
        ),
        *(
            ("plain", "magnitude", how)
            for how in (
                {},
                {"scope": "layer"},
                {"scope": "layer", "sparsity": 0.3},
                {"scope": "column"},
                {"pattern": [3, 4], "scope": "layer"},
            )
        ),
        *((name, "wanda", {}) for name in ("plain", "third", "dead")),
    ):
        label = "-".join([name, *(f"{key}-{value}" for key, value in params.items() if key != "precision")])
        label = label.replace("[", "").replace("]", "").replace(", ", "of")
        case, _ = judged(f"method.{method}", "pruned", label, "prune", layers[name], params, "Edge", "Refused")
        yield case


def shared() -> dict[str, np.ndarray]:
    """The arrays of the layers, each once, by the names of tensors in inputs.safetensors."""
    found: dict[bytes, tuple[str, np.ndarray]] = {}
    for label, both in _layers().items():
        for part, x in both.items():
            found.setdefault(repr(x.shape).encode() + x.tobytes(), (f"edge-{label}-{part}", x))
    return dict(found.values())


def _layers() -> dict[str, Layer]:
    """Label -> W, X and, for gptaq, native."""
    rng = np.random.default_rng(111)
    eighths = lambda *shape: (rng.integers(-24, 25, shape) / 8).astype(np.float32)
    W, X = eighths(4, 16), (rng.integers(-4, 5, (24, 16)) / 2).astype(np.float32)
    tied = X.copy()
    tied[:, 1::2] = X[:, ::2] + X[:, 1::2] / 4  # neighbours nearly alike: errors are handed on almost whole
    dead, peaks, zeros = X.copy(), W.copy(), W.copy()
    dead[:, [2, 9]] = 0
    peaks[[0, 2], [3, 12]] = 11, -9
    zeros[1], zeros[2, 8:] = 0, 0
    mirrored = np.concatenate([np.abs(W[:, :8]), -np.abs(W[:, :8])], axis=1)[:, np.arange(16) ^ np.arange(16) // 8]
    mirrored[:, [1, 2, 9, 10]] = [3, -3, -3, 3]  # of equal peaks the first decides
    unfed = X.copy()
    unfed[:, 8:] = 0
    half_zero = np.tile(np.float32([-2.5, 4.5, 0, 1, -1, 2, 3, 0.5]), (4, 2))  # seven steps of one; zero at 2.5
    tie = np.tile(np.float32([-4, 0.5, 1.5, -0.5, 2.5, -1.5, -2.5, 3]), (4, 2))
    native = X + np.float32(0.25) * np.roll(X, 1, axis=0)
    plain = {"W": W, "X": X}
    return {
        "plain": plain,
        "tied": {"W": W, "X": tied},
        "upside": {"W": -W, "X": tied},
        "dead": {"W": W, "X": dead},
        "three-rows": {"W": W[:3], "X": X},
        "peaks": {"W": peaks, "X": X},
        "zeros": {"W": zeros, "X": X},
        "mirrored": {"W": np.ascontiguousarray(mirrored), "X": X},
        "unfed": {"W": W, "X": unfed},
        "half-sided": {"W": np.abs(W) + np.float32(0.5), "X": tied},
        "skewed": {"W": W**3, "X": tied},
        "third": {"W": W / np.float32(3), "X": tied},
        "thousandths": {"W": W / np.float32(1024), "X": X},
        "tiny": {"W": W * np.float32(2.0**-22), "X": X},
        "ones": {"W": np.ones_like(W), "X": X},
        "halves": {"W": np.round(W * 2) / np.float32(2), "X": X},
        "level": {"W": np.round(W), "X": X},
        "half-zero": {"W": half_zero, "X": X},
        "tie": {"W": tie, "X": X},
        "wide": {"W": eighths(2, 96), "X": (rng.integers(-2, 3, (40, 96)) / 2).astype(np.float32)},
        "native": {**plain, "native": native},
        "native-dead": {"W": W, "X": dead, "native": native},
        "native-batches": {"W": W, "X": X.reshape(3, 8, 16), "native": native.reshape(3, 8, 16)},
        "native-short": {"W": W, "X": X, "native": native[:20]},
    }
