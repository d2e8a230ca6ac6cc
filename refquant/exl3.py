"""EXL3, decoding: ExLlamaV3's trellis of k bits a weight, in tiles of 16 x 16, between two Hadamard transforms.

    state_t = bits S_t - 16 .. S_t - 1 of the tile's stream, the first the highest;  S_t = k (t + 1)  for t = 0 .. 255
    W^^T    = diag(suh) H (tiles of f(state)) H diag(svh)        H: blocks of Sylvester's 128 / sqrt(128)

    tensor     dtype                 what
    trellis    int16 (in/16, out/16, 16 k)     a stream a tile; words in pairs, the later one first: 2 1 4 3 ...
    suh, svh   float16 (in), (out)             signs times scales
    su, sv     int16 (in/16), (out/16)         older files: signs alone, bit i of a word is number i, 1 is minus
    mcg, mul1  int32 ()                        the codebook by its presence (neither: 3inst); the number is not read

    f       x = state, all modulo 2^32
    3inst   trellis.three_inst
    mcg     y = 0xCBAC1FED x, and on as in 3inst
    mul1    y = 0x83DCD12D x;  h = 1024 + sum of the four bytes of y;  h a + b in float16, rounded once,
            a = 0x1EEE (about 1 / 147.8), b = 0xC931 (about -10.38)

Order      weight t of a stream belongs to lane t // 8 of a tensor core, in row 2 (lane % 4) + {0, 1, 8, 9} (t % 4) and
           column lane // 4 + 8 (t % 8 // 4) of the tile, whose rows are inputs and columns outputs.
k          1 .. 8; or, with mul1, 1.5, 2.5, 3.5: weights of even t take floor(k) bits, the others one more (16 k words).
Arithmetic f exact in float16; transforms and scales float32. ExLlamaV3 rounds to float16 after each of these.
Not here   the encoder (Viterbi inside LDLQ).
Source     exllamav3 1.6.5: modules/quant/exl3.py, exl3_lib/quantize.py, exllamav3_ext/quant/codebook.cuh, frac.cu.
"""

from collections.abc import Mapping

import numpy as np

from refquant import hadamard, trellis
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError

BLOCK = 128  # of the transforms
TILE = 16
RATES = (*range(1, 9), 1.5, 2.5, 3.5)


@np.errstate(over="ignore", invalid="ignore")  # scales of a file may be infinite
def decode(tensors: Mapping[str, np.ndarray]) -> np.ndarray:
    """W^ float32 (out, in) of the tensors of one layer, by the names above. Others (bias) are not looked at.

    Raises QuantError, ShapeError, RangeError, SchemeError.
    """
    if "trellis" not in tensors:
        raise QuantError(f"exl3.decode: tensors = {sorted(tensors)}, expected trellis among them")
    inner = decode_tiles(tensors["trellis"], codebook(tensors))  # (in, out)
    if inner.shape[0] % BLOCK or inner.shape[1] % BLOCK:
        raise ShapeError(f"exl3.decode: in, out = {inner.shape}, expected multiples of {BLOCK}")
    left, right = (_scale(tensors, *names) for names in (("suh", "su", inner.shape[0]), ("svh", "sv", inner.shape[1])))
    W = _transformed(inner).T * right[:, None]  # (out, in)
    return _transformed(np.ascontiguousarray(W)) * left


def codebook(tensors: Mapping[str, np.ndarray]) -> str:
    """The function that the tensors of a layer name: "3inst", "mcg" or "mul1"."""
    named = [name for name in ("mcg", "mul1") if name in tensors]
    if len(named) > 1:
        raise SchemeError("exl3.codebook: tensors = mcg and mul1, expected at most one of them")
    return named[0] if named else "3inst"


def decode_tiles(packed: np.ndarray, function: str = "3inst") -> np.ndarray:
    """What the transforms stand around: float32 (in, out) of a trellis int16 (in/16, out/16, 16 k)."""
    if packed.dtype != np.int16 or packed.ndim != 3 or not packed.size:
        raise ShapeError(f"exl3: trellis = {packed.dtype} {packed.shape}, expected int16 (in / 16, out / 16, 16 k)")
    if function not in FUNCTIONS:
        raise SchemeError(f"exl3: function = {function!r}, expected one of {list(FUNCTIONS)}")
    rows, columns, width = packed.shape
    if width / TILE not in RATES or (width % TILE and function != "mul1"):
        raise RangeError(
            f"exl3: bits a weight = {width / TILE:g} with {function}, expected 1..8; mul1 also 1.5 2.5 3.5"
        )
    words = packed.reshape(-1, width // 2, 2)[:, :, ::-1].reshape(-1, width).view(np.uint16)
    steps = np.full(256, width // TILE)
    steps[1::2] = -(-width // TILE)  # rounded up
    values = FUNCTIONS[function](trellis.windows(words, np.cumsum(steps) - trellis.LENGTH))  # (tiles, 256)
    tiles = np.empty_like(values)
    tiles[:, places()] = values
    return tiles.reshape(rows, columns, TILE, TILE).swapaxes(1, 2).reshape(rows * TILE, columns * TILE)


def places() -> np.ndarray:
    """Where in its tile, laid out by rows, each weight of a stream belongs, (256,)."""
    lane, i = np.divmod(np.arange(256), 8)
    row = 2 * (lane % 4) + np.array([0, 1, 8, 9])[i % 4]
    return TILE * row + lane // 4 + 8 * (i // 4)


def mcg(state: np.ndarray) -> np.ndarray:
    """f of states (...) as float32 (...)."""
    return trellis.two_halves((state.astype(np.uint64) * np.uint64(0xCBAC1FED)).astype(np.uint32))


def mul1(state: np.ndarray) -> np.ndarray:
    """f of states (...) as float32 (...)."""
    y = (state.astype(np.uint64) * np.uint64(0x83DCD12D)).astype(np.uint32)
    h = 1024 + sum(((y >> np.uint32(8 * byte)) & np.uint32(255)).astype(np.int32) for byte in range(4))
    a, b = np.array([0x1EEE, 0xC931], np.uint16).view(np.float16).astype(np.float64)
    return (h * a + b).astype(np.float16).astype(np.float32)  # exact in float64


FUNCTIONS = {"3inst": trellis.three_inst, "mcg": mcg, "mul1": mul1}


def unpack_signs(packed: np.ndarray) -> np.ndarray:
    """+-1 float32 (16 n,) of the int16 words (n,) of su or sv."""
    bits = np.unpackbits(packed.astype("<i2").view(np.uint8), bitorder="little")
    return np.float32(1) - 2 * bits.astype(np.float32)


def _transformed(M: np.ndarray) -> np.ndarray:
    """M H: blocks of H along the rows of M."""
    return hadamard.transform(M.reshape(len(M), -1, BLOCK)).reshape(M.shape)


def _scale(tensors: Mapping[str, np.ndarray], name: str, packed: str, count: int) -> np.ndarray:
    """suh or svh, or the signs of su or sv, float32 (count,)."""
    if name in tensors:
        found, wanted = tensors[name], (count,)
    elif packed in tensors:
        found, wanted = tensors[packed], (count // 16,)
    else:
        raise QuantError(f"exl3.decode: tensors = {sorted(tensors)}, expected {name} or {packed} among them")
    kind = "float16" if name in tensors else "int16"
    if found.shape != wanted or found.dtype.name != kind:
        raise ShapeError(f"exl3.decode: {name} or {packed} = {found.dtype} {found.shape}, expected {kind} {wanted}")
    return found.astype(np.float32) if name in tensors else unpack_signs(found)
