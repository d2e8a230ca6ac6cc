"""The 8-bit dynamic map: a sign, a run of zeros that is a decimal exponent, and a fraction in the bits that are left.

    exponent  e = 0 .. E-1 (E = 7): the interval (10^(e-E) .. 10^(e-E+1)] is cut into 2^(e + f) equal parts,
              f = bits - 1 - E (unsigned: bits - E); each part is represented by its middle
    levels    those middles, with both signs if signed, and 0 and 1; ascending, the index is the code
    encode    s = max|x| over a block, code = nearest level of x / s          decode   x^ = s * LEVELS[code]

Signed    256 levels, code 127 is 0, the ends are -0.99296874 and 1: there is no -1.
Unsigned  256 levels, code 0 is 0; for data that is never negative (second moments). A negative x takes code 0.
Table     the cuts of 0.1 .. 1 are torch.linspace's: a float32 step, counted from the nearer end, one rounding for
          product and sum. (np.linspace differs in the last bit of 22 levels.) Their means, and the products with the
          power of ten, are float32.
Blocks    256 values of the flattened array share a scale; see codebook.py for ties, zero and subnormal blocks.
Source    Dettmers 2015, arXiv:1511.04561; Dettmers et al. 2021, arXiv:2110.02861; bitsandbytes create_dynamic_map.

    dialect                what it does otherwise                                            of bitsandbytes 0.50.2
    bitsandbytes-cuda      x * (1 / s); a zero block takes code 0; subnormal x and s are 0   csrc/kernels.cu
                           (its 1 / s is approximate: 14 of 2^24 codes were others on an H200)
    bitsandbytes-default   x * (1 / max(s, 1e-38)); a zero block takes the code of 0         backends/default/ops.py
    bitsandbytes-cpu       v = x * (1 / s) is first rounded to one of 65536 points of        csrc/cpu_ops.cpp
                           -1 .. 1, i = trunc((v + 1) / 2 * 65535 + 1/2), and the level nearest to point i is taken.
                           Zero falls between two points: it becomes code 131, +2.1e-5 s. A zero block takes code 0.

The 65536 points need no arithmetic of their own: code(v) never falls when v grows, so `cpu_bounds` finds the largest v
of each code once, and the comparison x > bound does the rest. Seven codes around 0 are never used.
"""

import numpy as np

from refquant import codebook
from refquant.errors import RangeError

POINTS = 65536


def levels(signed: bool = True, exponent_bits: int = 7, bits: int = 8) -> np.ndarray:
    """The 2^bits levels, ascending float32. Raises RangeError for a division of the bits that does not fill them."""
    spare = (1 << max(bits - 1 - exponent_bits, 0)) - 1  # codes whose exponent bits are all 0
    if not (2 <= bits <= 8 and 1 <= exponent_bits <= bits - 1) or (spare and not signed):
        wanted = "2 to 8 bits and 1 to bits - 1 exponent bits, all but one of unsigned ones"
        raise RangeError(f"dynamic_map.levels: bits, exponent_bits = {bits}, {exponent_bits}, expected {wanted}")
    found = [np.zeros(1, np.float32), np.ones(1, np.float32)]
    for e in range(exponent_bits):
        parts = 1 << (e + bits - exponent_bits - signed)
        middles = np.float32(10.0 ** (e - exponent_bits + 1)) * _middles(parts)
        found += [middles, -middles] if signed else [middles]
    if spare:
        found += [_middles(spare), -_middles(spare)]
    return np.sort(np.concatenate(found))


def _middles(parts: int) -> np.ndarray:
    low, high, i = np.float32(0.1), np.float32(1), np.arange(parts + 1)
    step = np.float64((high - low) / np.float32(parts))  # float64 holds every product and sum below exactly
    cuts = np.where(i < (parts + 1) // 2, low + step * i, high - step * (parts - i)).astype(np.float32)
    return (cuts[:-1] + cuts[1:]) / np.float32(2)


def cpu_bounds(table: np.ndarray) -> np.ndarray:
    """The largest float32 that the CPU library of bitsandbytes gives each code but the last, (len(table) - 1,)."""
    points = np.float32(-1) + np.arange(POINTS).astype(np.float32) * np.float32(2) / np.float32(POINTS - 1)
    code_of_point = np.searchsorted(codebook.midpoints(table), points, side="left")
    wanted = np.arange(len(table) - 1)
    # Bisect over float32 in order: i counts them upward from -1, negative ones downward in magnitude.
    one = int(np.float32(1).view(np.int32))
    low, high = np.full(wanted.shape, -one - 1), np.full(wanted.shape, one)  # code(low) <= wanted < code(high)
    while (high - low > 1).any():
        middle = (low + high) // 2
        below = code_of_point[_point(_ordered(middle))] <= wanted
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return _ordered(np.maximum(low, -one - 1))


def _point(v: np.ndarray) -> np.ndarray:
    """The nearest of the points to v, as the library computes it."""
    scaled = (np.clip(v, -1, 1) + np.float32(1)) * np.float32(0.5) * np.float32(POINTS - 1) + np.float32(0.5)
    return scaled.astype(np.int64)


def _ordered(rank: np.ndarray) -> np.ndarray:
    """The float32 of each rank: 0 is +0, 1 the smallest positive, -1 is -0, -2 the smallest negative."""
    bits = np.where(rank < 0, (-1 - rank) | 0x80000000, rank)
    return bits.astype(np.uint32).view(np.float32)


RULE = codebook.Rule(tuple(levels().tolist()))
UNSIGNED = codebook.Rule(tuple(levels(signed=False).tolist()))
DIALECTS = {
    "bitsandbytes-cuda": {"reciprocal": True, "flush": True},
    "bitsandbytes-default": {"reciprocal": True, "min_divisor": 1e-38},
    "bitsandbytes-cpu": {"reciprocal": True, "bounds": tuple(cpu_bounds(RULE.table).tolist())},
}
UNSIGNED_DIALECTS = DIALECTS | {
    "bitsandbytes-cpu": {"reciprocal": True, "bounds": tuple(cpu_bounds(UNSIGNED.table).tolist())}
}


def dialect(name: str) -> codebook.Rule:
    """The signed rule by the customs of `name`."""
    return codebook.Rule(RULE.levels, **DIALECTS[name])
