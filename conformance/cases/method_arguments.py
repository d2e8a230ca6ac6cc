"""Every argument of the methods that learn, search or prune: left out, at its limit, beside it and past it."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Argument": {
        "kind": "ordinary",
        "description": "An argument left out, or other than usual, on a layer in which many weights are nearly tied.",
        "effect": "The argument does nothing, or something else: another method than the one that was asked for.",
    },
    "Limit": {
        "kind": "edge",
        "description": "Groups of zeros, scales of one, ties, dead inputs, scales that float16 cannot hold.",
        "effect": "A division by zero or a decision by chance where the method has a rule.",
    },
    "Misfit": {
        "kind": "refusal",
        "description": "An argument out of range, or a format that the method cannot fill.",
        "effect": "Another method is run than was asked for.",
    },
}
DEFAULT: dict[str, object] = {}


def cases() -> Iterator[Case]:
    """By method."""
    yield from _adaround()
    yield from _autoround()
    yield from _searches()
    yield from _trained()
    yield from _pruned()


def shared() -> dict[str, np.ndarray]:
    """Layers that many tests begin with, by the names of tensors in inputs.safetensors."""
    layers = {"crowded": _crowded(), "tenths": _tenths(), "corners": _corners()}
    return {f"{name}-{part}": x for name, both in layers.items() for part, x in both.items()}


def _learn(
    method: str, label: str, both: Mapping[str, np.ndarray], scheme: str, settings: Mapping[str, object],
    flag: str = "Argument",
) -> Iterator[Case]:  # fmt: skip
    """Codes of a layer, and scales: to the bit where the order of a sum in float32 does not show."""
    name = "-".join([label, scheme, *(f"{key}-{_short(value)}" for key, value in settings.items())])
    params = {"scheme": scheme, **settings}
    case, found = judged(f"method.{method}", "arguments", name, "quantize", both, params, flag, "Misfit")
    word = "bits" if method in ("weighted", "easyquant") else ("ulp", 4)
    words = {each: word for each, array in found.items() if array.dtype.kind == "f"}
    yield Case(**{each: getattr(case, each) for each in case.__dataclass_fields__} | {"words": words})


def _crowded() -> dict[str, np.ndarray]:
    """16 x 32, correlated inputs of very different sizes: hardly a change leaves all codes alone."""
    rng = np.random.default_rng(61)
    W = (rng.integers(-512, 513, (16, 32)) / 128).astype(np.float32)
    X = rng.integers(-8, 9, (24, 32)) + 2 * rng.integers(-8, 9, (24, 1))
    return {"W": W, "X": (X * 2.0 ** rng.integers(-3, 2, 32)).astype(np.float32)}


def _tenths() -> dict[str, np.ndarray]:
    """8 x 16 multiples of a tenth in groups of 8 whose scale is one at 3, 4 and 5 bits with signs: sums are tied."""
    rng = np.random.default_rng(62)
    W = (rng.integers(-25, 26, (8, 16)) * np.float32(0.1)).astype(np.float32)
    W[:, ::8] = np.float32([3.5, 7.5, 3.5, 7.5, -3.5, -7.5, 3.5, 7.5])[:, None]
    X = rng.integers(-3, 4, (12, 16)) + rng.integers(-2, 3, (12, 1))
    return {"W": W, "X": X.astype(np.float32)}


def _corners() -> dict[str, np.ndarray]:
    """4 x 16: a group of zeros, groups of scale one with ties, a group too small for float16, two dead inputs."""
    W = np.zeros((4, 16), np.float32)
    W[0, 8:] = (-4, 3.5, 0.5, 1.5, 2.5, -0.5, -1.5, 3)
    W[1] = (3.5, 0.5, 1.5, -2.5, 2.5, -3, 1, 0, -3.5, -0.5, 0.5, 1.5, 2, -1, 0.25, 3)
    W[2, :8] = np.float32([3.5, 0.5, 1.5, -2.5, 2.5, -3, 1, 2]) * np.float32(2.0**-26)
    W[2, 8:] = (1, 2, 3, 4, 5, 6, 7, 0.25)
    W[3] = np.float32([-7, 6.5, 5, 4.5, 0.5, 1.5, 2, 3] * 2) / 2
    X = np.random.default_rng(63).integers(-4, 5, (12, 16)).astype(np.float32)
    X[:, [2, 12]] = 0
    return {"W": W, "X": X}


def _tied() -> dict[str, np.ndarray]:
    """8 x 32 in groups of 8 of scale one at 3 bits; a third of the weights lie half way between codes."""
    rng = np.random.default_rng(64)
    W = np.where(rng.random((8, 32)) < 0.3, rng.integers(-3, 3, (8, 32)) + 0.5, rng.integers(-192, 193, (8, 32)) / 64)
    W[:, ::8] = 3.5
    return {"W": W.astype(np.float32), "X": _crowded()["X"][:20]}


def _equal() -> dict[str, np.ndarray]:
    """One fed input, whose weight lies half way: rounded either way its error is the same."""
    W, X = np.zeros((1, 8), np.float32), np.zeros((2, 8), np.float32)
    W[0, :2], X[:, 1] = (3.5, 0.5), (1, 2)
    return {"W": W, "X": X}


def _crossing(steps: float) -> dict[str, np.ndarray]:
    """One weight needs so many steps of a thousandth of the root mean square to reach the middle between its codes."""
    W, X = np.zeros((1, 8)), np.zeros((2, 8), np.float32)
    W[0, :3], X[:, 1:3] = (3, 0.4, 0.3), np.float32([[1], [2]])
    for _ in range(9):
        W[0, 1] = 0.5 - steps * 1e-3 * np.sqrt(np.mean(W**2))
    return {"W": W.astype(np.float32), "X": X}


def _adaround() -> Iterator[Case]:
    many, tenths, corners = _crowded(), _tenths(), _corners()
    for scheme, settings in (
        ("int4-g8", DEFAULT), ("int3-g8", {"steps": 25}), ("int4-g8-full", {"steps": 10, "strength": 1000.0}),
        ("uint3-g16", {"steps": 30, "lr": 0.05, "strength": 40}), ("int3-g8", {"steps": 20, "strength": 0}),
        ("int4-g8-full", {"steps": 8, "lr": 0.5, "strength": 2.5}), ("int2-channel", {"steps": 16, "lr": 0.25}),
        ("int3-g8", {"steps": 3, "lr": 0}), ("int3-g8", {"steps": 3, "lr": -0.5}),
        ("int3-g8", {"steps": 3, "strength": -0.5}), ("int3-g8", {"steps": 0}), ("nf4-g8", {"steps": 1}),
        ("uint8-g8", {"steps": 20, "lr": 0.1}), ("int3-g8", {"steps": 40, "lr": 0.05}),
        ("uint4-g16", {"steps": 16, "lr": 0.1}),
    ):  # fmt: skip
        yield from _learn("adaround", "crowded", many, scheme, settings)
    yield from _learn("adaround", "tenths", tenths, "uint4-g8", {"steps": 6, "lr": 0.2, "strength": 500})
    yield from _learn("adaround", "tied", _tied(), "int3-g8", {"steps": 25, "lr": 0.1, "strength": 40})
    yield from _learn("adaround", "corners", corners, "int3-g8-f16", {"steps": 8, "lr": 2}, "Limit")
    for scheme in ("int3-g8", "int3-g8-f16", "uint3-g8", "int3-g8-full"):
        yield from _learn("adaround", "corners", corners, scheme, {"steps": 6, "lr": 0.2, "strength": 20}, "Limit")


def _autoround() -> Iterator[Case]:
    many, tenths, corners = _crowded(), _tenths(), _corners()
    for scheme, settings in (
        ("int3-g8", DEFAULT), ("uint3-g16", {"iterations": 5, "lr": 0.4}), ("int4-g8-asym", {"iterations": 3, "lr": 1}),
        ("int3-g8-signedmax", {"iterations": 6, "lr": 0.3}), ("int4-g8", {"iterations": 4, "lr": 1}),
        ("int4-g8", {"iterations": 1, "lr": 0.01}), ("int3-g8", {"iterations": 2, "lr": 0}),
        ("int3-g8", {"iterations": 2, "lr": -0.5}), ("int3-g8", {"iterations": 0}),
    ):  # fmt: skip
        yield from _learn("autoround", "crowded", many, scheme, settings)
    yield from _learn("autoround", "equal", _equal(), "int3-g8-f16", {"iterations": 1, "lr": 1e-4}, "Limit")
    for bits, iterations in ((3, 1000), (4, 1000), (3, 999), (2, 1000)):
        yield from _learn("autoround", "tenths", tenths, f"int{bits}-g8", {"iterations": iterations})
    for iterations, lr in ((5, 0.3), (3, 0.5)):
        yield from _learn("autoround", "tenths", tenths, "int2-channel", {"iterations": iterations, "lr": lr})
    for scheme in ("int3-g8-f16", "int4-g8-f16", "uint3-g8"):
        for lr in (0.1, 1e-4):
            for iterations in (1, 3):
                settings = {"iterations": iterations, "lr": lr}
                yield from _learn("autoround", "tenths", tenths, scheme, settings)
    for scheme in ("int3-g8-signedmax", "uint3-g8", "int3-g8-f16", "int3-g8-full"):
        yield from _learn("autoround", "corners", corners, scheme, {"iterations": 3, "lr": 1e-4}, "Limit")


def _searches() -> Iterator[Case]:
    many, tenths, corners = _crowded(), _tenths(), _corners()
    scheme = "int3-g8-signedmax"
    for dialect in ("", "auto-round"):
        for form in (scheme, "int2-g8-signedmax", "int4-g4-signedmax-f16", "int3-channel-signedmax"):
            for label, both in (("crowded", many), ("tenths", tenths), ("corners", corners)):
                flag = "Limit" if both is corners else "Argument"
                yield from _learn("weighted", label, both, form, {"dialect": dialect}, flag)
    W, X = corners["W"], corners["X"].copy()
    X[:, 8:] = 0
    ties = np.float32([-4, 1, 2, 0.5, 1.5, -3, 2.5, 3]) + np.zeros((2, 8), np.float32)
    fed = np.float32([1, 2, 1, 0, 0, 3, 0, 1]) + np.zeros((3, 8), np.float32)
    for dialect in ("", "auto-round"):
        yield from _learn("weighted", "ties-idle", {"W": ties, "X": fed}, scheme, {"dialect": dialect}, "Limit")
        near = ties[:1] * np.float32([0.1, 0.3, 0.7, 0.9, 1.1, 1.3])[:, None]  # a quotient is tied in float32 alone
        yield from _learn("weighted", "ties-near", {"W": near, "X": fed}, scheme, {"dialect": dialect}, "Limit")
    yield from _learn("weighted", "idle", {"W": W, "X": X * np.float32(0.01)}, scheme, DEFAULT, "Limit")
    for dialect in ("", "auto-round"):
        yield from _learn("weighted", "alone", {"W": many["W"]}, scheme, {"dialect": dialect})
        yield from _learn("weighted", "alone-thirds", {"W": many["W"] / 3}, scheme, {"dialect": dialect})
        small = {"W": W * np.float32(2.0**-17), "X": corners["X"]}
        yield from _learn("weighted", "small", small, scheme, {"dialect": dialect}, "Limit")
    for form, settings in (
        ("int3-g8", DEFAULT), ("int4-g8", {"deviations": 1.0, "steps": 10}), ("int3-g8-f16", {"lr": 0.1, "steps": 20}),
        ("uint4-g8-sym", {"deviations": 1.5, "steps": 6, "lr": 0.05}), ("int3-g8", {"lr": 0}),
        ("int3-g8", {"lr": -0.5}), ("uint3-g8", DEFAULT),
    ):  # fmt: skip
        yield from _learn("easyquant", "crowded", {"W": many["W"]}, form, settings)
    tiny = {"W": many["W"] * np.float32(2.0**-40)}
    yield from _learn("easyquant", "tiny", tiny, "int3-g8", {"deviations": 1.0, "steps": 10}, "Limit")
    huge = {"W": many["W"] * np.float32(2.0**63)}
    yield from _learn("easyquant", "huge", huge, "int2-channel", {"steps": 2}, "Limit")
    yield from _learn("easyquant", "corners", {"W": W}, "int3-g8", {"steps": 10, "lr": 0.1}, "Limit")
    one = np.zeros((1, 8), np.float32)
    one[0, 3] = 7
    third = {"deviations": 9.0, "steps": 1, "lr": 1 / 3}
    yield from _learn("easyquant", "equal", {"W": one}, "int3-g8", third, "Limit")
    half = np.tile(np.float32([-2.5, 4.5, 0, 1, 2, -1, 3, 0.5]), (2, 2))
    half[1] += np.float32(1)
    for dialect in ("", "last", "best"):
        settings = {"dialect": dialect, "round_zero": True}
        yield from _learn("hqq", "halves", {"W": half}, "uint3-g8@hqq", settings, "Limit")
    equal, again = np.float32([[3, -2, -3.5, -1.5]]), np.float32([[2.5, -3.5, -2.5, -2]])  # errors of two steps agree
    settings = {"dialect": "last", "round_zero": True, "settings": {"keep": "last", "kappa": 1.0}}
    yield from _learn("hqq", "equal", {"W": equal}, "uint2-g4@hqq", settings, "Limit")
    once = {"settings": {"iterations": 1}}
    yield from _learn("hqq", "equal", {"W": again}, "uint2-g4@hqq", once, "Limit")
    yield from _learn("hqq", "huge", {"W": many["W"] * np.float32(2.0**123)}, "uint2-g8@hqq", once, "Limit")


def _short(value: object) -> str:
    return "-".join(map(str, value.values())) if isinstance(value, dict) else str(value)


def _trained() -> Iterator[Case]:
    many, tenths, corners = _crowded(), _tenths(), _corners()
    scheme = "int3-g8-restricted"  # the peak of a group is no tie
    for settings in (
        {"steps": 5}, {"steps": 7, "lr": 0.05}, {"inputs": None, "lr": 0.02, "steps": 15}, {"steps": 0},
        {"steps": 2, "lr": 0}, {"steps": 2, "lr": -0.5}, {"steps": -1},
    ):  # fmt: skip
        yield from _learn("zeroquant", "crowded", many, scheme, settings)
    yield from _learn("zeroquant", "crowded", many, "nf4-g8", {"steps": 3})
    some = {"steps": 7, "lr": 0.05}
    faint = {"W": many["W"], "X": many["X"] * np.float32(2.0**-15)}
    yield from _learn("zeroquant", "faint", faint, scheme, {**some, "inputs": None})
    huge = {"W": many["W"] * np.float32(2.0**61), "X": many["X"] * np.float32(2.0**-5)}
    yield from _learn("zeroquant", "huge", huge, scheme, {"steps": 3, "lr": 0.05, "inputs": None}, "Limit")
    yield from _learn("zeroquant", "corners", corners, scheme, some, "Limit")
    one = {"steps": 1, "lr": 0.1, "inputs": None}
    yield from _learn("zeroquant", "equal", _equal(), "int3-g8", one, "Limit")
    for steps in (99.5, 100.5):
        label = f"crossing-{steps:g}"
        yield from _learn("zeroquant", label, _crossing(steps), scheme, {"inputs": None}, "Limit")
    yield from _low_rank(many, tenths, corners)


def _low_rank(
    many: dict[str, np.ndarray], tenths: dict[str, np.ndarray], corners: dict[str, np.ndarray]
) -> Iterator[Case]:
    square = {"W": many["W"][:, :16] + np.float32(0), "X": many["X"][:, :16] + np.float32(0)}
    wide = {"W": np.concatenate([many["W"][:, :20], many["W"][:4, 12:]]), "X": many["X"][:, :20] + np.float32(0)}
    dead, idle = corners["X"] / 4, corners["X"] * 0
    eight, four = "int3-g8-restricted", "int2-g8-restricted"  # the peak of a group is no tie
    for label, both, scheme, settings in (
        ("wide", wide, "int3-channel-restricted", DEFAULT),
        ("square", square, eight, {"rank": 16}), ("square", square, eight, {"rank": 17}),
        ("square", square, eight, {"rank": 2, "dialect": "nonsense"}),
        *(("crowded", many, four, {"rank": 3, "sweeps": 6, "dialect": word}) for word in ("", "lqer", "l2qer")),
        *(("tenths", tenths, four, {"rank": 1, "sweeps": n}) for n in (2, 8)),
        ("dead", {"W": tenths["W"], "X": dead}, eight, {"rank": 2, "dialect": "l2qer"}),
        ("idle", {"W": tenths["W"], "X": idle}, eight, {"rank": 2, "dialect": "l2qer"}),
        ("alone", {"W": tenths["W"]}, eight, {"rank": 2, "dialect": "l2qer"}),
    ):  # fmt: skip
        name = "-".join([label, scheme, *(f"{key}-{value}" for key, value in settings.items())])
        params = {"scheme": scheme, **settings}
        case, found = judged("method.low_rank", "arguments", name, "weight", both, params, "Argument", "Misfit")
        words = dict.fromkeys(found, ("relative", 1e-5))  # a decomposition of a library
        yield Case(**{each: getattr(case, each) for each in case.__dataclass_fields__} | {"words": words})


def _pruned() -> Iterator[Case]:
    both = {key: array[:6] for key, array in _tenths().items()}
    both["W"] = both["W"] * (2.0 ** np.arange(-3, 3)).astype(np.float32)[:, None]
    for method, tries in (
        ("magnitude", (DEFAULT, {"scope": "layer"}, {"scope": "layer", "sparsity": 0.25}, {"scope": "nonsense"},
                       {"scope": "layer", "pattern": [2, 4]}, {"scope": "row", "sparsity": 0.75})),
        ("wanda", (DEFAULT, {"pattern": [1, 4]})),
    ):  # fmt: skip
        for settings in tries:
            label = "-".join(["default", *(f"{key}-{value}" for key, value in settings.items())])
            given = both if method == "wanda" else {"W": both["W"]}
            yield judged(f"method.{method}", "pruned", label, "prune", given, settings, "Argument", "Misfit")[0]
        params = {"scheme": "int4-g8"}
        yield judged(f"method.{method}", "arguments", "default", "quantize", given, params, "Argument", "Misfit")[0]
