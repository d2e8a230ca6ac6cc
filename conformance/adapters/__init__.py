"""The backends that vectors are run against, a module each; conformance.protocol says what one holds.

load("gguf_py")           the adapter module of that name
load("torch", "cuda")     the same, computing on that device; its known failures are in known/torch_cuda.txt
load("./mine.py")         a module of your own
load("jsonl:./program")   a program that speaks JSON lines
NAMES                     the modules here
"""

import importlib
import importlib.util
import os
from pathlib import Path

from conformance.adapters._device import VARIABLE
from conformance.protocol import Adapter
from refquant.errors import QuantError

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
PROGRAM = "jsonl:"


def label(name: str, device: str = "") -> str:
    """What records and lists of known failures call a backend on a device."""
    return f"{name}_{device}" if device and device != "cpu" else name


def load(name: str, device: str = "") -> Adapter:
    """The adapter called `name`, also as label() spells it. Raises QuantError with the names there are."""
    if name not in NAMES and name.rpartition("_")[0] in NAMES:
        name, _, device = name.rpartition("_")
    if device:
        os.environ[VARIABLE] = device
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
