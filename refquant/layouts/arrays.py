"""Named arrays of a state dict: taken with every shape and dtype checked, floats read exactly, floats stored exactly.

    field       one array by its name; wrong dtype or shape is an error that names it
    floats      float32, float16 or bfloat16 -> (float32 values, name of the dtype)
    stored      the inverse; a value that the dtype cannot hold exactly is refused

bfloat16 has no NumPy dtype: an array of it is uint16, the upper halves of float32 (the ml_dtypes type is accepted too).
So are the eight-bit floats uint8. No layout here stores integers in a place where it stores such floats.
"""

from collections.abc import Mapping

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError
from refquant.rounding import narrow

Arrays = Mapping[str, np.ndarray]
FLOATS = ("float32", "float16", "bfloat16", "uint16")


def field(
    where: str, arrays: Arrays, name: str, dtypes: str | tuple[str, ...], shape: tuple[int | None, ...] | None
) -> np.ndarray:
    """`arrays[name]`, with a dtype in `dtypes` and of `shape`, where None stands for any length of at least 1."""
    if name not in arrays:
        have = ", ".join(sorted(map(str, arrays))[:8]) or "nothing"
        raise QuantError(f"{where}: {name} is missing among {have}, expected an array")
    array = np.asarray(arrays[name])
    dtypes = (dtypes,) if isinstance(dtypes, str) else dtypes
    if array.dtype.name not in dtypes:
        raise QuantError(f"{where}: {name}.dtype = {array.dtype}, expected {' or '.join(dtypes)}")
    if shape is None:
        return array
    fits = len(shape) == array.ndim and all(n == want or (want is None and n) for n, want in zip(array.shape, shape))
    if not fits:
        wanted = "(" + ", ".join("any" if n is None else str(n) for n in shape) + ("," if len(shape) == 1 else "") + ")"
        raise ShapeError(f"{where}: {name}.shape = {array.shape}, expected {wanted}")
    return array


def floats(array: np.ndarray) -> tuple[np.ndarray, str]:
    """Values of float32, float16 or bfloat16 (uint16) as float32, and the name of the dtype they were stored in."""
    name = array.dtype.name
    if name in ("float32", "float16"):
        return array.astype(np.float32), name
    if name == "bfloat16":  # of ml_dtypes
        array = array.view(np.uint16)
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32), "bfloat16"


def stored(where: str, name: str, values: np.ndarray, dtype: str) -> np.ndarray:
    """float32 `values` as an array of `dtype` (bfloat16: uint16). Raises RangeError if one of them would change."""
    values = np.ascontiguousarray(values, np.float32)
    kept = narrow(values, dtype)
    changed = np.flatnonzero((kept != values) & ~np.isnan(values))
    if changed.size:
        first = np.unravel_index(changed[0], values.shape)
        at = ", ".join(map(str, first))
        got = f"{name}[{at}] = {values[first]!s}"
        raise RangeError(f"{where}: {got}, expected a value that {dtype} holds exactly ({changed.size} are not)")
    if dtype == "bfloat16":
        return (values.view(np.uint32) >> np.uint32(16)).astype(np.uint16)
    return kept.astype(dtype)


def shape_of(where: str, name: str, values: np.ndarray) -> tuple[int, ...]:
    """A stored shape, one axis of integers, as ints of at least 1; the caller compares it with the data."""
    shape = tuple(int(n) for n in values)
    if min(shape) < 1:
        raise ShapeError(f"{where}: {name} = {shape}, expected lengths of at least 1")
    return shape
