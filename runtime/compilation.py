"""Compiling what a model needs, in two processes: Numba's compiler holds one lock in each.

Whoever takes a function first makes a file of its name. Those that take long come first, so that both processes end at
about the same time. What the helper compiled is then read from the cache on disk, as everything is at the next start.

    python -m runtime.compilation FOLDER NAME ...      the helper: names are module:function
"""

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.jit import Compiled

WORTH = 3  # functions to compile: fewer are done before a second process has started
LONG = ("attention:attend", "rope:", "gemm", "pack:", "norm:", "swiglu:")  # what takes longest, by names of kernels


def prepare(functions: Sequence[Compiled], progress: Callable[[str, int, int], None] | None = None) -> None:
    """Have the machine code of `functions` here, calling progress("compile", done, total)."""
    functions = sorted(functions, key=_rank)
    missing = [function for function in functions if not function.is_cached]
    with tempfile.TemporaryDirectory() as claims:
        helper = None
        if len(missing) >= WORTH and (os.cpu_count() or 1) > 1:
            command = [sys.executable, "-m", "runtime.compilation", claims, *(f.name for f in missing)]
            root = str(Path(__file__).parents[1])
            paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
            helper = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, stdin=subprocess.DEVNULL)
        try:
            left = []
            for done, function in enumerate(functions):
                if progress is not None:
                    progress("compile", done - len(left), len(functions))
                if function.is_cached or helper is None or claim(Path(claims), function.name):
                    _ = function.code
                else:
                    left.append(function)
            if helper is not None:
                helper.wait()
            for done, function in enumerate(left):  # the helper has written these, or it failed and they are done here
                if progress is not None:
                    progress("compile", len(functions) - len(left) + done, len(functions))
                _ = function.code
        finally:
            if helper is not None and helper.poll() is None:
                helper.kill()
                helper.wait()
    if progress is not None:
        progress("compile", len(functions), len(functions))


def _rank(function: Compiled) -> int:
    return next((rank for rank, part in enumerate(LONG) if f".{part}" in function.name), len(LONG))


def claim(folder: Path, name: str) -> bool:
    """Whether this process is the first to take the function `name`."""
    try:
        (folder / name.replace(":", ".")).open("x").close()
    except FileExistsError:
        return False
    return True


def main() -> None:
    """Compile the functions that nobody else has taken."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name in names:
        module, function = name.split(":")
        if claim(folder, name):
            _ = getattr(importlib.import_module(module), function).code


if __name__ == "__main__":
    main()
