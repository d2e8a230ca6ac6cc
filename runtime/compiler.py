"""Numba, where it is needed: what is in no cache yet is compiled here. Importing this imports Numba.

Nothing is compiled with fastmath. The configuration of Numba is set for the tier: one that is forced compiles for a CPU
that has no more.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import llvmlite.binding as llvm
import numba
from numba import types
from numba.core import config

from runtime import jit, symbols
from runtime.simd import columns, dot, lookup, memory, threads, tier, tiles, transpose, vectors

if TYPE_CHECKING:
    from numba.core.codegen import CodeLibrary
    from numba.core.dispatcher import Dispatcher

# Imported for what they teach Numba before it types the first kernel.
OPERATIONS = (columns, dot, lookup, memory, threads, tiles, transpose, vectors)
UNCALLED = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

config.CPU_NAME, config.CPU_FEATURES = tier.target(tier.TIER)
for _name, _address in symbols.OURS.items():
    llvm.add_symbol(_name, _address)


def compile_for_int64(function: Callable, arity: int, returns: bool) -> tuple["CodeLibrary", str]:
    """Numba's library of a function of `arity` int64, and the name that the function has in it."""
    result = types.int64 if returns else types.void
    code = numba.cfunc(result(*[types.int64] * arity))(function)
    return code._library, code.native_name


def compile_for_arrays(function: Callable, signature) -> "Dispatcher":
    """A function of a Numba signature, by the cache that Numba keeps itself."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(jit.CACHE)  # read by Numba while it decorates, and given back to whoever else uses Numba
    try:
        decorate = numba.njit(signature, nogil=True, cache=True, boundscheck=tier.CHECKED, error_model="numpy")
        return decorate(function)
    finally:
        config.CACHE_DIR = before


def inline(function: Callable) -> "Dispatcher":
    """A function that is compiled into those that call it."""
    return numba.njit(nogil=True, **UNCALLED)(function)


def inline_as_c(function: Callable) -> "Dispatcher":
    """The same with the float division of C."""
    return numba.njit(nogil=True, boundscheck=tier.CHECKED, error_model="numpy", **UNCALLED)(function)
