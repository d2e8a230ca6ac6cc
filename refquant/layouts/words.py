"""Codes in 32-bit words: the three ways in which int32 checkpoints pack them, along the last axis.

    dense     a stream of bits without gaps, low first; a field may straddle words    GPTQ, compressed-tensors, MLX
    aligned   32 // bits fields in a word, low first, the rest of the word 0          compressed-tensors 0.9
    planar    per 32 codes `bits` words: planes of 4, 2, 1 bits, the low plane first  GPTQ's gptq_p

For 1, 2, 4 and 8 bits all three are the same words:

    4 bits    HHHHGGGG FFFFEEEE DDDDCCCC BBBBAAAA        A is code 0; the highest bit of the word is on the left

3 bits, dense, three words for 32 codes (a .. z, A .. F); code 10 and code 21 are split:

    word 0    kkjjjiii hhhgggff feeedddc ccbbbaaa        the low two bits of k
    word 1    vuuuttts ssrrrqqq pppooonn nmmmlllk        the high bit of k, the low bit of v
    word 2    FFFEEEDD DCCCBBBA AAzzzyyy xxxwwwvv        the high two bits of v

3 bits, planar: words 0 and 1 hold the low two bits of codes 0-15 and 16-31, word 2 the high bit of all 32.

Shapes    codes (..., n) uint8; words (..., w) int32 with w = ceil(n * bits / 32), aligned: ceil(n / (32 // bits)).
          Bits past the last code are 0 when packed and ignored when unpacked. planar needs n to be a multiple of 32.
Source    gptqmodel nn_modules/qlinear (pack_block) and utils/planar_packing.py; compressed_tensors pack_to_int32, in
          0.19 (dense) and 0.9 (aligned); mlx affine quantization.
"""

import numpy as np

from refquant import bits as streams
from refquant.errors import RangeError, ShapeError, require_multiple

PLANES = {
    2: (2,),
    3: (2, 1),
    4: (4,),
    5: (4, 1),
    6: (4, 2),
    7: (4, 2, 1),
    8: (8,),
}  # widths of the planes, from the low bits upward


def count(n: int, bits: int, aligned: bool = False) -> int:
    """Words that n codes take."""
    return -(-n // (32 // bits)) if aligned else -(-n * bits // 32)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Dense: (..., n) codes to (..., ceil(n * bits / 32)) int32. Raises RangeError for a code of too many bits."""
    data = streams.pack(codes, bits)
    *lead, width = data.shape
    padded = np.zeros((*lead, -(-width // 4) * 4), np.uint8)
    padded[..., :width] = data
    return padded.view("<i4").astype(np.int32, copy=False)


def unpack(words: np.ndarray, bits: int, n: int) -> np.ndarray:
    """Inverse of `pack`: (..., w) int32 or uint32 to (..., n) uint8."""
    _check("words.unpack", words, n, bits, aligned=False)
    data = np.ascontiguousarray(words.astype("<u4", copy=False)).view(np.uint8)
    return streams.unpack(data[..., : streams.packed_bytes(n, bits)], bits, n)


def pack_aligned(codes: np.ndarray, bits: int) -> np.ndarray:
    """32 // bits codes to a word: (..., n) to (..., ceil(n / (32 // bits))) int32."""
    *lead, n = codes.shape
    fields = 32 // bits
    padded = np.zeros((*lead, count(n, bits, aligned=True), fields), np.uint32)
    padded.reshape(*lead, -1)[..., :n] = _checked(codes, bits)
    shifts = np.arange(fields, dtype=np.uint32) * np.uint32(bits)
    return np.bitwise_or.reduce(padded << shifts, axis=-1).view(np.int32)


def unpack_aligned(words: np.ndarray, bits: int, n: int) -> np.ndarray:
    """Inverse of `pack_aligned`."""
    _check("words.unpack_aligned", words, n, bits, aligned=True)
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    fields = (words.view(np.uint32)[..., None] >> shifts) & np.uint32((1 << bits) - 1)
    return fields.reshape(*words.shape[:-1], -1)[..., :n].astype(np.uint8)


def pack_planar(codes: np.ndarray, bits: int) -> np.ndarray:
    """Planes of 4, 2, 1 bits: (..., n) to (..., n * bits / 32) int32, n a multiple of 32."""
    codes = _checked(codes, bits)
    *lead, n = codes.shape
    require_multiple("words.pack_planar", "codes.shape[-1]", n, 32)
    blocks, planes, low = codes.reshape(*lead, n // 32, 32), [], 0
    for width in _planes(bits):
        planes.append(pack((blocks >> np.uint8(low)) & np.uint8((1 << width) - 1), width))
        low += width
    return np.concatenate(planes, axis=-1).reshape(*lead, -1)


def unpack_planar(words: np.ndarray, bits: int, n: int) -> np.ndarray:
    """Inverse of `pack_planar`."""
    require_multiple("words.unpack_planar", "n", n, 32)
    planes = _planes(bits)
    _check("words.unpack_planar", words, n, bits, aligned=False)
    blocks = words.reshape(*words.shape[:-1], n // 32, bits)
    codes, low = np.zeros((*blocks.shape[:-1], 32), np.uint8), 0
    for width in planes:
        codes |= unpack(blocks[..., low : low + width], width, 32) << np.uint8(low)
        low += width
    return codes.reshape(*words.shape[:-1], n)


def _planes(bits: int) -> tuple[int, ...]:
    if bits not in PLANES:
        raise RangeError(f"words: bits = {bits!r}, expected 2 to 8 for planes")
    return PLANES[bits]


def _checked(codes: np.ndarray, bits: int) -> np.ndarray:
    if codes.size and int(codes.max()) >> bits:
        raise RangeError(f"words: codes.max() = {codes.max()}, expected codes below {1 << bits}")
    return codes


def _check(where: str, words: np.ndarray, n: int, bits: int, aligned: bool) -> None:
    if words.dtype not in (np.int32, np.uint32) or words.ndim == 0 or words.shape[-1] != count(n, bits, aligned):
        wanted = f"int32 (..., {count(n, bits, aligned)}) for {n} codes of {bits} bits"
        raise ShapeError(f"{where}: words = {words.dtype} {words.shape}, expected {wanted}")
