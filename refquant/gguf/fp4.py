"""MXFP4 and NVFP4 as ggml stores them: four-bit floats E2M1 under an eight-bit float scale.

    x^ = DOUBLED[code] * half_scale          DOUBLED = 2 x E2M1, so that the table fits an int8

    code   S E E M      0  0.5  1  1.5  2  3  4  6   and the negatives from code 8 on; code 8 decodes to +0

             weights  scale     one per  half_scale
    MXFP4    32       E8M0      32       2^(e - 128): subnormal for e < 2; e = 255 is 2^127, not the NaN of OCP
    NVFP4    64       UE4M3     16       below; the optional float32 factor `<tensor>.scale` is the caller's to apply

UE4M3 is E4M3 without a sign: bit 7 is ignored, and the bytes 0x7F (NaN elsewhere), 0x00 and 0x80 decode to 0, while
0xFF decodes to 480. Otherwise 2^-9 * M for E = 0 and 2^(E - 7) * (1 + M / 8) above, here halved.

    encode   MXFP4    e = floor(log2(max|x|)) + 125; the logarithm is rounded to float32 before the floor, so that up to
                      44 floats below 2^k count as 2^k. 0 for a block of zeros. Below max|x| = 2^-125, e is negative
                      and kept modulo 256; all codes are then 0.
             NVFP4    d = UE4M3 nearest to max|x| / 6, half up; 0 below 2^-10, and 448 from 248 on: ggml has no scales
                      between 240 and 448
             both     the code whose |DOUBLED[code] * half_scale - x| is least in float32, the lower of equals: the
                      smaller magnitude, and never code 8. Beyond the largest, saturated.

Shapes   decode (...) layout -> (..., 32) or (..., 64) float32. A product past the range of float32 is infinite.
         encode the inverse. Importance is ignored, as in ggml.
Refused  NaN and infinities in x: NonFiniteError.
Source   ggml/src/ggml-impl.h, ggml_e8m0_to_fp32_half, ggml_ue4m3_to_fp32, ggml_fp32_to_ue4m3; ggml-common.h,
         kvalues_mxfp4; ggml-quants.c, quantize_row_mxfp4_ref, quantize_row_nvfp4_ref.
         OCP Microscaling Formats (MX) v1.0, sec. 5.3.3 for E2M1 and 5.4.1 for E8M0.
Differs  OCP-style tensors outside GGUF put weights 2j and 2j + 1 into a byte; ggml puts j and j + n / 2.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf.legacy import nibbles, pack_nibbles

MXFP4 = np.dtype([("e", "u1"), ("qs", "u1", 16)])
NVFP4 = np.dtype([("d", "u1", 4), ("qs", "u1", 32)])

DOUBLED = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
E8M0_HALF = np.ldexp(np.float32(1), np.arange(256) - 128)  # (256,) float32, exact

_BYTE = np.arange(256)
_EXPONENT, _MANTISSA = (_BYTE >> 3) & 15, (_BYTE & 7).astype(np.float32)
UE4M3_HALF = np.where(
    _EXPONENT == 0, np.ldexp(_MANTISSA, -10), np.ldexp(np.float32(1) + _MANTISSA / np.float32(8), _EXPONENT - 8)
)
UE4M3_HALF[0x7F] = 0


@np.errstate(over="ignore")
def decode_mxfp4(b: np.ndarray) -> np.ndarray:
    """Byte j of qs is BBBBAAAA: A = code of weight j, B = code of weight 16 + j."""
    return E8M0_HALF[b["e"]][..., None] * DOUBLED[nibbles(b["qs"])]


def decode_nvfp4(b: np.ndarray) -> np.ndarray:
    """Bytes 8s .. 8s + 7 of qs belong to scale s: byte j of them is BBBBAAAA, A = weight j, B = weight 8 + j of 16."""
    qs = b["qs"].reshape(*b.shape, 4, 1, 8)
    codes = np.concatenate([qs & np.uint8(15), qs >> np.uint8(4)], axis=-2)  # (..., 4, 2, 8)
    return (UE4M3_HALF[b["d"]][..., None, None] * DOUBLED[codes]).reshape(*b.shape, 64)


@np.errstate(all="ignore")
def encode_mxfp4(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("MXFP4.encode", x)
    b = np.empty(x.shape[:-1], MXFP4)
    peak = np.abs(x).max(axis=-1)
    exponent = np.floor(np.log2(peak.astype(np.float64)).astype(np.float32))
    b["e"] = np.where(peak > 0, exponent + np.float32(125), np.float32(0)).astype(np.int32) & 255
    b["qs"] = pack_nibbles(nearest_codes(x, E8M0_HALF[b["e"]]))
    return b


@np.errstate(all="ignore")
def encode_nvfp4(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    require_finite("NVFP4.encode", x)
    b = np.empty(x.shape[:-1], NVFP4)
    parts = x.reshape(*b.shape, 4, 16)
    b["d"] = encode_ue4m3(np.abs(parts).max(axis=-1) / np.float32(6))
    codes = nearest_codes(parts, UE4M3_HALF[b["d"]])
    b["qs"] = (codes[..., :8] | (codes[..., 8:] << np.uint8(4))).reshape(*b.shape, 32)
    return b


def nearest_codes(x: np.ndarray, half_scale: np.ndarray) -> np.ndarray:
    """(..., n) float32, (...) -> codes (..., n). Rounding is symmetric, so magnitudes are compared, signs put back."""
    size, half_scale = np.abs(x), half_scale[..., None]
    codes, least = np.zeros(x.shape, np.uint8), size
    for code in range(1, 8):
        off = np.abs(DOUBLED[code] * half_scale - size)
        codes[off < least] = code
        least = off  # which falls up to the nearest code and rises from there on
    return codes | (((x < 0) & (codes > 0)).astype(np.uint8) << np.uint8(3))


def encode_ue4m3(x: np.ndarray) -> np.ndarray:
    """x >= 0 float32 -> bytes. Only the first of the bits that go decides, so that a half is rounded up."""
    bits = x.view(np.int32)
    normal = (bits >> 20) + ((bits >> 19) & 1) - (120 << 3)  # E and M of float32 in a row: a carry out of M enters E
    normal = np.where(normal < 15 << 3, normal, 0x7E)
    small = np.minimum(np.trunc(x * np.float32(512) + np.float32(0.5)), np.float32(7))  # units of 2^-9
    return np.where(bits >> 23 <= 120, small, normal).astype(np.uint8)
