"""Getting a mutant to run: by other code in a live function where that is enough, by importing anew where it is not.

exchange   the body of a function that nothing called while refquant was imported: every reference to it sees the fault
reload     anything else. The module, and all that import it, leave sys.modules and are imported with a finder in front
           that compiles the changed tree
"""

import ast
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


def load(mutant: Mutant, adapter: str, early: frozenset[tuple[str, str]]) -> ModuleType:
    """The adapter with the mutant under it. `early`: (file, function) of what runs while refquant is imported."""
    changed = mutants.tree(mutant)
    outermost = mutant.function.split(".")[0]
    called = any(file == mutant.file and name.split(".")[0] == outermost for file, name in early)
    if mutant.imported or called or not _exchange(mutant, changed):
        _reload(mutant, changed)
    return importlib.import_module(adapter)


def caches(names: Collection[str] | None = None) -> Iterator[object]:
    """Functions that remember results, in the modules of these names or in all of refquant."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if (name in names if names is not None else name.partition(".")[0] == "refquant")
    ]
    return (each for module in modules for each in list(vars(module).values()) if hasattr(each, "cache_clear"))


def _exchange(mutant: Mutant, changed: ast.Module) -> bool:
    """Whether it could be done: the function is found, and takes the same variables from around it."""
    live: object = sys.modules.get(mutant.module)
    code = compile(changed, str(ROOT / mutant.file), "exec", dont_inherit=True)
    for name in mutant.function.split("."):
        code = next((each for each in code.co_consts if isinstance(each, CodeType) and each.co_name == name), None)
        live = vars(live).get(name) if isinstance(live, ModuleType | type) else None
        if code is None or live is None:
            return False
        if not isinstance(live, type):
            break
    live = inspect.unwrap(getattr(live, "fget", None) or getattr(live, "__func__", live))
    same = isinstance(live, FunctionType) and live.__code__.co_filename == code.co_filename
    if not same or (live.__code__.co_firstlineno, live.__code__.co_freevars) != (code.co_firstlineno, code.co_freevars):
        return False
    live.__code__ = code
    for cached in caches(dependents(mutant.module)):
        cached.cache_clear()
    return True


class _Loader(importlib.machinery.SourceFileLoader):
    """Loads a module from a tree that was changed."""

    def __init__(self, mutant: Mutant, changed: ast.Module):
        super().__init__(mutant.module, str(ROOT / mutant.file))
        self.changed = changed

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.changed, self.path, "exec", dont_inherit=True)


class _Finder:
    """Finds the mutated module before anyone else does."""

    def __init__(self, mutant: Mutant, changed: ast.Module):
        self.mutant, self.changed = mutant, changed

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != self.mutant.module:
            return None
        loader = _Loader(self.mutant, self.changed)
        return importlib.util.spec_from_file_location(name, str(ROOT / self.mutant.file), loader=loader)


def _reload(mutant: Mutant, changed: ast.Module) -> None:
    stale = dependents(mutant.module)
    for name in [name for name in sys.modules if name in stale or name.startswith(ADAPTERS)]:
        del sys.modules[name]
        package, _, last = name.rpartition(".")
        if package in sys.modules:  # or `from package import last` finds the old one
            vars(sys.modules[package]).pop(last, None)
    sys.meta_path.insert(0, _Finder(mutant, changed))
    importlib.import_module("refquant")
    for name, module in list(sys.modules.items()):  # those that stayed, under the packages that are new
        package, _, last = name.rpartition(".")
        if package in stale and package in sys.modules and not hasattr(sys.modules[package], last):
            setattr(sys.modules[package], last, module)
