"""Inputs as rows that share a scale, and outputs in the shapes and dtypes that vectors have. Nothing is computed."""

import math

import numpy as np

from conformance.protocol import Unsupported
from refquant import groups
from refquant.errors import ShapeError
from refquant.groups import Granularity
from refquant.schemes import Scheme

WHERE = "conformance"


def rows(x: np.ndarray, scheme: Scheme) -> np.ndarray:
    """x as (groups, members), a copy that may be written. What cannot be laid out so is not the backend's business."""
    if not x.size:
        raise Unsupported("no values: a caller of this backend would have no groups to give it")
    try:
        return np.array(groups.split(WHERE, x, scheme.granularity))
    except ShapeError as error:
        raise Unsupported(str(error)) from error


def outputs(scheme: Scheme, shape: tuple[int, ...], **arrays: np.ndarray) -> dict[str, np.ndarray]:
    """codes (groups, members) in `shape`; the others, a number a group, as groups.scale_shape says."""
    kind, found = scheme.granularity, {}
    for name, array in arrays.items():
        if name in ("codes", "values"):
            found[name] = groups.join(np.ascontiguousarray(array), tuple(shape), kind)
        else:
            found[name] = np.ascontiguousarray(array).reshape(groups.scale_shape(WHERE, tuple(shape), kind))
    return found


def per_row(array: np.ndarray, shape: tuple[int, ...], kind: Granularity) -> np.ndarray:
    """A scale or zero point, or one for all, as (groups, 1): a copy."""
    wanted = (math.prod(groups.scale_shape(WHERE, tuple(shape), kind)), 1)
    return np.array(np.broadcast_to(array.reshape(-1, 1), wanted))


def count(scheme: Scheme, shape: tuple[int, ...]) -> int:
    """How many groups there are."""
    return math.prod(groups.scale_shape(WHERE, tuple(shape), scheme.granularity))


def power_of_two(exponents: np.ndarray) -> np.ndarray:
    """E8M0 bytes -> float32."""
    return np.ldexp(np.float32(1), exponents.astype(np.int32) - 127).astype(np.float32)
