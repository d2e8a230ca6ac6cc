"""Grids of integers that stand for a GGUF type in methods that need one.

rounding_grid   the type's own numbers: integers in groups of 32 under a float16 scale, symmetric, as Q4_0 and Q8_0 have
                them. GPTQ and SparseGPT round to it, and the codes are the file's.
search_grid     the nearest such grid, for AWQ's search of channel scales: which channels matter depends on how many
                bits there are more than on how a type stores its scales. Weights are encoded in the type afterwards.
"""

from refquant import schemes
from refquant.errors import SchemeError
from refquant.gguf import FORMATS
from refquant.gguf.file_types import FILE_TYPES, lookup
from refquant.schemes import Scheme

EXACT = {"Q4_0": "int4-g32", "Q8_0": "int8-g32"}
_NEAREST = EXACT | {"Q4_1": "int4-g32-asym", "Q5_0": "int5-g32", "Q5_1": "int5-g32-asym"}
_NEAREST |= {"Q2_K": "int2-g16-asym", "Q3_K": "int3-g16", "Q4_K": "int4-g32-asym", "Q5_K": "int5-g32-asym"}
_NEAREST |= {"Q6_K": "int6-g16", "IQ4_NL": "int4-g32", "IQ4_XS": "int4-g32", "NVFP4": "int4-g16", "MXFP4": "int4-g32"}


def base_type(file_type: str) -> str:
    """The ggml type of most matrices of a file type, or the type itself. Raises SchemeError."""
    upper = file_type.upper()
    return upper if upper in FORMATS and upper not in FILE_TYPES else lookup(file_type).base


def type_of(weights: Scheme | None, activations: Scheme | None) -> str:
    """The type that holds what a scheme makes. Raises SchemeError where none does, or inputs are to be rounded."""
    found = next((name for name, grid in EXACT.items() if grid == str(weights)), None)
    if found is None or activations is not None:
        inputs = f" with inputs in {activations}" if activations else ""
        known = ", ".join(f"{grid} ({name})" for name, grid in EXACT.items())
        raise SchemeError(f"recipe: {weights}{inputs} as gguf, expected {known}, or a file type such as Q4_K_M")
    return found


def rounding_grid(file_type: str, method: str) -> Scheme:
    """The scheme whose codes are those of the type. Raises SchemeError where it is no grid of integers."""
    base = base_type(file_type)
    if base not in EXACT:
        known = ", ".join(EXACT)
        raise SchemeError(
            f"recipe: {method} to {file_type}: {base} is no grid that is known column by column, expected {known}; "
            f"for others take an importance matrix, or the methods awq and smoothquant"
        )
    return schemes.parse(EXACT[base])


def search_grid(file_type: str, method: str) -> Scheme:
    """The scheme that a search of scales takes for the type. Raises SchemeError where there is none near."""
    base = base_type(file_type)
    if base not in _NEAREST:
        raise SchemeError(f"recipe: {method} to {file_type}: {base}, expected one of {', '.join(_NEAREST)}")
    return schemes.parse(_NEAREST[base])
