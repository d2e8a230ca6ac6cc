"""Codes with a correction: what some methods store beside the codes to come closer to the weights.

    W^ = decode(codes) / channel_scale + up @ down        then the sparse entries replace what stands in their place

    extras           shape                          who
    channel_scale    (in,) float32                  awq.py, smoothquant.py: the codes are those of W * channel_scale
    up, down         (out, rank), (rank, in)        low_rank.py
    sparse_start     (out + 1,) int32               sparse_split.py, easyquant.py: row r owns entries
    sparse_columns   (entries,) int32               sparse_start[r] .. sparse_start[r + 1] - 1, columns ascending
    sparse_values    (entries,) float32 or float16

A runtime folds channel_scale into the layer before (awq.fold_norm, fold_rows) and then multiplies by plain codes.
Arithmetic   float32, in the order of the formula. nbytes counts all of these at their width.
"""

from dataclasses import fields
from types import MappingProxyType

import numpy as np

from refquant.errors import ShapeError
from refquant.tensor import QuantizedTensor

CORRECTIONS = ("channel_scale", "up", "down", "sparse_start", "sparse_columns", "sparse_values")


class CompensatedTensor(QuantizedTensor):
    """A QuantizedTensor whose extras hold any of the corrections above."""

    __slots__ = ()

    def dequantize(self) -> np.ndarray:
        """W^ by the formula above, float32 (out, in)."""
        W = self.without_correction().dequantize()
        extras = self.extras
        if "channel_scale" in extras:
            W /= extras["channel_scale"]
        if "up" in extras:
            W += extras["up"].astype(np.float32) @ extras["down"].astype(np.float32)
        if "sparse_values" in extras:
            rows = np.repeat(np.arange(len(W)), np.diff(extras["sparse_start"]))
            W[rows, extras["sparse_columns"]] = extras["sparse_values"]
        return W

    def without_correction(self) -> QuantizedTensor:
        """What the codes alone stand for."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["extras"] = {name: a for name, a in self.extras.items() if name not in CORRECTIONS}
        return QuantizedTensor(**values)


def compensate(tensor: QuantizedTensor, **corrections: np.ndarray) -> CompensatedTensor:
    """The same codes with corrections, by the names above. Raises ShapeError for others or for wrong shapes."""
    out, n = tensor.shape
    unknown = sorted(set(corrections) - set(CORRECTIONS))
    if unknown:
        raise ShapeError(f"compensate: correction = {unknown[0]!r}, expected one of {', '.join(CORRECTIONS)}")
    rank = corrections["up"].shape[-1] if "up" in corrections else 0
    entries = corrections["sparse_values"].size if "sparse_values" in corrections else 0
    wanted = {"channel_scale": (n,), "up": (out, rank), "down": (rank, n), "sparse_start": (out + 1,)}
    for name, array in corrections.items():
        shape = wanted.get(name, (entries,))
        if array.shape != shape:
            raise ShapeError(f"compensate: {name}.shape = {array.shape}, expected {shape}")
    values = {f.name: getattr(tensor, f.name) for f in fields(tensor)}
    values["extras"] = MappingProxyType({**tensor.extras, **corrections})
    return CompensatedTensor(**values)


def sparse(mask: np.ndarray, W: np.ndarray, dtype: type[np.floating] = np.float32) -> dict[str, np.ndarray]:
    """The entries of W (out, in) where mask is true, as the three arrays above."""
    rows, columns = np.nonzero(mask)
    start = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(W)))])
    return {
        "sparse_start": start.astype(np.int32),
        "sparse_columns": columns.astype(np.int32),
        "sparse_values": W[rows, columns].astype(dtype),
    }
