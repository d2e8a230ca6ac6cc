"""The first ggml quantizations: blocks of 32 weights, one float16 scale, no super-block.

    Q4_0   x^ = d * (q - 8)        q 0..15    d = (the x of the largest |x|) / -8
    Q5_0   x^ = d * (q - 16)       q 0..31    d = (the x of the largest |x|) / -16
    Q8_0   x^ = d * q              q -127..127  d = max|x| / 127
    Q4_1   x^ = q * d + m          q 0..15    d = (max - min) / 15, m = min
    Q5_1   x^ = q * d + m          q 0..31    d = (max - min) / 31, m = min
    Q8_1   Q8_0 and s = d * sum(q): the other operand of Q4_1 and Q5_1 in a dot product, never in a file

Shapes   decode (...) layout -> (..., 32) float32; encode (..., 32) float32 -> (...) layout.
Order    all arithmetic is float32, one rounding an operation, products before sums, never fused.
Codes    computed with 1 / d in float32, before d is narrowed to float16: q = trunc(x * (1 / d) + 8.5) for Q4_0
         (16.5 for Q5_0, 0.5 after subtracting m for _1), roundf(x * (1 / d)), half away from zero, for Q8_0
         and Q8_1.
Sign     d of Q4_0 and Q5_0 is signed so that the extreme of the block gets code 0. The first one wins a tie between
         +a and -a, and the other is clipped to 15 (31).
Zeros    a block of zeros has 1 / d replaced by 0; its d is -0.0 in Q4_0 and Q5_0 (0 / -8), +0.0 elsewhere.
Narrow   d and m are rounded half to even. From |d| >= 65520 on, d is stored as infinity, and the block decodes to
         infinities and NaN (inf * 0). Up to |d| = 2^-25, d is stored as 0 and the block decodes to zeros (_1: to m),
         whatever its codes. ggml does so silently, and so do we: the bytes are the contract.
Tiny     below |d| = 2^-128, 1 / d overflows. A product that is not finite gets code 0, as on x86-64, where C leaves
         the cast undefined. It matters to bytes only, since such a d is stored as 0.
Refused  NaN and infinities in x: NonFiniteError.
Source   ggml/src/ggml-quants.c, quantize_row_*_ref and dequantize_row_*.
Differs  gguf-py stores the other sign of a zero d or m where x holds -0.0. With an importance matrix ggml searches for
         d instead, and the bytes are others: `legacy_weighted`.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf import planes
from refquant.rounding import half_away

Q4_0 = np.dtype([("d", "<f2"), ("qs", "u1", 16)])
Q4_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qs", "u1", 16)])
Q5_0 = np.dtype([("d", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q5_1 = np.dtype([("d", "<f2"), ("m", "<f2"), ("qh", "u1", 4), ("qs", "u1", 16)])
Q8_0 = np.dtype([("d", "<f2"), ("qs", "i1", 32)])
Q8_1 = np.dtype([("d", "<f2"), ("s", "<f2"), ("qs", "i1", 32)])


@np.errstate(all="ignore")
def decode_q4_0(b: np.ndarray) -> np.ndarray:
    """Byte j of qs is BBBBAAAA: A = code of weight j, B = code of weight 16 + j."""
    return _widen(b["d"]) * (nibbles(b["qs"]).astype(np.float32) - np.float32(8))


@np.errstate(all="ignore")
def decode_q4_1(b: np.ndarray) -> np.ndarray:
    """qs as in Q4_0; the minimum is added after the product is rounded."""
    return _widen(b["d"]) * nibbles(b["qs"]).astype(np.float32) + _widen(b["m"])


@np.errstate(all="ignore")
def decode_q5_0(b: np.ndarray) -> np.ndarray:
    """qs as in Q4_0; bit i of the little-endian word qh is the fifth bit of weight i."""
    return _widen(b["d"]) * (_five_bits(b).astype(np.float32) - np.float32(16))


@np.errstate(all="ignore")
def decode_q5_1(b: np.ndarray) -> np.ndarray:
    """Codes as in Q5_0; the minimum is added after the product is rounded."""
    return _widen(b["d"]) * _five_bits(b).astype(np.float32) + _widen(b["m"])


@np.errstate(all="ignore")
def decode_q8(b: np.ndarray) -> np.ndarray:
    """Q8_0 and Q8_1: one signed byte a weight, in order. The sum s of Q8_1 takes no part."""
    return _widen(b["d"]) * b["qs"].astype(np.float32)


def encode_q4_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, codes = _encode_signed("Q4_0.encode", x, 8)
    b = np.empty(d.shape, Q4_0)
    _store(b, d=d)
    b["qs"] = pack_nibbles(codes)
    return b


def encode_q4_1(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, m, codes = _encode_ranged("Q4_1.encode", x, 15)
    b = np.empty(d.shape, Q4_1)
    _store(b, d=d, m=m)
    b["qs"] = pack_nibbles(codes)
    return b


def encode_q5_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, codes = _encode_signed("Q5_0.encode", x, 16)
    b = np.empty(d.shape, Q5_0)
    _store(b, d=d)
    pack_five_bits(b, codes)
    return b


def encode_q5_1(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, m, codes = _encode_ranged("Q5_1.encode", x, 31)
    b = np.empty(d.shape, Q5_1)
    _store(b, d=d, m=m)
    pack_five_bits(b, codes)
    return b


def encode_q8_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, codes = _encode_bytes("Q8_0.encode", x)
    b = np.empty(d.shape, Q8_0)
    _store(b, d=d)
    b["qs"] = codes
    return b


@np.errstate(over="ignore")
def encode_q8_1(x: np.ndarray) -> np.ndarray:
    """Return blocks. s is d times the exact sum of the codes, d not yet narrowed. Raises NonFiniteError."""
    d, codes = _encode_bytes("Q8_1.encode", x)
    b = np.empty(d.shape, Q8_1)
    _store(b, d=d, s=codes.sum(axis=-1, dtype=np.int32).astype(np.float32) * d)
    b["qs"] = codes
    return b


def nibbles(qs: np.ndarray) -> np.ndarray:
    """(..., 16) bytes -> (..., 32) codes: all low halves, then all high halves."""
    return planes.split(qs, 4).reshape(*qs.shape[:-1], 32)


def _five_bits(b: np.ndarray) -> np.ndarray:
    fifth = np.unpackbits(b["qh"], axis=-1, bitorder="little")  # (..., 32)
    return nibbles(b["qs"]) | (fifth << np.uint8(4))


def pack_nibbles(codes: np.ndarray) -> np.ndarray:
    """(..., 32) codes below 16 -> the field qs: byte j is BBBBAAAA, A = code j, B = code 16 + j."""
    return planes.join(codes.reshape(*codes.shape[:-1], 2, 16), 4)


def pack_five_bits(b: np.ndarray, codes: np.ndarray) -> None:
    """Write (..., 32) codes below 32 to the fields of b: four bits to qs, the fifth of code i to bit i of qh."""
    b["qs"] = pack_nibbles(codes & np.uint8(15))
    b["qh"] = np.packbits(codes >> np.uint8(4), axis=-1, bitorder="little")


@np.errstate(all="ignore")
def _encode_signed(where: str, x: np.ndarray, half: int) -> tuple[np.ndarray, np.ndarray]:
    """d and codes 0 .. 2 * half - 1 of x^ = d * (q - half)."""
    first = np.abs(x).argmax(axis=-1)[..., None]
    peak = np.take_along_axis(x, first, axis=-1)[..., 0]
    _refuse_nonfinite(where, x, peak)
    peak = np.where(peak == 0, np.float32(0), peak)  # C starts its search at +0.0, which -0.0 does not exceed
    d = peak / np.float32(-half)
    # The drawn rounding of the format, half up: trunc((x / d) + half + 1/2), where x / d >= -half.
    codes = _finite_or_zero(x * _reciprocal(d) + np.float32(half + 0.5))
    return d, np.minimum(codes.astype(np.uint8), np.uint8(2 * half - 1))


@np.errstate(all="ignore")
def _encode_ranged(where: str, x: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """d, m and codes 0 .. top of x^ = q * d + m."""
    # argmin and argmax, not min and max: the first of +0.0 and -0.0 wins in C, and its sign is stored.
    lo = np.take_along_axis(x, x.argmin(axis=-1)[..., None], axis=-1)
    hi = np.take_along_axis(x, x.argmax(axis=-1)[..., None], axis=-1)
    _refuse_nonfinite(where, x, hi - lo)
    d = ((hi - lo) / np.float32(top))[..., 0]
    codes = _finite_or_zero((x - lo) * _reciprocal(d) + np.float32(0.5))  # trunc(. + 1/2): half up of a value >= 0
    return d, lo[..., 0], np.minimum(codes.astype(np.uint8), np.uint8(top))


@np.errstate(all="ignore")
def _encode_bytes(where: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d and codes -127 .. 127 of x^ = d * q."""
    peak = np.abs(x).max(axis=-1)
    _refuse_nonfinite(where, x, peak)
    d = peak / np.float32(127)
    return d, _finite_or_zero(half_away(x * _reciprocal(d))).astype(np.int8)


def _widen(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float32)[..., None]


def _reciprocal(d: np.ndarray) -> np.ndarray:
    return np.where(d == 0, np.float32(0), np.float32(1) / d)[..., None]


def _finite_or_zero(x: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(x), x, np.float32(0))


@np.errstate(over="ignore")
def _store(b: np.ndarray, **scales: np.ndarray) -> None:
    """Narrow to float16, half to even, infinity past 65504."""
    for field, value in scales.items():
        b[field] = value


def _refuse_nonfinite(where: str, x: np.ndarray, extreme: np.ndarray) -> None:
    """The extremes of a block pass NaN and infinity on, so `x` itself is searched only when there is a suspicion."""
    if not np.isfinite(extreme).all():
        require_finite(where, x)
