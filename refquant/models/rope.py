"""Rotary positions: pairs of a head's elements turn by an angle that grows with the position.

    angle(pos, i) = pos * f_i        f_i = base^(-2 i / d) / rope_freqs_i        i = 0 .. d/2 - 1,  d = rope_dim
    pair i        norm: (x[2i], x[2i+1])        neox: (x[i], x[i + d/2]);        elements d.. of the head stay
    rotated       (a cos - b sin, a sin + b cos) * mscale

Scaling to a context s times as long as the trained one:

    linear        f_i / s
    yarn          f_i (r_i + (1 - r_i) / s)      r_i = 1 - clip((i - low) / max(0.001, high - low), 0, 1)
                  low  = max(0, floor(c(beta_fast)))       c(n) = d ln(original_context / (2 pi n)) / (2 ln base)
                  high = min(d - 1, ceil(c(beta_slow)))    c(n) is the pair that turns n times in the original context
    mscale        attn_factor, times 1 + 0.1 ln s for yarn with s > 1

rope_freqs (Llama 3) is a tensor of the file that divides the frequencies; it has no keys in the metadata.

Shapes   inv_freq (d/2,) and the table of cosines and sines (tokens, d/2) are float64 before they are narrowed once.
Source   Su et al. 2021, RoFormer, arXiv:2104.09864; Peng et al. 2023, YaRN, arXiv:2309.00071, sec. 3.2 and 3.4;
         llama.cpp, ggml/src/ggml-cpu/ops.cpp rope_yarn and src/llama-context.cpp (which makes mscale what it is here).
Differs  llama.cpp multiplies the angle up pair by pair in float32; here every angle is a float64 product.
"""

import math

import numpy as np

from refquant.errors import RangeError, ShapeError, require_finite
from refquant.models.config import ModelConfig


def inv_freq(config: ModelConfig, rope_freqs: np.ndarray | None = None) -> np.ndarray:
    """Angle of every pair per position, float64 (rope_dim / 2,). `rope_freqs` must be positive and finite."""
    half = config.rope_dim // 2
    f = config.rope_base ** (-2.0 * np.arange(half, dtype=np.float64) / config.rope_dim)
    if rope_freqs is not None:
        if rope_freqs.shape != (half,):
            raise ShapeError(f"rope.inv_freq: rope_freqs.shape = {rope_freqs.shape}, expected ({half},)")
        require_finite("rope.inv_freq", rope_freqs, "rope_freqs")
        if not (rope_freqs > 0).all():
            raise RangeError(f"rope.inv_freq: rope_freqs holds {rope_freqs.min()}, expected positive numbers")
        f = f / rope_freqs
    scaling = config.rope_scaling
    if scaling.kind == "yarn":
        kept = _kept_frequencies(config)
        return f * (kept + (1 - kept) / scaling.factor)
    return f / scaling.factor


def mscale(config: ModelConfig) -> float:
    """What multiplies every rotated element of q and of k."""
    scaling = config.rope_scaling
    if scaling.kind == "yarn" and scaling.factor > 1:
        return scaling.attn_factor * (1 + 0.1 * math.log(scaling.factor))
    return scaling.attn_factor


def table(inv_freq: np.ndarray, positions: np.ndarray, mscale: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines times mscale, both float64 (tokens, rope_dim / 2)."""
    angle = np.multiply.outer(positions.astype(np.float64), inv_freq)
    return np.cos(angle) * mscale, np.sin(angle) * mscale


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, style: str) -> np.ndarray:
    """A rotated copy of x (tokens, heads, head_dim); cos and sin (tokens, rope_dim / 2) have the dtype of x."""
    half = cos.shape[-1]
    first, second = {
        "norm": (slice(0, 2 * half, 2), slice(1, 2 * half, 2)),
        "neox": (slice(0, half), slice(half, 2 * half)),
    }[style]
    cos, sin = cos[:, None], sin[:, None]  # one table for all heads
    a, b = x[..., first], x[..., second]
    y = x.copy()
    y[..., first] = a * cos - b * sin
    y[..., second] = a * sin + b * cos
    return y


def _kept_frequencies(config: ModelConfig) -> np.ndarray:
    """YaRN's ramp r_i: 1 for pairs that turn often (kept as they are), 0 for slow ones (divided by the factor)."""
    d, scaling = config.rope_dim, config.rope_scaling

    def pair_that_turns(n: float) -> float:
        return d * math.log(scaling.original_context / (n * 2 * math.pi)) / (2 * math.log(config.rope_base))

    low = max(0, math.floor(pair_that_turns(scaling.beta_fast)))
    high = min(d - 1, math.ceil(pair_that_turns(scaling.beta_slow)))
    ramp = (np.arange(d // 2, dtype=np.float64) - low) / max(0.001, high - low)
    return 1 - np.clip(ramp, 0, 1)
