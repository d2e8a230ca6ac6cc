"""TQ1_0 and TQ2_0 (BitNet, TriLM): weights -d, 0, +d in blocks of 256, one float16 scale.

    x^ = d * (q - 1),  q 0..2      TQ2_0 allows q = 3, which decodes to 2 d

TQ1_0 stores a byte as the fixed-point fraction v / 256 of a base-3 number 0.t0 t1 t2 t3 t4, rounded up
(v = ceil(256 * n / 243)). Multiplying by 3 moves the next digit before the point:

    digit k = (((v * 3^k) mod 256) * 3) >> 8         0..2 for every byte v

    encode    d = max|x|,  q = lroundf(x * (1 / d)) + 1, half away from zero

Shapes   decode (...) layout -> (..., 256) float32; encode the inverse.
Order    encoders compute in float32, codes from d before it is narrowed to float16, as in `legacy`. A block of zeros
         has d = 0 and q = 1. Importance is ignored, as in ggml.
Tiny     below d = 2^-128, 1 / d overflows, and a product that is not finite gets q = 1 on x86-64; d is stored as 0.
Refused  NaN and infinities in x: NonFiniteError.
Source   ggml/src/ggml-quants.c, dequantize_row_tq1_0, dequantize_row_tq2_0, quantize_row_tq1_0_ref and _tq2_0_ref.
"""

import numpy as np

from refquant.errors import require_finite
from refquant.gguf import planes
from refquant.rounding import half_away

TQ1_0 = np.dtype([("qs", "u1", 48), ("qh", "u1", 4), ("d", "<f2")])
TQ2_0 = np.dtype([("qs", "u1", 64), ("d", "<f2")])

POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


@np.errstate(all="ignore")
def decode_tq1_0(b: np.ndarray) -> np.ndarray:
    """Three runs; inside a run of n bytes, digit k of byte j is weight k n + j of the run.

    bytes      0..31 of qs     32..47 of qs     0..3 of qh (four digits only)
    weights    0..159          160..239         240..255
    """
    runs = _digits(b["qs"][..., :32], 5), _digits(b["qs"][..., 32:], 5), _digits(b["qh"], 4)
    q = np.concatenate(runs, axis=-1).astype(np.float32)
    return b["d"].astype(np.float32)[..., None] * (q - np.float32(1))


@np.errstate(all="ignore")
def decode_tq2_0(b: np.ndarray) -> np.ndarray:
    """Two runs of 32 bytes; byte j of a run is DDCCBBAA: weights j, 32 + j, 64 + j, 96 + j of its 128."""
    q = planes.split(b["qs"].reshape(*b.shape, 2, 32), 2).reshape(*b.shape, 256)
    return b["d"].astype(np.float32)[..., None] * (q.astype(np.float32) - np.float32(1))


@np.errstate(over="ignore")
def encode_tq1_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, q = _encode("TQ1_0.encode", x)
    b = np.empty(d.shape, TQ1_0)
    b["d"] = d
    b["qs"][..., :32] = _fraction(q[..., :160].reshape(*d.shape, 5, 32))
    b["qs"][..., 32:] = _fraction(q[..., 160:240].reshape(*d.shape, 5, 16))
    b["qh"] = _fraction(q[..., 240:].reshape(*d.shape, 4, 4))
    return b


@np.errstate(over="ignore")
def encode_tq2_0(x: np.ndarray) -> np.ndarray:
    """Return blocks. Raises NonFiniteError."""
    d, q = _encode("TQ2_0.encode", x)
    b = np.empty(d.shape, TQ2_0)
    b["d"] = d
    b["qs"] = planes.join(q.reshape(*d.shape, 2, 4, 32), 2).reshape(*d.shape, 64)
    return b


def _digits(data: np.ndarray, count: int) -> np.ndarray:
    """(..., n) bytes -> (..., count * n) base-3 digits, most significant first."""
    shifted = data[..., None, :] * POWERS[:count, None]  # modulo 256: uint8 wraps
    digits = (shifted.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)
    return digits.reshape(*data.shape[:-1], count * data.shape[-1])


def _fraction(digits: np.ndarray) -> np.ndarray:
    """(..., count, n) base-3 digits -> (..., n) bytes, ceil(256 * number / 243); a missing fifth digit is 0."""
    places = POWERS[4 - np.arange(digits.shape[-2])]
    number = (digits * places[:, None]).sum(axis=-2, dtype=np.uint16)  # 0..242
    return ((number * np.uint16(256) + np.uint16(242)) // np.uint16(243)).astype(np.uint8)


@np.errstate(all="ignore")
def _encode(where: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """d and q 0..2."""
    require_finite(where, x)
    d = np.abs(x).max(axis=-1)
    scaled = x * (np.float32(1) / d)[..., None]  # zeros: 0 * inf is NaN
    return d, np.where(np.isfinite(scaled), half_away(scaled) + np.float32(1), np.float32(1)).astype(np.uint8)
