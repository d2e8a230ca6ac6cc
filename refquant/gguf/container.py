"""GGUF files: one call opens a file, or all files of a split model, and checks everything that its header says.

    with open("model.gguf") as gguf:
        gguf.metadata["general.architecture"], gguf.tensors["token_embd.weight"].data

    magic, version, counts | metadata | table of tensors | zeros up to the alignment | data of the tensors, each padded

The header is copied out, tensors stay in the file: `data` is a read-only view of the mapped bytes. What is malformed,
cut off or hostile raises GGUFError with the file, the field and the offset of its byte, before anything is allocated
that the bytes at hand do not justify. The last tensor needs no zeros after it, and what comes after them is ignored.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from refquant.errors import GGUFError
from refquant.gguf import header, splits, tensors
from refquant.gguf.cursor import Cursor, quoted
from refquant.gguf.mapping import Mapping
from refquant.gguf.tensors import Tensor
from refquant.gguf.values import Unread, Value


@dataclass(frozen=True, slots=True, eq=False)
class GGUFFile:
    """An open file. Leaving the `with` block, or `close`, gives the mapping up; arrays taken before stay valid."""

    path: Path
    version: int
    alignment: int  # of the first file, in bytes
    metadata: dict[str, Value]
    types: dict[str, str]  # "u32", "str", "arr[f32]" ...: how the file spells each value
    offsets: dict[str, int]  # where each value stands in the first file (the byte of its type), for messages
    tensors: dict[str, Tensor]  # in the order of the file; of all files of a split model
    _mappings: tuple[Mapping, ...]

    def close(self) -> None:
        for mapping in self._mappings:
            mapping.close()

    def __enter__(self) -> "GGUFFile":
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def open(path: str | os.PathLike) -> GGUFFile:
    """Open a GGUF file, or a split model by its first file. Whatever is wrong, a missing file too, is a GGUFError."""
    first, head, table = _read(path)
    mappings = [first]
    try:
        others = splits.other_shards(first.path, head)
        for no, shard in enumerate(others, start=1):
            mapping, its_head, its_table = _read(shard)
            mappings.append(mapping)
            splits.check_shard(shard, its_head, no, len(others) + 1)
            for name in its_table.keys() & table.keys():
                raise GGUFError(f"{shard}: tensor {quoted(name)} is also in {table[name].path.name}, expected it once")
            table |= its_table
        if others:
            splits.check_total(first.path, head, len(table))
    except GGUFError:
        for mapping in mappings:
            mapping.close()
        raise
    metadata = {k: v.read(first.buffer) if isinstance(v, Unread) else v for k, v in head.metadata.items()}
    for mapping in mappings:
        mapping.release(0, len(mapping.buffer))  # the header has been copied
    return GGUFFile(
        path=first.path,
        version=head.version,
        alignment=head.alignment,
        metadata=metadata,
        types=head.types,
        offsets=head.offsets,
        tensors=table,
        _mappings=tuple(mappings),
    )


def _read(path: str | os.PathLike) -> tuple[Mapping, header.Header, dict[str, Tensor]]:
    """One file, checked."""
    mapping = Mapping(path)
    try:
        cursor = Cursor(mapping.buffer, mapping.path)
        head = header.read(cursor)
        return mapping, head, tensors.read(cursor, head.n_tensors, head.alignment, mapping)
    except GGUFError:
        mapping.close()
        raise
