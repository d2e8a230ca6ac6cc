"""A Hugging Face folder as one GGUF file, in any type or mix of types.

    convert_to_gguf("Qwen2.5-0.5B", "out.gguf", "BF16")        F32 F16 BF16, every ggml type, every file type (Q4_K_M)

Tensors   get the names of GGUF (architecture.py). Vectors and the router of experts stay float32; matrices get the type
          that `gguf.file_types` chooses for the mix; experts of one layer are stacked (experts, out, in).
Rows      of q and k of a llama are put in another order: Hugging Face rotates element i with i + d/2, ggml's "norm"
          rope 2i with 2i + 1. A head's rows 0, d/2, 1, d/2 + 1 ... come after each other.
Bytes     F32, F16, BF16: the values, rounded to nearest even where they must be; others: refquant.gguf's encoders, or
          `encoders`, a table {type: function(x, imatrix=...) -> bytes} of faster ones that give the same.
Order     as llama.cpp sorts them (file_types.file_order). A few rows are in memory at a time.
Source    llama.cpp, convert_hf_to_gguf.py.
"""

import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from refquant import gguf
from refquant.errors import SchemeError, UnsupportedError
from refquant.gguf import FORMATS
from refquant.gguf.file_types import FILE_TYPES, Choices, FileType, Model, file_order, lookup, needs_imatrix, select
from refquant.gguf.writer import create
from refquant.models import ModelConfig, expected_tensors
from refquant.pipeline import architecture, vocabulary
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint

SLAB = 1 << 20  # weights at a time
GUESSED = 1024  # general.file_type of what has no number of its own
QUANTIZATION_VERSION = 2
Encoder = Callable[..., np.ndarray]
Progress = Callable[[str, int, int], None]


def convert_to_gguf(
    source: str | os.PathLike | Checkpoint,
    path: str | os.PathLike,
    file_type: str = "BF16",
    *,
    choices: Choices | None = None,
    encoders: Mapping[str, Encoder] | None = None,
    importance: Mapping[str, np.ndarray] | None = None,
    name: str | None = None,
    with_vocabulary: bool = True,
    progress: Progress | None = None,
) -> None:
    """Write the folder (or open Checkpoint) `source` as the GGUF file `path`, which appears when it is complete.

    file_type        a file type ("Q4_K_M") or a type ("NVFP4") for all matrices; `choices` for single tensors
    encoders         {type: function(x (rows, n) float32, imatrix=None or (n,)) -> uint8 (rows, row bytes)}
    importance       {tensor of GGUF: (n,) or (experts, n)}, needed by the smallest types
    name             general.name; the folder's where None
    with_vocabulary  False leaves the tokenizer out
    progress         is told ("convert", weights done, weights in all)

    Raises QuantError and its kinds, OSError.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    mix, chosen = _mix(file_type, choices)
    entries = metadata(checkpoint, mix, name, with_vocabulary)
    values = {key: value for key, (_, value) in entries.items()}
    shapes = tensor_shapes(checkpoint)
    types = select({n: (s, "F32") for n, s in shapes.items()}, mix, Model.from_metadata(values), chosen)
    for n, t in types.items():
        if needs_imatrix(n, t, mix) and (importance is None or n not in importance):
            raise UnsupportedError(f"to_gguf: {n} as {t}: importance = none, expected it for so few bits")
    total, done = sum(int(np.prod(s)) for s in shapes.values()), 0
    layout = {n: (s, types[n]) for n, s in shapes.items()}
    with create(path, values, layout, {key: kind for key, (kind, _) in entries.items()}) as file:
        for n, shape in shapes.items():
            at, encode = 0, _encoder(types[n], encoders)
            for expert, x in _slabs(checkpoint, n, shape):
                data = encode(x, imatrix=_importance(importance, n, expert))
                flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
                file.put(n, at, flat)
                at, done = at + flat.size, done + x.size
                if progress is not None:
                    progress("convert", done, total)


def metadata(
    checkpoint: Checkpoint, file_type: FileType, name: str | None = None, with_vocabulary: bool = True
) -> dict[str, tuple[str, object]]:
    """{key: (type, value)} of the whole file."""
    said = architecture.metadata(checkpoint.path / "config.json", checkpoint.config)
    arch = said.pop("general.architecture")
    entries: dict[str, tuple[str, object]] = {
        "general.architecture": arch,
        "general.type": ("str", "model"),
        "general.name": ("str", name or checkpoint.path.resolve().name),
        **said,
        "general.file_type": ("u32", file_type.number),
        "general.quantization_version": ("u32", QUANTIZATION_VERSION),
    }
    if with_vocabulary:
        entries |= vocabulary.metadata(checkpoint.path, checkpoint.config, checkpoint.model.n_vocab)
    return entries


def tensor_shapes(checkpoint: Checkpoint) -> dict[str, tuple[int, ...]]:
    """Names of GGUF and shapes of what the folder holds, in the order of the file."""
    required, optional = expected_tensors(checkpoint.model)
    shapes = {}
    for name, shape in (required | optional).items():
        names = architecture.sources(name, checkpoint.model, checkpoint.kind)
        if names and all(source in checkpoint.tensors for source in names):
            shapes[name] = shape
    if architecture.rope_divisors(checkpoint.path, checkpoint.config) is not None:
        shapes["rope_freqs.weight"] = (checkpoint.model.rope_dim // 2,)
    return {name: shapes[name] for name in sorted(shapes, key=file_order)}


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows (heads * d, ...) of q or k in the order of ggml's "norm" rope: of every head 0, d/2, 1, d/2 + 1, ..."""
    halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


def heads_to_permute(name: str, config: ModelConfig) -> int:
    """How many heads the rows of a tensor of GGUF belong to where they change places, else 0."""
    part = name.split(".")[-2]
    return {"attn_q": config.n_head, "attn_k": config.n_head_kv}.get(part, 0) if config.rope_style == "norm" else 0


def _slabs(checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Iterator[tuple[int, np.ndarray]]:
    """(expert, rows (rows, n) float32) of a tensor, in the order of the file."""
    names = architecture.sources(name, checkpoint.model, checkpoint.kind)
    if not names:
        yield 0, architecture.rope_divisors(checkpoint.path, checkpoint.config)[None]
        return
    heads = heads_to_permute(name, checkpoint.model)
    for expert, source in enumerate(names):
        count = len(checkpoint.tensors[source].data)
        step = count if heads or len(shape) == 1 else max(1, SLAB // shape[-1])
        for first in range(0, count, step):
            x = checkpoint.weight(source, slice(first, first + step))
            x = permuted(x, heads) if heads else x
            yield expert, x.reshape(-1, shape[-1])


def _encoder(type_name: str, encoders: Mapping[str, Encoder] | None) -> Encoder:
    given = (encoders or {}).get(type_name)
    if given is not None:
        return given
    return lambda x, imatrix=None: gguf.quantize(x, type_name, imatrix)


def _importance(importance: Mapping[str, np.ndarray] | None, name: str, expert: int) -> np.ndarray | None:
    values = None if importance is None else importance.get(name)
    return None if values is None else values[expert] if values.ndim == 2 else values


def _mix(name: str, choices: Choices | None) -> tuple[FileType, Choices]:
    """A file type by name, or a plain type for all matrices."""
    if name.upper() in FORMATS and name.upper() not in FILE_TYPES and FORMATS[name.upper()].encode is not None:
        return FileType(name.upper(), GUESSED, name.upper()), choices or Choices(pure=True)
    try:
        return lookup(name), choices or Choices()
    except SchemeError as error:
        raise SchemeError(f"to_gguf: {error}, or a type of ggml such as NVFP4") from error
