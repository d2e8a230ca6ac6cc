"""A model that was opened and checked: its sizes, and its tensors by Hugging Face's names, still in their files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import QuantError
from refquant.layouts.arrays import floats
from refquant.layouts.catalogue import Record
from refquant.layouts.safetensors_file import Tensor
from refquant.models import ModelConfig


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A folder, or a GGUF file. `tensors` are read-only views of the mapped files, or of float32 decoded when read."""

    path: Path
    config: Mapping[str, Any]  # config.json
    model: ModelConfig
    tensors: Mapping[str, Tensor]
    files: Mapping[str, str]  # tensor -> name of its file
    unused: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)  # files of a tokenizer that the model has in another form
    warnings: tuple[str, ...] = ()
    vocabulary: Mapping[str, tuple[str, Any]] | None = None  # tokenizer.* of GGUF, where the model is one
    source: object = None  # what keeps the files open

    @property
    def kind(self) -> str:
        """model_type of config.json."""
        return self.config["model_type"]

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(tensor.data.size for tensor in self.tensors.values())

    @property
    def file_states(self) -> dict[str, list[int]]:
        """Sizes and times of the files."""
        folder = self.path if self.path.is_dir() else self.path.parent
        states = {name: (folder / name).stat() for name in sorted(set(self.files.values()))}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in states.items()}

    @property
    def stamp(self) -> str:
        """Another one for other files."""
        return hashlib.sha256(json.dumps(self.file_states).encode()).hexdigest()

    def record(self, name: str) -> Record | None:
        """The codes and scales of a weight that is quantized already, else None."""
        data = self.tensors[name].data
        return None if isinstance(data, np.ndarray) else data.record()

    def weight(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """A tensor, or some of its rows, as a new float32 array. Raises QuantError (unknown, NaN, infinity)."""
        if name not in self.tensors:
            raise QuantError(f"{self.path}: tensor {name!r} is missing, expected it in one of the files")
        x, _ = floats(self.tensors[name].data[rows])
        if not np.isfinite(x).all():
            file = self.path / self.files[name] if self.path.is_dir() else self.path
            raise QuantError(f"{file}: {name} holds NaN or infinity, expected finite weights")
        return x

    def dtype(self, name: str) -> str:
        """float32, float16 or bfloat16."""
        return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[self.tensors[name].dtype]
