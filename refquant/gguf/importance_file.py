"""Importance matrices on disk: for every matrix, how much its inputs were worth over some text.

    in_sum2   sum over tokens of x^2, for each column x of the input       (matrices, n) float32
    counts    tokens that were summed                                      (matrices,)
    weights   in_sum2 / counts, what the encoders take; 1 for an expert that no token reached

Two layouts, both of llama.cpp, told apart by the first bytes:

    GGUF   tensors "<name>.in_sum2" and "<name>.counts", F32; metadata general.type = "imatrix", imatrix.datasets,
           imatrix.chunk_count, imatrix.chunk_size
    .dat   i32 entries | per entry: i32 length, name, i32 calls, i32 values, f32 values[] | i32 chunks | i32 length,
           dataset.  A value is in_sum2 / count * calls; calls are chunks, and the counts themselves are not stored

Bad files are a GGUFError that names the file and the field.
Source   tools/imatrix/imatrix.cpp, common/imatrix-loader.cpp.
"""

import os
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant.errors import GGUFError
from refquant.gguf import container, writer
from refquant.gguf.cursor import quoted
from refquant.gguf.header import MAGIC
from refquant.gguf.strings import Strings

SUMS, COUNTS = ".in_sum2", ".counts"
MAX_ENTRIES, MAX_NAME = 1 << 16, 1 << 12


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What is known of one tensor: an expert a row."""

    sums: np.ndarray  # (matrices, n) float32
    counts: np.ndarray  # (matrices,) int64: tokens; in a .dat one number, the chunks

    def weights(self) -> np.ndarray:
        """(matrices, n) float32."""
        counts = self.counts.astype(np.float32)[:, None]
        return np.where(counts > 0, self.sums / np.where(counts > 0, counts, np.float32(1)), np.float32(1))


@dataclass(frozen=True, slots=True, eq=False)
class ImportanceMatrix:
    """All entries of a file. `legacy`: read from a .dat, whose sums are means times chunks."""

    entries: Mapping[str, Entry]
    datasets: tuple[str, ...]
    chunk_count: int
    chunk_size: int  # tokens; 0 in a .dat, which does not say
    legacy: bool = False

    def weights(self) -> dict[str, np.ndarray]:
        """{name: (matrices, n) float32}, the importance of every column. Raises GGUFError where one is not finite."""
        found = {name: entry.weights() for name, entry in self.entries.items()}
        for name, values in found.items():
            if not np.isfinite(values).all() or values.min(initial=0) < 0:
                raise GGUFError(f"importance matrix: {quoted(name)} holds {values.min()}, expected finite values >= 0")
        return found


def read(path: str | os.PathLike) -> ImportanceMatrix:
    """Read either layout. Raises GGUFError."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise GGUFError(f"{path}: cannot be opened: {error.strerror or error}") from error
    return _read_gguf(path) if start == MAGIC else _read_dat(path)


def write_gguf(path: str | os.PathLike, matrix: ImportanceMatrix) -> None:
    """The current layout, entries by name. Replaces the file at once or not at all."""
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": list(matrix.datasets),
        "imatrix.chunk_count": matrix.chunk_count,
        "imatrix.chunk_size": matrix.chunk_size,
    }
    types = {"imatrix.datasets": "arr[str]", "imatrix.chunk_count": "u32", "imatrix.chunk_size": "u32"}
    tensors = {}
    for name in _sorted(matrix.entries):
        entry = matrix.entries[name]
        sums, counts = entry.sums.astype("<f4"), entry.counts.astype("<f4")
        one = len(counts) == 1  # axes of length 1 are dropped from the front, as ggml does
        tensors[name + SUMS] = (sums[0] if one else sums), "F32"
        tensors[name + COUNTS] = (counts if one else counts[:, None]), "F32"
    writer.write(path, metadata, tensors, types)


def write_dat(path: str | os.PathLike, matrix: ImportanceMatrix) -> None:
    """The old layout, which older programs read; entries that no token reached are left out."""
    kept = [name for name in _sorted(matrix.entries) if matrix.entries[name].counts.any()]
    parts = [struct.pack("<i", len(kept))]
    size = max(1, matrix.chunk_size)
    for name in kept:
        entry, spelled = matrix.entries[name], name.encode("utf-8", "surrogateescape")
        calls = int(entry.counts[0]) if matrix.legacy else -(-int(entry.counts.max()) // size)
        values = entry.sums if matrix.legacy else entry.weights() * np.float32(calls)
        parts += [struct.pack("<i", len(spelled)), spelled, struct.pack("<ii", calls, values.size)]
        parts.append(values.astype("<f4").tobytes())
    dataset = (matrix.datasets[-1] if matrix.datasets else "").encode("utf-8", "surrogateescape")
    parts += [struct.pack("<ii", matrix.chunk_count, len(dataset)), dataset]
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(8)}.dat.tmp")
    try:
        temporary.write_bytes(b"".join(parts))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sorted(entries: Mapping[str, Entry]) -> list[str]:
    return sorted(entries, key=lambda name: name.encode("utf-8", "surrogateescape"))


