"""A weight matrix as the groups of a linear format, for methods that learn how to round.

    values (groups, members)     scale, zero_point (groups, 1)     what the format's own encoder found
    tensor(codes, scale, zero)   back to a QuantizedTensor

Formats   linear, 2 bits or more, deterministic, zero points that are codes; else SchemeError.
Grouping  of rows of the matrix, any granularity of groups.py.
Error     output_error and its gradient for E = W^ - W with G = X^T X / tokens (in, in):
          L = tr(E G E^T) / out      dL / dW^ = 2 E G / out
"""

from dataclasses import dataclass

import numpy as np

from refquant import affine, groups
from refquant.errors import SchemeError
from refquant.gptq import weights
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


@dataclass(frozen=True, slots=True, eq=False)
class LinearRows:
    """The groups of W (out, in), with the scales of the format's own encoder."""

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    scheme: Scheme
    shape: tuple[int, int]

    @property
    def rule(self) -> affine.Rule:
        """The linear rule of the scheme."""
        return self.scheme.rule

    def matrix(self, rows: np.ndarray) -> np.ndarray:
        """(groups, members) as (out, in)."""
        return groups.join(rows, self.shape, self.scheme.granularity)

    def rows(self, matrix: np.ndarray) -> np.ndarray:
        """(out, in) as (groups, members)."""
        return groups.split("linear_rows", matrix, self.scheme.granularity)

    def tensor(self, codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> QuantizedTensor:
        """The result, from integral codes (groups, members), scale and zero_point (groups, 1)."""
        stored = np.int8 if self.rule.signed else np.uint8
        shape = groups.scale_shape("linear_rows", self.shape, self.scheme.granularity)
        zero_dtype = stored if self.rule.zero_kind == "int" else np.float32
        zeros = (
            np.array(self.rule.fixed_zero, stored) if self.rule.symmetric else zero.reshape(shape).astype(zero_dtype)
        )
        codes = self.matrix(codes.astype(stored))
        return QuantizedTensor(codes, scale.astype(np.float32).reshape(shape), zeros, self.scheme, self.shape)


def rows_of(where: str, W: np.ndarray, scheme: Scheme | str, zero_kinds: tuple[str, ...] = ("int",)) -> LinearRows:
    """W (out, in) in its groups. Raises ShapeError, NonFiniteError, RangeError, SchemeError."""
    W, scheme = weights(where, W), parse(scheme)
    rule = scheme.rule
    if not isinstance(rule, affine.Rule) or rule.binary or rule.rounding == "stochastic":
        raise SchemeError(
            f"{where}: scheme = {scheme}, expected a linear format of 2 bits or more, not stochastic; for others take "
            "method gptq, awq or smoothquant"
        )
    if rule.zero_kind not in zero_kinds:
        raise SchemeError(f"{where}: zero_kind of {scheme} = {rule.zero_kind}, expected {' or '.join(zero_kinds)}")
    _, scale, zero = affine.encode(W, rule, scheme.granularity)
    values = groups.split(where, W, scheme.granularity)
    zeros = np.broadcast_to(np.asarray(zero, np.float32).reshape(-1, 1), (len(values), 1))
    return LinearRows(values, scale.reshape(-1, 1), zeros, scheme, W.shape)


def gram(X: np.ndarray) -> np.ndarray:
    """G = X^T X / tokens, float32 (in, in), of X (tokens, in) float32."""
    return (X.T @ X) / np.float32(len(X))


def output_error(E: np.ndarray, G: np.ndarray) -> tuple[float, np.ndarray]:
    """(L, dL / dE): the mean over tokens and outputs of the squared error of the output; E (out, in) float32."""
    EG = E @ G
    return float(np.sum(EG * E, dtype=np.float64)) / len(E), EG * np.float32(2 / len(E))
