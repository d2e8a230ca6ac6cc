"""Object files of this CPU brought into memory without LLVM: 64-bit ELF for x86-64, as LLVM writes it for a JIT.

    sections that are allocated  ->  one piece of memory  ->  relocations  ->  readable and executable, never writable

With the large code model every reference is an absolute address of 8 bytes, so one kind of relocation is all there is:

    R_X86_64_64    the 8 bytes at `offset` of a section  =  address of the symbol + addend

Unwind tables are left out: no exception passes through compiled code. Whatever else is found in a file raises
UnknownObject, and who asked links it with LLVM.
Source   Tool Interface Standard ELF 1.2; System V ABI, AMD64 supplement, 4.4.
"""

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

SUPPORTED = sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32
MAGIC = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
HEADER = struct.Struct("<16xHHIQQQIHHHHHH")  # type, machine, ..., offset, size, count of section headers, names
SECTION = struct.Struct("<IIQQQQIIQQ")  # name, type, flags, address, offset, size, link, info, alignment, entry size
SYMBOL = struct.Struct("<IBBHQQ")  # name, info, other, section, value, size
RELOCATION = struct.Struct("<QQq")  # offset, symbol << 32 | type, addend
RELOCATABLE, X86_64 = 1, 62
NONE, BYTES, SYMBOLS, NAMES, RELOCATIONS, UNWIND = 0, 1, 2, 3, 4, 0x70000001  # types of sections
KNOWN = {NONE, BYTES, SYMBOLS, NAMES, RELOCATIONS, UNWIND}
WRITABLE, ALLOCATED = 1, 2  # flags of sections
UNDEFINED = 0  # the section of a symbol that another file defines
ABSOLUTE_64 = 1


class UnknownObject(ValueError):
    """The file holds something that this linker has not been written for."""


@dataclass(frozen=True, slots=True)
class _Section:
    type: int
    flags: int
    link: int  # of symbols: the section that holds their names
    info: int  # of relocations: the section that they change
    alignment: int
    data: memoryview

    @property
    def is_loaded(self) -> bool:
        return bool(self.flags & ALLOCATED) and self.type != UNWIND


class Image:
    """An object file in memory, for as long as this lives. `find` gives the address of a name, or None."""

    def __init__(self, object_file: bytes, find: Callable[[str], int | None]):
        sections = _sections(object_file)
        places, size = _layout(sections)
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        for i, place in places.items():
            self._memory[place : place + len(sections[i].data)] = sections[i].data
        addresses, self._functions = [], {}
        for name, section, value in _symbols(sections):
            if section in places:
                _require(value <= len(sections[section].data), "a symbol outside of its section")
                addresses.append(base + places[section] + value)
                self._functions[name] = addresses[-1]
            else:
                addresses.append(find(name) if section == UNDEFINED and name else None)
        for section in sections:
            if section.type == RELOCATIONS and section.info in places:
                room = len(sections[section.info].data) - 8
                _require(len(section.data) % RELOCATION.size == 0, "half a relocation")
                for offset, kind, addend in RELOCATION.iter_unpack(section.data):
                    number = kind >> 32
                    _require(kind & 0xFFFFFFFF == ABSOLUTE_64 and offset <= room, "a relocation of another kind")
                    _require(number < len(addresses) and addresses[number] is not None, "a name that nobody knows")
                    value = (addresses[number] + addend) % 2**64
                    struct.pack_into("<Q", self._memory, places[section.info] + offset, value)
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        _require(protect(base, size, mmap.PROT_READ | mmap.PROT_EXEC) == 0, "memory that may not be executed")

    def address(self, name: str) -> int:
        """Where the function `name` of the file lies."""
        _require(name in self._functions, "no function of that name")
        return self._functions[name]


def _sections(object_file: bytes) -> list[_Section]:
    """The sections of a file whose header and whose every extent have been checked."""
    _require(len(object_file) >= HEADER.size and object_file.startswith(MAGIC), "no 64-bit ELF file")
    kind, machine, _, _, _, first, _, _, _, _, size, count, _ = HEADER.unpack_from(object_file)
    _require((kind, machine, size) == (RELOCATABLE, X86_64, SECTION.size), "no object file for x86-64")
    _require(first + count * size <= len(object_file), "a file that is cut off")
    found, view = [], memoryview(object_file)
    for at in range(first, first + count * size, size):
        _, type, flags, _, offset, length, link, info, alignment, _ = SECTION.unpack_from(object_file, at)
        _require(type in KNOWN, "a section of another kind")
        _require(offset + length <= len(object_file), "a section that is cut off")
        found.append(_Section(type, flags, link, info, max(1, alignment), view[offset : offset + length]))
    return found


def _layout(sections: list[_Section]) -> tuple[dict[int, int], int]:
    """Where each section that is loaded begins, by its number, and the bytes of all of them."""
    places, size = {}, 0
    for i, section in enumerate(sections):
        if section.is_loaded:
            _require(section.type == BYTES and not section.flags & WRITABLE, "a section that is not constant")
            _require(section.alignment <= mmap.PAGESIZE, "an alignment beyond a page")
            size += -size % section.alignment
            places[i], size = size, size + len(section.data)
    _require(size > 0, "nothing to load")
    return places, size


def _symbols(sections: list[_Section]) -> list[tuple[str, int, int]]:
    """(name, number of its section, place in it) of every symbol."""
    tables = [section for section in sections if section.type == SYMBOLS]
    _require(len(tables) == 1 and len(tables[0].data) % SYMBOL.size == 0, "not one table of symbols")
    _require(tables[0].link < len(sections), "symbols without names")
    names, found = sections[tables[0].link].data.tobytes(), []
    for at, _, _, section, value, _ in SYMBOL.iter_unpack(tables[0].data):
        end = names.find(b"\0", at)
        _require(end >= at, "a name without an end")
        found.append((names[at:end].decode("utf-8", "replace"), section, value))
    return found


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise UnknownObject(otherwise)
