"""Scalar decoders of GGUF blocks: bytes in, a list of floats out, one weight at a time, standard library only.

They follow the index arithmetic of the C loops, not the bit planes of `refquant.gguf`. A float32 operation is the
float64 operation rounded once: products and sums of two float32 numbers round the same either way.
"""

import math
import struct


def f32(x: float) -> float:
    """The nearest float32, an infinity past its range."""
    try:
        return struct.unpack("<f", struct.pack("<f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def half(data: bytes, at: int) -> float:
    return struct.unpack_from("<e", data, at)[0]


def signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def decode_q4_0(block: bytes) -> list[float]:
    d = half(block, 0)
    return [f32(d * (_nibble(block[2 + j % 16], j // 16) - 8)) for j in range(32)]


def decode_q4_1(block: bytes) -> list[float]:
    d, m = half(block, 0), half(block, 2)
    return [f32(f32(d * _nibble(block[4 + j % 16], j // 16)) + m) for j in range(32)]


def decode_q5_0(block: bytes) -> list[float]:
    d, word = half(block, 0), int.from_bytes(block[2:6], "little")
    return [f32(d * (_nibble(block[6 + j % 16], j // 16) + 16 * (word >> j & 1) - 16)) for j in range(32)]


def decode_q8_0(block: bytes) -> list[float]:
    d = half(block, 0)
    return [f32(d * signed(byte)) for byte in block[2:34]]


def decode_q8_1(block: bytes) -> list[float]:
    d = half(block, 0)
    return [f32(d * signed(byte)) for byte in block[4:36]]


def decode_q4_k(block: bytes) -> list[float]:
    d, dmin, scales, qs = half(block, 0), half(block, 2), block[4:16], block[16:]
    out = []
    for i in range(256):
        g = i // 32
        if g < 4:
            sc, m = scales[g] % 64, scales[g + 4] % 64
        else:
            sc = scales[g + 4] % 16 + 16 * (scales[g - 4] // 64)
            m = scales[g + 4] // 16 + 16 * (scales[g] // 64)
        q = _nibble(qs[i // 64 * 32 + i % 32], g % 2)
        out.append(f32(f32(f32(d * sc) * q) - f32(dmin * m)))
    return out


def decode_q6_k(block: bytes) -> list[float]:
    ql, qh, scales, d = block[:128], block[128:192], block[192:208], half(block, 208)
    out = []
    for i in range(256):
        side, r = divmod(i, 128)
        low = _nibble(ql[64 * side + r % 64], r // 64)
        high = qh[32 * side + r % 32] >> 2 * (r // 32) & 3
        out.append(f32(f32(d * signed(scales[i // 16])) * (low + 16 * high - 32)))
    return out


def decode_mxfp4(block: bytes) -> list[float]:
    scale = 2.0 ** (block[0] - 127)
    return [f32(scale * e2m1(_nibble(block[1 + j % 16], j // 16))) for j in range(32)]


def decode_nvfp4(block: bytes) -> list[float]:
    out = []
    for i in range(64):
        g, r = divmod(i, 16)
        out.append(f32(ue4m3(block[g]) * e2m1(_nibble(block[4 + 8 * g + r % 8], r // 8))))
    return out


def decode_q1_0(block: bytes) -> list[float]:
    d = half(block, 0)
    return [d if block[2 + j // 8] >> j % 8 & 1 else -d for j in range(128)]


def decode_q2_0(block: bytes) -> list[float]:
    d = half(block, 0)
    return [f32(d * ((block[2 + j // 4] >> 2 * (j % 4) & 3) - 1)) for j in range(64)]


def e2m1(code: int) -> float:
    """Sign, two bits of exponent (bias 1), one of mantissa. ggml has no -0."""
    exponent, mantissa = code >> 1 & 3, code & 1
    magnitude = mantissa / 2 if exponent == 0 else (1 + mantissa / 2) * 2.0 ** (exponent - 1)
    return -magnitude if code & 8 and magnitude else magnitude


def ue4m3(byte: int) -> float:
    """Four bits of exponent (bias 7), three of mantissa; bit 7 is ignored, 0x7F is 0 in ggml."""
    exponent, mantissa = byte >> 3 & 15, byte & 7
    if byte == 0x7F:
        return 0.0
    return mantissa / 512 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)


def _nibble(byte: int, high: int) -> int:
    return byte >> 4 if high else byte & 15


DECODERS = {
    "Q4_0": decode_q4_0,
    "Q4_1": decode_q4_1,
    "Q5_0": decode_q5_0,
    "Q8_0": decode_q8_0,
    "Q8_1": decode_q8_1,
    "Q4_K": decode_q4_k,
    "Q6_K": decode_q6_k,
    "MXFP4": decode_mxfp4,
    "NVFP4": decode_nvfp4,
    "Q1_0": decode_q1_0,
    "Q2_0": decode_q2_0,
}
