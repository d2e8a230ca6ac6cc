"""GPTQ: quantize column after column, and let the columns to come make up for each error.

    H = (2/n) X^T X            dead columns: H_jj = 1, W_j = 0           hessian.py
    H += damp mean(diag H) I
    H^-1 = U^T U               U upper triangular                        factor.py
    for j in order:
        q_j = round(w_j)       to the grid of the column's group         column_grids.py
        e   = (w_j - q_j) / U_jj
        w_k -= e U_jk          for all k after j

This is OBQ in an order that all rows share (obq.py), and equals it to rounding.

Lazy blocks  inside a block of 128 columns the update reaches the block only; later columns take it in when their block
             begins, by one matrix product. Without rounding errors that changes nothing; what it does to the scales of
             groups smaller than a block is named in column_grids.py (fresh, stale).
Shapes       W (out, in), X (tokens, in), H (in, in), U (in, in).
Result       an ordinary QuantizedTensor; extras["g_idx"] (in,) int32, the group of each column, with the order
             "activation" and groups that are not static.
Arithmetic   precision="fast": float32, products by BLAS; codes may differ between machines where a weight lies within
             about 1e-5 scales of a tie: fewer than one code in a thousand, the output error by less than 1e-3.
             precision="exact": float64, fixed order; the bytes are the same everywhere, for every block size too, as
             long as blocks do not decide the scales.
Memory       four matrices like W (weights, errors, codes, result) and four like H, float32: 0.7 GB at 4096 x 4096.
Edges        tokens fewer than columns are no error: damping makes H definite. Not definite all the same: RangeError, or
             more damping (damp_step), or plain rounding (fallback="nearest").
Sequential   "true sequential" means to calibrate a layer on the outputs of layers already quantized: the caller's X.
Source       Frantar et al. 2022, arXiv:2210.17323, alg. 1 and sec. 4; IST-DASLab gptq, gptq.py.

    dialect          Hessian     damp           order         statistics  ranges   not definite
    (none)           sum         .01            natural       fresh       format   RangeError
    ist              running     .01            natural       stale       ist      RangeError
    gptqmodel        sum         .05, + .01     group-aware   stale       ist      more damping, up to 1
    llm-compressor   sequences   .01            activation    static      format   plain rounding

"static" finds all scales from the original weights. With "activation" the first two make g_idx, the last does not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from refquant.column_grids import ColumnGrids, group_size
from refquant.column_order import column_order
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.factor import inverse_factor, subtract_product
from refquant.hessian import Hessian, damped, hessian_of, revive_dead
from refquant.inputs import as_float32
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor

CHUNK = 16  # columns between two matrix products inside a block


@dataclass(frozen=True, slots=True)
class Settings:
    """What the page above leaves open, as values."""

    hessian: str = "sum"  # hessian.RULES, where inputs are given and no Hessian
    damp: float = 0.01
    damp_step: float = 0.0  # > 0: what is added to damp, below 1, until H is positive definite
    order: str = "natural"  # column_order.ORDERS
    static_groups: bool = False
    statistics: str = "fresh"  # column_grids.STATISTICS, of groups that are not static
    ranges: str = "format"  # column_grids.RANGES
    search: str = ""  # a range search of observers.mean_squared_error: "gptq" is IST's --mse
    fallback: str = "raise"  # or "nearest"
    block: int = 128
    precision: str = "fast"  # or "exact"

    def __post_init__(self):
        if not 0 <= self.damp < 1 or not 0 <= self.damp_step < 1:
            raise RangeError(f"gptq: damp, damp_step = {self.damp}, {self.damp_step}, expected numbers in [0, 1)")
        if self.precision not in ("fast", "exact") or self.fallback not in ("raise", "nearest"):
            raise RangeError(
                f"gptq: precision, fallback = {self.precision!r}, {self.fallback!r}, "
                "expected 'fast' or 'exact', 'raise' or 'nearest'"
            )

    @property
    def exact(self) -> bool:
        """float64 in a fixed order."""
        return self.precision == "exact"

    @property
    def dtype(self) -> type[np.floating]:
        """Of the arithmetic."""
        return np.float64 if self.exact else np.float32


DIALECTS: dict[str, dict[str, object]] = {
    "ist": {"hessian": "running", "statistics": "stale", "ranges": "ist"},
    "gptqmodel": {"damp": 0.05, "damp_step": 0.01, "order": "group-aware", "statistics": "stale", "ranges": "ist"},
    "llm-compressor": {
        "hessian": "sequences",
        "order": "activation",
        "static_groups": True,
        "fallback": "nearest",
    },
}


def quantize(
    W: np.ndarray,
    scheme: Scheme | str,
    calibration: np.ndarray | Hessian | Iterable[np.ndarray],
    *,
    dialect: str = "",
    **options: object,
) -> QuantizedTensor:
    """Quantize W (out, in) to a linear, codebook, fp8, mx or nvfp4 format so that X W^T changes little.

    calibration  X (tokens, in) or (batch, tokens, in), an iterable of such batches, or a Hessian
    options      fields of Settings; they win over the dialect's

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, UnsupportedError, QuantError.
    """
    settings = settings_of("gptq", Settings(), DIALECTS, dialect, options)
    W, scheme = weights("gptq.quantize", W), parse(scheme)
    H = hessian_of("gptq.quantize", calibration, settings.hessian, settings.exact, W.shape[1])
    H, dead = revive_dead(H)
    order = column_order(settings.order, np.diagonal(H), group_size(W.shape, scheme))
    W = np.where(dead, np.float32(0), W)
    grids = ColumnGrids(
        W,
        scheme,
        order,
        static=settings.static_groups,
        ranges=settings.ranges,
        search=settings.search,
        dtype=settings.dtype,
    )
    U = damped_factor(H[order][:, order], settings)
    columns = np.ascontiguousarray(W.T[order], dtype=settings.dtype)
    codes, _ = sweep(columns, U, grids, grids.edges(settings.block, settings.statistics), settings.exact)
    return grids.tensor(codes)


def sweep(
    columns: np.ndarray, U: np.ndarray, grids: ColumnGrids, edges: list[int], exact: bool
) -> tuple[np.ndarray, float]:
    """The loop above on columns (in, out), in the order of the sweep; they become what was rounded, errors included.

    Returns codes (in, out) and the loss sum((w - q)^2 / U_jj^2) / 2, which is the increase of E in units of 1 / 2.
    """
    codes, errors = np.empty(columns.shape, np.int16), np.empty_like(columns)
    taken = np.zeros(len(columns), np.intp)  # of how many columns each one has taken in the errors
    for first, last in pairwise(edges):
        _take_in(columns, U, errors, taken, first, grids.reach(first, last), exact)
        grids.enter(first, last, columns)
        for start in range(first, last, CHUNK):
            stop = min(start + CHUNK, last)
            for j in range(start, stop):
                w, grid = columns[j], grids[j]
                q = grid.codes(w)
                codes[j] = q
                errors[j] = (w - grid.values(q)) / U[j, j]
                columns[j + 1 : stop] -= U[j, j + 1 : stop, None] * errors[j]
            subtract_product(columns[stop:last], U[start:stop, stop:last].T, errors[start:stop], exact)
    return codes, float(np.sum(np.square(errors), dtype=np.float64)) / 2


def _take_in(
    columns: np.ndarray, U: np.ndarray, errors: np.ndarray, taken: np.ndarray, first: int, reach: int, exact: bool
) -> None:
    """Columns first..reach-1 take in the errors of all columns before `first` that they have not seen yet.

    Each block asks for its errors when it begins, in place of every block handing them on to all others when it ends:
    the same products in the same order, and far less memory is written.
    """
    bounds = [first, *(first + 1 + np.flatnonzero(np.diff(taken[first:reach]))), reach]
    for begin, end in pairwise(bounds):  # runs of columns that have seen as many
        seen = taken[begin]
        subtract_product(columns[begin:end], U[seen:first, begin:end].T, errors[seen:first], exact)
    taken[first:reach] = first


def damped_factor(H: np.ndarray, settings: Settings) -> np.ndarray:
    """U with (H + damping)^-1 = U^T U, by the settings' way out where H is not positive definite."""
    damp = settings.damp
    while True:
        try:
            return inverse_factor(damped(H, damp), settings.exact)
        except RangeError:
            damp += settings.damp_step
            if settings.damp_step and damp < 1:
                continue
            if settings.fallback == "nearest":
                return np.eye(len(H), dtype=settings.dtype)
            raise


def weights(where: str, W: np.ndarray) -> np.ndarray:
    """W as float32 (out, in). Raises ShapeError, NonFiniteError, RangeError, QuantError."""
    W = as_float32(where, W, "W")
    if W.ndim != 2:
        raise ShapeError(f"{where}: W.shape = {W.shape}, expected (out, in)")
    return W


def settings_of(
    where: str,
    defaults: Settings,
    dialects: dict[str, dict[str, object]],
    dialect: str,
    options: dict[str, object],
) -> Settings:
    """`defaults` with the values of a dialect and of options. Raises SchemeError for unknown ones."""
    if dialect and dialect not in dialects:
        raise SchemeError(f"{where}: dialect = {dialect!r}, expected one of {list(dialects)}")
    known = defaults.__dataclass_fields__
    unknown = [name for name in options if name not in known]
    if unknown:
        raise SchemeError(f"{where}: option {unknown[0]} is unknown, expected one of {list(known)}")
    return replace(defaults, **{**dialects.get(dialect, {}), **options})
