"""A part of a job: one block of the model, or what is in no block, and the file of the result that it becomes.

A part is all that a worker is told: paths, names and the plan of its layers. It opens the model itself, once in a
process, and reads the weights of the block from there, or from what was written of it:

    folder/model-00003-of-00026.safetensors     the part, finished
    folder/scaled-00003.safetensors             weights that AWQ or SmoothQuant changed, float32, until it is
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.arrays import floats
from refquant.pipeline import architecture, block
from refquant.pipeline.configured import Stored
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint
from refquant.pipeline.recipe import Modifier


@dataclass(frozen=True, slots=True)
class Part:
    """Number `index` of all; see the module. Compared by what it says, so that workers know it again."""

    model: str  # path of the model
    stamp: str  # sizes and times of its files
    folder: str  # where the result is made
    index: int
    file: str
    is_block: bool
    names: Mapping[str, str]  # name without "model.layers.N." -> full name
    plan: Mapping[str, tuple[Modifier, Stored]]  # by the layer's full name
    floats: str = ""  # the safetensors dtype of what is not quantized; "": as in the model

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, opened once in a process."""
        return _opened(self.model, self.stamp)

    @property
    def path(self) -> Path:
        """The file of the result."""
        return Path(self.folder) / self.file

    @property
    def scaled(self) -> Path:
        """Weights that scaling has changed."""
        return Path(self.folder) / f"scaled-{self.index + 1:05d}.safetensors"

    @property
    def prefix(self) -> str:
        """What the names of a block begin with."""
        return f"model.layers.{self.index}." if self.is_block else ""

    def layer(self, short: str) -> str:
        """The full name of a layer, without `.weight`; "" for what is not in the plan."""
        name = self.names[short].removesuffix(".weight")
        return name if name != self.names[short] and name in self.plan else ""

    def weight(self, short: str) -> np.ndarray:
        """One tensor in float32, scaled where it was."""
        if self.scaled.is_file():
            tensors = safetensors_file.read(self.scaled).tensors
            if self.names[short] in tensors:
                return np.array(tensors[self.names[short]].data)
        return self.checkpoint.weight(self.names[short])

    def weights(self) -> dict[str, np.ndarray]:
        """All tensors in float32, scaled where they were; one block is kept in a process."""
        version = self.scaled.stat().st_mtime_ns if self.scaled.is_file() else 0
        key = self.folder, self.stamp, self.index, version
        return _KEPT.get(key, lambda: {short: self.weight(short) for short in self.names})

    def written(self) -> dict[str, np.ndarray]:
        """All tensors in float32 as the finished file has them."""
        version = self.path.stat().st_mtime_ns
        return _KEPT.get((self.folder, self.stamp, self.index, version, "written"), self._read_back)

    def record(self, layer: str) -> catalogue.Record:
        """A quantized layer of the finished file."""
        file, start = safetensors_file.read(self.path), f"{layer}."
        arrays = {n[len(start) :]: t.data for n, t in file.tensors.items() if n.startswith(start)}
        for other in ("bias", "input_global_scale"):
            arrays.pop(other, None)
        return catalogue.unpack(arrays, self.plan[layer][1].layout)

    def table(self, tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines and sines for sequences of at most so many tokens."""
        divisors = architecture.rope_divisors(self.model, self.checkpoint.config)
        return block.rope_table(self.checkpoint.model, divisors, tokens)

    def _read_back(self) -> dict[str, np.ndarray]:
        tensors, weights = safetensors_file.read(self.path).tensors, {}
        for short, full in self.names.items():
            layer = self.layer(short)
            weights[short] = self.record(layer).dequantize() if layer else floats(tensors[full].data)[0]
        return weights


class _Kept:
    """The last value by its key; threads that ask for the same wait for one of them to make it."""

    def __init__(self):
        self._lock, self._key, self._value = threading.Lock(), None, None

    def get(self, key: object, make: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
        with self._lock:
            if self._key != key:
                self._key = self._value = None  # two blocks are never in memory
                self._value, self._key = make(), key
            return self._value


_KEPT = _Kept()


@lru_cache(maxsize=1)
def _opened(model: str, stamp: str) -> Checkpoint:
    return open_checkpoint(model)
