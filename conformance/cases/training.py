"""Rounding in training: what the step gives, and the gradients that pass straight through it."""

from collections.abc import Iterator, Mapping

import numpy as np

from conformance.cases import Case
from conformance.cases.judgement import judged

NOTES = {
    "Step": {
        "kind": "ordinary",
        "description": "Multiples of a quarter and scales that are powers of two: nothing rounds but the step.",
        "effect": "The model is trained for another rounding than it will be run with.",
    },
    "Ends": {
        "kind": "tie",
        "description": "Quotients half way between codes, and half a step beyond either end of the range.",
        "effect": "Weights at the ends get no gradient, or one that drives them out.",
    },
    "Odd": {
        "kind": "ordinary",
        "description": "Scales that are no power of two, in both widths.",
        "effect": "The reciprocal of a scale, or another width, moves a code.",
    },
    "Shapes": {
        "kind": "ordinary",
        "description": "A scale for each row, each column, or the whole array.",
        "effect": "The gradient of a scale is summed over other weights than its own.",
    },
    "Refused": {
        "kind": "refusal",
        "description": "Scales that are not positive, parameters that do not fit, other dtypes.",
        "effect": "NaN enters the weights; a missing axis trains one scale for all.",
    },
}


def cases() -> Iterator[Case]:
    """Forward and backward of each, the scales that training begins with."""
    yield from _affine()
    yield from _learned()
    yield from _pact()
    yield from _beginnings()


def shared() -> dict[str, np.ndarray]:
    """What nearly all of these tests begin with, by the names of tensors in inputs.safetensors."""
    made = {"x": _x, "dy": _dy}
    return {f"training-{name}-{dtype}": make(dtype) for name, make in made.items() for dtype in ("float32", "float64")}


def _case(member: str, group: str, label: str, op: str, inputs: Mapping[str, np.ndarray], params: dict, flag: str,
          words: object = None) -> Case:  # fmt: skip
    case, found = judged(f"training.{member}", group, label, op, inputs, params, flag, "Refused")
    fields = {name: getattr(case, name) for name in case.__dataclass_fields__}
    signless = dict.fromkeys(found, ("ulp", 0)) if op == "backward" else {}  # a gradient of zero has no sign
    return Case(**{**fields, "words": {**signless, **(words or {})}}) if found else case


def _x(dtype: str) -> np.ndarray:
    """(5, 9) quarters from -5.5 to 5.5, shuffled, so that every row has ties and numbers past the ends of 4 bits."""
    return np.random.default_rng(71).permutation(np.arange(-22, 23) / 4).reshape(5, 9).astype(dtype)


def _dy(dtype: str) -> np.ndarray:
    return (np.random.default_rng(72).integers(-16, 17, (5, 9)) / 8).astype(dtype)


def _both(member: str, group: str, label: str, given: Mapping[str, np.ndarray], params: dict, flag: str,
          dtype: str, backward: Mapping[str, object] = {}) -> Iterator[Case]:  # fmt: skip
    if not backward:
        yield _case(member, group, label, "forward", given, params, flag)
    yield _case(
        member, f"{group}-gradients", label, "backward", {"dy": _dy(dtype), **given}, {**params, **backward}, flag
    )


def _parameters(dtype: str) -> dict[str, tuple[object, object]]:
    """Label -> (scale, offset or zero point) by shape."""
    rng = np.random.default_rng(73)
    powers = lambda *shape: np.exp2(rng.integers(-2, 1, shape)).astype(dtype)
    halves = lambda *shape: (rng.integers(-4, 5, shape) / 2).astype(dtype)
    return {
        "one": (np.asarray(0.5, dtype), np.asarray(1, dtype)), "rows": (powers(5, 1), halves(5, 1)),
        "columns": (powers(9), halves(1, 9)), "each": (powers(5, 9), halves(5, 9)), "mixed": (powers(5, 1), halves(9)),
        "single": (powers(1, 1), halves(1)),
    }  # fmt: skip


def _affine() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        x = _x(dtype)
        for label, (scale, zero) in _parameters(dtype).items():
            given = {"x": x, "scale": scale, "zero_point": np.round(zero)}
            params = {"qmin": -4, "qmax": 3}
            flag = "Ends" if label == "one" else "Shapes"
            yield from _both("fake_quantize", "step", f"{label}-{dtype}", given, params, flag, dtype)
        odd = {"x": x, "scale": np.asarray(0.3, dtype), "zero_point": np.asarray(7, dtype)}
        yield from _both("fake_quantize", "odd", dtype, odd, {"qmin": 0, "qmax": 15}, "Odd", dtype)
    x = _x("float32")
    good = {"x": x, "scale": np.float32(1), "zero_point": np.float32(0)}
    for label, change in {
        "zero": {"scale": np.float32(0)}, "negative": {"scale": np.float32([[1], [1], [-1], [1], [1]])},
        "nan": {"scale": np.float32(np.nan)}, "float16": {"x": x.astype(np.float16)},
        "int32": {"x": x.astype(np.int32)},
        "five": {"scale": np.ones(5, np.float32)}, "deep": {"scale": np.ones((1, 1, 1), np.float32)},
        "zero-point": {"zero_point": np.zeros((5, 2), np.float32)}, "tiny": {"scale": np.float32(1e-45)},
    }.items():  # fmt: skip
        given = {**good, **change}
        for part in ("forward", "backward"):
            inputs = {"dy": _dy("float32"), **given} if part == "backward" else given
            if label != "tiny":
                yield _case("fake_quantize", "checks", f"{label}-{part}", part, inputs, {"qmin": -4, "qmax": 3}, "Step")


