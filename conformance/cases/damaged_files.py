"""What goes wrong with a file: an array is missing, of another dtype or cut short; a reader is told what is not so."""

from collections.abc import Callable

import numpy as np

OTHER = {
    "int32": ("uint32", "int16"),
    "int64": ("int32", "int8"),
    "uint8": ("int8",),
    "int8": ("uint8",),
    "float16": ("float32",),
    "float32": ("float16",),
    "uint16": ("int16",),
    "uint32": ("int32",),
    "int16": ("int8",),
    "bool": ("uint8",),
}


def damages(arrays: dict[str, np.ndarray], told: dict[str, object]) -> dict[str, tuple[dict, dict]]:
    """Label -> (arrays, told): one thing is wrong in each."""
    made: dict[str, tuple[dict, dict]] = {}
    for name, array in arrays.items():
        label = name.replace(".", "-").replace("_data", "data")
        made[f"{label}-missing"] = ({k: v for k, v in arrays.items() if k != name}, told)
        for other in OTHER[array.dtype.name]:
            made[f"{label}-as-{other}"] = (arrays | {name: array.astype(other)}, told)
        for how, change in (_CUTS | (_ORDERS if name.endswith("g_idx") else {})).items():
            if (changed := change(array)) is not None:
                made[f"{label}-{how}"] = (arrays | {name: changed}, told)
    for name, value in told.items():
        made[f"told-no-{name}"] = (arrays, {k: v for k, v in told.items() if k != name})
        for wrong in _wrongs(value):
            made[f"told-{name}-{str(wrong).replace(' ', '')}"] = (arrays, told | {name: wrong})
    few = {name: array.reshape(-1)[1:2] for name, array in arrays.items() if "scale" in name or "zero" in name}
    made["everything-shared"] = (arrays | few, told)
    made["told-nonsense"] = (arrays, told | {"nonsense": 1})
    return made


_CUTS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "short": lambda array: array[:-1] if array.ndim and len(array) > 1 else None,
    "narrow": lambda array: array[:, :-1] if array.ndim > 1 and array.shape[1] > 1 else None,
    "deep": lambda array: array[None],
    "empty": lambda array: array[:0] if array.ndim else None,
    "negative": lambda array: -array if array.dtype.kind == "i" and array.size < 100 else None,
    "zero": lambda array: array * 0 if array.dtype.kind == "i" and array.size == 1 else None,
    "single": lambda array: array.reshape(-1)[1:2] if array.dtype.kind in "fi" and array.size > 1 else None,
    "alone": lambda array: array.reshape(-1)[1] if array.dtype.kind == "f" and array.size > 1 else None,
    "bfloat16": lambda array: _upper(array) if array.dtype.kind == "f" else None,
    "large": lambda array: array + array.dtype.type(1) if array.dtype.kind in "iu" and array.size < 100 else None,
}

_ORDERS: dict[str, Callable[[np.ndarray], np.ndarray | None]] = {
    "backwards": lambda g_idx: g_idx[::-1].copy(),
    "alternating": lambda g_idx: g_idx[np.arange(len(g_idx)) % 2 * 16],
    "zeros": lambda g_idx: g_idx * 0,
    "uneven": lambda g_idx: g_idx[np.minimum(np.arange(len(g_idx)) + 4, len(g_idx) - 1)],
    "beyond": lambda g_idx: g_idx + (np.arange(len(g_idx)) == 20).astype(g_idx.dtype),
    "below": lambda g_idx: g_idx - (np.arange(len(g_idx)) == 3).astype(g_idx.dtype),
}


def _upper(array: np.ndarray) -> np.ndarray:
    """bfloat16 as its bits."""
    return (array.astype(np.float32).reshape(-1).view(np.uint32) >> 16).astype(np.uint16).reshape(array.shape)


def _wrongs(value: object) -> list[object]:
    if isinstance(value, tuple):
        return [
            (value[0] + 1, *value[1:]),
            (0, *value[1:]),
            (1, value[0] * value[1]),
            value[::-1],
            (value[0], 2 * value[1]),
        ]
    if isinstance(value, int):
        return [0, 1, value - 1, value + 1, 2 * value, value // 2, 9]
    return ["nonsense"]