def _read_gguf(path: Path) -> ImportanceMatrix:
    with container.open(path) as file:
        entries = {}
        for name in file.tensors:
            if not name.endswith((SUMS, COUNTS)):
                continue
            stem = name.removesuffix(SUMS).removesuffix(COUNTS)
            if stem + SUMS not in file.tensors or stem + COUNTS not in file.tensors:
                raise GGUFError(f"{path}: {quoted(name)} stands alone, expected both {SUMS} and {COUNTS}")
            entries[stem] = _entry(path, stem, file.tensors[stem + SUMS], file.tensors[stem + COUNTS])
        metadata = file.metadata
        if not entries or "imatrix.chunk_count" not in metadata:
            raise GGUFError(
                f"{path}: entries = {len(entries)}, expected those of an importance matrix and its metadata"
            )
        datasets = metadata.get("imatrix.datasets", [])
        return ImportanceMatrix(
            entries,
            tuple(datasets) if isinstance(datasets, Strings) else (),
            _count(path, metadata, "imatrix.chunk_count"),
            _count(path, metadata, "imatrix.chunk_size"),
        )


def _entry(path: Path, name: str, sums: container.Tensor, counts: container.Tensor) -> Entry:
    for tensor in (sums, counts):
        if tensor.type != "F32":
            raise GGUFError(f"{path}: {quoted(tensor.name)}: type = {tensor.type}, expected F32")
    tokens = np.array(counts.data, np.float64).reshape(-1)
    if not tokens.size or not sums.data.size or sums.data.size % tokens.size:
        expected = f"a multiple of the {tokens.size} counts"
        raise GGUFError(f"{path}: {quoted(name)}: values = {sums.data.size}, expected {expected}")
    if not np.isfinite(tokens).all() or tokens.min() < 0 or tokens.max() > 2**53:
        raise GGUFError(f"{path}: {quoted(name)}: counts = {tokens}, expected numbers of tokens")
    whole = np.floor(tokens + 0.5).astype(np.int64)  # half up, as lround has it for numbers >= 0
    return Entry(np.array(sums.data).reshape(len(tokens), -1), whole)


def _count(path: Path, metadata: Mapping, key: str) -> int:
    value = metadata.get(key, 0)
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
        raise GGUFError(f"{path}: {key} = {value!r}, expected a number of at least 0")
    return int(value)


class _Bytes:
    """A cursor over the bytes of a .dat: everything that is cut off or absurd is a GGUFError."""

    def __init__(self, path: Path):
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, size: int, what: str) -> bytes:
        if size < 0 or self.at + size > len(self.data):
            left = len(self.data) - self.at
            raise GGUFError(f"{self.path}: {what} at byte {self.at} = {size} bytes, expected at most {left}: cut off?")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, what: str, low: int, high: int) -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        if not low <= value <= high:
            raise GGUFError(f"{self.path}: {what} at byte {self.at - 4} = {value}, expected {low} to {high}")
        return value


def _read_dat(path: Path) -> ImportanceMatrix:
    file, entries = _Bytes(path), {}
    for i in range(file.number("number of entries", 1, MAX_ENTRIES)):
        where = f"entry {i}"
        length = file.number(f"{where}: length of the name", 1, MAX_NAME)
        name = file.take(length, f"{where}: name").decode("utf-8", "surrogateescape")
        calls = file.number(f"{where}: calls", 0, 2**31 - 1)
        size = file.number(f"{where}: values", 1, 2**31 - 1)
        values = np.frombuffer(file.take(4 * size, f"{where}: values"), "<f4").reshape(1, size)
        entries[name] = Entry(values, np.array([calls or 1]))
    chunks, datasets = 0, ()
    if file.at < len(file.data):
        chunks = file.number("chunks", 0, 2**31 - 1)
        length = file.number("length of the dataset", 0, len(file.data))
        datasets = (file.take(length, "dataset").decode("utf-8", "surrogateescape"),) if length else ()
    return ImportanceMatrix(entries, datasets, chunks, 0, legacy=True)
