"""`kernel`: the one way this package compiles a function, and where the compiled code is kept.

    @kernel
    def matmul(w, x, y, lo, hi): ...

is `numba.njit(nogil=True, cache=True)` without fastmath: the float order written in a kernel is the order it runs in,
so that a kernel can equal its NumPy twin bit for bit.

Numba's own cache looks at the one file that holds the function; a kernel that calls a function of another file would be
reused after that file changed. The cache directory is therefore named by a hash of every source file of this package,
the versions of Numba and llvmlite, the CPU, its features and the environment variables that change the code.

    REFQUANT_CACHE   the directory of all caches; default: the user's cache directory of this system
"""

import hashlib
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba
from numba.core import config


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
    for source in sorted(Path(__file__).parent.rglob("*.py")):
        key.update(source.name.encode() + b"\0" + source.read_bytes())
    target = [
        numba.__version__,
        llvmlite.__version__,
        platform.machine(),
        str(config.CPU_NAME),
        str(config.CPU_FEATURES),
    ]
    target += [llvmlite.binding.get_host_cpu_name(), llvmlite.binding.get_host_cpu_features().flatten()]
    key.update("\0".join(target).encode())
    return key.hexdigest()[:16]


CACHE = user_cache_directory() / f"kernels-{cache_key()}"


def kernel(function: Callable) -> Callable:
    """Compile `function` on first call: no GIL, cached on disk, strict floating point."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(CACHE)  # read by Numba while it decorates, and given back to whoever else uses Numba
    try:
        return numba.njit(nogil=True, cache=True)(function)
    finally:
        config.CACHE_DIR = before
