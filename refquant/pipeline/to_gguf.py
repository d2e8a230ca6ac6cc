"""A Hugging Face folder as one GGUF file, in any type or mix of types.

    convert_to_gguf("Qwen2.5-0.5B", "out.gguf", "BF16")        F32 F16 BF16, every ggml type, every file type (Q4_K_M)

Tensors   get the names of GGUF (architecture.py). Vectors and the router of experts stay float32; matrices get the type
          that `gguf.file_types` chooses for the mix; experts of one layer are stacked (experts, out, in).
Rows      rows.py: those of q and k of a llama are put in another order.
Bytes     F32, F16, BF16: the values, rounded to nearest even where they must be; others: refquant.gguf's encoders, or
          `encoders`, a table {type: function(x, imatrix=...) -> bytes} of faster ones that give the same.
Order     as llama.cpp sorts them (file_types.file_order). A few rows are in memory at a time, in as many tasks as an
          executor has workers (executor.py).
Resumed   where a folder for unfinished work is given: it holds the file and, by name, the tensors that are in it.
Source    llama.cpp, convert_hf_to_gguf.py.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from refquant.errors import SchemeError, ShapeError, UnsupportedError
from refquant.gguf import FORMATS
from refquant.gguf.file_types import FILE_TYPES, Choices, FileType, Model, file_order, lookup, needs_imatrix, select
from refquant.gguf.writer import create
from refquant.models import expected_tensors
from refquant.pipeline import architecture, general, vocabulary, work
from refquant.pipeline.executor import Executor, Serial, open_executor
from refquant.pipeline.gguf_tensors import Encoder, Slab, Source, bytes_of, encoded, slabs
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint
from refquant.pipeline.json_file import read_json
from refquant.pipeline.size_label import size_label

GUESSED = 1024  # general.file_type of what has no number of its own
QUANTIZATION_VERSION = 2
UNFINISHED, FINISHED = "unfinished.gguf", "finished.txt"
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
    executor: str | Executor = "serial",
    folder: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> int:
    """Write the folder (or open Checkpoint) `source` as the GGUF file `path`, which appears when it is complete.

    file_type        a file type ("Q4_K_M") or a type ("NVFP4") for all matrices; `choices` for single tensors
    encoders         {type: function(x (rows, n) float32, imatrix=None or (n,)) -> uint8 (rows, row bytes)}
    importance       {tensor of GGUF: (n,), (1, n) or (experts, n)}, needed by the smallest types
    name             general.name; the folder's, as a title, where None
    with_vocabulary  False leaves the tokenizer out
    executor         where tensors are encoded; the bytes do not depend on it. Encoders of processes must be picklable
    folder           where unfinished work is left, and gone on with; None: a failure leaves nothing
    progress         is told ("convert", weights done, weights in all)

    Returns how many tensors an earlier run had finished. Raises QuantError and its kinds, OSError.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    mix, chosen = file_type_of(file_type, choices)
    entries = metadata(checkpoint, mix, name, with_vocabulary)
    values = {key: value for key, (_, value) in entries.items()}
    shapes = tensor_shapes(checkpoint)
    types = select({n: (s, "F32") for n, s in shapes.items()}, mix, Model.from_metadata(values), chosen)
    for n, t in types.items():
        given = None if importance is None else importance.get(n)
        if given is None and needs_imatrix(n, t, mix):
            raise UnsupportedError(f"to_gguf: {n} as {t}: importance = none, expected it for so few bits")
        stacked = shapes[n][:-2] or (1,)
        if given is not None and given.shape not in (shapes[n][-1:], (*stacked, shapes[n][-1])):
            wanted = f"{shapes[n][-1:]} or {(*stacked, shapes[n][-1])}"
            raise ShapeError(f"to_gguf: importance of {n}: shape = {given.shape}, expected {wanted}")
    layout = {n: ((1, *s) if n.endswith("ffn_gate_inp_shexp.weight") else s, types[n]) for n, s in shapes.items()}
    unfinished = None if folder is None else Path(folder) / UNFINISHED
    with open_executor(executor) as workers, create(path, values, layout, _types(entries), None, unfinished) as file:
        finished = _finished(folder, file.resumed)
        names = [n for n in shapes if n not in finished]
        missing = {n: list(slabs(checkpoint, n, shapes[n], types[n], importance)) for n in names}
        made = workers.map(_task(checkpoint, encoders, workers), (slab for each in missing.values() for slab in each))
        total = sum(int(np.prod(s)) for s in shapes.values())
        done = total - sum(int(np.prod(shapes[n])) for n in missing)
        for n, parts in missing.items():
            at = 0
            for slab in parts:
                data = next(made)
                file.put(n, at, data)
                at, done = at + data.size, done + (slab.last - slab.first) * slab.width
                if progress is not None:
                    progress("convert", min(done, total), total)
            if folder is not None:
                file.sync()
                with (Path(folder) / FINISHED).open("a", encoding="utf-8") as record:
                    record.write(f"{n}\n")
    return len(finished)


