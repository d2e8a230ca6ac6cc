"""K-quants: super-blocks of 256 weights, whose groups have scales that are quantized themselves.

             group  x^ of a weight             group scale             bits/weight
    Q2_K     16     (d sc) q - (dmin m)        sc, m 4 bits            2.625
    Q3_K     16     (d (sc - 32)) (q - 4)      sc 6 bits               3.4375
    Q4_K     32     (d sc) q - (dmin m)        sc, m 6 bits            4.5
    Q5_K     32     (d sc) q - (dmin m)        sc, m 6 bits            5.5
    Q6_K     16     (d sc) (q - 32)            sc int8                 6.5625
    Q8_K     256    d q                        d float32, q int8       9.125, with sums of 16: activations only

Shapes   decode (...) layout -> (..., 256) float32.
Order    all arithmetic is float32; brackets above say the order, one rounding each, never fused. d and dmin are
         float16 (float32 in Q8_K). The minimum is subtracted: dmin m >= 0 stands for a negative smallest weight.
Total    any bytes decode; an infinite d times a zero is NaN, as in C.
Source   ggml/src/ggml-quants.c, dequantize_row_q*_K; ggml-common.h for the layouts.
"""

import numpy as np

from refquant.gguf import planes

Q2_K = np.dtype([("scales", "u1", 16), ("qs", "u1", 64), ("d", "<f2"), ("dmin", "<f2")])
Q3_K = np.dtype([("hmask", "u1", 32), ("qs", "u1", 64), ("scales", "u1", 12), ("d", "<f2")])
Q4_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qs", "u1", 128)])
Q5_K = np.dtype([("d", "<f2"), ("dmin", "<f2"), ("scales", "u1", 12), ("qh", "u1", 32), ("qs", "u1", 128)])
Q6_K = np.dtype([("ql", "u1", 128), ("qh", "u1", 64), ("scales", "i1", 16), ("d", "<f2")])
Q8_K = np.dtype([("d", "<f4"), ("qs", "i1", 256), ("bsums", "<i2", 16)])


@np.errstate(all="ignore")
def decode_q2_k(b: np.ndarray) -> np.ndarray:
    """Two runs of 32 bytes; byte j of a run is DDCCBBAA: weights j, 32 + j, 64 + j, 96 + j of its 128.

    scales   byte g is MMMMSSSS: m and sc of group g
    """
    q = planes.split(b["qs"].reshape(*b.shape, 2, 32), 2)  # (..., 2, 4, 32)
    return _with_minimum(b, b["scales"] & np.uint8(15), b["scales"] >> np.uint8(4), q)


@np.errstate(all="ignore")
def decode_q3_k(b: np.ndarray) -> np.ndarray:
    """Low two bits as in Q2_K; the third bit of weight 32 p + j is bit p of hmask[j].

    hmask[j] = HGFEDCBA: A belongs to weight j, B to weight 32 + j, ..., H to weight 224 + j. q is 4 h + low, so
    q - 4 is the low bits alone where h is set.
    """
    low = planes.split(b["qs"].reshape(*b.shape, 2, 32), 2).reshape(*b.shape, 256)
    high = planes.split(b["hmask"], 1).reshape(*b.shape, 256)
    q = (low | (high << np.uint8(2))).astype(np.float32) - np.float32(4)
    return _scaled(b, _sixteen_scales(b["scales"]).astype(np.float32) - np.float32(32), q)


@np.errstate(all="ignore")
def decode_q4_k(b: np.ndarray) -> np.ndarray:
    """Four runs of 32 bytes; byte j of a run is BBBBAAAA: weights j and 32 + j of its 64."""
    q = planes.split(b["qs"].reshape(*b.shape, 4, 32), 4)  # (..., 4, 2, 32)
    return _with_minimum(b, *eight_scales(b["scales"]), q)


