"""From a range to a scale and a zero point, and the checks that all observers share.

    affine(lo, hi, rule) = scale and zero point that affine.encode gives to a group whose extremes are lo and hi

so the range is widened to hold 0, and every range mode, scale dtype and min_scale of affine.py means what it says
there. torch.ao's qparams are the rule with min_scale = 2^-23 (float32 eps); tests/refquant/peers shows it.
"""

import numpy as np

from refquant import affine as linear
from refquant import groups
from refquant.errors import QuantError, SchemeError, ShapeError
from refquant.grid import from_range
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.schemes import Scheme, parse

Range = tuple[np.ndarray, np.ndarray]


def affine(lo: np.ndarray, hi: np.ndarray, rule: "str | Scheme | linear.Rule") -> tuple[np.ndarray, np.ndarray | None]:
    """Return (scale float32, zero_point) in the shape of `lo`: what quantize takes under these names.

    zero_point is None for a symmetric rule, which has a constant one.

    rule   an affine.Rule, or a scheme such as "int8" or "uint8"; the granularity in it is not looked at.
    Raises SchemeError for any other kind of format, RangeError for a scale that its dtype cannot hold.
    """
    rule = parse(rule).rule if isinstance(rule, str | Scheme) else rule
    if not isinstance(rule, linear.Rule):
        raise SchemeError(f"observers.affine: rule = {type(rule).__name__}, expected a linear format such as 'int8'")
    grid = from_range(lo, hi, rule)
    if rule.symmetric:
        return grid.scale, None
    return grid.scale, grid.zero_point.astype(
        np.float32 if rule.zero_kind == "float" else np.int8 if rule.signed else np.uint8
    )


def rows_of(where: str, batch: np.ndarray, granularity: Granularity, seen: tuple[int, ...] | None) -> np.ndarray:
    """The batch as (groups, members) float32. Raises what inputs.as_float32 raises, ShapeError for other groups."""
    x = as_float32(where, batch, "batch")
    shape = groups.scale_shape(where, x.shape, granularity)
    if seen is not None and shape != seen:
        raise ShapeError(f"{where}: batch.shape = {x.shape} has scales {shape}, expected {seen} as in earlier batches")
    return groups.split(where, x, granularity)


def require_data(where: str, seen: object) -> None:
    """Raise QuantError for an observer without observations."""
    if seen is None:
        raise QuantError(f"{where}: batches = 0, expected at least one update before ranges are asked for")


def require_same(where: str, mine: tuple, theirs: tuple) -> None:
    """Raise QuantError unless two observers have the same settings."""
    if mine != theirs:
        raise QuantError(f"{where}: settings of the other observer = {theirs}, expected {mine}")
