"""NF4 (NormalFloat, 4 bits): 16 levels near the quantiles of N(0, 1), one absmax per block.

    encode   s = max|x| over a block          code = argmin_k |x / s - LEVELS[k]|
    decode   x^ = s * LEVELS[code]

Shapes   x (..., n) float32, n a multiple of `block`;  codes (..., n) uint8 in 0..15;
         scale (..., n // block) float32, in the units of x.
Rounding nearest level; a tie takes the lower code (the authors' code tests `x > midpoint`).
Zeros    an all-zero block has scale 0 and code 7 (LEVELS[7] = 0): it decodes to zeros.
Bytes    4 bits a code and 32 a scale: 4.5 bits per weight at 64. bitsandbytes packs the high nibble first.
Source   Dettmers et al. 2023, QLoRA, arXiv:2305.14314, sec. 3 and app. E.
Differs  no double quantization of the scales. `nf4@bitsandbytes-cuda` multiplies by the float32 reciprocal of s: a few
         codes next to a midpoint differ, and a zero block gets code 0.
"""

import numpy as np

from refquant import codebook
from refquant.groups import group

# Normative as printed (QLoRA app. E): recomputing the quantiles in float64 lands up to 8 ulp
# away, so tests/refquant/test_nf4.py derives them and this file does not.
LEVELS = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
     -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
     0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0],
    dtype=np.float32,
)  # fmt: skip
LEVELS.flags.writeable = False
RULE = codebook.Rule(tuple(LEVELS.tolist()))
DIALECTS = {"bitsandbytes-cuda": {"reciprocal": True}}


def encode(x: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError."""
    return codebook.encode(x, RULE, group(block))


def decode(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inverse of `encode` up to rounding: float32, the shape of `codes`."""
    return codebook.decode(codes, scale, RULE, group(codes.shape[-1] // scale.shape[-1]))