def _learned() -> Iterator[Case]:
    params = {"qmin": -4, "qmax": 3}
    for dtype in ("float32", "float64"):
        x = _x(dtype)
        for label, (scale, offset) in _parameters(dtype).items():
            flag = "Ends" if label == "one" else "Shapes"
            for inside in ("", "rounded", "unrounded"):
                name = f"{label}-{dtype}{'-' if inside else ''}{inside}"
                extra = {"inside": inside, "gradient_scale": 0.25} if inside else {}
                plus = {"x": x, "scale": scale, "offset": offset}
                if label in ("one", "rows", "mixed") or not inside:
                    yield from _both("lsq", "step", name, {"x": x, "scale": scale}, params, flag, dtype, extra)
                    yield from _both("lsq_plus", "step", name, plus, params, flag, dtype, extra)
        odd = {"x": x, "scale": np.asarray(0.7, dtype)}
        loose = {"dscale": ("max_abs", 1e-5), "doffset": ("max_abs", 1e-5)}
        for member, given in (("lsq", odd), ("lsq_plus", {**odd, "offset": np.asarray(0.1, dtype)})):
            yield _case(member, "odd", dtype, "forward", given, {"qmin": 0, "qmax": 7}, "Odd")
            yield _case(member, "odd-gradients", dtype, "backward", {"dy": _dy(dtype), **given},
                        {"qmin": 0, "qmax": 7}, "Odd",
                        loose if member == "lsq_plus" else {"dscale": loose["dscale"]})  # fmt: skip
    x, dy = _x("float32"), _dy("float32")
    for label, change, extra in (
        ("zero", {"scale": np.float32(0)}, {}), ("negative", {"scale": np.float32(-1)}, {}),
        ("float16", {"x": x.astype(np.float16)}, {}), ("offset", {"offset": np.zeros(5, np.float32)}, {}),
        ("inside", {}, {"inside": "before"}),
    ):  # fmt: skip
        given = {"x": x, "scale": np.float32(1), "offset": np.float32(0), **change}
        if not extra:
            yield _case("lsq_plus", "checks", f"{label}-forward", "forward", given, params, "Step")
        yield _case(
            "lsq_plus", "checks", f"{label}-backward", "backward", {"dy": dy, **given}, {**params, **extra}, "Step"
        )


def _pact() -> Iterator[Case]:
    for dtype in ("float32", "float64"):
        x = _x(dtype)
        for bits in (1, 2, 3, 4):
            alpha = np.asarray(2**bits - 1, dtype) / 2  # a step of one half
            yield _case("pact", "step", f"{bits}-{dtype}", "forward", {"x": x, "alpha": alpha}, {"bits": bits}, "Step")
        for label, alpha in {"one": np.asarray(3, dtype), "rows": np.arange(1, 6).astype(dtype)[:, None],
                             "columns": (np.arange(1, 10) / 2).astype(dtype)}.items():  # fmt: skip
            given = {"dy": _dy(dtype), "x": x, "alpha": alpha}
            yield _case("pact", "gradients", f"{label}-{dtype}", "backward", given, {}, "Ends")
            given = {"x": x, "alpha": alpha / _type(dtype)(0.7)}
            yield _case("pact", "odd", f"{label}-{dtype}", "forward", given, {"bits": 3}, "Odd")
    large = np.ones((5, 9), np.float32)
    large[:, 0] = 2.0**24  # a sum in float32 loses the ones
    for label, alpha in {"one": np.float32(0.5), "rows": np.full((5, 1), 0.5, np.float32)}.items():
        given = {"dy": large, "x": np.ones((5, 9), np.float32), "alpha": np.asarray(alpha)}
        yield _case("pact", "gradients", f"large-{label}", "backward", given, {}, "Ends")
    x, dy = _x("float32"), _dy("float32")
    for label, change in {"zero": {"alpha": np.float32(0)}, "negative": {"alpha": np.float32(-1)},
                          "float16": {"x": x.astype(np.float16)}, "shape": {"alpha": np.ones(5,
                          np.float32)}}.items():  # fmt: skip
        given = {"x": x, "alpha": np.float32(1), **change}
        yield _case("pact", "checks", f"{label}-forward", "forward", given, {"bits": 2}, "Step")
        yield _case("pact", "checks", f"{label}-backward", "backward", {"dy": dy, **given}, {}, "Step")


def _type(name: str) -> type[np.floating]:
    """np.float32 or np.float64 by its name."""
    return np.dtype(name).type


def _beginnings() -> Iterator[Case]:
    loose = {"scale": ("ulp", 2)}  # a square root and a sum in float64, of which the order is free
    for dtype in ("float32", "float64"):
        x = _x(dtype) + _type(dtype)(0.3)
        for label, axis in {"all": None, "rows": 1, "columns": 0, "both": [0, 1]}.items():
            params = {"qmax": 7} | ({} if axis is None else {"axis": axis})
            yield _case("lsq", "first-scale", f"{label}-{dtype}", "first_scale", {"x": x}, params, "Shapes", loose)
        for sign in (1, -1):
            for bits in (1, 2, 4):
                given = {"x": x * _type(dtype)(sign)}
                label = f"{bits}-{'positive' if sign > 0 else 'negative'}-{dtype}"
                yield _case("lsq_plus", "first-scale", label, "first_scale", given, {"bits": bits}, "Shapes", loose)
    for count, qmax in ((1, 1), (400, 4), (45, 7)):
        label = f"{count}-{qmax}"
        params = {"count": count, "qmax": qmax}
        words = {"value": ("ulp", 2)}
        yield _case("lsq", "gradient-scale", label, "gradient_scale", {}, params, "Shapes", words)
