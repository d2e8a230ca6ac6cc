"""Where compiled code finds what it calls by name: the C library, Python, and what Numba and this package add to them.

Besides functions of the C library a kernel may ask for those by which Numba reports a Python exception. They stand in
extension modules of Numba, which are loaded by their path where that is known to do: the package itself takes half a
second to import.
"""

import ctypes
import sys
from functools import cache
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from runtime.overruns import overruns, scrap

OURS = {"refquant_overruns": ctypes.addressof(overruns), "refquant_scrap": ctypes.addressof(scrap)}
ERRORS = {f"PyExc_{error.__name__}": id(error) for error in (RuntimeError, StopIteration, SystemError)}
EXTENSIONS = (("numba_", "_helperlib"), ("numba_", "_dynfunc"), ("NRT_", "core.runtime._nrt_python"))


def address(name: str) -> int | None:
    """Where the function or variable `name` lies; None where nothing is known of it."""
    for known in (OURS, ERRORS):
        if name in known:
            return known[name]
    if name.startswith(("numba_", "NRT_")):
        return helpers().get(name)
    function = getattr(ctypes.pythonapi, name, None)  # the whole process, so the C library too
    return None if function is None else ctypes.cast(function, ctypes.c_void_p).value


@cache
def helpers() -> dict[str, int]:
    """Everything that Numba tells LLVM about before it compiles for the first time."""
    found = {}
    for prefix, module in EXTENSIONS:
        for name, place in _extension(module).c_helpers.items():
            found[name if name.startswith("_") else prefix + name] = place
    return found


def _extension(name: str) -> ModuleType:
    full, stem = f"numba.{name}", Path(find_spec("numba").origin).parent.joinpath(*name.split("."))
    for path in (stem.with_name(stem.name + suffix) for suffix in EXTENSION_SUFFIXES):
        if sys.platform == "linux" and path.exists():
            loader = ExtensionFileLoader(full, str(path))
            module = module_from_spec(spec_from_file_location(full, path, loader=loader))
            loader.exec_module(module)
            return module
    return import_module(full)
