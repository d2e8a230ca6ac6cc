"""The plan of quantizing a model file: which tensor becomes which type, and what the new file says about itself.

    plan = make_plan(file, lookup("Q4_K_M"), Choices(), importance)      nothing is read or written yet

Order      tensors by `file_types.file_order`, or as they lie in the files of a model that stays split; metadata as in
           the input without split.*, then general.quantization_version, general.file_type, and what the importance
           matrix has to say.
Source     llama.cpp, src/llama-quant.cpp, llama_model_quantize_impl; tools/quantize/quantize.cpp.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, UnsupportedError
from refquant.gguf import FORMATS, GGUFFile, Tensor
from refquant.gguf.file_types import (
    TOKEN_EMBEDDINGS,
    Choices,
    FileType,
    Model,
    file_order,
    needs_imatrix,
    select,
)
from refquant.gguf.splits import COUNT, NO, TOTAL

QUANTIZATION_VERSION = 2


@dataclass(frozen=True, slots=True, eq=False)
class Conversion:
    """One tensor: what it is and what it becomes."""

    tensor: Tensor
    shape: tuple[int, ...]  # NumPy order, without axes of length 1 in front
    type: str
    importance: np.ndarray | None  # (matrices, n) float32
    shard: int = 0

    @property
    def name(self) -> str:
        return self.tensor.name

    @property
    def is_copy(self) -> bool:
        return self.type == self.tensor.type

    @property
    def nbytes(self) -> int:
        """Bytes of the result."""
        return self.rows * self.row_bytes

    @property
    def rows(self) -> int:
        return int(np.prod(self.shape[:-1], dtype=np.int64))

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // FORMATS[self.type].values * FORMATS[self.type].block_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """Everything that will happen, in order."""

    source: GGUFFile
    file_type: FileType
    conversions: tuple[Conversion, ...]
    metadata: dict[str, object]
    types: dict[str, str]
    shards: int  # 0: one file; else as many as the input had, by name

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors of the result."""
        return sum(conversion.nbytes for conversion in self.conversions)

    @property
    def source_nbytes(self) -> int:
        return sum(conversion.tensor.nbytes for conversion in self.conversions)

    @property
    def n_weights(self) -> int:
        return sum(conversion.rows * conversion.shape[-1] for conversion in self.conversions)


@dataclass(frozen=True, slots=True, eq=False)
class Importance:
    """An importance matrix, and what the file shall say about where it is from."""

    weights: Mapping[str, np.ndarray]  # {name of a tensor: (matrices, n) float32}
    path: str
    dataset: str | None
    chunks: int


def make_plan(
    source: GGUFFile,
    file_type: FileType,
    choices: Choices | None = None,
    importance: Importance | None = None,
    *,
    allow_requantize: bool = False,
    keep_split: bool = False,
    only_copy: bool = False,
    dry_run: bool = False,
) -> Plan:
    """Choose the types and check that all of it can be done. A dry run needs neither importance nor permission.

    Raises UnsupportedError (importance missing, a quantized source, no fitting type), RangeError (metadata, importance
    of another size).
    """
    model = Model.from_metadata(source.metadata)
    names = sorted(source.tensors, key=file_order)
    shards = _shards(source)
    if keep_split:  # as they lie in the files
        names = sorted(source.tensors, key=lambda name: (shards[name], source.tensors[name].offset))
    shapes = {name: _shape(source.tensors[name].shape) for name in names}
    given = {name: (shapes[name], source.tensors[name].type) for name in names}
    chosen = choices or Choices()
    if only_copy:
        types = {name: type for name, (_, type) in given.items()}
    else:
        types = select(given, file_type, model, chosen, has_imatrix=importance is not None)
    conversions = []
    for name in names:
        tensor, values = source.tensors[name], None
        if not (only_copy or types[name] == tensor.type):
            values = _importance_of(name, shapes[name], importance)
            if not dry_run:
                _check(name, tensor.type, types[name], values, file_type, allow_requantize)
        conversions.append(Conversion(tensor, shapes[name], types[name], values, shards[name] if keep_split else 0))
    metadata, value_types = _metadata(source, file_type, importance, only_copy)
    count = 1 + max(shards.values(), default=0) if keep_split else 0
    return Plan(source, file_type, tuple(conversions), metadata, value_types, count)


def _shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without axes of length 1 in front, as ggml counts axes; a single number has one."""
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return shape or (1,)


def _shards(source: GGUFFile) -> dict[str, int]:
    paths = sorted({tensor.path for tensor in source.tensors.values()})
    return {name: paths.index(tensor.path) for name, tensor in source.tensors.items()}


def _importance_of(name: str, shape: tuple[int, ...], importance: Importance | None) -> np.ndarray | None:
    """(matrices, n), one for each expert."""
    values = None if importance is None else importance.weights.get(name)
    if values is None:
        return None
    matrices = shape[-3] if len(shape) > 2 else 1
    if values.size == matrices * shape[-1]:
        return values.reshape(matrices, shape[-1])
    if name in TOKEN_EMBEDDINGS:
        return None
    raise RangeError(
        f"importance matrix: values for {name} = {values.size}, expected {matrices * shape[-1]}, the tensor's columns"
    )


def _check(name: str, source: str, type: str, values: object, file_type: FileType, allow_requantize: bool) -> None:
    if values is None and needs_imatrix(name, type, file_type):
        raise UnsupportedError(
            f"quantize: {name} as {type}: importance = none, expected an importance matrix (--imatrix) for so few bits"
        )
    if not FORMATS[source].is_scalar and not allow_requantize:
        raise UnsupportedError(
            f"quantize: {name}: type = {source}, expected F32, F16 or BF16; --allow-requantize loses what {source} lost"
        )


def _metadata(
    source: GGUFFile, file_type: FileType, importance: Importance | None, only_copy: bool
) -> tuple[dict[str, object], dict[str, str]]:
    number = source.metadata.get("general.file_type", file_type.number) if only_copy else file_type.number
    added: dict[str, tuple[object, str]] = {
        "general.quantization_version": (QUANTIZATION_VERSION, "u32"),
        "general.file_type": (number, "u32"),
    }
    if importance is not None:
        added["quantize.imatrix.file"] = _cut(importance.path), "str"
        if importance.dataset is not None:
            added["quantize.imatrix.dataset"] = _cut(importance.dataset), "str"
        added["quantize.imatrix.entries_count"] = len(importance.weights), "u32"
        if importance.chunks > 0:
            added["quantize.imatrix.chunks_count"] = importance.chunks, "u32"
    dropped = {NO, COUNT, TOTAL, *added}
    metadata = {key: value for key, value in source.metadata.items() if key not in dropped}
    types = {key: type for key, type in source.types.items() if key in metadata}
    metadata |= {key: value for key, (value, _) in added.items()}
    return metadata, types | {key: type for key, (_, type) in added.items()}


def _cut(text: str) -> str:
    """What fits into the 128 bytes that llama.cpp has for it."""
    return text.encode("utf-8", "surrogateescape")[:127].decode("utf-8", "surrogateescape")
