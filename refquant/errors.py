"""Every error this project raises on purpose, and the checks that raise them.

A message reads `where: what = got, expected want`, for example
`nf4.encode: x.shape[-1] = 60, expected a positive multiple of 64`. All classes are ValueErrors, so that code which
knows nothing of this package still catches them.
"""

import numpy as np


class QuantError(ValueError):
    """Base of all errors raised on purpose."""


class ShapeError(QuantError):
    """An array has the wrong number of axes or a length that does not fit."""


class NonFiniteError(QuantError):
    """An array that must be finite holds NaN or infinity."""


class RangeError(QuantError):
    """A number is outside what the format or the algorithm can hold."""


class SchemeError(QuantError):
    """A scheme is misspelt, unknown, or asks for a combination that does not exist."""


class UnsupportedError(QuantError):
    """The request is well formed, and this installation cannot serve it (a missing extra, an encoder not written)."""


class ContextFullError(QuantError):
    """A prompt or an answer needs more positions than the context has."""


class GGUFError(QuantError):
    """A GGUF file is malformed, truncated, hostile or of a kind that is not supported."""


def require_multiple(where: str, what: str, got: int, of: int) -> None:
    """Raise ShapeError unless `got` is a positive multiple of `of`."""
    if got <= 0 or got % of:
        raise ShapeError(f"{where}: {what} = {got}, expected a positive multiple of {of}")


def require_finite(where: str, x: np.ndarray, name: str = "x") -> None:
    """Raise NonFiniteError naming the first NaN or infinity of `x`."""
    finite = np.isfinite(x)
    if not finite.all():
        first = int(np.argmin(finite))
        raise NonFiniteError(f"{where}: {name}.flat[{first}] = {x.flat[first]}, expected finite values")
