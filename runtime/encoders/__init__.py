"""Every encoder of `refquant.gguf`, compiled: the same bytes, many times as fast.

    quantize(x, "Q4_K", imatrix=None, threads=1)      whole arrays, as `refquant.gguf.quantize`
    RowEncoder("Q4_K", n, imatrix)(x)                 rows of n weights, from any number of threads at once
    ENCODERS                                          which functions stand behind the name of a type

A twin is spelled independently of its page in refquant and gives every byte of it: the tests compare them. Scale
searches run on sixteen blocks at a time (`lanes`), look-ups in the grids of the I-quants block by block (`lattices`).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, ShapeError, UnsupportedError, require_finite, require_multiple
from refquant.gguf import FORMATS
from runtime.encoders import few_bits, i_quants, iq1, iq4, k_quants, k_weighted, lattices, legacy, legacy_weighted
from runtime.encoders.signatures import SCRATCH
from runtime.jit import Compiled

LANES = 16
SLAB = 1 << 18  # weights that `quantize` gives to a thread at a time


@dataclass(frozen=True, slots=True)
class Encoder:
    """What encodes a type. The compiled functions of the types with a grid go block by block, all others by lanes."""

    plain: Compiled | None  # absent where ggml wants importance
    weighted: Compiled | None = None  # absent where ggml ignores importance
    grid: str | None = None
    of_rows: bool = False  # the weighted search looks at the mean square of the whole row


def _both(function: Compiled, grid: str | None = None) -> Encoder:
    return Encoder(function, function, grid)


ENCODERS = {
    "Q4_0": Encoder(legacy.encode_q4_0, legacy_weighted.encode_q4_0, of_rows=True),
    "Q4_1": Encoder(legacy.encode_q4_1, legacy_weighted.encode_q4_1, of_rows=True),
    "Q5_0": Encoder(legacy.encode_q5_0, legacy_weighted.encode_q5_0, of_rows=True),
    "Q5_1": Encoder(legacy.encode_q5_1, legacy_weighted.encode_q5_1, of_rows=True),
    "Q8_0": Encoder(legacy.encode_q8_0),
    "Q8_1": Encoder(legacy.encode_q8_1),
    "Q2_K": Encoder(k_quants.encode_q2_k, k_weighted.encode_q2_k),
    "Q3_K": Encoder(k_quants.encode_q3_k, k_weighted.encode_q3_k),
    "Q4_K": Encoder(k_quants.encode_q4_k, k_weighted.encode_q4_k),
    "Q5_K": Encoder(k_quants.encode_q5_k, k_weighted.encode_q5_k),
    "Q6_K": Encoder(k_quants.encode_q6_k, k_weighted.encode_q6_k),
    "Q8_K": Encoder(k_quants.encode_q8_k),
    "IQ2_XXS": Encoder(None, i_quants.encode_iq2_xxs, "IQ2_XXS"),
    "IQ2_XS": Encoder(None, i_quants.encode_iq2_xs, "IQ2_XS"),
    "IQ2_S": _both(i_quants.encode_iq2_s, "IQ2_S"),
    "IQ3_XXS": _both(i_quants.encode_iq3_xxs, "IQ3_XXS"),
    "IQ3_S": _both(i_quants.encode_iq3_s, "IQ3_S"),
    "IQ1_S": Encoder(None, iq1.encode_iq1_s, "IQ1_S"),
    "IQ1_M": _both(iq1.encode_iq1_m, "IQ1_S"),
    "IQ4_NL": _both(iq4.encode_iq4_nl),
    "IQ4_XS": _both(iq4.encode_iq4_xs),
    "TQ1_0": Encoder(few_bits.encode_tq1_0),
    "TQ2_0": Encoder(few_bits.encode_tq2_0),
    "MXFP4": Encoder(few_bits.encode_mxfp4),
    "NVFP4": Encoder(few_bits.encode_nvfp4),
    "Q1_0": Encoder(few_bits.encode_q1_0),
    "Q2_0": Encoder(few_bits.encode_q2_0),
}


class RowEncoder:
    """Rows of n weights to bytes of a block type. Holds nothing that a call changes, so threads may share one."""

    def __init__(self, type_name: str, n: int, imatrix: np.ndarray | None = None):
        """imatrix (n,) float >= 0. Raises UnsupportedError, ShapeError, RangeError, NonFiniteError."""
        if type_name not in ENCODERS:
            able = ", ".join(ENCODERS)
            raise UnsupportedError(f"RowEncoder: type_name = {type_name!r}, expected a block type: {able}")
        encoder, self.format = ENCODERS[type_name], FORMATS[type_name]
        require_multiple("RowEncoder", "n", n, self.format.values)
        if imatrix is None and encoder.plain is None:
            raise UnsupportedError(f"RowEncoder: imatrix = None, expected importance, which {type_name} needs")
        self.n, self.per_row = n, n // self.format.values
        weighted = imatrix is not None and encoder.weighted is not None
        self.function = encoder.weighted if weighted else encoder.plain
        self._of_rows = weighted and encoder.of_rows
        self._grid = encoder.grid
        self._importance = np.zeros((0, self.format.values), np.float32)
        if weighted:
            self._importance = self._columns(_checked(imatrix, n))

    def _columns(self, imatrix: np.ndarray) -> np.ndarray:
        """(blocks of a row, values), and where blocks go by lanes the first 15 once more."""
        rows = imatrix.reshape(self.per_row, self.format.values)
        count = self.per_row if self._grid else self.per_row + LANES - 1
        return np.ascontiguousarray(np.resize(rows, (count, self.format.values)))

    @property
    def kernels(self) -> list[Compiled]:
        """What a call runs."""
        return [self.function, *([legacy_weighted.mean_squares] if self._of_rows else [])]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """x (rows, n) float32, finite, contiguous and writable memory -> (rows, row bytes) uint8. Raises RangeError
        for weights on which ggml aborts (I-quants)."""
        blocks = x.reshape(-1, self.format.values)
        out = np.empty((len(blocks), self.format.block_bytes), np.uint8)
        if self._grid:
            tables = lattices.tables(self._grid)
            failed = self.function(blocks, out, self._importance, 0, *tables)
            if failed:
                peak = np.abs(blocks[failed - 1]).max()
                raise RangeError(
                    f"{self.format.name}.encode: max|x| = {peak}, expected weights whose errors stay within float32"
                )
        else:
            self._by_lanes(blocks, out, self._mean_squares(x))
        return out.reshape(len(x), self.per_row * self.format.block_bytes)

    def _mean_squares(self, x: np.ndarray) -> np.ndarray:
        """One for each block, or none."""
        if not self._of_rows:
            return np.zeros(0, np.float32)
        means = np.empty(len(x), np.float32)
        legacy_weighted.mean_squares(x, means)
        return means.repeat(self.per_row)

    def _by_lanes(self, x: np.ndarray, y: np.ndarray, sigma2: np.ndarray) -> None:
        """Sixteen blocks at a time; blocks of zeros fill the last sixteen up."""
        reals, integers = np.empty((SCRATCH, LANES), np.float32), np.empty((SCRATCH, LANES), np.int32)
        whole = len(x) // LANES * LANES
        rest = len(x) - whole
        self.function(x[:whole], y[:whole], self._importance, sigma2[:whole], 0, reals, integers)
        if rest:
            last, out = np.zeros((LANES, x.shape[1]), np.float32), np.empty((LANES, y.shape[1]), np.uint8)
            last[:rest] = x[whole:]
            its_sigma2 = np.zeros(LANES if self._of_rows else 0, np.float32)
            its_sigma2[:rest] = sigma2[whole:]
            self.function(last, out, self._importance, its_sigma2, whole % self.per_row, reals, integers)
            y[whole:] = out[:rest]


def quantize(x: np.ndarray, type_name: str, imatrix: np.ndarray | None = None, threads: int = 1) -> np.ndarray:
    """Encode x (..., n) float as ggml stores it -> (..., row bytes) uint8: `refquant.gguf.quantize` for block types.

    Raises UnsupportedError, ShapeError, NonFiniteError, RangeError.
    """
    x = np.asarray(x)
    if x.dtype.kind != "f" or x.ndim == 0:
        raise ShapeError(f"encoders.quantize: x = {x.dtype} of {x.ndim} axes, expected rows of floats")
    require_finite("encoders.quantize", x)
    if x.dtype.itemsize > 4 and x.size and np.abs(x).max() > np.finfo(np.float32).max:
        raise RangeError(f"encoders.quantize: max|x| = {np.abs(x).max()}, expected a value within float32")
    encode = RowEncoder(type_name, x.shape[-1], imatrix)
    rows = x.reshape(-1, x.shape[-1])
    step = max(1, SLAB // x.shape[-1])

    def part(start: int) -> np.ndarray:
        return encode(np.array(rows[start : start + step], np.float32, order="C"))

    for kernel in encode.kernels:
        _ = kernel.code  # compiled once, not by every thread
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(part, range(0, len(rows), step)))
    width = encode.per_row * encode.format.block_bytes
    return np.concatenate([np.empty((0, width), np.uint8), *parts]).reshape(*x.shape[:-1], width)


def _checked(imatrix: np.ndarray, n: int) -> np.ndarray:
    """Importance as float32 (n,)."""
    imatrix = np.asarray(imatrix)
    if imatrix.shape != (n,) or imatrix.dtype.kind != "f":
        raise ShapeError(f"RowEncoder: imatrix = {imatrix.dtype} {imatrix.shape}, expected floats ({n},)")
    require_finite("RowEncoder", imatrix, "imatrix")
    if imatrix.size and imatrix.min() < 0:
        raise RangeError(f"RowEncoder: min(imatrix) = {imatrix.min()}, expected values of at least 0")
    return imatrix.astype(np.float32)
