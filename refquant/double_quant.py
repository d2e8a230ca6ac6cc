"""Double quantization: the scales of a codebook format are quantized in their turn.

    encode   codes, s   = codebook.encode(x)                  float32 scales, one a block, in order of memory
             offset     = mean of s
             c, S       = dynamic map of s - offset           blocks of 256 scales; the last one may be short
    decode   s^         = LEVELS[c] * S[i // 256] + offset    two float32 operations
             x^         = codebook.decode(codes, s^)

Stored   besides the codes: `scale_codes` uint8 and `scale_absmax` float32, one for 256 scales, and `scale_offset`, one
         float32. At blocks of 64 that is 8 / 64 + 32 / (64 * 256) = .127 bits per weight instead of .5.
Order    codes are computed with the float32 scale and decoded with s^: the one format here that does so.
Offset   the mean sums in float64 and is rounded to float32 once; torch.mean sums in float32, in an order of its own,
         and may differ in the last bits. `offset` hands in the number of a file.
Zeros    a block of zeros decodes to zeros only because its codes name the level 0: its s^ is not 0. With the dialect
         bitsandbytes-cuda they name -1, and the block decodes to -s^.
Ties and the arithmetic of S are those of the map's rule (dynamic_map.py); its dialects matter here: where the CPU
library of bitsandbytes encoded the scales, a scale equal to the mean decodes 2.1e-5 S too high.
Source   Dettmers et al. 2023, QLoRA, arXiv:2305.14314, sec. 3; bitsandbytes quantize_4bit(compress_statistics=True).
"""

from collections.abc import Mapping

import numpy as np

from refquant import codebook, groups
from refquant.codebook import Rule
from refquant.errors import ShapeError
from refquant.groups import Granularity

BLOCK = 256


def encode(
    x: np.ndarray, rule: Rule, granularity: Granularity, offset: float | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return (codes, scale, stored): scale is s^ in float32, `stored` the three arrays that it is decoded from."""
    codes, wide = codebook.encode(x, rule, granularity)
    stored = encode_scales(wide, rule.scale_rule, offset)
    return codes, decode_scales(stored, rule.scale_rule, wide.shape), stored


def encode_scales(scale: np.ndarray, rule: Rule, offset: float | None = None) -> dict[str, np.ndarray]:
    """Scales of any shape to scale_codes (n,), scale_absmax (ceil(n / 256),), scale_offset ()."""
    flat = scale.reshape(-1)
    middle = np.float32(flat.mean(dtype=np.float64) if offset is None else offset)
    centred = flat - middle
    parts = [codebook.encode(piece, rule, groups.block(width)) for piece, width in _pieces(centred)]
    return {
        "scale_codes": np.concatenate([codes for codes, _ in parts]),
        "scale_absmax": np.concatenate([absmax for _, absmax in parts]),
        "scale_offset": np.array(middle, np.float32),
    }


def decode_scales(stored: Mapping[str, np.ndarray], rule: Rule, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 scales (shape) of what `encode_scales` stored; overflow gives infinity silently."""
    codes, absmax = stored["scale_codes"].reshape(-1), stored["scale_absmax"].reshape(-1)
    if absmax.size != -(-codes.size // BLOCK):
        wanted = f"{-(-codes.size // BLOCK)} for {codes.size} scale codes"
        raise ShapeError(f"double_quant.decode_scales: scale_absmax.size = {absmax.size}, expected {wanted}")
    with np.errstate(over="ignore", invalid="ignore"):
        scale = rule.table[codes] * np.repeat(absmax, BLOCK)[: codes.size] + stored["scale_offset"]
    return scale.astype(np.float32).reshape(shape)


def _pieces(flat: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """The whole blocks, and what is left over as a block of its own length."""
    whole = flat.size // BLOCK * BLOCK
    return [(piece, min(piece.size, BLOCK)) for piece in (flat[:whole], flat[whole:]) if piece.size]
