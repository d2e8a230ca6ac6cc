"""How many threads BLAS takes: one while tasks run, so that many tasks may, and so that the number changes no bit.

OpenBLAS cuts a product of matrices into other parts for another number of threads, which may change the last bits of
sums. The NumPy of PyPI brings an OpenBLAS whose number of threads one of its functions sets; of another BLAS
(Accelerate, MKL, a distribution's) nothing is changed here, and its own variable is for the user to set.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

_PLACES = ("../numpy.libs", ".dylibs", "../numpy.dylibs")
_NAMES = ("scipy_openblas_{}_num_threads64_", "openblas_{}_num_threads64_", "openblas_{}_num_threads")


def set_threads(count: int) -> int | None:
    """Have BLAS take `count` threads; what it took before, or None where that cannot be set."""
    functions = _functions()
    if functions is None:
        return None
    get, put = functions
    before = int(get())
    if before != count:
        put(count)
    return before


@cache
def _functions() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """(get, set) of the library that NumPy has loaded."""
    for place in _PLACES:
        for file in sorted((Path(np.__file__).parent / place).glob("*openblas*")):
            try:
                library = ctypes.CDLL(str(file))
            except OSError:
                continue  # not for this machine
            for name in _NAMES:
                get, put = (getattr(library, name.format(word), None) for word in ("get", "set"))
                if get is not None and put is not None:
                    return get, put
    return None
