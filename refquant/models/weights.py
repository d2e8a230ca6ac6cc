"""The weights of a model as floating-point arrays, decoded when they are asked for.

Memory   keep=True holds every tensor once decoded: 4 bytes a weight in float32, 8 in float64, for a 7 B model 28 or
         56 GB. keep=False holds none: a step decodes every matrix again and needs memory for the largest one.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf import dequantize

if TYPE_CHECKING:
    from refquant.gguf import Tensor


class Weights:
    """Tensors of a file by name: `weights[name]` is a finite array of the tensor's shape in `dtype`."""

    def __init__(self, tensors: Mapping[str, "Tensor"], dtype: type[np.floating], keep: bool):
        self._tensors, self._dtype, self._keep = tensors, dtype, keep
        self._kept: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self._kept:
            return self._kept[name]
        tensor = self._tensors[name]
        weight = self._decode(tensor, tensor.data).reshape(tensor.shape)
        if self._keep:
            self._kept[name] = weight
        return weight

    def optional(self, name: str) -> np.ndarray | None:
        """The tensor, or None where the file has none of this name."""
        return self[name] if name in self._tensors else None

    def expert(self, name: str, index: int) -> np.ndarray:
        """One matrix (out, in) of a tensor (experts, out, in); without keep, only this one is decoded."""
        if self._keep:
            return self[name][index]
        return self.rows(name, np.array([index])).reshape(self._tensors[name].shape[1:])

    def rows(self, name: str, indices: np.ndarray) -> np.ndarray:
        """The rows of a matrix that `indices` name, (len(indices), in); only these are decoded."""
        tensor = self._tensors[name]
        return self._decode(tensor, tensor.data[indices]).reshape(len(indices), -1)

    def _decode(self, tensor: "Tensor", data: np.ndarray) -> np.ndarray:
        weight = dequantize(data, tensor.type)
        if not np.isfinite(weight).all():
            raise GGUFError(f"{tensor.path}: {tensor.name} holds NaN or infinity, expected finite weights")
        return weight.astype(self._dtype, copy=False)
