"""How this package compiles, and where the compiled code is kept.

    @inlined            a function that kernels call; @inlined_as_c one in which a float may be divided by zero
    @kernel             an operation of the step function: f(args, tokens, start, thread, lo, hi), called by address
    @unpacker           f(args, thread, group, first, blocks), called by the matrix product of prompts
    @entry(n)           a function that Python calls with n int64: no GIL
    @array_entry(types) a function that Python calls with arrays of these Numba types: no GIL

All without fastmath: the float order written in a kernel is the order it runs in, so that a kernel can equal its NumPy
twin bit for bit. Nothing is compiled before it is needed, and where nothing has to be, Numba is not imported: these
decorators only note what is to be compiled, and what runtime.compiler will make of it.

A kernel calls functions of other files and has to be compiled again when one of those changes. The cache directory is
therefore named by a hash of every source file of this package, the SIMD tier, the checked flag, the versions of Numba
and llvmlite, the CPU and its features. In it lie object files (runtime.machine_code), and for functions of arrays the
cache of Numba itself, which by its own means would look at one source file and not at the tier.

    REFQUANT_CACHE   the directory of all caches; default: the user's cache directory of this system, or a temporary
                     one where that cannot be written
"""

import hashlib
import os
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import machine_code, processor
from runtime.machine_code import MachineCode
from runtime.promise import Promise
from runtime.simd.tier import CHECKED, TIER, target

if TYPE_CHECKING:
    from numba.core.codegen import CodeLibrary
    from numba.core.dispatcher import Dispatcher


def user_cache_directory() -> Path:
    """Where this user's caches lie on this system; REFQUANT_CACHE overrides it."""
    if chosen := os.environ.get("REFQUANT_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "refquant"


def cache_key() -> str:
    """16 hex digits that change whenever compiled code may not be reused."""
    key = hashlib.sha256()
    root = Path(__file__).parent
    for source in sorted(root.rglob("*.py")):
        key.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes())
    words = [
        TIER,
        str(CHECKED),
        *map(str, target(TIER)),
        platform.machine(),
        cpu(),
        version("numba"),
        version("llvmlite"),
    ]
    key.update("\0".join(words).encode())
    return key.hexdigest()[:16]


def version(package: str) -> str:
    """What a package says of its version, which need not be imported for it. Raises ModuleNotFoundError."""
    spec = find_spec(package)
    if spec is not None and (file := Path(spec.origin).with_name("_version.py")).exists():
        return file.read_text()
    return import_module(package).__version__


def cpu() -> str:
    """All that LLVM knows this CPU by."""
    if told := processor.identity():
        return told
    from llvmlite import binding

    return f"{binding.get_host_cpu_name()} {binding.get_host_cpu_features().flatten()}"


def writable(directory: Path) -> Path:
    """`directory`, made if need be, or a place below the temporary directory where nothing can be written in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            return directory
    except OSError:
        user = os.getuid() if hasattr(os, "getuid") else 0
        return Path(tempfile.gettempdir()) / f"refquant-{user}" / directory.name


CACHE = writable(user_cache_directory() / f"kernels-{cache_key()}")
_made: Counter[str] = Counter()


class Compiled:
    """A function that is compiled, or read from the cache, when its machine code is first needed.

    It takes `arity` int64, or what `signature` says: arrays, whose indices are checked in checked mode.
    """

    def __init__(self, function: Callable, arity: int, from_python: bool = False, signature=None):
        self.function, self.arity, self.from_python, self.signature = function, arity, from_python, signature
        self.name = f"{function.__module__}:{function.__name__}"
        self.__doc__ = function.__doc__

    @cached_property
    def code(self) -> "MachineCode | Dispatcher":
        """What can be called; for kernels it has an `address`."""
        if self.signature is not None:
            return self._for_arrays()
        found = machine_code.read(self._place) or self._compiled()
        return MachineCode(*found, self.arity, self.from_python)

    def _for_arrays(self) -> "Dispatcher":
        from runtime import compiler

        code = compiler.compile_for_arrays(self.function, self.signature)
        self._place.parent.mkdir(parents=True, exist_ok=True)
        self._place.touch()
        return code

    def _compiled(self) -> tuple[str, bytes]:
        """(name, object file), as the cache has them from now on."""
        library, name = self.compile()
        found = name, library.serialize_using_object_code()[2][0]
        machine_code.write(self._place, *found)
        return found

    def compile(self) -> tuple["CodeLibrary", str]:
        """Numba's library of the function and the name that the function has in it, whatever is cached."""
        from runtime import compiler

        return compiler.compile_for_int64(self.function, self.arity, self.from_python)

    @property
    def address(self) -> int:
        """Where the machine code lies."""
        return self.code.address

    def __call__(self, *arguments):
        return self.code(*arguments)

    @property
    def is_cached(self) -> bool:
        """Whether the code will come from the disk (or is here already)."""
        return "code" in self.__dict__ or self._place.exists()

    @property
    def _place(self) -> Path:
        return CACHE / "compiled" / self.name.replace(":", ".")


def kernel(function: Callable) -> Compiled:
    """An operation of the step function."""
    return Compiled(function, 6)


def unpacker(function: Callable) -> Compiled:
    """What turns packed weights into the panel of the matrix product."""
    return Compiled(function, 5)


def entry(arity: int) -> Callable[[Callable], Compiled]:
    """A function that Python calls with `arity` int64, and that returns one."""
    return lambda function: Compiled(function, arity, from_python=True)


def array_entry(signature) -> Callable[[Callable], Compiled]:
    """A function that Python calls with arguments of a Numba signature."""
    return lambda function: Compiled(function, len(signature.args), from_python=True, signature=signature)


def inlined(function: Callable) -> Promise:
    """A function that kernels call; compiled into each of them.

    Those that a factory makes get a number each. Numba names machine code by the qualified name and by a count that
    starts anew in every process: without the number, code that two processes wrote to the cache could bear one name
    for two functions, and the linker would call the one that was loaded first. Modules are imported in one order, so
    a number means the same function everywhere.

    There is no way in from Python: making one for each would take a sixth of the time of compiling.
    """
    return _promised("inline", function)


def inlined_as_c(function: Callable) -> Promise:
    """As `inlined`; a float divided by zero gives an infinity or a NaN, as in C, where Numba would raise."""
    return _promised("inline_as_c", function)


def _promised(how: str, function: Callable) -> Promise:
    function = _numbered(function)
    return Promise(lambda: getattr(import_module("runtime.compiler"), how)(function))


def _numbered(function: Callable) -> Callable:
    name = f"{function.__module__}.{function.__qualname__}"
    if "<locals>" in name:
        function.__qualname__ += f".{_made[name]}"
        _made[name] += 1
    return function
