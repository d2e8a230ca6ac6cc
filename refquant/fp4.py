"""FP4 of bitsandbytes: 4 bits, sign and 3 bits of a small float, one absmax per block. It is not E2M1 of OCP.

    code   s e e m      12 |value| by the three low bits: 000 0, 001 1/16, 010 8, 011 12, 100 4, 101 6, 110 2, 111 3
    encode s = max|x| over a block          code = sign and nearest |level| of x / s
    decode x^ = s * LEVELS[code]

Codes    are not in the order of their values; 0 and 8 are two zeros. A negative x that is nearest 0 takes code 8.
Rounding nearest magnitude; a tie takes the smaller magnitude (`|x| > bound` is the test).
Zeros    an all-zero block, of either sign, has scale 0 and code 0.
Bytes    as NF4: 4.5 bits per weight at 64, 4.127 with the word dq; bitsandbytes packs the high nibble first.
Source   Dettmers & Zettlemoyer 2022, arXiv:2212.09720; bitsandbytes 0.50.2 get_4bit_type, kernels.cu.
Differs  the default has the float32 midpoints of the float32 levels as bounds. The CUDA and Triton kernels have decimal
         literals, five of which are another float32: .00260417 is 14 ulp high, .20833333, .29166667 and .8333333 are
         1 ulp low, and .583333, which lost a digit of 7/12, is 6 ulp low. A weight in between gets another code.

    dialect                     bounds      x is scaled by             zero                   of bitsandbytes 0.50.2
    bitsandbytes-cuda           literals    x * (1 / s), flushed       as above               csrc/kernels.cu
    bitsandbytes-triton         literals    x / s                      zero block: code 3     kernels_4bit.py
    bitsandbytes-default, -cpu  midpoints   x * (1 / max(s, 1e-38))    x <= 0 takes code 0,   default/ops.py
                                                                       x > 0 takes code 8
Flushed: subnormal x and s count as 0. The GPU kernels divide approximately (nf4.py); of 2^24 Gaussian weights 1 each
took another code on an H200. The default back end sorts the 16 values, so that its ties go to the lower value, also
below zero, and the two zeros are parted by the sign of x the wrong way round; either decodes to a zero.
"""

import numpy as np

from refquant import codebook, dynamic_map
from refquant.groups import group

TWELFTHS = (0, 1 / 16, 8, 12, 4, 6, 2, 3)
LEVELS = np.array([*TWELFTHS, *(-v for v in TWELFTHS)], np.float32) / np.float32(12)
LEVELS[8] = 0.0  # bitsandbytes writes -0 as an integer
LEVELS.flags.writeable = False
ASCENDING = (11, 10, 13, 12, 15, 14, 9, 8, 0, 1, 6, 7, 4, 5, 2, 3)  # codes by value
LITERALS = np.array([0.00260417, 0.0859375, 0.20833333, 0.29166667, 0.4166667, 0.583333, 0.8333333], np.float32)


def mirrored(bounds: np.ndarray) -> tuple[float, ...]:
    """Bounds of magnitudes as bounds of values: x > b for positive x, and -x > b, not x >= -b, for negative ones."""
    below = np.nextafter(np.r_[-bounds[::-1], np.float32(0)], np.float32(-1), dtype=np.float32)  # x > below is x >= -b
    return tuple(np.r_[below, bounds].tolist())


MIDPOINTS = codebook.midpoints(LEVELS[list(ASCENDING[8:])])
RULE = codebook.Rule(tuple(LEVELS.tolist()), bounds=mirrored(MIDPOINTS), order=ASCENDING, scale_rule=dynamic_map.RULE)
_SORTED = {
    "reciprocal": True,
    "min_divisor": 1e-38,
    "bounds": tuple(np.r_[-MIDPOINTS[::-1], np.float32(0), MIDPOINTS].tolist()),
    "order": (*ASCENDING[:7], 0, 8, *ASCENDING[9:]),
}
DIALECTS = {
    "bitsandbytes-cuda": {
        "reciprocal": True,
        "flush": True,
        "bounds": mirrored(LITERALS),
        "scale_rule": dynamic_map.dialect("bitsandbytes-cuda"),
    },
    "bitsandbytes-triton": {"zero_code": 3, "bounds": mirrored(LITERALS)},
    "bitsandbytes-default": _SORTED | {"scale_rule": dynamic_map.dialect("bitsandbytes-default")},
    "bitsandbytes-cpu": _SORTED | {"scale_rule": dynamic_map.dialect("bitsandbytes-cpu")},
}


def encode(x: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError."""
    return codebook.encode(x, RULE, group(block))


def decode(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inverse of `encode` up to rounding: float32, the shape of `codes`."""
    return codebook.decode(codes, scale, RULE, group(codes.shape[-1] // scale.shape[-1]))
