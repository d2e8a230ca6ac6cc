"""LLM.int8(): X W^T in int8 by rows, with the few columns of X that hold outliers multiplied apart.

    outliers   O = columns j of X with any |X[i, j]| >= threshold (6.0)
    encode     a[i] = max over j not in O of |X[i, j]|          Q[i, j] = round(X[i, j] * (127 / a[i])), 0 for j in O
    weights    the same with threshold 0: no outliers, one absmax for each row (output) of W
    multiply   Y = (Qx Qw^T) * (ax aw^T) * (1 / 127^2)  +  X[:, O] W[:, O]^T

Shapes     X (tokens, in), W (out, in); codes int8 alike, absmax float32 (rows,), outliers int64 ascending; Y float32.
Arithmetic float32; the product of codes is exact, converted to float32, times the product of the two statistics, times
           the constant. The second product is float32.
Rounding   to nearest, ties to even; |code| <= 127.
Zero row   absmax 0, codes 0.
Decode     W^ = codes * absmax * float32(1 / 127), two multiplications in this order.
Source     Dettmers et al. 2022, arXiv:2208.07339, sec. 3; bitsandbytes 0.50.2 backends/default/ops.py, csrc/ops.cu.

    dialect                absmax             codes by                constant          outlier columns of W
    (published)            without columns O  127 / a, divided        1 / 16129         those of the 16-bit W
    bitsandbytes-default   without entries    (1 / a) * 127           6.200124e-05      decoded from int8
                           >= threshold
    bitsandbytes-cuda      the same, rounded  127 / a (in hardware    6.200012e-05      decoded from int8
                           to float16 first   within 2 ulp)

A digit was lost in the constant of the default back end: 1 / 16129 is 6.2000124e-05; its results are 1.8e-5 too large.
An entry below the threshold in an outlier column sets no absmax in the paper, but does in bitsandbytes. On an H200, 15
of 2^19 codes were not those of the dialect, absmax and outliers were.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, ShapeError
from refquant.inputs import as_float32
from refquant.rounding import half_even, narrow

THRESHOLD = 6.0


@dataclass(frozen=True, slots=True)
class Rule:
    """The customs, as values."""

    absmax_of: str = "columns"  # what an outlier takes out of the absmax: its column | the entry alone
    absmax_dtype: str = "float32"
    reciprocal: bool = False  # (1 / a) * 127 instead of 127 / a
    constant: float = 1 / 16129


RULE = Rule()
DIALECTS = {
    "bitsandbytes-default": Rule("entries", reciprocal=True, constant=6.200124e-05),
    "bitsandbytes-cuda": Rule("entries", absmax_dtype="float16", constant=6.200012e-05),
}


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A matrix in int8 by rows."""

    codes: np.ndarray  # int8 (rows, columns)
    absmax: np.ndarray  # float32 (rows,)
    outliers: np.ndarray  # int64, the columns that are not in the codes

    def dequantize(self) -> np.ndarray:
        """codes * absmax / 127 in float32; outlier columns are zeros."""
        return self.codes.astype(np.float32) * self.absmax[:, None] * np.float32(1 / 127)

    @property
    def nbytes(self) -> int:
        """Bytes of codes and statistics."""
        return self.codes.nbytes + self.absmax.nbytes


def encode(x: np.ndarray, threshold: float = 0.0, rule: Rule = RULE) -> Rows:
    """Quantize rows; columns with an entry of at least `threshold` are left out (0: none is).

    Raises ShapeError unless x is a matrix, NonFiniteError, RangeError (threshold < 0, absmax beyond its dtype).
    """
    x = as_float32("llm_int8.encode", x)
    if x.ndim != 2:
        raise ShapeError(f"llm_int8.encode: x.shape = {x.shape}, expected a matrix (rows, columns)")
    if not threshold >= 0:
        raise RangeError(f"llm_int8.encode: threshold = {threshold}, expected at least 0")
    large = np.abs(x) >= threshold if threshold else np.zeros(x.shape, bool)
    outliers = np.flatnonzero(large.any(axis=0))
    if rule.absmax_of == "columns":
        large[:, outliers] = True
    absmax = narrow(np.abs(np.where(large, np.float32(0), x)).max(axis=1), rule.absmax_dtype)
    if not np.isfinite(absmax).all():
        raise RangeError(f"llm_int8.encode: absmax = {absmax.max()}, expected one that {rule.absmax_dtype} holds")
    with np.errstate(divide="ignore", over="ignore"):
        multiplier = (np.float32(1) / absmax) * np.float32(127) if rule.reciprocal else np.float32(127) / absmax
    multiplier[np.isinf(multiplier)] = 0  # zero rows, and rows too small to have a float32 multiplier
    codes = np.clip(half_even(x * multiplier[:, None]), -127, 127)
    codes[:, outliers] = 0
    return Rows(codes.astype(np.int8), absmax, outliers)


def matmul(x: np.ndarray, W: Rows, wide: np.ndarray | None = None, threshold: float = THRESHOLD, rule: Rule = RULE):
    """Y = x W^T, float32 (tokens, out).

    wide   the matrix that W was made from (out, in): its outlier columns multiply in full precision, as published.
           None: they are decoded from int8, as an int8 checkpoint must.
    """
    X = encode(x, threshold, rule)
    if X.codes.shape[1] != W.codes.shape[1] or (wide is not None and wide.shape != W.codes.shape):
        raise ShapeError(f"llm_int8.matmul: x.shape = {X.codes.shape}, expected (tokens, {W.codes.shape[1]})")
    exact = X.codes.astype(np.float64) @ W.codes.astype(np.float64).T  # every partial sum is below 2^53
    Y = exact.astype(np.float32) * (X.absmax[:, None] * W.absmax[None]) * np.float32(rule.constant)
    if not X.outliers.size:
        return Y
    columns = W.dequantize()[:, X.outliers] if wide is None else as_float32("llm_int8.matmul", wide)[:, X.outliers]
    return Y + as_float32("llm_int8.matmul", x)[:, X.outliers] @ columns.T
