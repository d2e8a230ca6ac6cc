"""Bit planes: how every ggml block packs codes narrower than a byte.

A run of n bytes holds 8 / bits planes of n codes. Plane 0 lies in the lowest bits, and each plane is a run of
consecutive weights, so that one shift of a whole SIMD register unpacks n neighbours:

    bits = 4      byte j   BBBB AAAA       A = weight j, B = weight n + j
    bits = 2      byte j   DD CC BB AA     A = weight j, B = weight n + j, C = weight 2n + j, D = weight 3n + j
    bits = 1      byte j   HGFEDCBA        A = weight j, ..., H = weight 7n + j

A format is told apart by its n: Q4_0 has n = 16, Q4_K has n = 32, and n = 1 is plain little-endian bit order.
"""

import numpy as np


def split(data: np.ndarray, bits: int) -> np.ndarray:
    """(..., n) uint8 -> (..., 8 // bits, n) uint8 codes, plane by plane. `bits` is 1, 2 or 4."""
    return (data[..., None, :] >> _shifts(bits)) & np.uint8((1 << bits) - 1)


def join(codes: np.ndarray, bits: int) -> np.ndarray:
    """(..., 8 // bits, n) uint8 codes below 2**bits -> (..., n) uint8: the inverse of `split`."""
    return np.bitwise_or.reduce(codes << _shifts(bits), axis=-2)


def _shifts(bits: int) -> np.ndarray:
    return np.arange(0, 8, bits, dtype=np.uint8)[:, None]
