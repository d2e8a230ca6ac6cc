"""QuIP#'s E8P, decoding: 16 bits name a point of the lattice E8 + 1/4, eight weights at 2 bits each.

    code    ppppppppssssssss       p: one of 256 patterns of magnitudes, s: eight signs
    parity  of s                   odd: x - 1/4, and the lowest sign is flipped back to make s even; even: x + 1/4
    x       the pattern, negated where s has a 1; one entry of a pattern with an odd sum carries a minus of its own

Patterns   227 of all vectors in {1/2, 3/2, 5/2}^8 with |x|^2 <= 10, in ascending order, then 29 of |x|^2 = 12 (NORM12).
Order      entry i of x has the sign bit 0, 4, 1, 5, 2, 6, 3, 7 of s for i = 0 .. 7; the minus belongs to entry 7.
Stored     int64 (out, in / 32): two rows by two codes a word, as `unpack` draws it
Scale      not part of the code: W = had(Wscale * decode(codes)) with signs SU and SV (rotations.py).
Arithmetic exact: every x is a multiple of 1/4 below 4.
Differs    QuIP#'s first release had an older layout (patterns and signs in other places, and one pattern twice).
Not here   the encoder: the nearest of 65536 points, inside LDLQ (ldlq.py).
Source     Tseng et al. 2024, arXiv:2402.04396, sec. 4; Cornell-RelaxML/quip-sharp, latticee8_padded12.py, version 1.
"""

import itertools
from functools import cache

import numpy as np

from refquant.errors import QuantError, ShapeError

NORM12 = """
    31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133
    33133311 33133131 33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113
    31331313 13331133 13333311 13333131 13331331 13333113 13331313 11331333 33113331
"""  # in halves: five 3s and three 1s
SIGN_BITS = (0, 4, 1, 5, 2, 6, 3, 7)


def decode(codes: np.ndarray) -> np.ndarray:
    """x float32 (..., 8 n) of codes (..., n) uint16."""
    if codes.dtype != np.uint16:
        raise QuantError(f"quip_sharp.decode: codes.dtype = {codes.dtype}, expected uint16")
    return table()[codes].reshape(*codes.shape[:-1], -1)


@cache
def table() -> np.ndarray:
    """All points by code, float32 (65536, 8), read-only."""
    code = np.arange(1 << 16)
    signs = code & 255
    parity = np.bitwise_count(signs).astype(np.int64) & 1
    flips = ((signs ^ parity)[:, None] >> np.array(SIGN_BITS)) & 1
    points = patterns()[code >> 8] * (1 - 2 * flips) + 0.25 * (1 - 2 * parity)[:, None]
    points = points.astype(np.float32)
    points.flags.writeable = False
    return points


def patterns() -> np.ndarray:
    """The 256 patterns, float64 (256, 8), the minus of those with an odd sum included."""
    short = [p for p in itertools.product((0.5, 1.5, 2.5), repeat=8) if sum(x * x for x in p) <= 10]
    long = [[int(digit) / 2 for digit in word] for word in NORM12.split()]
    found = np.array([*short, *long])
    found[:, 7] *= 1 - 2 * (found.sum(axis=1) % 2)
    return found


def unpack(packed: np.ndarray) -> np.ndarray:
    """Codes uint16 (out, in / 8) of the words of a file, int64 (out, in / 32).

    The words of 16 rows and 64 columns lie together: (out / 16, in / 64, 8, 4), a word for rows 2a, 2a + 1 and codes
    2b, 2b + 1 of (8, 4) = (a, b). Code i of a word is that of row i % 2 and place i // 2:

        bits 32..63  signs      bit 4 j + i is sign j of code i
        bits  0..31  patterns   byte i is the pattern of code i
    """
    if packed.dtype != np.int64 or packed.ndim != 2 or packed.shape[0] % 16 or packed.shape[1] % 2 or not packed.size:
        raise ShapeError(
            f"quip_sharp.unpack: packed = {packed.dtype} {packed.shape}, expected int64 (16 a, 2 b): in / 32 columns"
        )
    rows, words = packed.shape
    tiles = packed.view(np.uint64).reshape(rows // 16, words // 2, 8, 4)
    ordered = tiles.transpose(0, 2, 1, 3).reshape(rows // 2, 2 * words)
    codes = np.zeros((rows // 2, 2, 2 * words, 2), np.uint16)
    for i in range(4):
        pattern = (ordered >> np.uint64(8 * i)) & np.uint64(255)
        signs = np.zeros_like(pattern)
        for j in range(8):
            signs |= ((ordered >> np.uint64(32 + 4 * j + i)) & np.uint64(1)) << np.uint64(j)
        codes[:, i % 2, :, i // 2] = (pattern << np.uint64(8)) | signs
    return codes.reshape(rows, 4 * words)
