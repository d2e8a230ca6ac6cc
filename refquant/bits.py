"""Packing codes of 1 to 8 bits into bytes, in both orders, without gaps.

Codes a, b, c, ... follow each other in one stream of bits; bit 7 of a byte is drawn left.

    bits   order "low": the first code in the lowest bits     order "high": the first code in the highest bits
    4      bbbbaaaa ddddcccc                                  aaaabbbb ccccdddd
    2      ddccbbaa hhggffee                                  aabbccdd eeffgghh
    1      hgfedcba                                           abcdefgh
    3      ccbbbaaa feeedddc hhhgggff                         aaabbbcc cdddeeef ffggghhh

Order    low: ONNX, GPTQ (4 and 8 bits), compressed-tensors, MXFP4 and NVFP4 of safetensors files.
         high: bitsandbytes, modelopt int4, DeepSpeed. A 3-bit code that straddles a byte keeps its order of bits.
Bytes    8 codes of b bits fill b bytes exactly; a row of n codes takes ceil(n * b / 8), the bits left over are 0.
Signs    a negative code is stored as two's complement in b bits; `unpack(..., signed=True)` restores the sign. Formats
         that store code + 2^(b-1) instead (compressed-tensors, GPTQ) add that before they call `pack`.
"""

import numpy as np

from refquant.errors import RangeError, ShapeError

ORDERS = ("low", "high")


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return -(-count * bits // 8)


def pack(codes: np.ndarray, bits: int, order: str = "low") -> np.ndarray:
    """Pack integer codes (..., n) into uint8 (..., ceil(n * bits / 8)). Raises RangeError for a code of more bits."""
    _check("bits.pack", bits, order)
    if codes.ndim == 0 or codes.dtype.kind not in "iu":
        raise ShapeError(
            f"bits.pack: codes = {codes.dtype} of {codes.ndim} axes, expected an integer array with an axis"
        )
    lowest, highest = (-(1 << (bits - 1)), (1 << bits) - 1) if codes.dtype.kind == "i" else (0, (1 << bits) - 1)
    if codes.size and (int(codes.min()) < lowest or int(codes.max()) > highest):
        raise RangeError(
            f"bits.pack: codes in {codes.min()}..{codes.max()}, expected {lowest}..{highest} for {bits} bits"
        )
    *lead, n = codes.shape
    padded = np.zeros((*lead, -(-n // 8), 8), np.uint8)
    padded.reshape(*lead, -1)[..., :n] = codes.astype(np.uint8) & ((1 << bits) - 1)
    words = np.zeros(padded.shape[:-1], np.uint64)  # 8 codes of `bits` bits: at most 64 bits
    for i in range(8):
        words |= padded[..., i].astype(np.uint64) << np.uint64(_shift(i, bits, order))
    data = _bytes_of(words, bits, order)
    return np.ascontiguousarray(data.reshape(*lead, -1)[..., : packed_bytes(n, bits)])


def unpack(data: np.ndarray, bits: int, count: int, order: str = "low", signed: bool = False) -> np.ndarray:
    """Inverse of `pack`: uint8 (..., bytes) to codes (..., count), uint8, or int8 if `signed`."""
    _check("bits.unpack", bits, order)
    if data.dtype != np.uint8 or data.ndim == 0 or data.shape[-1] != packed_bytes(count, bits):
        wanted = f"uint8 (..., {packed_bytes(count, bits)}) for {count} codes of {bits} bits"
        raise ShapeError(f"bits.unpack: data = {data.dtype} {data.shape}, expected {wanted}")
    *lead, width = data.shape
    octets = -(-count // 8)
    padded = np.zeros((*lead, octets * bits), np.uint8)
    padded[..., :width] = data
    words = _words_of(padded.reshape(*lead, octets, bits), order)
    codes = np.empty((*lead, octets, 8), np.uint8)
    for i in range(8):
        codes[..., i] = (words >> np.uint64(_shift(i, bits, order))) & np.uint64((1 << bits) - 1)
    codes = np.ascontiguousarray(codes.reshape(*lead, -1)[..., :count])
    if not signed:
        return codes
    spare = 8 - bits  # shift the sign into bit 7 and back: an arithmetic shift copies it
    return (codes << np.uint8(spare)).view(np.int8) >> np.int8(spare)


def _shift(i: int, bits: int, order: str) -> int:
    """Where code i of 8 begins in a word of 8 * bits bits."""
    return bits * (i if order == "low" else 7 - i)


def _bytes_of(words: np.ndarray, bits: int, order: str) -> np.ndarray:
    """(...) uint64 to (..., bits) uint8: the low bytes upward, or the high bytes of 8 * bits bits downward."""
    if order == "low":
        return words.astype("<u8")[..., None].view(np.uint8)[..., :bits]
    return words.astype(">u8")[..., None].view(np.uint8)[..., 8 - bits :]


def _words_of(data: np.ndarray, order: str) -> np.ndarray:
    """Inverse of `_bytes_of`: (..., bits) uint8 to (...) uint64."""
    whole = np.zeros((*data.shape[:-1], 8), np.uint8)
    if order == "low":
        whole[..., : data.shape[-1]] = data
        return whole.view("<u8")[..., 0].astype(np.uint64)
    whole[..., 8 - data.shape[-1] :] = data
    return whole.view(">u8")[..., 0].astype(np.uint64)


def _check(where: str, bits: int, order: str) -> None:
    if bits not in range(1, 9):
        raise RangeError(f"{where}: bits = {bits!r}, expected 1 to 8")
    if order not in ORDERS:
        raise RangeError(f"{where}: order = {order!r}, expected low or high")
