"""The inputs of one layer as a matrix, from whatever a method was handed as calibration.

    tokens(where, calibration, width)    X float32 (tokens, width)

Accepted  X (tokens, in) or (batch, tokens, in), or an iterable of such; batches are laid end to end.
Refused   None and a Hessian (QuantError): a Hessian no longer knows means, ranges and single tokens.
Memory    all tokens at once. Methods that need sums only go batch by batch instead (hessian.py, wanda.py).
"""

from collections.abc import Iterable

import numpy as np

from refquant.errors import QuantError, ShapeError
from refquant.hessian import Hessian
from refquant.inputs import as_float32

Inputs = np.ndarray | Iterable[np.ndarray]


def tokens(where: str, calibration: Inputs | None, width: int) -> np.ndarray:
    """X (tokens, width). Raises QuantError, ShapeError, NonFiniteError, RangeError."""
    if calibration is None or isinstance(calibration, Hessian):
        got = "None" if calibration is None else "a Hessian"
        raise QuantError(f"{where}: calibration = {got}, expected inputs X (tokens, in) or batches of them")
    batches = [calibration] if isinstance(calibration, np.ndarray) else list(calibration)
    if not batches:
        raise QuantError(f"{where}: batches = 0, expected at least one")
    found = []
    for batch in batches:
        X = as_float32(where, batch, "X")
        if X.ndim not in (2, 3) or X.shape[-1] != width:
            raise ShapeError(
                f"{where}: X.shape = {X.shape}, expected (tokens, {width}) or (batch, tokens, {width}), as many as W"
            )
        found.append(X.reshape(-1, width))
    return found[0] if len(found) == 1 else np.concatenate(found)
