"""Steps of calibrated methods, a function at a time: Hessians and their factors, grids, inputs, Adam."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Step": {
        "kind": "ordinary",
        "description": "One step of a method on small arrays.",
        "effect": "The method is another one than published, in a step whose error its codes may hide.",
    },
    "Edge": {
        "kind": "edge",
        "description": "Zeros, ends of a range, sums of numbers of very different sizes, equal losses.",
        "effect": "A division by zero, a lost term of a sum, or the later of two equal candidates.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Arrays that do not fit each other, settings out of range.",
        "effect": "Broadcasting or a default invents an answer.",
    },
}
Words = object
# float32 by a library, in an order of its own: sums of positive numbers, or elementary functions
LOOSE = ("ulp", 16)


def cases() -> Iterator[Case]:
    """By module."""
    for make in (_hessians, _factors, _grids, _inputs):
        yield from make()


def shared() -> dict[str, np.ndarray]:
    """A Hessian too large for one leaf of the factorization, by the name of its tensor in inputs.safetensors."""
    X = np.random.default_rng(102).integers(-2, 3, (40, 70)).astype(np.float32)
    return {"hessian-70": X.T @ X / 32 + 8 * np.eye(70, dtype=np.float32)}


def step(
    member: str,
    function: str,
    label: str,
    inputs: Mapping[str, np.ndarray],
    params: Mapping[str, object] = {},
    words: Words = None,
    flag: str = "Step",
) -> Case:
    """A call of the function; words is one for all outputs, or by output."""
    case, found = judged(
        f"step.{member}", function, label, "call", inputs, {"function": function, **params}, flag, "Refused"
    )
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    words = words if isinstance(words, dict) else dict.fromkeys(found, words) if words else {}
    return Case(**{**fields, "words": words}) if found else case


def numbers(seed: int) -> np.random.Generator:
    """Of these cases alone."""
    return np.random.default_rng([101, seed])


def eighths(seed: int, *shape: int) -> np.ndarray:
    """From -3 to 3, float32: sums of products are exact."""
    return (numbers(seed).integers(-24, 25, shape) / 8).astype(np.float32)


def _hessians() -> Iterator[Case]:
    X = (numbers(1).integers(1, 9, (3, 4, 5)) / 2).astype(np.float32)  # positive: no sum cancels
    thirds = X / np.float32(3)
    batches = {"batch0": thirds[0], "batch1": thirds, "batch2": thirds[1:2]}
    for rule in ("sum", "sequences", "running"):
        for exact in (False, True):
            params = {"rule": rule, "exact": exact}
            yield step("hessian", "Hessian", f"{rule}-{exact}", batches, params, {"result0": LOOSE})
            for merge in (1, 2):
                label = f"{rule}-{exact}-merged-{merge}"
                yield step("hessian", "Hessian", label, batches, {**params, "merge": merge}, {"result0": LOOSE})
        yield step("hessian", "Hessian", f"{rule}-whole", {"batch0": X}, {"rule": rule}, {"result0": LOOSE})
    yield step("hessian", "Hessian", "usual", {"batch0": thirds[0]}, {}, {"result0": LOOSE})
    one = {"batch0": X[0]}
    for label, given, params in (
        ("nothing-first", one, {"merge": 0}),
        ("nothing-second", one, {"merge": 1, "other": {"rule": "sum"}}),
        ("nothing", {}, {}),
        ("rules", batches, {"merge": 1, "other": {"rule": "running"}}),
        ("widths-of-arithmetic", batches, {"merge": 1, "other": {"exact": True}}),
        ("unknown", one, {"rule": "mean"}),
        ("vector", {"batch0": X[0, 0]}, {}),
        ("four-axes", {"batch0": X[None]}, {}),
        ("widths", {"batch0": X, "batch1": X[..., :4]}, {}),
        ("square", {"batch0": X[0], "batch1": X[:, :, 0].T @ X[:, :, 1]}, {}),
        ("as-many-tokens", {"batch0": X[0], "batch1": np.ones((5, 4), np.float32)}, {}),
    ):
        yield step("hessian", "Hessian", label, given, params, {"result0": LOOSE}, "Edge")
    H = np.diag(np.float32([1, 0, 4, 0.3])) + np.float32(0.25)
    H[1] = H[:, 1] = 0
    for dtype in ("float32", "float64"):
        yield step("hessian", "damped", dtype, {"H": H.astype(dtype) / 3}, {"damp": 0.1})
        yield step("hessian", "revive_dead", dtype, {"H": H.astype(dtype)}, flag="Edge")
    large = np.diag(np.float32([2**25, 1, 1, 1, 1, 1]))
    yield step("hessian", "damped", "large", {"H": large}, {"damp": 0.5}, flag="Edge")
    W = eighths(2, 3, 5)
    for label, given in {"fits": {"batch0": X[0]}, "list": batches}.items():
        for way in ("matrix", "list", "hessian") if label == "fits" else ("list", "hessian"):
            params = {"hessian": way == "hessian", "list": way == "list"}
            yield step("wanda", "input_norms", f"{label}-{way}", given, params, ("ulp", 1))
    for label, given, params in (
        ("nothing", {}, {"list": True}),
        ("none", {}, {}),
        ("vector", {"batch0": X[0, 0]}, {}),
        ("vectors", {"batch0": X[0, 0]}, {"list": True}),
        ("four-axes", {"batch0": X[None]}, {}),
        ("widths", {"batch0": X[0], "batch1": X[0, :, :4]}, {"list": True}),
        ("tall", {"batch0": X[0, :, :4], "batch1": X[0, :, :1]}, {"list": True}),
        ("one-column", {"batch0": X[0, :, :1], "batch1": X[0, :, :1]}, {"list": True}),
    ):
        yield step("wanda", "input_norms", label, given, params, ("ulp", 1), "Edge")
    scores = np.abs(W).astype(np.float64)
    for label, pattern in {
        "1-2": [1, 2],
        "3-5": [3, 5],
        "2-4": [2, 4],
        "0-5": [0, 5],
        "5-5": [5, 5],
        "6-5": [6, 5],
        "1-5-5": [1, 5, 5],
    }.items():
        yield step("sparsity", "least_of_pattern", label, {"scores": scores}, {"pattern": pattern})
    yield step("sparsity", "least_of_pattern", "rows", {"scores": scores[:, :4]}, {"pattern": [1, 2]})
    for share in (0.0, 0.5, 0.99, 1.0, -0.01, 1.01):
        for function in ("least_of_rows", "least_of_layer"):
            yield step("sparsity", function, str(share), {"scores": scores}, {"sparsity": share})


def _factors() -> Iterator[Case]:
    A = np.tril(eighths(3, 5, 5), -1) + 2 * np.eye(5, dtype=np.float32)
    H = (A.T @ A).astype(np.float32)
    far = {"result0": ("max_abs", 1e-5), "result1": ("max_abs", 1e-5)}
    near = {"result0": ("ulp", 256), "result1": ("ulp", 256)}
    simple = np.diag(np.float32([4, 16, 0.25]))
    simple[0, 1] = simple[1, 0] = 4
    for label, given, params, words in (
        ("fast", H, {}, far),
        ("exact", H, {"exact": True}, far),
        ("double", H.astype(np.float64), {}, far),
        ("leaves", shared()["hessian-70"], {"every": 7}, far),
        ("leaves-exact", shared()["hessian-70"], {"every": 7, "exact": True}, far),
        ("one-leaf", shared()["hessian-70"][:64, :64], {"every": 9}, far),
        ("simple", simple, {}, None),
        ("simple-exact", simple, {"exact": True}, None),
        ("diagonal", np.diag(np.float32([3, 5, 7])), {}, near),
        ("diagonal-exact", np.diag(np.float32([3, 5, 7])), {"exact": True}, near),
        ("oblong-exact", H[:4], {"exact": True}, None),
        ("wide-exact", H[:, :4], {"exact": True}, None),
        ("oblong", H[:4], {}, None),
        ("vector", H[0], {}, None),
        ("empty", H[:0, :0], {}, None),
        ("wide", H[:, :4], {}, None),
        ("zero", np.zeros((2, 2), np.float32), {"exact": True}, None),
        ("zero-fast", np.zeros((2, 2), np.float32), {}, None),
        ("indefinite", np.float32([[1, 2], [2, 1]]), {"exact": True}, None),
        ("indefinite-fast", np.float32([[1, 2], [2, 1]]), {}, None),
        ("singular", np.float32([[4, 4], [4, 4]]), {"exact": True}, None),
        ("slightly-negative", np.float32([[0.5, 1], [1, 1]]), {"exact": True}, None),
    ):
        yield step("factor", "factors", label, {"H": given}, params, words)
    for function in ("upper_factor", "inverse_factor"):
        for dtype in ("float32", "float64"):
            yield step("factor", function, dtype, {"H": simple.astype(dtype)})
    C, B = eighths(4, 3, 4), eighths(5, 2, 4)
    A = eighths(6, 3, 2)
    for exact in ({}, {"exact": False}, {"exact": True}):
        label = str(exact.get("exact", "usual"))
        yield step("factor", "subtract_product", label, {"C": C, "A": A, "B": B}, exact)
        empty = {"C": C, "A": A[:, :0], "B": B[:0]}
        yield step("factor", "subtract_product", f"{label}-nothing", empty, exact, flag="Edge")
        yield step("factor", "gram", label, {"X": A}, exact)
    R = {"H": simple}
    yield step("ldlq", "feedback", "usual", R)
    yield step("ldlq", "feedback", "exact", R, {"exact": True})
    yield step("ldlq", "feedback", "double", {"H": simple.astype(np.float64)}, {"exact": False})
    stiff = lambda off: np.float32([[1, off], [off, 1]])
    for label, off, params in (
        ("definite", 0.5, {}),
        ("raised", 1.5, {"damp_step": 0.25}),
        ("raised-exact", 1.5, {"damp_step": 0.25, "precision": "exact"}),
        ("once", 1.5, {"damp_step": 0.75}),
        ("limit", 1.9, {"damp": 0, "damp_step": 0.5}),
        ("never", 1.5, {}),
        ("nearest", 1.5, {"fallback": "nearest"}),
        ("nearest-exact", 1.5, {"fallback": "nearest", "precision": "exact"}),
        ("limit-nearest", 1.9, {"damp": 0, "damp_step": 0.5, "fallback": "nearest"}),
        ("beyond", 2.5, {"damp": 0.5, "damp_step": 0.5}),
    ):
        yield step("gptq", "damped_factor", label, {"H": stiff(off)}, params, ("ulp", 64), "Edge")
    W = eighths(7, 3, 5)
    for scheme in ("int3-channel", "uint3-channel"):
        words = {"result1": ("ulp", 4096)}  # the square of an error, summed
        yield step("gptq", "sweep", scheme, {"W": W / np.float32(3), "H": H / np.float32(3)}, {"scheme": scheme}, words)


def _grids() -> Iterator[Case]:
    rows = eighths(8, 3, 8)
    rows[0] = [3, -3, 0.5, -1.25, 2.5, 0, -0.125, 1]
    rows[2] = np.abs(rows[2])
    w = np.concatenate([rows * np.float32(1.1), np.float32([[-20, 20, 0]]).repeat(3, 0)], axis=1)
    for scheme in (
        "int3-channel",
        "uint3-channel",
        "int4-signedmax",
        "int4-restricted",
        "int4-full",
        "int1",
        "nf4",
        "fp4",
        "uint3-zfloat",
        "uint4-g64@hqq",
        "uint4@quanto",
        "fp8_e4m3fn-channel",
        "fp8_e5m2-channel",
        "mxfp4",
        "mxint8",
        "mxfp8_e4m3fn",
        "nvfp4",
        "Q4_0",
        "kmeans2",
        "uint4-zmin",
        "int4-b64-dq",
        "fp8_e4m3fn-cast",
        "int4-stochastic",
        "nf4-dq",
        "int8-channel",
        "mxfp6_e2m3",
        "af4",
    ):
        for dtype in ("float32", "float64"):
            given = {"rows": rows, "w": w.astype(dtype)}
            if scheme.startswith("nvfp4"):
                given["tensor"] = np.float32(0.25)
            if known(scheme):
                yield step("grid", "fit", f"{scheme}-{dtype}", given, {"scheme": scheme})
    lo, hi = rows.min(axis=1), rows.max(axis=1)
    for scheme in (
        "int3-channel",
        "uint3-channel",
        "int4-restricted",
        "int1",
        "nf4",
        "Q4_0",
        "int4-stochastic",
        "int4-signedmax",
        "uint4-zfloat",
    ):
        if known(scheme):
            yield step("grid", "fit", f"range-{scheme}", {"lo": lo, "hi": hi, "w": w}, {"scheme": scheme})


def known(scheme: str) -> bool:
    """Whether a spelling means anything."""
    from refquant.errors import QuantError
    from refquant.schemes import parse

    try:
        parse(scheme)
    except QuantError:
        return False
    return True


def _inputs() -> Iterator[Case]:
    X = eighths(9, 2, 3, 4)
    flat = X.reshape(6, 4)
    for label, given, params in (
        ("matrix", {"batch0": flat}, {"as": "array"}),
        ("tensor", {"batch0": X}, {"as": "array"}),
        ("one", {"batch0": flat}, {"as": "list"}),
        ("two", {"batch0": flat, "batch1": X}, {"as": "list"}),
        ("three", {"batch0": flat, "batch1": flat[:1], "batch2": X[:1]}, {"as": "list"}),
        ("none", {}, {"as": "none"}),
        ("empty", {}, {"as": "list"}),
        ("hessian", {}, {"as": "hessian"}),
        ("vector", {"batch0": flat[0]}, {"as": "array"}),
        ("deep", {"batch0": X[None]}, {"as": "array"}),
        ("narrow", {"batch0": flat[:, :3]}, {"as": "array"}),
        ("first-axis", {"batch0": np.ones((4, 3), np.float32)}, {"as": "array"}),
        ("second-narrow", {"batch0": flat, "batch1": flat[:, :3]}, {"as": "list"}),
    ):
        yield step("layer_inputs", "tokens", label, given, {"width": 4, **params})
    p = eighths(10, 5)
    gradients = {f"g{i}": eighths(20 + i, 5) * np.float32(10.0**-i) for i in range(3)}
    gradients["g1"][2] = gradients["g0"][2] = gradients["g2"][2] = 0
    for dtype in ("float32", "float64"):
        given = {name: a.astype(dtype) for name, a in {"p": p, **gradients}.items()}
        for label, params in {
            "usual": {},
            "fast": {"lr": 0.5},
            "betas": {"betas": [0.5, 0.75], "lr": 0.25},
            "epsilon": {"epsilon": 0.5, "lr": 1.0},
        }.items():
            yield step("adam", "step", f"{label}-{dtype}", given, params, ("ulp", 4))
