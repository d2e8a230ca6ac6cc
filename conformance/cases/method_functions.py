"""The functions that calibrated methods are made of, one at a time, on a few numbers that show each term."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Formula": {
        "kind": "ordinary",
        "description": "One function of a method, on numbers that show each of its terms.",
        "effect": "One step of the method is another than published; the layer looks plausible and is worse.",
    },
    "Corner": {
        "kind": "edge",
        "description": "Zeros, ties, limits, sums that only a wide accumulator keeps.",
        "effect": "A division by zero, a decision by a rounding error, or a clip that does nothing.",
    },
    "Wrong": {
        "kind": "refusal",
        "description": "Arrays that do not fit, or a setting out of range.",
        "effect": "Broadcasting or a default invents what was not asked for.",
    },
}
NEAR = ("ulp", 4)  # elementary functions of a library; a division or two
SUMS = ("relative", 1e-5)  # sums of products in float32, in any order
Try = tuple[str, Mapping[str, np.ndarray], Mapping[str, object]]


def cases() -> Iterator[Case]:
    """By module."""
    yield from _learned()
    yield from _awq()
    yield from _factor()
    yield from _inputs()
    yield from _int8()
    yield from _moved()
    yield from _searched()


def shared() -> dict[str, np.ndarray]:
    """Arrays too long to be written in line."""
    return {"tokens-1024": _tokens(), "definite-66": _definite(66)}


def _calls(
    member: str, function: str, tries: list[Try], word: str | tuple[str, float] = "bits", group: str = "",
    flag: str = "Formula", summed: tuple[str, ...] = (),
) -> Iterator[Case]:  # fmt: skip
    for label, given, settings in tries:
        params = {"function": function, **settings}
        name = group or function.strip("_")
        case, found = judged(f"step.{member}", f"{name}-cases", label, "call", given, params, flag, "Wrong")
        words = {each: "bits" if array.dtype.kind in "biu" else word for each, array in found.items()}
        words |= {each: SUMS for each in summed if each in found}
        yield Case(**{each: getattr(case, each) for each in case.__dataclass_fields__} | {"words": words})


def _f(*values: float) -> np.ndarray:
    return np.float32(values)


def _learned() -> Iterator[Case]:
    p, g = _f(1, -2, 0.5), {f"g{i}": _f(*each) for i, each in enumerate(((0.5, 1, 0), (-1, 1, 0), (2, 0.25, -3)))}
    yield from _calls("adam", "step", [
        ("defaults", {"p": p, **g}, {}),
        ("epsilon", {"p": p, **g}, {"lr": 0.25, "betas": [0.5, 0.75], "epsilon": 0.5}),
    ], NEAR)  # fmt: skip
    V = np.linspace(-4, 4, 17, dtype=np.float32)
    h = _f(0, 1e-3, 0.25, 0.49, 0.5, 0.75, 0.999, 1)
    yield from _calls("adaround", "soft", [("ramp", {"V": V}, {})], ("ulp", 64))
    yield from _calls("adaround", "inverse", [("ramp", {"h": h}, {})], ("ulp", 1))
    yield from _calls("adaround", "regularizer_slope", [
        ("steep", {"h": h[1:-1]}, {"beta": 20.0}), ("flat", {"h": h[1:-1]}, {"beta": 2.0}),
        ("odd", {"h": h[1:-1]}, {"beta": 3.0}),
    ], NEAR)  # fmt: skip
    rows = np.float32([[1, -2, 3, -3.5], [0.25, 1, 2, 7], [-1, -2, -3, -5], [0, 0, 0, 0], [4, -4, 1, 2],
                       [-2.5, 4.5, 0, 1], [4, -4, 1, 2]])  # fmt: skip
    v = _f(0.5, -0.5, 0.25, 0) + np.zeros_like(rows)
    a, b = _f(1, 0.5, 0.75, 1, 0.5, 1, 1)[:, None], _f(0.75, 1, 0.5, 1, 1, 1, 1)[:, None]
    up = _f(1, -2, 0.5, 4) * _f(1, -1, 2, 1, 3, 1, 1)[:, None]
    given = {"W": rows, "v": v, "a": a, "b": b, "to_weight": up}
    swapped = {**given, "W": -rows}
    close = {**given, "v": _f(0.1, 0.4, -0.1, -0.4) + np.zeros_like(rows), "W": rows * np.float32(0.1)}
    for scheme in ("int3-g4", "uint3-g4", "int4-g4-asym", "int3-g4-signedmax", "int4-g4-f16", "int3-g4-signedmax-f16"):
        tries = [("plain", given, {"scheme": scheme}), ("negative", swapped, {"scheme": scheme}),
                 ("tenths", close, {"scheme": scheme}),
                 ("tiny", {**given, "W": rows * np.float32(2.0**-20)}, {"scheme": scheme})]  # fmt: skip
        yield from _calls("autoround", "qdq", tries, NEAR, f"qdq-{scheme}", summed=("result7", "result8"))
    fine = (np.float32(2.0**-24) * _f(170.49 * 255, 100, 50, 0)).reshape(1, 4)  # float16 makes its scale smaller
    one = {"W": -fine, "v": v[:1] * 0, "a": a[:1], "b": b[:1]}
    yield from _calls("autoround", "qdq", [("clipped-zero", one, {"scheme": "uint8-g4-f16"})], NEAR, "qdq-uint8-g4-f16")


def _awq() -> Iterator[Case]:
    long = np.ones((4, 2), np.float32)
    long[0] = (2.0**24, -(2.0**24))
    yield from _calls("awq", "input_mean", [("wide", {"X": long}, {})])
    W = np.float32([[1, -2, 0.5, 0], [0.25, 0.5, -4, 0], [0, 0, 1, 0]])
    level = np.float32([[1, 1], [2.0**-25, 1], [2.0**-25, 1], [2.0**-25, 1]])
    shares = {"epsilon": 0.5, "scheme": "int4-g2"}
    yield from _calls("awq", "search_scale", [
        ("half", {"layers0": W}, shares), ("two", {"layers0": W, "layers1": -W[:2]}, shares),
        ("sum", {"layers0": level}, {"epsilon": 0.0, "scheme": "int4-g2"}),
    ], ("ulp", 1), "weight_mean")  # fmt: skip
    x, w = _f(0.5, 2, 3, 0), _f(0.1, 1, 0.5, 0.25)
    points = [(f"{name}-{r:g}-{duo}", {"x": x, "w": w}, {"ratio": r, "duo": duo, "search": name})
              for name, r, duo in (("", 0.5, False), ("autoawq", 0.25, True), ("modelopt", 1.0, True))]  # fmt: skip
    far = ("infinite", {"x": _f(3e38, 1, 2), "w": _f(1e-38, 1, 1)}, {"ratio": 1.0, "duo": False, "search": ""})
    full = ("overflow", {"x": _f(3e38, 2, 1), "w": _f(0, 0, 1)}, {"ratio": 0.9, "duo": True, "search": "autoawq"})
    over = {"ratio": 1.0, "duo": True, "search": "modelopt"}
    high = ("high", {"x": _f(3e6, 10003, 1, 0.5), "w": _f(1, 1, 1, 1)}, over)
    yield from _calls("awq", "search_scale", [*points, far, full, high], ("ulp", 16), "channel_scale")
    rng = np.random.default_rng(51)
    first, second = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((3, 4), (2, 4)))
    X = rng.integers(-4, 5, (6, 4)).astype(np.float32)
    X[:, 1] *= 16
    two, wrong = {"layers0": first, "layers1": second, "X": X}, {"layers0": first, "layers1": second[:, :2], "X": X}
    yield from _calls("awq", "search_scale", [
        ("two", two, {"scheme": "int3-g4"}),
        ("widths", wrong, {"scheme": "int3-g2"}),
        ("none", {"X": X}, {"scheme": "int3-g4"}),
        *((f"compressor-{seed}", _small(seed), {"scheme": "int3-g4", "search": "llm-compressor"}) for seed in (4, 95)),
        ("huge", {"layers0": first * np.float32(2.0**64), "X": np.ones((24, 4), np.float32)}, {"scheme": "int3-g4"}),
        ("equal-inputs", {"layers0": first, "X": np.ones((3, 4), np.float32)}, {"scheme": "int3-g4"}),
        ("duo", {"layers0": first, "X": X}, {"scheme": "int3-g4", "search": "autoawq"}),
        ("word", {"layers0": first, "X": X}, {"scheme": "int3-g4", "search": "nonsense"}),
    ], ("relative", 1e-4))  # fmt: skip
    dead = X.copy()
    dead[:, :2] = 0
    steep, idle = first * _f(8, 1, 1, 1), X * _f(0, 1, 1, 1)
    pairs = {"W": _f(5, 1.25, 3, -0.75).reshape(2, 2), "X": _tokens()}
    yield from _calls("awq", "clip_bound", [
        ("plain", {"W": first, "X": X}, {"scheme": "int3-g4"}),
        ("dead", {"W": first, "X": dead}, {"scheme": "int3-g2"}),
        ("idle", {"W": steep, "X": idle}, {"scheme": "int3-g4"}),
        ("channel", {"W": steep, "X": idle}, {"scheme": "int2-channel"}),
        ("thinned", pairs, {"scheme": "int2-channel"}),
    ])  # fmt: skip


def _small(seed: int) -> dict[str, np.ndarray]:
    """Layers whose best point is the first, or the last, by more than a hundredth of the loss."""
    rng = np.random.default_rng(seed)
    W = rng.integers(-8, 9, (3, 4)).astype(np.float32)
    X = rng.integers(-4, 5, (6, 4)) * 2.0 ** rng.integers(-3, 4, 4)
    return {"layers0": W, "X": X.astype(np.float32)}


def _tokens() -> np.ndarray:
    """(1024, 2): of even tokens the columns agree, of odd ones they differ."""
    x = np.random.default_rng(52).integers(1, 9, (1024, 1)).astype(np.float32)
    return np.concatenate([x, x * np.where(np.arange(1024) % 2, np.float32(-3), np.float32(1))[:, None]], axis=1)


def _definite(n: int) -> np.ndarray:
    """A dense positive definite matrix of whole numbers."""
    rng = np.random.default_rng(53)
    X = rng.integers(-1, 2, (2 * n, n)).astype(np.float32)
    return X.T @ X + np.float32(n) * np.eye(n, dtype=np.float32)


def _factor() -> Iterator[Case]:
    H = _f(4, 2, 1, 2, 9, 3, 1, 3, 16).reshape(3, 3)
    big = {"H": _definite(66)}
    singular, negative = _f(1, 1, 1, 1).reshape(2, 2), -H
    for function in ("upper_factor", "inverse_factor", "factors"):
        tries = [("default", {"H": H}, {}), ("exact", {"H": H}, {"exact": True})]
        refused = [(f"{label}-{exact}", {"H": each}, {"exact": exact}) for exact in (False, True) for label, each in (
            ("oblong", H[:2]), ("upright", H[:, :2]), ("flat", H[0]), ("empty", H[:0, :0]), ("negative", negative),
            ("singular", singular), ("zero", H[:1, :1] * 0), ("small", _f(-0.5).reshape(1, 1)))]  # fmt: skip
        yield from _calls("factor", function, tries + (refused if function == "factors" else []), NEAR)
    halves = [("fast", big, {"every": 7}), ("exact", big, {"exact": True, "every": 11})]
    yield from _calls("factor", "factors", halves, SUMS, "factors-of-66")
    X = _f(1, 2, -3, 0.5, 4, 1, -1, 2).reshape(4, 2)
    column = np.full((64, 1), 2.0**-27, np.float32)
    column[0] = 1  # each of the other squares is lost when it is added in order
    yield from _calls("factor", "gram", [
        ("default", {"X": X}, {}), ("exact", {"X": X}, {"exact": True}), ("order", {"X": column}, {"exact": True}),
    ])  # fmt: skip
    given = {"C": H[:2], "A": X[:2], "B": H[1:]}
    yield from _calls("factor", "subtract_product", [
        ("default", given, {}), ("exact", given, {"exact": True}),
        ("empty", {"C": H[:2], "A": X[:2, :0], "B": H[:0]}, {}),
    ])  # fmt: skip


def _inputs() -> Iterator[Case]:
    X, Y = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(2, 2, 3) - 4
    one, both, wide = {"batch0": X}, {"batch0": X, "batch1": Y}, {"batch0": X, "batch1": Y[:, :, :2]}
    yield from _calls("layer_inputs", "tokens", [
        ("array", one, {"as": "array", "width": 3}), ("batches", both, {"as": "list", "width": 3}),
        ("one-batch", one, {"as": "list", "width": 3}), ("none", {}, {"as": "none", "width": 3}),
        ("empty", {}, {"as": "list", "width": 3}), ("hessian", {}, {"as": "hessian", "width": 3}),
        ("widths", wide, {"as": "list", "width": 3}), ("flat", {"batch0": X[0]}, {"as": "array", "width": 3}),
    ])  # fmt: skip
    loud = {"batch0": _f(2.0**13 + 1, 1, 3).reshape(1, 3), "batch1": _f(1, 2, -1).reshape(1, 3)}
    yield from _calls("wanda", "input_norms", [
        ("array", one, {}), ("batches", both, {"list": True}), ("wide", loud, {"list": True}),
        ("hessian", one, {"hessian": True}), ("widths", wide, {"list": True}), ("flat", {"batch0": X[0]}, {}),
        ("none", {}, {}), ("empty", {}, {"list": True}),
        ("flat-after", {"batch0": X[:, :1], "batch1": X[0]}, {"list": True}),
    ])  # fmt: skip


def _int8() -> Iterator[Case]:
    W = np.float32([[127, 0.5, -1.5, 2.5], [1, 0.4, -0.3, 0], [-3, 1, 7, 2]])
    x = np.float32([[1, 0.5, -6, 3], [6.5, 0.25, 1, 2], [0, 0, 0, 0]])
    ones = np.full((2, 4), 8.9e-8, np.float32)
    beside = _f(110.0703125, 55.90185546875).reshape(1, 2)  # codes by 127 / a and by (1 / a) 127 differ
    for dialect in ("", "bitsandbytes-default", "bitsandbytes-cuda"):
        named = {"dialect": dialect} if dialect else {}
        yield from _calls("llm_int8", "matmul", [
            ("rows", {"W": W}, named), ("thirds", {"W": W / 3}, named), ("tiny", {"W": ones}, named),
            ("least", {"W": W * np.float32(1e-41)}, named), ("flat", {"W": W[0]}, named),
            ("large", {"W": W * np.float32(1000)}, named), ("reciprocal", {"W": beside}, named),
        ], "bits", f"rows-{dialect or 'paper'}")  # fmt: skip
        yield from _calls("llm_int8", "matmul", [
            ("decoded", {"W": W, "x": x}, named), ("wide", {"W": W, "x": x, "wide": W}, named),
            ("seven", {"W": W, "x": x}, {**named, "threshold": 7.0}),
            ("other-wide", {"W": W, "x": x, "wide": W[:2]}, named), ("columns", {"W": W, "x": x[:, :3]}, named),
        ], NEAR, f"matmul-{dialect or 'paper'}")  # fmt: skip


def _moved() -> Iterator[Case]:
    first, second = np.float32([[1, -2, 0, 0.5], [3, 1, 0, -0.25]]), np.float32([[-4, 0.5, 0, 8]])
    X = np.float32([[1, -8, 2, 0], [0.5, 3, -2, 0], [-4, 1, 1, 0]])
    both = {"layers0": first, "layers1": second, "X": X}
    tries = [("default", both, {}), ("wrong", {"layers0": first, "layers1": second[:, :2], "X": X}, {}),
             ("none", {"X": X}, {"layers": []})]  # fmt: skip
    tries += [(f"{name or 'paper'}-{a}", both, {"alpha": a, "dialect": name}) for a in (0.0, 0.25, 1.0)
              for name in ("", "llm-compressor")]  # fmt: skip
    yield from _calls("smoothquant", "smooth_scale", tries, ("ulp", 8))
    yield from _calls("smoothquant", "log_equalization", [("ends", {"a": _f(0, 1e-9, 2, 6, 100)}, {})], ("ulp", 8))
    rng = np.random.default_rng(54)
    W, X = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((3, 6), (5, 6)))
    X[:, 2] *= 32
    X[0, 2] = -400
    rng = np.random.default_rng(212)  # the best step is three times as good as the next
    small = {"W": rng.integers(-8, 9, (3, 2)).astype(np.float32), "X": rng.integers(-8, 9, (4, 2)).astype(np.float32)}
    small["X"][:, 1] *= 8
    schemes = {"weight_scheme": "int3-channel", "input_scheme": "int3-token"}
    near = {"W": np.full((1, 2), 8191, np.float32), "X": _f(8191, 4099, 1, 4099).reshape(2, 2)}
    yield from _calls("smoothquant", "outlier_scale", [
        *((f"steps-{n}", {"W": W, "X": X}, {**schemes, "steps": n}) for n in (1, 2, 16, 0, -1)),
        ("default", small, schemes), ("zeros", {"W": W, "X": X * 0}, {**schemes, "steps": 3}),
        ("near", near, {"weight_scheme": "int2-channel", "input_scheme": "int2-token", "steps": 2}),
        ("columns", {"W": W, "X": X[:, :5]}, schemes), ("no-weights", {"W": W * 0, "X": X}, {**schemes, "steps": 3}),
        ("huge", {"W": W * np.float32(2.0**50), "X": np.tile(X, (8, 1)) * np.float32(2.0**7)}, {**schemes, "steps": 2}),
    ], ("relative", 1e-6))  # fmt: skip
    M = np.float32([[2, 1, 0, -1, 3], [0, 4, -2, 1, 1], [5, 1, 1, 0, -2]])
    a = np.array([1, 2, 0.5, 4, 0.25])
    yield from _calls("low_rank", "truncated", [
        ("one", {"M": M, "a": a}, {"rank": 1}), ("two", {"M": M, "a": a}, {"rank": 2}),
        ("plain", {"M": M, "a": np.ones(5)}, {"rank": 2}),
    ], SUMS)  # fmt: skip
    given = {"X": np.float32([[1, -2, 3], [0.3, 0.1, -7], [0, 0, 0]]), "W": np.float32([[1, 2, -3], [0.5, 0.1, 0.7]])}
    yield from _calls("zeroquant", "matmul", [
        ("default", given, {"scheme": "int3-channel"}), ("float", given, {"scheme": "int3-channel", "inputs": None}),
        ("coarse", given, {"scheme": "int4-channel", "inputs": "int2-token"}),
        ("columns", {**given, "X": given["X"][:, :2]}, {"scheme": "int3-channel"}),
    ], ("relative", 1e-6))  # fmt: skip


def _searched() -> Iterator[Case]:
    steps = [(f"auto-round-{bits}", {}, {"dialect": "auto-round", "bits": bits}) for bits in (2, 3, 4)]
    steps += [("paper", {}, {"dialect": "", "bits": 4})]
    yield from _calls("weighted_rounding", "shifts_of", steps, ("ulp", 2))
    wide = np.stack([_f(1, 2.0**-12, 2.0**-12, 2.0**-12), _f(1, 2, 3, 4)], axis=1)
    yield from _calls("weighted_rounding", "importance", [("wide", {"X": wide}, {})])
    w = np.float32([[-4, 1, 2.5, 0.5], [4, 1.5, -0.7, 2], [0, 0, 0, 0], [0.3, -0.1, 0.2, 0.7], [-0.5, -0.25, 1, 1],
                    [3, 1, 0, -2], [-2, 1, 2, -1], [-3, -1.5, -1, -2], [3, -3, 0.5, 2]])  # fmt: skip
    q = np.float32([[1, 2, 0.5, 1], [1, 1, 1, 1], [1, 1, 1, 1], [0.01, 0.02, 0, 0.01], [0.125, 1, 4, 1],
                    [0, 0, 2, 0], [0, 0, 0, 1], [0, 1, 2, 2], [1, 1, 1, 1]])  # fmt: skip
    for refit in (False, True):
        for half in (2, 4):
            tried = {"half": half, "shifts": [0.0, 0.5, -0.5, 0.25, 1.0, -1.0], "refit": refit}
            label = f"{'refit' if refit else 'plain'}-{half}"
            yield from _calls("weighted_rounding", "search", [(label, {"w": w, "q": q}, tried)])
    long = np.tile(w[-1:], 8)
    huge = {"w": long * np.float32(2.0**62), "q": np.ones_like(long)}  # no float32 holds the sum of squares
    tried = {"half": 2, "shifts": [0.0], "refit": True}
    yield from _calls("weighted_rounding", "search", [("huge", huge, tried)], group="sums")
    even, b = np.float32([[1, -1, 1, -1, 1, -1, 1, -1]]), np.float32(2.0**23 + 1)
    wide = np.concatenate([np.full((1, 5), b + 1), np.full((1, 5), b - 1)], axis=1).astype(np.float32)
    mean = np.float32(2.0**23) + np.tile(_f(0, 1), (1, 8))  # float32 has no mean of it
    yield from _calls("easyquant", "outliers", [
        ("at", {"W": even}, {"deviations": 1.0}), ("beside", {"W": even}, {"deviations": 0.999}),
        ("wide", {"W": wide}, {"deviations": 1.0}), ("shifted", {"W": even * 3 + 100}, {"deviations": 1.0}),
        ("below", {"W": wide}, {"deviations": 0.99}), ("between", {"W": mean}, {"deviations": 1.0}),
        ("between-less", {"W": mean}, {"deviations": 0.8}),
    ])  # fmt: skip
