"""Bit fields of equal width in one integer, the first in the lowest bits: DDDCCCBBBAAA for A, B, C, D of 3 bits."""

import numpy as np


def join_fields(fields: np.ndarray, bits: int) -> np.ndarray:
    """(..., n) integers below 2**bits -> (...) of their dtype, which must hold n * bits bits."""
    return np.bitwise_or.reduce(fields << np.arange(0, bits * fields.shape[-1], bits, dtype=fields.dtype), axis=-1)
