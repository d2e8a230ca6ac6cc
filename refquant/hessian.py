"""The Hessian of a layer's squared output error, accumulated over batches of its inputs.

    E(W^) = |X W^T - X W^^T|^2 / n    is quadratic in every row w of W, with the same Hessian for all rows

    H = (2 / n) sum over tokens of x x^T             n = tokens seen

Damping     H + damp * mean(diag H) * I: keeps the factorization away from directions that the data does not show.
Dead        a column with H_jj = 0 was never fed: H_jj becomes 1 before damping: it neither disturbs nor matters.
Arithmetic  fast: products by BLAS in float32, sums of batches in float32; exact: float64, token by token (factor.py).
Scale       2 / n changes nothing in what GPTQ, OBQ or SparseGPT decide, except through the 1 of a dead column.

    rule        running sum                                              n counts               who
    sum         S += X^T X, at the end H = 2 S / n                       tokens                 gptqmodel (in effect)
    sequences   S += (sqrt 2 X)^T (sqrt 2 X), at the end H = S / n       sequences              llm-compressor
    running     H *= n/(n+t); n += t; H += (c X)^T (c X), c = sqrt(2/n)  sequences              IST gptq, SparseGPT

A sequence is one index of the first axis of (batch, tokens, in); a matrix (tokens, in) is one sequence.

Merging     sums add; a running mean is weighted by n. Exact mode: the result then depends on how tokens were split.
Source      Frantar et al. 2022, arXiv:2210.17323 (GPTQ), sec. 3; Hassibi & Stork 1993 (OBS); IST-DASLab gptq, gptq.py.
"""

from collections.abc import Iterable

import numpy as np

from refquant import factor
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.inputs import as_float32

RULES = ("sum", "sequences", "running")


class Hessian:
    """The running sum, as its rule keeps it, and the count n."""

    def __init__(self, rule: str = "sum", exact: bool = False):
        if rule not in RULES:
            raise RangeError(f"Hessian: rule = {rule!r}, expected one of {list(RULES)}")
        self.rule, self.exact, self.count = rule, exact, 0
        self._sum: np.ndarray | None = None

    def update(self, X: np.ndarray) -> None:
        """Add inputs (tokens, in) or (batch, tokens, in). Raises ShapeError, NonFiniteError, RangeError, QuantError."""
        X = as_float32("Hessian.update", X, "X")
        width = None if self._sum is None else len(self._sum)
        if X.ndim not in (2, 3) or (width is not None and X.shape[-1] != width):
            wanted = "in" if width is None else width
            raise ShapeError(
                f"Hessian.update: X.shape = {X.shape}, expected (tokens, {wanted}) or (batch, tokens, {wanted})"
            )
        sequences = len(X) if X.ndim == 3 else 1
        X = X.reshape(-1, X.shape[-1])
        old = 0 if self._sum is None else self._sum
        dtype = np.float64 if self.exact else np.float32
        if self.rule == "sum":
            self.count += len(X)
            self._sum = old + factor.gram(X, self.exact)
        elif self.rule == "sequences":
            self.count += sequences
            self._sum = old + factor.gram(dtype(np.sqrt(2)) * X, self.exact)
        else:
            old = old * dtype(self.count / (self.count + sequences))
            self.count += sequences
            self._sum = old + factor.gram(dtype(np.sqrt(2 / self.count)) * X, self.exact)

    def merge(self, other: "Hessian") -> None:
        """Add what another one saw."""
        if (self.rule, self.exact) != (other.rule, other.exact):
            raise QuantError(
                f"Hessian.merge: settings = {other.rule}, exact {other.exact}, expected {self.rule}, exact {self.exact}"
            )
        if other._sum is None:
            return
        if self._sum is None:
            self._sum, self.count = other._sum, other.count
            return
        total = self.count + other.count
        if self.rule == "running":
            dtype = self._sum.dtype.type
            self._sum = self._sum * dtype(self.count / total) + other._sum * dtype(other.count / total)
        else:
            self._sum = self._sum + other._sum
        self.count = total

    @property
    def matrix(self) -> np.ndarray:
        """H (in, in), float32 or, in exact mode, float64. Raises QuantError before the first batch."""
        if self._sum is None:
            raise QuantError("Hessian.matrix: batches = 0, expected at least one update")
        weight = {"sum": 2 / self.count, "sequences": 1 / self.count, "running": 1.0}[self.rule]
        return self._sum * self._sum.dtype.type(weight)


def hessian_of(
    where: str, calibration: "np.ndarray | Hessian | Iterable[np.ndarray] | None", rule: str, exact: bool, width: int
) -> np.ndarray:
    """H (in, in) from inputs X, from an iterable of batches of them, or from a Hessian that was accumulated before.

    Raises QuantError without calibration, ShapeError where it does not fit weights with `width` columns.
    """
    if calibration is None:
        raise QuantError(f"{where}: calibration = None, expected inputs X (tokens, in), batches of them, or a Hessian")
    if not isinstance(calibration, Hessian):
        batches = [calibration] if isinstance(calibration, np.ndarray) else calibration
        calibration = Hessian(rule, exact)
        for batch in batches:
            calibration.update(batch)
    H = calibration.matrix
    if len(H) != width:
        raise ShapeError(f"{where}: calibration has {len(H)} columns, expected {width}, as many as W")
    return H.astype(np.float64 if exact else np.float32)


def revive_dead(H: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(H with 1 in place of every zero of its diagonal, which columns those are)."""
    dead = np.diagonal(H) == 0
    revived = H.copy()
    revived[dead, dead] = 1
    return revived, dead


def damped(H: np.ndarray, damp: float) -> np.ndarray:
    """H + damp * mean(diag H) * I. The mean is summed in ascending order in float64, then rounded to H's dtype."""
    mean = np.add.accumulate(np.diagonal(H).astype(np.float64))[-1] / len(H)
    raised = H.copy()
    raised[np.diag_indices(len(H))] += H.dtype.type(damp * mean)
    return raised
