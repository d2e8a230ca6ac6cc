"""Difference of two model files: metadata, tensors, and within quantized blocks which fields differ.

    gguf_files(a, b)          two GGUF files
    safetensors_files(a, b)   two safetensors files

A tensor of the same type on both sides is compared field by field (of Q4_0: d and qs), in blocks; of different types by
the values that both decode to: the largest difference, and the root of the mean square relative to a's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant import gguf
from refquant.difference import PartDifference, between
from refquant.layouts import safetensors_file

ROWS = 1 << 12  # rows decoded at a time: memory stays small whatever the file


@dataclass(frozen=True, slots=True)
class TensorDifference:
    """A tensor that is not the same in both files. `parts` are fields of blocks, or the whole array."""

    name: str
    remark: str
    parts: tuple[PartDifference, ...] = ()


@dataclass(frozen=True, slots=True)
class FileDifference:
    """`metadata` has a line for each key that differs; `equal_tensors` are the same in every byte."""

    metadata: tuple[str, ...]
    tensors: tuple[TensorDifference, ...]
    equal_tensors: int

    @property
    def equal(self) -> bool:
        """The same metadata and tensors; order and padding of a file are not compared."""
        return not self.metadata and not self.tensors


def gguf_files(a: str | Path, b: str | Path) -> FileDifference:
    """Compare two GGUF files. Raises GGUFError."""
    with gguf.open(a) as left, gguf.open(b) as right:
        found = list(_tensors(left.tensors, right.tensors, _block_difference))
        same = len(left.tensors.keys() & right.tensors.keys()) - sum(t.remark[:4] != "only" for t in found)
        return FileDifference(tuple(_keys(left.metadata, right.metadata)), tuple(found), same)


def safetensors_files(a: str | Path, b: str | Path) -> FileDifference:
    """Compare two safetensors files. Raises QuantError."""
    left, right = safetensors_file.read(a), safetensors_file.read(b)
    found = list(_tensors(left.tensors, right.tensors, _array_difference))
    same = len(left.tensors.keys() & right.tensors.keys()) - sum(t.remark[:4] != "only" for t in found)
    return FileDifference(tuple(_keys(left.metadata, right.metadata)), tuple(found), same)


def _keys(a: Mapping[str, object], b: Mapping[str, object]) -> Iterator[str]:
    for key in dict.fromkeys([*a, *b]):
        if key not in a or key not in b:
            yield f"{key}: only in {'b' if key not in a else 'a'}"
        elif not np.array_equal(a[key], b[key]):
            yield f"{key}: {_short(a[key])} and {_short(b[key])}"


def _short(value: object) -> str:
    text = repr(value.tolist() if isinstance(value, np.ndarray) else value)
    return text if len(text) <= 60 else text[:57] + "..."


def _tensors(a: Mapping, b: Mapping, compare) -> Iterator[TensorDifference]:
    for name in dict.fromkeys([*a, *b]):
        if name not in a or name not in b:
            yield TensorDifference(name, f"only in {'b' if name not in a else 'a'}")
        else:
            found = compare(name, a[name], b[name])
            if found is not None:
                yield found


def _block_difference(name: str, a: gguf.Tensor, b: gguf.Tensor) -> TensorDifference | None:
    if a.shape != b.shape:
        return TensorDifference(name, f"shape {a.shape} and {b.shape}")
    if a.type != b.type:
        return TensorDifference(name, f"{a.type} and {b.type}: {_values(a, b)}")
    layout = gguf.FORMATS[a.type].layout
    if layout.names is None:
        parts = between({"values": a.data}, {"values": b.data}).parts
    else:
        left, right = (np.ascontiguousarray(t.data).reshape(-1).view(layout) for t in (a, b))
        parts = between(
            {field: left[field] for field in layout.names}, {field: right[field] for field in layout.names}
        ).parts
    return TensorDifference(name, a.type, parts) if any(part.differing for part in parts) else None


def _values(a: gguf.Tensor, b: gguf.Tensor) -> str:
    """How far two encodings of a tensor decode from each other."""
    largest, squares, power = 0.0, 0.0, 0.0
    left, right = (t.data.reshape(-1, t.data.shape[-1]) for t in (a, b))
    for first in range(0, len(left), ROWS):
        x = gguf.dequantize(left[first : first + ROWS], a.type).astype(np.float64)
        y = gguf.dequantize(right[first : first + ROWS], b.type).astype(np.float64)
        largest = max(largest, float(np.abs(x - y).max(initial=0)))
        squares, power = squares + float(((x - y) ** 2).sum()), power + float((x**2).sum())
    relative = (squares / power) ** 0.5 if power else 0.0
    return f"values differ by at most {largest:.4g}, relative RMS {relative:.4g}"


def _array_difference(name: str, a: safetensors_file.Tensor, b: safetensors_file.Tensor) -> TensorDifference | None:
    if a.dtype != b.dtype:
        return TensorDifference(name, f"{a.dtype} and {b.dtype}")
    parts = between({"values": a.data}, {"values": b.data}).parts
    return TensorDifference(name, a.dtype, parts) if any(part.differing for part in parts) else None