@np.errstate(all="ignore")
def decode_q5_k(b: np.ndarray) -> np.ndarray:
    """Low four bits as in Q4_K; the fifth bit of weight 32 p + j is bit p of qh[j]."""
    low = planes.split(b["qs"].reshape(*b.shape, 4, 32), 4).reshape(*b.shape, 8, 32)
    return _with_minimum(b, *eight_scales(b["scales"]), low | (planes.split(b["qh"], 1) << np.uint8(4)))


@np.errstate(all="ignore")
def decode_q6_k(b: np.ndarray) -> np.ndarray:
    """Two halves of 128 weights, each with 64 bytes of ql and 32 bytes of qh.

    ql[j] = BBBBAAAA   j < 64: low four bits of weights j and 64 + j of the half
    qh[j] = DDCCBBAA   j < 32: high two bits of weights j, 32 + j, 64 + j, 96 + j of the half
    """
    low = planes.split(b["ql"].reshape(*b.shape, 2, 64), 4).reshape(*b.shape, 256)
    high = planes.split(b["qh"].reshape(*b.shape, 2, 32), 2).reshape(*b.shape, 256)
    q = (low | (high << np.uint8(4))).astype(np.float32) - np.float32(32)
    return _scaled(b, b["scales"].astype(np.float32), q)


@np.errstate(all="ignore")
def decode_q8_k(b: np.ndarray) -> np.ndarray:
    """One signed byte a weight, in order; bsums (sums of 16 codes, for dot products) take no part."""
    return b["d"][..., None].astype(np.float32) * b["qs"].astype(np.float32)


def eight_scales(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., 12) bytes of Q4_K or Q5_K -> sc, m: (..., 8) uint8 each, 0..63.

    Scales A..H and minima a..h; four lie whole in the low six bits, the others are cut 4 + 2.

     0   EEAAAAAA     1   FFBBBBBB     2   GGCCCCCC     3   HHDDDDDD
     4   eeaaaaaa     5   ffbbbbbb     6   ggcccccc     7   hhdddddd
     8   eeeeEEEE     9   ffffFFFF    10   ggggGGGG    11   hhhhHHHH
    """
    scale, minimum, rest = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    six, four, top = np.uint8(63), np.uint8(15), np.uint8(0x30)
    sc = np.concatenate([scale & six, (rest & four) | ((scale >> np.uint8(2)) & top)], axis=-1)
    m = np.concatenate([minimum & six, (rest >> np.uint8(4)) | ((minimum >> np.uint8(2)) & top)], axis=-1)
    return sc, m


def _sixteen_scales(packed: np.ndarray) -> np.ndarray:
    """(..., 12) bytes of Q3_K -> (..., 16) uint8, 0..63. Letters are the scales, in order A..P.

    0  IIIIAAAA    1  JJJJBBBB    2  KKKKCCCC    3  LLLLDDDD
    4  MMMMEEEE    5  NNNNFFFF    6  OOOOGGGG    7  PPPPHHHH
    8  MMIIEEAA    9  NNJJFFBB   10  OOKKGGCC   11  PPLLHHDD
    """
    low = planes.split(packed[..., :8], 4).reshape(*packed.shape[:-1], 16)
    high = planes.split(packed[..., 8:], 2).reshape(*packed.shape[:-1], 16)
    return low | (high << np.uint8(4))


def _scaled(b: np.ndarray, scale: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(d scale) q: scale (..., 16) float32, q (..., 256) float32 -> (..., 256) float32."""
    scale = b["d"].astype(np.float32)[..., None] * scale
    return (scale[..., None] * q.reshape(*b.shape, 16, 16)).reshape(*b.shape, 256)


def _with_minimum(b: np.ndarray, sc: np.ndarray, m: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(d sc) q - (dmin m): sc, m (..., groups) codes, q 256 codes a block in weight order -> (..., 256) float32."""
    scale = b["d"].astype(np.float32)[..., None] * sc.astype(np.float32)
    minimum = b["dmin"].astype(np.float32)[..., None] * m.astype(np.float32)
    q = q.reshape(*sc.shape, 256 // sc.shape[-1]).astype(np.float32)
    return (scale[..., None] * q - minimum[..., None]).reshape(*b.shape, 256)
