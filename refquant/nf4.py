"""NF4 (NormalFloat, 4 bits): 16 levels near the quantiles of N(0, 1), one absmax per block.

    encode   s = max|x| over a block          code = argmin_k |x / s - LEVELS[k]|
    decode   x^ = s * LEVELS[code]

Shapes   x (..., n) float32, n a multiple of `block`;  codes (..., n) uint8 in 0..15;
         scale (..., n // block) float32, in the units of x.
Rounding nearest level; a tie takes the lower code (the authors' code tests `x > midpoint`).
Zeros    an all-zero block has scale 0 and code 7 (LEVELS[7] = 0): it decodes to zeros.
Bytes    4 bits a code and 32 a scale: 4.5 bits per weight at 64; with the word dq 4.127 (double_quant.py).
         bitsandbytes packs the high nibble first.
Source   Dettmers et al. 2023, QLoRA, arXiv:2305.14314, sec. 3 and app. E.

    dialect                     x is scaled by            zero block      of bitsandbytes 0.50.2
    bitsandbytes-cuda           x * (1 / s), subnormal    code 0          csrc/kernels.cu; CUDA_BOUNDS
                                x and s count as 0
    bitsandbytes-default, -cpu  x * (1 / max(s, 1e-38))   code 7          backends/default/ops.py; the CPU encodes by it
    bitsandbytes-default-tail   x / max(s, 1e-38)         code 7, and     the same file for a last block that is short:
                                                          scale 1e-38     encode it alone, with granularity tensor
    bitsandbytes-triton         x / s                     code 15         backends/triton/kernels_4bit.py

A reciprocal moves a few codes next to a midpoint by one. The two GPU kernels divide approximately, within 2 ulp: on an
H200, of 2^24 Gaussian weights, CUDA gave 1 and Triton 3 another code than its dialect; scales, ties, zero and subnormal
blocks were the same. With dq, bitsandbytes-cpu also quantizes the scales as the CPU library does (dynamic_map.py).
"""

import numpy as np

from refquant import codebook, dynamic_map
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
# kernels.cu writes the midpoints with 16 digits. Where a midpoint lies halfway between two float32, those digits are
# not enough, and the compiler rounds four of them to the other one (Triton goes through float64 and does not).
CUDA_BOUNDS = codebook.midpoints(LEVELS)
CUDA_BOUNDS[[0, 12, 14]] = np.nextafter(CUDA_BOUNDS[[0, 12, 14]], np.float32(-1))
CUDA_BOUNDS[8] = np.nextafter(CUDA_BOUNDS[8], np.float32(1))
CUDA_BOUNDS.flags.writeable = False
RULE = codebook.Rule(tuple(LEVELS.tolist()), scale_rule=dynamic_map.RULE)
DIALECTS = {
    "bitsandbytes-cuda": {
        "reciprocal": True,
        "flush": True,
        "bounds": tuple(CUDA_BOUNDS.tolist()),
        "scale_rule": dynamic_map.dialect("bitsandbytes-cuda"),
    },
    "bitsandbytes-default": {
        "reciprocal": True,
        "min_divisor": 1e-38,
        "scale_rule": dynamic_map.dialect("bitsandbytes-default"),
    },
    "bitsandbytes-cpu": {
        "reciprocal": True,
        "min_divisor": 1e-38,
        "scale_rule": dynamic_map.dialect("bitsandbytes-cpu"),
    },
    "bitsandbytes-default-tail": {"min_scale": 1e-38},
    "bitsandbytes-triton": {"zero_code": 15},
}


def encode(x: np.ndarray, block: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Return (codes, scale). Raises ShapeError, NonFiniteError, RangeError."""
    return codebook.encode(x, RULE, group(block))


def decode(codes: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Inverse of `encode` up to rounding: float32, the shape of `codes`."""
    return codebook.decode(codes, scale, RULE, group(codes.shape[-1] // scale.shape[-1]))
