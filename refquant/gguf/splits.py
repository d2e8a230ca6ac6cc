"""Models in several files: `<prefix>-00001-of-00003.gguf` and so on, each a GGUF file of its own.

    split.no             u16, counted from 0      split.count   u16, the number of files
    split.tensors.count  i32, the tensors of all of them

The first file alone holds the metadata of the model, so it is the one to open. Each file has its own table of tensors,
offsets and alignment.
Source   llama.cpp, src/llama-model-loader.cpp.
"""

import re
from pathlib import Path

from refquant.errors import GGUFError
from refquant.gguf.cursor import quoted
from refquant.gguf.header import Header

NO, COUNT, TOTAL = "split.no", "split.count", "split.tensors.count"
_TYPES = {NO: "u16", COUNT: "u16", TOTAL: "i32"}
_NAME = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf", re.DOTALL)


def shard_name(prefix: str, no: int, count: int) -> str:
    """The name of file `no` (from 0) of `count`."""
    return f"{prefix}-{no + 1:05d}-of-{count:05d}.gguf"


def other_shards(path: Path, header: Header) -> list[Path]:
    """The files that belong to the first one, in order; none for a model in one file.

    Raises GGUFError where `path` is not the first, or is not named as the first must be.
    """
    if COUNT not in header.metadata:
        return []
    count = _value(path, header, COUNT)
    if count < 2:
        return []
    no = _value(path, header, NO)
    named = _NAME.fullmatch(path.name)
    prefix = named[1] if named else "<prefix>"
    if no:
        first = shard_name(prefix, 0, count)
        expected = f"0: this is file {no + 1} of {count}, open the first, {first}"
        raise _error(path, header, NO, no, expected)
    if path.name != shard_name(prefix, 0, count):
        expected = shard_name(prefix, 0, count)
        raise GGUFError(f"{path}: file name = {quoted(path.name)}, expected {expected} as {COUNT} is {count}")
    return [path.with_name(shard_name(prefix, i, count)) for i in range(1, count)]


def check_shard(path: Path, header: Header, no: int, count: int) -> None:
    """Raise GGUFError unless the file says itself that it is file `no` of `count`."""
    for key, expected in ((NO, no), (COUNT, count)):
        got = _value(path, header, key)
        if got != expected:
            raise _error(path, header, key, got, f"{expected}: the file belongs to another model or place")


def check_total(path: Path, header: Header, tensors: int) -> None:
    """Raise GGUFError unless all files together hold the number of tensors that the first promised."""
    total = _value(path, header, TOTAL)
    if tensors != total:
        raise _error(path, header, TOTAL, total, f"{tensors}, which the files hold together")


def _value(path: Path, header: Header, key: str) -> int:
    type = header.types.get(key, "absent")
    if type != _TYPES[key]:
        raise _error(path, header, f"type of {key}", type, _TYPES[key])
    return header.metadata[key]


def _error(path: Path, header: Header, field: str, got: object, expected: str) -> GGUFError:
    at = header.offsets.get(field.removeprefix("type of "))
    place = "" if at is None else f" at byte {at}"
    return GGUFError(f"{path}: {field} = {got}{place}, expected {expected}")
