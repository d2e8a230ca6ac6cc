"""The comparison words of README.md: does an output meet an expectation?

    bits    every byte is equal             {"bits": array}
    exact   every value is equal            {"exact": array}             -0 = 0, any NaN = any NaN
    either  one of several is met           {"either": [expectation, ...]}     and a second call gives the same bytes
    ulp     at most n units off             {"ulp": array, "n": 2}
    bound   an error is small enough        {"bound": metric, "max": number, "ref": array}

`mismatch` returns None, or a sentence with the first place that differs.
"""

from collections.abc import Callable, Mapping

import numpy as np

from refquant.errors import QuantError


def mismatch(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    """Why `got` does not meet `expect` (arrays in it are np.ndarray), or None. Stability is the runner's business."""
    for word, check in _WORDS.items():
        if word in expect:
            return check(np.asarray(got), expect)
    raise QuantError(f"conformance.compare: expectation = {sorted(expect)}, expected one of {', '.join(_WORDS)}")


def _alike(got: np.ndarray, ref: np.ndarray) -> str | None:
    if got.shape != ref.shape:
        return f"shape = {got.shape}, expected {ref.shape}"
    if got.dtype != ref.dtype:
        return f"dtype = {got.dtype}, expected {ref.dtype}"
    return None


def _first(wrong: np.ndarray, got: np.ndarray, ref: np.ndarray) -> str:
    """`3 of 64 differ, the first at [0, 5]: 0x7e, expected 0x7f`."""
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    shown = [_show(array[place]) for array in (got, ref)]
    where = f" at {list(place)}" if place else ""
    return f"{int(wrong.sum())} of {wrong.size} differ, the first{where}: {shown[0]}, expected {shown[1]}"


def _show(value: np.generic) -> str:
    if value.dtype.kind == "f":
        return f"{float(value)!r} ({value.view(f'u{value.dtype.itemsize}'):#x})"
    return f"{value:#04x}" if value.dtype.kind == "u" else str(value)


def _bits(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    ref = expect["bits"]
    different = _alike(got, ref)
    if different:
        return different
    if got.dtype.kind == "f":
        kind = f"u{got.dtype.itemsize}"
        wrong = got.copy("C").view(kind) != ref.copy("C").view(kind)  # ascontiguousarray gives a scalar an axis
    else:
        wrong = got != ref
    return _first(wrong, got, ref) if wrong.any() else None


def _exact(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    ref = expect["exact"]
    if got.shape != ref.shape:
        return f"shape = {got.shape}, expected {ref.shape}"
    wrong = (got != ref) & ~((got != got) & (ref != ref))
    return _first(wrong, got, ref) if wrong.any() else None


def _either(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    reasons = [mismatch(got, choice) for choice in expect["either"]]
    return None if None in reasons else "none of the choices: " + "; ".join(str(reason) for reason in reasons)


def _ulp(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    ref, most = expect["ulp"], int(expect["n"])
    different = _alike(got, ref)
    if different:
        return different
    wrong = np.asarray(_ordinal(got) - _ordinal(ref), object)
    far = np.abs(wrong) > most
    far &= ~(np.isnan(got) & np.isnan(ref))
    far |= np.isnan(got) != np.isnan(ref)
    far |= (np.isinf(got) | np.isinf(ref)) & (got != ref)
    return _first(far.astype(bool), got, ref) if far.any() else None


def _ordinal(x: np.ndarray) -> np.ndarray:
    """Neighbouring floats have neighbouring integers; -0 and +0 have the same."""
    bits = x.copy("C").view(f"i{x.dtype.itemsize}").astype(object)
    return np.where(bits < 0, -(bits + (1 << (8 * x.dtype.itemsize - 1))), bits)


def _bound(got: np.ndarray, expect: Mapping[str, object]) -> str | None:
    ref, metric, most = expect["ref"], str(expect["bound"]), float(expect["max"])
    if got.shape != ref.shape:
        return f"shape = {got.shape}, expected {ref.shape}"
    if not np.isfinite(got).all():
        return _first(~np.isfinite(got), got, ref)
    error = METRICS[metric](got.astype(np.float64), ref.astype(np.float64))
    return None if error <= most else f"{metric} = {error:.6g}, expected at most {most:.6g}"


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "max_abs": lambda got, ref: float(np.abs(got - ref).max(initial=0)),
    "mse": lambda got, ref: float(np.mean((got - ref) ** 2)),
    "relative": lambda got, ref: float(np.sqrt(np.sum((got - ref) ** 2) / max(np.sum(ref**2), np.finfo(float).tiny))),
    "unequal": lambda got, ref: float(np.mean(got != ref)),
}
_WORDS = {"bits": _bits, "exact": _exact, "either": _either, "ulp": _ulp, "bound": _bound}
