"""QTIP's trellis codes, decoding: a weight costs k bits, and is computed from the last 16 bits of a stream.

    state_t = bits k t .. k t + 15 of the stream, the first the highest; at the end the stream runs on at its begin
    weight_t = f(state_t)            f has no table: it makes a pseudo-random, nearly Gaussian number of 16 bits

    f       x = state, all modulo 2^32                                                          deviation
    1mad    y = 34038481 x + 76625530;  (sum of the four bytes of y - 510) / 147.800537109375   about 1
    3inst   y = 89226354 x + 64248484;  z = (y & 0x8FFF8FFF) ^ 0x3B603B60;  the two float16     about 1.24
            halves of z, added in float16
    hyb     y = x (x + 1);  T[(y >> (15 - b)) & (2^b - 1)], T (2^b, 2) a learned table: two weights a state of 2 k
            bits; the first is negated where bit 15 of y is set

Stored     uint16 words, the first bit of the stream the highest of the first word; one stream for each tile of 16 x 16
           weights, tiles by rows of tiles, weights of a tile by rows.
Scale      not part of the code; QTIP divides by 32, and undoes a random Hadamard transform (rotations.py).
Arithmetic float32 of the exact formula; 1mad: the sum is an integer, divided in float32.
Not here   the encoder, Viterbi over 65536 states; EXL3, which has a layout and functions of its own (exl3.py).
Source     Tseng et al. 2024, arXiv:2406.11235, sec. 3; Cornell-RelaxML/qtip, lib/codebook/bitshift.py.
"""

import numpy as np

from refquant.errors import QuantError, RangeError, ShapeError

LENGTH = 16  # bits of a state


def one_mad(state: np.ndarray) -> np.ndarray:
    """f of states (...) as float32 (...)."""
    y = (state.astype(np.uint64) * np.uint64(34038481) + np.uint64(76625530)).astype(np.uint32)
    total = sum(((y >> np.uint32(8 * byte)) & np.uint32(255)).astype(np.int32) for byte in range(4))
    return (total - 510).astype(np.float32) / np.float32(147.800537109375)


def three_inst(state: np.ndarray) -> np.ndarray:
    """f of states (...) as float32 (...)."""
    return two_halves((state.astype(np.uint64) * np.uint64(89226354) + np.uint64(64248484)).astype(np.uint32))


def two_halves(y: np.ndarray) -> np.ndarray:
    """The last line of 3inst for y (...) uint32, as float32 (...)."""
    z = (y & np.uint32(0x8FFF8FFF)) ^ np.uint32(0x3B603B60)
    high, low = ((z >> np.uint32(shift)).astype(np.uint16).view(np.float16) for shift in (16, 0))
    return (high + low).astype(np.float32)


def hybrid(state: np.ndarray, table: np.ndarray) -> np.ndarray:
    """f of states (...) as float32 (..., 2), for a table (2^b, 2)."""
    bits = table.shape[0].bit_length() - 1
    if table.ndim != 2 or table.shape != (1 << bits, 2) or not 1 <= bits <= 15:
        raise ShapeError(f"trellis.hybrid: table.shape = {table.shape}, expected (2^b, 2), b in 1..15")
    x = state.astype(np.int64)
    y = x * (x + 1)
    found = table[(y >> (15 - bits)) & ((1 << bits) - 1)].astype(np.float32)
    found[..., 0] *= 1 - 2 * ((y >> 15) & 1)
    return found


FUNCTIONS = {"1mad": one_mad, "3inst": three_inst}


def states(words: np.ndarray, step: int) -> np.ndarray:
    """States int64 (streams, steps) of words uint16 (streams, n), `step` bits on from one to the next."""
    if words.dtype != np.uint16:
        raise QuantError(f"trellis.states: words.dtype = {words.dtype}, expected uint16")
    if words.ndim != 2 or not words.size:
        raise ShapeError(f"trellis.states: words.shape = {words.shape}, expected (streams, n)")
    count = 16 * words.shape[1]
    if not 1 <= step <= LENGTH or count % step:
        raise RangeError(f"trellis.states: step = {step}, expected 1..16 that divides the {count} bits of a stream")
    return windows(words, np.arange(0, count, step))


def windows(words: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """The 16 bits from each of `starts` (steps,) on, modulo the length of the stream: int64 (streams, steps).

    words: uint16 (streams, n), looked at by the caller.
    """
    count = 16 * words.shape[1]
    bits = (words[:, :, None] >> np.arange(15, -1, -1, dtype=np.uint16)) & np.uint16(1)
    bits = bits.reshape(len(words), count)
    places = (starts[:, None] + np.arange(LENGTH)) % count
    return bits[:, places].astype(np.int64) @ (1 << np.arange(LENGTH - 1, -1, -1))


def decode(
    words: np.ndarray, shape: tuple[int, int], bits: int, function: str = "3inst", table: np.ndarray | None = None
) -> np.ndarray:
    """W^ float32 (out, in) of words uint16 (tiles, 16 bits), unscaled; function 1mad, 3inst, or hyb with its table."""
    out, n = shape
    if out % 16 or n % 16 or words.shape != (out * n // 256, 16 * bits):
        raise ShapeError(
            f"trellis.decode: shape, words.shape = {shape}, {words.shape}, "
            f"expected multiples of 16 and (tiles, {16 * bits})"
        )
    if function == "hyb" and table is not None:
        values = hybrid(states(words, 2 * bits), table)
    elif function in FUNCTIONS:
        values = FUNCTIONS[function](states(words, bits))
    else:
        raise RangeError(f"trellis.decode: function = {function!r}, expected {list(FUNCTIONS)}, or 'hyb' and a table")
    return values.reshape(out // 16, n // 16, 16, 16).swapaxes(1, 2).reshape(out, n)
