"""Scalar tensor types: one value per "block", no scale.

    F32 F64     IEEE 754 binary32, binary64
    F16         IEEE 754 binary16      SEEEEEMM MMMMMMMM       65504 is the largest, 2^-24 the least
    BF16        upper half of binary32 SEEEEEEE EMMMMMMM       held as uint16: NumPy has no such dtype
    I8 .. I64   two's complement integers; ggml stores tables with them (expert indices), never weights

Shapes   decode (...) layout -> (..., 1) float32; encode (..., 1) float32 -> (...) layout.
Rounding half to even, both from float32 to F16 and BF16 and from F64 and I64 to float32.
Range    a magnitude of 65520 or more becomes an infinite F16, 0x1.ffp127 or more an infinite BF16, a large F64 an
         infinite float32, silently, as in C.
NaN      a NaN stays a NaN; BF16 keeps the upper payload bits and sets the quiet bit.
Source   ggml/src/ggml-impl.h, ggml_compute_fp32_to_fp16 and ggml_compute_fp32_to_bf16.
"""

import numpy as np

F32, F16, F64 = np.dtype("<f4"), np.dtype("<f2"), np.dtype("<f8")
BF16 = np.dtype("<u2")
I8, I16, I32, I64 = np.dtype("i1"), np.dtype("<i2"), np.dtype("<i4"), np.dtype("<i8")


@np.errstate(all="ignore")
def decode_number(b: np.ndarray) -> np.ndarray:
    """Any dtype that NumPy knows -> float32."""
    return b.astype(np.float32)[..., None]


def decode_bf16(b: np.ndarray) -> np.ndarray:
    """Sixteen zero bits are appended."""
    return (b.astype(np.uint32) << np.uint32(16)).view(np.float32)[..., None]


def encode_f32(x: np.ndarray) -> np.ndarray:
    """The bytes themselves."""
    return x[..., 0].astype(F32)


@np.errstate(all="ignore")
def encode_f16(x: np.ndarray) -> np.ndarray:
    """Round half to even."""
    return x[..., 0].astype(F16)


def encode_bf16(x: np.ndarray) -> np.ndarray:
    """Round half to even: 0x7fff, and one more where the half that stays is odd, carry out of the half that goes."""
    bits = np.ascontiguousarray(x[..., 0], np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = (bits + (np.uint32(0x7FFF) + odd)) >> np.uint32(16)
    nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
    return np.where(nan, (bits >> np.uint32(16)) | np.uint32(0x40), rounded).astype(BF16)
