"""The backends that vectors are run against, a module each; conformance.protocol says what one holds.

load("gguf_py")           the adapter module of that name
load("./mine.py")         a module of your own
load("jsonl:./program")   a program that speaks JSON lines
NAMES                     the modules here
"""

import importlib
import importlib.util
from pathlib import Path

from conformance.protocol import Adapter
from refquant.errors import QuantError

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
PROGRAM = "jsonl:"


def load(name: str) -> Adapter:
    """The adapter called `name`. Raises QuantError with the names there are."""
    if name.startswith(PROGRAM):
        return importlib.import_module("conformance.jsonl").Program(name.removeprefix(PROGRAM))
    if name.endswith(".py"):
        return _module(Path(name))
    if name not in NAMES:
        known = ", ".join([*NAMES, "FILE.py", f"{PROGRAM}COMMAND"])
        raise QuantError(f"conformance: backend = {name!r}, expected one of {known}")
    return importlib.import_module(f"conformance.adapters.{name}")


def _module(path: Path) -> Adapter:
    if not path.is_file():
        raise QuantError(f"conformance: backend = {path}, expected a file that exists")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
