"""Seeded bytes and weights whose codes in ggml's C are pinned by refquant/gguf/ggml_digests.json.

Everything comes from SHAKE-256 and exact float32 arithmetic, so that no change of a random generator moves a digest.
"""

import hashlib
from functools import cache

import numpy as np

from refquant.gguf.formats import BlockFormat

BLOCKS = 1024
WEIGHTS = 1 << 15
ROW = 1 << 11  # weights in a row: with an importance matrix, rows matter
SPECIAL_HALVES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0xFE00)  # 0 .. inf, NaN


def stream(seed: str, count: int, dtype: str) -> np.ndarray:
    data = hashlib.shake_256(seed.encode()).digest(count * np.dtype(dtype).itemsize)
    return np.frombuffer(data, dtype).copy()


def block_bytes(fmt: BlockFormat) -> np.ndarray:
    """(BLOCKS, bytes) uint8: random blocks; every fourth float16 field is a zero, subnormal, infinity or NaN."""
    data = stream(f"blocks {fmt.name}", BLOCKS * fmt.block_bytes, "u1")
    blocks = data.view(fmt.layout)
    for field in fmt.layout.names or ():
        if blocks.dtype[field] == np.float16:
            chance = stream(f"{field} {fmt.name}", BLOCKS, "<u2")
            picked = chance % 4 == 0
            specials = np.array(SPECIAL_HALVES, "<u2").view("<f2")
            blocks[field][picked] = specials[(chance[picked] >> 2) % len(specials)]
    return data.reshape(BLOCKS, fmt.block_bytes)


@cache
def weights() -> dict[str, np.ndarray]:
    """Read-only rows (WEIGHTS / ROW, ROW) of float32 that meet every branch of the encoders, by what they are."""
    ints = stream("weights", 4 * WEIGHTS, "<i2").astype(np.float32).reshape(4, WEIGHTS)
    bell = (ints[0] + ints[1]) + (ints[2] + ints[3])  # integers below 2^17: exact
    picks, runs = stream("picks", WEIGHTS, "u1"), stream("runs", WEIGHTS // 32, "u1").repeat(32)
    exponents = stream("exponents", WEIGHTS // 32, "u1").astype(np.int32).repeat(32) % 250 - 149
    bits = stream("bits", WEIGHTS, "<u4").view("<f4")
    edges = np.array([65503, 65504, 65519, 65519.99, 65520, 65536, -65520, -65504], np.float32)
    divisors = np.array([1, 8, 15, 16, 31, 127, 254, 508], np.float32)
    shares = np.where(np.arange(WEIGHTS) % 32 == 0, np.float32(1), ints[0] * np.float32(2.0**-15))
    kinds = {
        "bell": bell * np.float32(2.0**-22),
        "heavy": ints[0] / (np.abs(ints[1]) + np.float32(0.5)),
        "ties": ((picks % 33).astype(np.float32) - np.float32(16)) * np.float32(0.125),
        "halves": (picks.astype(np.float32) - np.float32(127)) * np.float32(0.5),
        "zeros": np.array([0.0, -0.0], np.float32)[picks % 2],
        "sparse": np.array([0.0, -0.0, 0.0, -0.0, 0.0, -0.0, 1.0, -1.0], np.float32)[picks % 8],
        "constant": bell[::32].repeat(32),
        "huge": np.ldexp(bell, 8),
        "largest": np.ldexp(bell, 110),
        "float16 edge": edges[picks % 8] * divisors[runs % 8],
        "every exponent": np.ldexp(ints[3] * np.float32(2.0**-15), exponents),
        "any bits": np.where(np.isfinite(bits), bits, np.float32(0)),
        "powers of two": _near_powers_of_two() * shares,
    }
    kinds = {kind: x.reshape(-1, ROW) for kind, x in kinds.items()}
    for x in kinds.values():
        x.flags.writeable = False
    return kinds


def _near_powers_of_two() -> np.ndarray:
    """(WEIGHTS,) float32, equal in blocks of 32: every power and the floats beside it, and the 44th and 45th below.

    Those are the last that the logarithm of float32 cannot tell from the power, and the first that it can.
    """
    near = [(k, ulps) for k in range(-149, 128) for ulps in (-1, 0, 1)]
    far = [(k, -ulps) for k in (*range(65, 128), *range(-126, -64)) for ulps in (44, 45)][: WEIGHTS // 32 - len(near)]
    powers, ulps = np.array(near + far).T
    return (np.ldexp(np.float32(1), powers).view(np.int32) + ulps.astype(np.int32)).view(np.float32).repeat(32)


@cache
def importances() -> dict[str, np.ndarray]:
    """Read-only importance matrices (ROW,) float32."""
    words = stream("importances", 2 * ROW, "<u2").astype(np.float32).reshape(2, ROW)
    squares = (words[0] * np.float32(2.0**-16)) * (words[0] * np.float32(2.0**-16))
    runs = stream("importance runs", ROW // 16, "u1").repeat(16)
    kinds = {
        "squares": squares,
        "sparse": np.where((runs % 4 == 0) | (words[1] < 2**14), np.float32(0), squares),
        "every exponent": np.ldexp(words[1] * np.float32(2.0**-16), runs.astype(np.int32) - 128),
    }
    for v in kinds.values():
        v.flags.writeable = False
    return kinds


def digest(array: np.ndarray) -> str:
    """SHA-256 of the bytes in C order. The payload and sign of a NaN are the processor's, so all NaN count as one."""
    if array.dtype == np.float32:
        array = np.where(np.isnan(array), np.float32(np.nan), array)
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
