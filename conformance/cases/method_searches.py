"""Steps of calibrated methods, a function at a time: scales that are searched or learned, and corrections."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case
from conformance.cases.method_parts import LOOSE, NOTES, eighths, known, numbers, step

__all__ = ["NOTES", "cases"]


def cases() -> Iterator[Case]:
    """By module."""
    for make in (_int8, _smooth, _awq, _learned, _corrected):
        yield from make()


def _int8() -> Iterator[Case]:
    mult = np.float32(127)
    W = np.zeros((4, 8), np.float32)
    W[0] = [127, 0.5, 1.5, 2.5, -0.5, -2.5, 126.5, -127]  # ties
    W[1] = np.float32([1e-40, 0, -1e-40, 0, 0, 0, 0, 0])
    W[2] = eighths(11, 8) / np.float32(7)
    values = [(np.float32(k + 0.5) * a / mult, a) for a in np.float32([3, 0.7, 1.1, 5.3, 1 / 3]) for k in range(127)]
    parted = [(x, a) for x, a in values if np.rint(x * (mult / a)) != np.rint(x * (np.float32(1) / a * mult))]
    beside = np.array([[x, a, -x, x / 2] for x, a in parted[:6]], np.float32)
    small = np.float32([[8.3e-8, 2e-8, -8.3e-8, 0], [0.3, 0.2, -0.1, 0.05], [6.1, 0, 0, -3]])
    for dialect in ("", "bitsandbytes-default", "bitsandbytes-cuda"):
        name = dialect or "published"
        for label, rows in {"ties": W, "beside": beside, "small": small}.items():
            yield step("llm_int8", "matmul", f"{name}-{label}", {"W": rows}, {"dialect": dialect})
        x = np.float32([[1, 2, 6, -3], [0.5, 5.5, -7, 1], [0, 0, 0, 6.5], [1, -1, 2, 0.25]])
        given = {"W": small, "x": x[:, :4]}
        words = ("ulp", 2)
        yield step("llm_int8", "matmul", f"{name}-product", given, {"dialect": dialect, "threshold": 0.0}, words)
        outliers = {"dialect": dialect}
        yield step("llm_int8", "matmul", f"{name}-outliers", given, outliers, ("ulp", 16))
        yield step("llm_int8", "matmul", f"{name}-wide", {**given, "wide": small}, outliers, ("ulp", 16))
    given = {"W": small, "x": np.ones((2, 3), np.float32)}
    wide = {"W": small, "x": np.ones((2, 4), np.float32)}
    for label, tried, params in (
        ("columns", given, {}),
        ("vector", {"W": small[0]}, {}),
        ("tensor", {"W": small[None]}, {}),
        ("wide", {**wide, "wide": small[:2]}, {}),
        ("wide-columns", {**wide, "wide": small[:, :3]}, {}),
        ("columns-and-wide", {**given, "wide": small[:, :3]}, {}),
        ("threshold", wide, {"threshold": -0.5}),
        ("beyond", {"W": small * np.float32(1e6)}, {"dialect": "bitsandbytes-cuda"}),
        ("beyond-fits", {"W": small * np.float32(1e6)}, {}),
    ):
        yield step("llm_int8", "matmul", label, tried, params, flag="Edge")


def _smooth() -> Iterator[Case]:
    W = eighths(12, 3, 6)
    W[:, 2] = 0
    V, X = eighths(13, 5, 6), eighths(14, 8, 6)
    V[:, 2] = 0
    X[:, 4] = 0
    layers = {"layers0": W, "layers1": V, "X": X}
    one = {"layers0": W, "X": X}
    for label, given, params in (
        ("usual", layers, {}),
        ("one", one, {"alpha": 0.25}),
        ("llm-compressor", layers, {"dialect": "llm-compressor"}),
        ("llm-compressor-one", one, {"dialect": "llm-compressor", "alpha": 0.75}),
        ("unknown", one, {"dialect": "x"}),
        ("widths", {"layers0": W, "layers1": V[:, :5], "X": X}, {}),
        ("inputs", {"layers0": W, "X": X[:, :5]}, {}),
        ("heights", {"layers0": W[:, :5], "layers1": W[:, :5], "X": X[:, :5]}, {}),
        ("three-widths", {"layers0": W, "layers1": V[:, :5], "layers2": V[:, :4], "X": X}, {}),
        ("above", one, {"alpha": 1.01}),
        ("below", one, {"alpha": -0.01}),
    ):
        yield step("smoothquant", "smooth_scale", label, given, params, ("ulp", 8))
    a = np.float32([0, 1e-7, 0.25, 2, 100])
    yield step("smoothquant", "log_equalization", "small", {"a": a}, {}, ("ulp", 4), "Edge")
    both = {"W": W, "X": X * np.float32([1, 9, 1, 1, 1, 30])}
    schemes = {"weight_scheme": "int4-channel", "input_scheme": "int4-token"}
    far = {"result0": ("ulp", 4), "result1": ("ulp", 4), "result2": ("relative", 1e-5)}
    for label, given, params in (
        ("usual", both, {}),
        ("four", both, {"steps": 4}),
        ("one", both, {"steps": 1}),
        ("none", both, {"steps": 0}),
        ("zeros", {"W": W, "X": X * 0}, {}),
        ("narrow", {"W": W, "X": X[:, :5]}, {}),
        ("negative", {"W": W, "X": -np.abs(both["X"])}, {"steps": 5}),
        ("level", {"W": W * 0, "X": both["X"]}, {"steps": 3}),
    ):
        yield step("smoothquant", "outlier_scale", label, given, {**schemes, **params}, far)


def _awq() -> Iterator[Case]:
    W, V, X = eighths(15, 3, 8), eighths(16, 2, 8), eighths(17, 12, 8)
    X[:, 3] *= 16
    far = {"result0": ("ulp", 64), "result2": ("relative", 1e-4)}
    both = {"layers0": W, "layers1": V, "X": X}
    for label, given, params in (
        ("both", both, {}),
        ("autoawq", both, {"search": "autoawq"}),
        ("modelopt", both, {"search": "modelopt"}),
        ("zeros", {"layers0": W * 0, "X": X}, {}),
        ("no-inputs", {"layers0": W, "X": X * 0}, {}),
        ("widths", {"layers0": W, "layers1": V[:, :4], "X": X}, {}),
        ("inputs", {**both, "X": X[:, :4]}, {}),
        ("heights", {"layers0": W[:, :4], "layers1": W[:, :4], "X": X[:, :4]}, {}),
        ("three-widths", {"layers0": W, "layers1": V[:, :4], "layers2": V[:, :6], "X": X}, {}),
        ("none", {"X": X}, {}),
        ("square", {"layers0": W[:, :4], "layers1": V[:, :4], "X": X[:, :4]}, {}),
    ):
        yield step("awq", "search_scale", label, given, {"scheme": "uint3-g4", **params}, far)
    thirds = {"layers0": np.abs(eighths(18, 9, 8)) / np.float32(3), "layers1": V}
    for epsilon in (0.0, 0.5):
        params = {"scheme": "uint3-g4", "epsilon": epsilon}
        yield step("awq", "search_scale", f"shares-{epsilon}", thirds if epsilon else {"layers0": W[:, :4] + 4}, params)
    x, w = np.float32([0, 0.5, 2, 1e30]), np.float32([0, 1, 0.25, 3])
    for search in ("", "autoawq", "modelopt"):
        for ratio in (0.0, 0.5, 1.0):
            for duo in (False, True):
                params = {"ratio": ratio, "duo": duo, "search": search}
                label = f"point-{search or 'plain'}-{ratio}-{duo}"
                yield step("awq", "search_scale", label, {"x": x, "w": w}, params, ("ulp", 8))
        params = {"ratio": 1.0, "duo": True, "search": search}
        huge = {"x": np.float32([0, 3e38, 1]), "w": np.float32([0, 0, 1e-30])}
        yield step("awq", "search_scale", f"point-{search or 'plain'}-huge", huge, params, ("ulp", 8), "Edge")
    many = np.ones((9, 2), np.float32)
    many[0] = 2.0**24
    yield step("awq", "input_mean", "large", {"X": many}, flag="Edge")
    yield step("awq", "input_mean", "thirds", {"X": X / np.float32(3)})
    peaks = np.float32([[8, 0.5, -0.5, 0.25, 1, -1, 1, -1], [0, 0, 0, 0, 4, 3, -4, 2]])
    for label, given in {
        "peaks": {"W": peaks, "X": X},
        "plain": {"W": W / np.float32(3), "X": X},
        "zeros": {"W": W * 0, "X": X},
        "no-inputs": {"W": W, "X": X * 0},
        "narrow": {"W": W, "X": X[:, :4]},
    }.items():
        for scheme in ("int2-g4", "uint2-token", "int2-channel", "int2", "int2-channel1", "int3-g3"):
            if label in ("peaks", "plain") or scheme == "int2-g4":
                yield step("awq", "clip_bound", f"{label}-{scheme}", given, {"scheme": scheme})


def _learned() -> Iterator[Case]:
    V = np.float32([-6, -3, -2.5, -1, 0, 0.5, 2, 2.3979, 3, 6])
    yield step("adaround", "soft", "range", {"V": V}, {}, LOOSE)
    h = np.float32([0, 1e-6, 0.1, 0.25, 1 / 3, 0.5, 0.9, 0.999999, 1])
    yield step("adaround", "inverse", "range", {"h": h}, {}, ("ulp", 2))
    for beta in (2.0, 3.5, 20.0):
        yield step("adaround", "regularizer_slope", str(beta), {"h": h}, {"beta": beta}, LOOSE)
    W = eighths(19, 3, 8) / np.float32(3)
    W[1], W[2, :4] = np.abs(W[1]), 0
    rng = numbers(20)
    for scheme in ("int3-g4", "uint3-g4", "int3-g4-signedmax", "int3-channel", "uint2-channel", "uint3-g4-f16"):
        groups = 6 if "g4" in scheme else 3
        for number, (spread, low) in enumerate(((0.0, 1.0), (0.5, 0.5), (0.5, 0.0))):
            shape = (groups, 24 // groups)
            given = {
                "W": W,
                "v": rng.uniform(-spread, spread, shape).astype(np.float32),
                "a": rng.uniform(low, 1, (groups, 1)).astype(np.float32),
                "b": rng.uniform(low, 1, (groups, 1)).astype(np.float32),
            }
            if number == 2:
                given["a"][0], given["b"][-1] = 0, 0
            far = {f"result{i}": ("max_abs", 1e-4) for i in (6, 7, 8)}
            yield step("autoround", "qdq", f"{scheme}-{number}", given, {"scheme": scheme})
            if known(scheme):
                loads = {**given, "to_weight": rng.integers(-8, 9, shape).astype(np.float32)}
                yield step("autoround", "qdq", f"{scheme}-{number}-gradients", loads, {"scheme": scheme}, far)
    X = eighths(21, 6, 8)
    for scheme in ("int4-g4", "uint4-channel"):
        for inputs in (None, "int8-token", "int4-token"):
            params = {"scheme": scheme, "inputs": inputs}
            far = ("max_abs", 1e-4)
            yield step("zeroquant", "matmul", f"{scheme}-{inputs}", {"X": X, "W": W}, params, far)
    yield step("zeroquant", "matmul", "usual", {"X": X, "W": W}, {"scheme": "int4-g4"}, ("max_abs", 1e-4))
    yield step("zeroquant", "matmul", "narrow", {"X": X[:, :3], "W": W}, {"scheme": "int4-g4"})
    E = eighths(22, 4, 8)
    yield step(
        "weighted_rounding", "importance", "large", {"X": np.float32([[4096.5], [1], [1 / 3], [0.7]])}, flag="Edge"
    )
    many = np.ones((9, 1), np.float32)
    many[0] = 4096
    yield step("weighted_rounding", "importance", "ones", {"X": many}, flag="Edge")
    spread = np.concatenate([np.full((1, 8), 0.5, np.float32), np.float32([[1, 1, 1, 1, 1, 1, 1, 9]])])
    spread[0, :2] = 4
    for label, matrix in {
        "spread": spread,
        "level": np.ones((1, 4), np.float32),
        "eighths": E,
        "two": np.float32([[0, 0, 0, 0, 4]]),
    }.items():
        for deviations in (1.0, 2.0, 2.5):
            params = {"deviations": deviations}
            yield step("easyquant", "outliers", f"{label}-{deviations}", {"W": matrix}, params, flag="Edge")
    offset = np.float32([[2.0**24, 2.0**24 + 2, 2.0**24 + 4, 2.0**24 + 12]])
    yield step("easyquant", "outliers", "offset", {"W": offset}, {"deviations": 1.5}, flag="Edge")


def _corrected() -> Iterator[Case]:
    rng = numbers(23)
    plain = {
        "codes": rng.integers(-8, 8, (3, 8)).astype(np.int8),
        "scale": np.abs(eighths(24, 3, 2)) + np.float32(0.125),
        "zero_point": np.array(0, np.int8),
    }
    corrections = {
        "channel_scale": np.float32([1, 2, 3, 0.5, 0.25, 7, 1, 3]),
        "up": eighths(25, 3, 2),
        "down": eighths(26, 2, 8),
        "sparse_start": np.int32([0, 2, 2, 3]),
        "sparse_columns": np.int32([1, 6, 0]),
        "sparse_values": np.float32([9, -9, 0.5]),
    }
    sparse = {name: a for name, a in corrections.items() if name.startswith("sparse")}
    thin = {name: corrections[name] for name in ("up", "down")}
    for label, extras in {
        "none": {},
        "scale": {"channel_scale": corrections["channel_scale"]},
        "thin": thin,
        "sparse": sparse,
        "all": corrections,
        "float16": {**thin, "up": thin["up"].astype(np.float16)},
        "sparse-float16": {**sparse, "sparse_values": sparse["sparse_values"].astype(np.float16)},
        "thirds": {
            name: thin[name][..., :1] / np.float32(3) if name == "up" else thin[name][:1] / np.float32(7)
            for name in thin
        },
        "unknown": {"row_scale": corrections["channel_scale"]},
        "unknown-empty": {"row_scale": np.zeros(0, np.float32)},
        "short-scale": {"channel_scale": np.ones(3, np.float32)},
        "up-alone": {"up": thin["up"], "down": thin["down"][:1]},
        "down-alone": {"down": thin["down"]},
        "down-of-one": {"down": thin["down"][:1]},
        "columns-alone": {"sparse_columns": np.int32([1])},
        "short-start": {**sparse, "sparse_start": np.int32([0, 2, 3])},
        "tall-up": {**thin, "up": thin["up"].T},
        "columns": {**sparse, "sparse_columns": np.int32([1, 6])},
        "empty-columns": {"sparse_columns": np.zeros(0, np.int32)},
    }.items():
        yield step("compensated", "dequantize", label, {**plain, **extras}, {"scheme": "int4-g4"}, flag="Edge")
    W = eighths(27, 3, 8)
    yield step("compensated", "sparse", "plain", {"mask": W > 1, "W": W / np.float32(3)})
    M = eighths(28, 4, 6) + np.float32(8)
    far = {"result0": ("ulp", 64), "result2": ("ulp", 64)}
    for label, a in {"ones": np.ones(6), "scaled": np.float64([1, 2, 4, 0.5, 3, 1])}.items():
        for rank in (1, 2, 4):
            params, given = {"rank": rank}, {"M": M, "a": a}
            words = far if rank > 1 else {"result0": ("ulp", 64), "result2": ("ulp", 64)}
            yield step("low_rank", "truncated", f"{label}-{rank}", given, params, words)
    X = eighths(29, 10, 8)
    X[:, 1] *= 4
    W = eighths(30, 3, 8) / np.float32(3)
    for score in ("magnitude", "sensitivity", "error"):
        params = {"scheme": "int3-g4", "score": score}
        words = ("relative", 1e-4) if score == "error" else None
        yield step("sparse_split", "scores", score, {"W": W, "X": X}, params, words)