def metadata(
    checkpoint: Checkpoint, file_type: FileType, name: str | None = None, with_vocabulary: bool = True
) -> dict[str, tuple[str, object]]:
    """{key: (type, value)} of the whole file."""
    said = architecture.metadata(checkpoint.path / "config.json", checkpoint.config)
    arch = said.pop("general.architecture")
    if arch[1] != "llama":  # where llama.cpp's converter leaves them out: they say what the tensors say
        for key in ("rope.dimension_count", "vocab_size"):
            said.pop(f"{arch[1]}.{key}")
    settings = checkpoint.path / "generation_config.json"
    entries: dict[str, tuple[str, object]] = {
        "general.architecture": arch,
        "general.type": ("str", "model"),
        **(general.sampling(read_json(settings)) if settings.is_file() else {}),
        "general.name": ("str", name or general.title(checkpoint.path.resolve().name.removesuffix(".gguf"))),
        "general.size_label": ("str", size_label(tensor_shapes(checkpoint))),
        **said,
        "general.file_type": ("u32", file_type.number),
        "general.quantization_version": ("u32", QUANTIZATION_VERSION),
    }
    if with_vocabulary:
        entries |= vocabulary.of(checkpoint)
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


def _task(
    checkpoint: Checkpoint, encoders: Mapping[str, Encoder] | None, executor: Executor
) -> Callable[[Slab], np.ndarray]:
    """What makes the bytes of a slab: with the open model here, by its path elsewhere."""
    table = dict(encoders or {})
    if isinstance(executor, Serial):
        return partial(bytes_of, checkpoint, encoders=table)
    return partial(encoded, Source(str(checkpoint.path.resolve()), checkpoint.stamp, table))


def _finished(folder: str | os.PathLike | None, resumed: bool) -> set[str]:
    """Names of the tensors that the unfinished file of a folder holds; the list is begun anew with them."""
    if folder is None:
        return set()
    path = Path(folder) / FINISHED
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if resumed and path.is_file() else []
    work.put(path, "".join(f"{name}\n" for name in lines))
    return set(lines)


def _types(entries: Mapping[str, tuple[str, object]]) -> dict[str, str]:
    return {key: kind for key, (kind, _) in entries.items()}


def file_type_of(name: str, choices: Choices | None = None) -> tuple[FileType, Choices]:
    """A file type by name, or a plain type for all matrices; what the user chose, or that type everywhere.

    Raises SchemeError.
    """
    if name.upper() in FORMATS and name.upper() not in FILE_TYPES and FORMATS[name.upper()].encode is not None:
        return FileType(name.upper(), GUESSED, name.upper()), choices or Choices(pure=True)
    try:
        return lookup(name), choices or Choices()
    except SchemeError as error:
        raise SchemeError(f"to_gguf: {error}, or a type of ggml such as NVFP4") from error
