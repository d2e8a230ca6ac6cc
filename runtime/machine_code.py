"""Compiled kernels on disk: an object file each, read back and linked without the compiler.

    file    SHA-256 of what follows (32 bytes) | name of the function | "\\n" | object file

Numba could read back what it compiled, but imports all it knows to compile, which takes most of a second at each start.
An object file needs none of that. Each is linked by itself, so that functions inlined into several kernels cannot be
taken for one another: by runtime.elf where that knows everything in the file, by LLVM else. LLVM is 40 MB.
Kernels get checked arguments and raise no Python exception; where one is raised nevertheless it is reported.
"""

import ctypes
import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from runtime import elf, symbols

DIGEST = 32  # bytes


class MachineCode:
    """A function of int64, in memory for as long as this is. Called from Python it runs without the interpreter."""

    def __init__(self, name: str, object_file: bytes, arity: int, returns: bool):
        self.address, self._kept = linked(name, object_file)
        result = ctypes.c_int64 if returns else None
        self._function = ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * arity)(self.address)

    def __call__(self, *arguments: int) -> int | None:
        return self._function(*arguments)


def linked(name: str, object_file: bytes) -> tuple[int, object]:
    """The address of a function, and what must be kept for as long as it is called."""
    if elf.SUPPORTED:
        try:
            image = elf.Image(object_file, symbols.address)
            return image.address(name), image
        except elf.UnknownObject:
            pass  # LLVM knows more
    return linked_by_llvm(name, object_file)


def linked_by_llvm(name: str, object_file: bytes) -> tuple[int, object]:
    """The same on every system."""
    from llvmlite import binding as llvm

    _prepare_llvm()
    module = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
    engine.finalize_object()
    return engine.get_function_address(name), engine


@cache
def _prepare_llvm() -> None:
    """What Numba does before it compiles for the first time: initialize LLVM, tell it where Numba's functions are."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for name, address in (symbols.helpers() | symbols.OURS | symbols.ERRORS).items():
        llvm.add_symbol(name, address)


def read(path: Path) -> tuple[str, bytes] | None:
    """(name, object file) as `write` left them; None where there is no such file or it is not whole."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    digest, rest = data[:DIGEST], data[DIGEST:]
    if hashlib.sha256(rest).digest() != digest:
        return None
    name, _, object_file = rest.partition(b"\n")
    return name.decode(), object_file


def write(path: Path, name: str, object_file: bytes) -> None:
    """Put a file where `read` finds it: all of it, or none."""
    rest = name.encode() + b"\n" + object_file
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "wb") as file:
        file.write(hashlib.sha256(rest).digest() + rest)
    Path(temporary).replace(path)
