"""Compiled kernels on disk: an object file each, read back and linked by LLVM alone.

    file    SHA-256 of what follows (32 bytes) | name of the function | "\\n" | object file

Numba could read back what it compiled, but lists first everything it knows to compile, which takes a quarter of a
second at each start. An object file needs none of that. Each is linked by itself, so that functions inlined into
several kernels cannot be taken for one another. Besides functions of the C library it may ask for those by which Numba
reports a Python exception; kernels get checked arguments and raise none.
"""

import ctypes
import hashlib
import os
import tempfile
from functools import cache
from pathlib import Path

from llvmlite import binding as llvm
from numba import _dynfunc, _helperlib, config
from numba.core.runtime import _nrt_python

DIGEST = 32  # bytes


class MachineCode:
    """A function of int64, in memory for as long as this is. Called from Python it runs without the interpreter."""

    def __init__(self, name: str, object_file: bytes, arity: int, returns: bool):
        self._engine = _engine()
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(object_file))
        self._engine.finalize_object()
        self.address = self._engine.get_function_address(name)
        result = ctypes.c_int64 if returns else None
        self._function = ctypes.CFUNCTYPE(result, *[ctypes.c_int64] * arity)(self.address)

    def __call__(self, *arguments: int) -> int | None:
        return self._function(*arguments)


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


def _engine() -> llvm.ExecutionEngine:
    _prepare()
    module = llvm.parse_assembly(f'target triple = "{llvm.get_process_triple()}"')
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(module, machine, use_lmm=config.USE_LLVMLITE_MEMORY_MANAGER)


@cache
def _prepare() -> None:
    """What Numba does before it compiles for the first time: initialize LLVM, tell it where Numba's functions are."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    for prefix, helpers in (
        ("numba_", _helperlib.c_helpers),
        ("numba_", _dynfunc.c_helpers),
        ("NRT_", _nrt_python.c_helpers),
    ):
        for name, address in helpers.items():
            llvm.add_symbol(name if name.startswith("_") else prefix + name, address)
    for error in (RuntimeError, StopIteration, SystemError):
        llvm.add_symbol(f"PyExc_{error.__name__}", id(error))
