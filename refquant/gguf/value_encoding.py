"""Metadata values as bytes: which type a Python value gets, and how it is written. `values` says what the types are.

Nothing is converted silently: a float where the type holds integers, an integer outside the range of the type (or
beyond those that a float type holds exactly), a finite float that becomes infinite are refused. Only the rounding of a
float to f32, nearest with ties to even, belongs to the type.
"""

from collections.abc import Sequence

import numpy as np

from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.gguf.cursor import U32, U64, quoted
from refquant.gguf.strings import Strings
from refquant.gguf.values import ARR, BY_NAME, MAX_ELEMENTS, MAX_STRING, SCALARS, STR, ScalarType, Value

_HOLDS = {"bool": "b", "f32": "fi", "f64": "fi"}  # kinds of values by type; all others hold "i"


def encode(key: str, value: Value, spelling: str | None = None) -> bytes:
    """Type id and value, as they follow a key in the file; `spelling` None means `spelling_of(value)`.

    Raises SchemeError (unknown spelling, value of another kind), RangeError (does not fit), ShapeError (nested).
    """
    where = f"gguf.write: metadata {quoted(key)}"
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    spelling = spelling_of(value, where) if spelling is None else spelling
    is_array = spelling.startswith("arr[") and spelling.endswith("]")
    name = spelling[4:-1] if is_array else spelling
    if name != "str" and name not in BY_NAME:
        known = f"one of str, {', '.join(BY_NAME)}, or arr[one of them]"
        raise SchemeError(f"{where}: type = {spelling!r}, expected {known}")
    if is_array != isinstance(value, list | tuple | Strings | np.ndarray):
        expected = "a list or an array" if is_array else "a single value"
        raise SchemeError(f"{where}: value = {type(value).__name__}, expected {expected} for type {spelling}")
    if not is_array:
        if name == "str":
            return U32.pack(STR) + string(value, where)
        return U32.pack(BY_NAME[name].id) + _numbers([value], BY_NAME[name], where)
    if not isinstance(value, Strings) and np.ndim(value) > 1:
        raise ShapeError(f"{where}: ndim = {np.ndim(value)}, expected 1: arrays do not nest")
    if len(value) > MAX_ELEMENTS:
        raise RangeError(f"{where}: length = {len(value)}, expected at most {MAX_ELEMENTS}")
    id = STR if name == "str" else BY_NAME[name].id
    body = b"".join(string(v, where) for v in value) if id == STR else _numbers(value, BY_NAME[name], where)
    return U32.pack(ARR) + U32.pack(id) + U64.pack(len(value)) + body


def string(text: object, where: str, limit: int = MAX_STRING, errors: str = "surrogateescape") -> bytes:
    """A u64 length and UTF-8. Raises SchemeError (not a str), RangeError (surrogates, more than `limit` bytes)."""
    if not isinstance(text, str):
        raise SchemeError(f"{where}: value = {type(text).__name__}, expected str")
    try:
        raw = text.encode("utf-8", errors)
    except UnicodeEncodeError as bad:
        got = f"U+{ord(text[bad.start]):04X}"
        raise RangeError(f"{where}: character {bad.start} = {got}, expected no surrogates") from None
    if len(raw) > limit:
        raise RangeError(f"{where}: length = {len(raw)} bytes, expected at most {limit}")
    return U64.pack(len(raw)) + raw


def spelling_of(value: object, where: str = "gguf.write") -> str:
    """The type of a value for which the caller names none.

    bool, str, and NumPy's scalars and arrays have their own. An int, or a list of ints, is u32 if it fits, else i32,
    i64 or u64; a float is f32. Raises SchemeError for an empty list, a mixed one and everything else.
    """
    if isinstance(value, np.ndarray | np.number | np.bool_):
        name = _name_of(value.dtype, where)
        return f"arr[{name}]" if value.ndim else name
    if isinstance(value, Strings):
        return "arr[str]"
    if isinstance(value, list | tuple):
        return f"arr[{_common(value, where)}]"
    for kind, name in ((bool, "bool"), (str, "str"), (float, "f32")):
        if isinstance(value, kind):
            return name
    if isinstance(value, int):
        return _narrowest(value, value, where)
    raise SchemeError(f"{where}: value = {type(value).__name__}, expected bool, int, float, str, a list or an array")


def _common(values: Sequence, where: str) -> str:
    if not values:
        raise SchemeError(f"{where}: length = 0, expected `types` to say what an empty list is, such as 'arr[str]'")
    if all(type(v) is int for v in values):
        return _narrowest(min(values), max(values), where)
    names = sorted({spelling_of(v, where) for v in values})
    if len(names) > 1 or names[0].startswith("arr"):
        raise SchemeError(f"{where}: types of the elements = {', '.join(names)}, expected one type that is no array")
    return names[0]


def _narrowest(lowest: int, highest: int, where: str) -> str:
    for name in ("u32", "i32", "i64", "u64"):
        first, last = _exact_integers(BY_NAME[name])
        if first <= lowest and highest <= last:
            return name
    raise RangeError(f"{where}: values = {lowest} to {highest}, expected integers that share a type of 64 bits")


def _name_of(dtype: np.dtype, where: str) -> str:
    if dtype == np.bool_:
        return "bool"
    for scalar in SCALARS:
        if scalar.name != "bool" and scalar.dtype == dtype.newbyteorder("<"):
            return scalar.name
    raise SchemeError(f"{where}: dtype = {dtype}, expected integers of 8 to 64 bits, float32, float64 or bool")


def _numbers(values: Sequence | np.ndarray, scalar: ScalarType, where: str) -> bytes:
    is_array = isinstance(values, np.ndarray)
    kinds = {_kind(values.dtype.type)} if is_array else {_kind(type(v)) for v in values}
    if not kinds <= set(_HOLDS.get(scalar.name, "i")):
        got = values.dtype if is_array else ", ".join(sorted({type(v).__name__ for v in values}))
        raise SchemeError(f"{where}: type of the values = {got}, expected what {scalar.name} holds")
    if "i" in kinds and len(values):
        integers = values if is_array else [int(v) for v in values if _kind(type(v)) == "i"]
        first, last = _exact_integers(scalar)
        for v in (integers.min(), integers.max()) if is_array else (min(integers), max(integers)):
            if not first <= int(v) <= last:
                raise RangeError(f"{where}: value = {v}, expected {first} to {last} for type {scalar.name}")
    with np.errstate(over="ignore"):
        narrow = np.array(values, scalar.dtype)
    if "f" in kinds and (np.isinf(narrow) & np.isfinite(np.array(values, np.float64))).any():
        raise RangeError(f"{where}: max|value| = {np.nanmax(np.abs(values))}, expected a value within {scalar.name}")
    return narrow.tobytes()


def _kind(type_: type) -> str:
    """b, i, f as in NumPy; "" for what is no number."""
    for kind, types in (("b", (bool, np.bool_)), ("i", (int, np.integer)), ("f", (float, np.floating))):
        if issubclass(type_, types):
            return kind
    return ""


def _exact_integers(scalar: ScalarType) -> tuple[int, int]:
    """The longest run of integers around 0 that a type holds."""
    if scalar.dtype.kind == "f":
        last = 2 ** (np.finfo(scalar.dtype).nmant + 1)
        return -last, last
    return int(np.iinfo(scalar.dtype).min), int(np.iinfo(scalar.dtype).max)
