"""AQLM, decoding: a group of weights is a sum of vectors, one from each of M learned codebooks.

    W^[group] = scale * (C_1[k_1] + ... + C_M[k_M])        a group: out_group rows, in_group columns; 1 x 8 as a rule

Stored     codes (out / out_group, in / in_group, M) int8 or int16: the b-bit index k, from 2^(b-1) on less 2^b
           codebooks (M, 2^b, out_group, in_group) float16; scales (out / out_group, 1, 1, 1) float16
Published  1 x 16 bits on 8 weights: 2 bits; 2 x 8 bits on 8 weights: 2 bits.
Arithmetic float32: the sum in order of m, then the scale. AQLM's own code does it in the dtype of the codebooks.
Not here   the encoder (beam search and training of the codebooks).
Source     Egiazarian et al. 2024, arXiv:2401.06118, sec. 3; Vahe1994/AQLM, inference_lib/src/aqlm/utils.py.
"""

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError


def decode(codes: np.ndarray, codebooks: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """W^ float32 (out, in). Raises ShapeError, RangeError, QuantError."""
    if codes.ndim != 3 or codebooks.ndim != 4 or len(codebooks) != codes.shape[2] or codes.size == 0:
        raise ShapeError(
            f"aqlm.decode: codes.shape, codebooks.shape = {codes.shape}, {codebooks.shape}, "
            "expected (out groups, in groups, M), (M, 2^b, out_group, in_group)"
        )
    if scales.shape != (len(codes), 1, 1, 1):
        raise ShapeError(f"aqlm.decode: scales.shape = {scales.shape}, expected ({len(codes)}, 1, 1, 1)")
    _, size, rows, columns = codebooks.shape
    found = np.zeros((*codes.shape[:2], rows, columns), np.float32)
    for m, index in enumerate(np.moveaxis(indices(codes, size), 2, 0)):
        found += codebooks[m].astype(np.float32)[index]
    found *= scales.astype(np.float32)
    return found.swapaxes(1, 2).reshape(codes.shape[0] * rows, codes.shape[1] * columns)


def indices(codes: np.ndarray, size: int) -> np.ndarray:
    """k from the signed integers of a file, size = 2^b: negative ones are 2^b less than k."""
    if codes.dtype.kind not in "iu":
        raise QuantError(f"aqlm: codes.dtype = {codes.dtype}, expected integers")
    if size < 2 or size & (size - 1):
        raise RangeError(f"aqlm: codebook size = {size}, expected a power of two")
    wide = codes.astype(np.int64)
    if wide.min() < -(size // 2) or wide.max() >= size:
        raise RangeError(f"aqlm: codes are in {wide.min()}..{wide.max()}, expected {-(size // 2)}..{size - 1}")
    return wide % size
