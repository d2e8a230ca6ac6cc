"""Getting a mutant to run: by other code in a live function where that is enough, by importing anew where it is not.

exchanged   the body of a function that nothing called while refquant was imported: every reference to it sees the
            fault, until the body is put back
reloaded    anything else. The module, and all that import it, leave sys.modules and are imported with a finder in front
            that gives the changed code; the process is good for nothing else afterwards
"""

import contextlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FunctionType, ModuleType

from conformance.mutation import mutants
from conformance.mutation.importers import dependents
from conformance.mutation.mutants import ROOT, Mutant

ADAPTERS = "conformance.adapters"
Early = Collection[tuple[str, str]]  # (file, function) of what runs while refquant is imported


@contextlib.contextmanager
def exchanged(mutant: Mutant, early: Early) -> Iterator[bool]:
    """Whether it can be done: the function is found, and takes the same variables from around it."""
    live, changed = _found(mutant, early)
    if live is None:
        yield False
        return
    before, live.__code__ = live.__code__, changed
    _forget(mutant)
    try:
        yield True
    finally:
        live.__code__ = before
        _forget(mutant)


def _found(mutant: Mutant, early: Early) -> tuple[FunctionType | None, CodeType | None]:
    """The live function around the fault, and its code with the fault in it."""
    called = any(file == mutant.file and f"{mutant.function}.".startswith(f"{name}.") for file, name in early)
    if mutant.imported or called:
        return None, None
    live, code = sys.modules.get(mutant.module), mutants.code(mutant)
    for name in mutant.function.split("."):
        code = next((each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name), None)
        live = vars(live).get(name) if isinstance(live, ModuleType | type) else None
        if code is None or live is None:
            return None, None
        if not isinstance(live, type):
            break
    live = inspect.unwrap(getattr(live, "fget", None) or getattr(live, "__func__", live))
    same = isinstance(live, FunctionType) and live.__code__.co_filename == code.co_filename
    if not same or (live.__code__.co_firstlineno, live.__code__.co_freevars) != (code.co_firstlineno, code.co_freevars):
        return None, None
    return live, code


def _forget(mutant: Mutant) -> None:
    """What functions that may call the mutated one remember."""
    names = dependents(mutant.module)
    for cached in caches(names):
        if cached.__module__ in names:
            cached.cache_clear()


def caches(names: Collection[str] | None = None) -> Iterator[object]:
    """Functions that remember results, in the modules of these names or in all of refquant."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name in names if names is not None else name.partition(".")[0] == "refquant")
    ]
    return (each for module in modules for each in list(vars(module).values()) if hasattr(each, "cache_clear"))


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from code that was changed."""

    def __init__(self, mutant: Mutant):
        super().__init__(mutant.module, str(ROOT / mutant.file))
        self.changed = mutants.code(mutant)

    def get_code(self, fullname: str) -> CodeType:
        return self.changed


class _Finder:
    """Finds the mutated module before anyone else does."""

    def __init__(self, mutant: Mutant):
        self.mutant, self.loader = mutant, _Loader(mutant)

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.mutant.module:
            return None
        return importlib.util.spec_from_file_location(name, str(ROOT / self.mutant.file), loader=self.loader)


def reloaded(mutant: Mutant, adapter: str) -> ModuleType:
    """The adapter with the mutant under it."""
    stale = dependents(mutant.module)
    for name in [name for name in sys.modules if name in stale or name.startswith(ADAPTERS)]:
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules:  # or `from package import last` finds the old one
            vars(sys.modules[package]).pop(last, None)
    sys.meta_path.insert(0, _Finder(mutant))
    importlib.import_module(mutant.module)
    for name, module in list(sys.modules.items()):  # those that stayed, under the packages that are new
        package, _, last = name.rpartition(".")
        if package in stale and package in sys.modules and not hasattr(sys.modules[package], last):
            setattr(sys.modules[package], last, module)
    return importlib.import_module(adapter)
