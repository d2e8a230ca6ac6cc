"""NVFP4: blocks of 16 E2M1 numbers under an E4M3 scale, and one float32 scale for the whole tensor.

    decode   x^ = VALUE[code] * (s * t)                  s: E4M3, one a block; t: float32, one a tensor
    encode   g = 2688 / max|x|,  t = 1 / g               2688 = 448 * 6, the largest E4M3 times the largest E2M1
             s = E4M3(max|block| / 6 * g)                to nearest, ties to even, saturating
             code = E2M1(x * (1 / (s * t)))              to nearest, ties to even, saturating

Shapes     x and codes any shape, codes uint8; scale is s, float32 values that E4M3 has, as groups.scale_shape says; the
           scale of the tensor is float32 of shape (): `tensor_scale` = t, or `global_scale` = g where a dialect stores
           that and decodes by VALUE * (s / g). Reading one for the other is wrong by the square. Files hold
           minifloat.encode(s, E4M3FN); bits.pack(codes, 4) packs the low nibble first, as all of them do.
Arithmetic float32, one IEEE operation for each written, in the order of the parentheses.
Zeros      a zero block has s = 0 and zero codes, and so does one with max|block| / 6 * g <= 2^-10: it is lost. A zero
           tensor has t = g = 1. -0, and what is negative and rounds to zero, keep the sign bit.
Huge, tiny g and 1 / (s * t) are held at FLT_MAX (max|x| below 7.9e-36; auto-round holds the former only). |x^| is at
           most 448 * 6 * t, which is max|x| but for rounding: infinite only where max|x| is next to FLT_MAX.
Static     `scale` may be given: it is t (or g, in the dialects that store g) of activations or of fused layers.
Bits       4 + 8 / 16 a weight.
Source     NVIDIA 2025, Pretraining Large Language Models with NVFP4, arXiv:2509.25149, app. C.

    dialect             stored  from                s before E4M3           s least, of 0    E2M1 of          -0
    (default)           t       1 / (2688 / amax)   (a / 6) * g                              x * (1 / (s t))  of x
    transformer-engine  t       1 / (2688 / amax)   a * (g * (1 / 6))                        x * (1 / (s t))  x < 0
    compressed-tensors  g       2688 * (1 / amax)   (a / 6) * g             2^-3 if 0        x / (s / g)      x < 0
    modelopt            t       amax / 2688         a / (6 t)               2^-9, 1 if a=0   x / (s t)        x < 0
    modelopt-static     t       amax / 2688         a' * 448 / (amax / 6)   2^-9             x / (s t)        x < 0
    torchao             t       amax / 2688         (a / 6) / t             2^-6             x * ((1 / t)/s)  of x
    torchao-local       none    t = 1               a / 6                   2^-6             x * (1 / s)      of x
    auto-round          g       2688 * (1 / amax)   g * (a * (1 / 6))                        x * (1 / (s t))  x < 0
    ggml                none    t = 1               a / 6, ggml's UE4M3                      nearest code * s never
    (a = max|block|, a' = a / 6, or 1 where a = 0, amax = max|x|. Where the fifth column is empty, s = 0 stays 0 and the
    codes are 0, in transformer-engine those of +-6 for x that is not 0. compressed-tensors has g = 1 for amax below
    7.9e-36, not FLT_MAX.)
Zero block bytes   0x00 default, transformer-engine, auto-round, ggml; 0x20 compressed-tensors; 0x38 modelopt; of
                   modelopt-static 0x7E where amax <= 6; 0x08 torchao. Same weights, five files.
Differs    of a zero tensor, modelopt and torchao make NaN scales, auto-round g = 0; here t = g = 1 in every dialect.
           Versions read: those of mx.py; Transformer Engine's reference quantizer of 2026.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from refquant import groups, minifloat
from refquant.errors import RangeError, SchemeError
from refquant.gguf import fp4 as ggml
from refquant.groups import Granularity
from refquant.inputs import as_float32
from refquant.minifloat import FORMATS, ZERO_SIGNS
from refquant.peak import peaks
from refquant.rounding import ROUNDINGS
from refquant.scaled_values import scaled_values

BLOCK = groups.group(16)
E2M1, E4M3 = FORMATS["e2m1"], FORMATS["e4m3fn"]
LARGEST = np.finfo(np.float32).max
ONE, SIX, TOP, REACH = np.float32([1, 6, 448, 448 * 6])
_SLAB = 1 << 16

TENSOR: dict[str, Callable[[np.float32], np.float32]] = {
    "g = 2688 / amax": lambda amax: REACH / amax,
    "g = 2688 * (1 / amax)": lambda amax: REACH * (ONE / amax),
    "t = amax / 2688": lambda amax: amax / REACH,
}
BLOCKS: dict[str, Callable[[np.ndarray, np.float32, np.float32, np.float32], np.ndarray]] = {
    "(a / 6) * g": lambda a, g, t, amax: a / SIX * g,
    "a * (g * (1 / 6))": lambda a, g, t, amax: a * (g * (ONE / SIX)),
    "g * (a * (1 / 6))": lambda a, g, t, amax: g * (a * (ONE / SIX)),
    "(a / 6) / t": lambda a, g, t, amax: a / SIX / t,
    "a / (6 * t)": lambda a, g, t, amax: a / (SIX * t),
    "(a / 6 or 1) * 448 / (amax / 6)": lambda a, g, t, amax: np.where(a, a / SIX, ONE) * TOP / (amax / SIX),
}
ELEMENTS: dict[str, Callable[[np.ndarray, np.ndarray, np.float32, np.float32], np.ndarray]] = {
    "x * min(1 / (s * t), FLT_MAX)": lambda x, s, g, t: x * np.minimum(ONE / (s * t), LARGEST),
    "x * (1 / (s * t))": lambda x, s, g, t: x * (ONE / (s * t)),
    "x * (g / s)": lambda x, s, g, t: x * (g / s),
    "x / (s / g)": lambda x, s, g, t: x / (s / g),
    "x / (s * t)": lambda x, s, g, t: x / (s * t),
    "nearest": lambda x, s, g, t: x,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """An NVFP4 format; the formulas are keys of TENSOR, BLOCKS and ELEMENTS."""

    stored: str = "t"  # t | g | none: which scale of the tensor is kept
    tensor: str = "g = 2688 / amax"
    block: str = "(a / 6) * g"
    element: str = "x * min(1 / (s * t), FLT_MAX)"
    g_overflow: float = float(LARGEST)  # g where 2688 / amax is infinite
    zero_scale: float = 0.0  # put for a scale of exactly 0 before it is rounded to E4M3
    least_scale: float = 0.0  # scales below are raised to it before they are rounded
    lost_scale: float = 0.0  # put for a scale that E4M3 rounds to 0
    lost_codes: str = "zero"  # where s = 0: zero | saturated, which is what a multiplier held at FLT_MAX makes
    rounding: str = "half_even"
    zero_sign: str = "kept"  # which zeros take the code of -0: minifloat.encode

    def __post_init__(self):
        choices = {
            "stored": ("t", "g", "none"),
            "tensor": tuple(TENSOR),
            "block": tuple(BLOCKS),
            "element": tuple(ELEMENTS),
            "lost_codes": ("zero", "saturated"),
            "rounding": (*ROUNDINGS, "stochastic"),
            "zero_sign": ZERO_SIGNS,
        }
        for field, known in choices.items():
            if getattr(self, field) not in known:
                raise SchemeError(f"nvfp4.Rule: {field} = {getattr(self, field)!r}, expected one of {list(known)}")

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return 4

    @property
    def group_bits(self) -> int:
        """Bits that a block stores besides its codes: s."""
        return 8

    @property
    def extra(self) -> str | None:
        """The name of the tensor's scale among the extras; None if there is none."""
        return {"t": "tensor_scale", "g": "global_scale", "none": None}[self.stored]

    @property
    def summary(self) -> str:
        """A few words for lists of formats."""
        tensor = {"t": ", float32 tensor scale", "g": ", float32 global scale (a divisor)", "none": ""}[self.stored]
        return f"E2M1, E4M3 scale{tensor}"


RULE = Rule()
DIALECTS = {
    "transformer-engine": {"block": "a * (g * (1 / 6))", "lost_codes": "saturated", "zero_sign": "negative"},
    "compressed-tensors": {
        "stored": "g", "tensor": "g = 2688 * (1 / amax)", "element": "x / (s / g)", "g_overflow": 1.0,
        "lost_scale": 0.125, "zero_sign": "negative",
    },
    "modelopt": {
        "tensor": "t = amax / 2688", "block": "a / (6 * t)", "element": "x / (s * t)", "zero_scale": 1.0,
        "least_scale": 2.0**-9, "zero_sign": "negative",
    },
    "modelopt-static": {
        "tensor": "t = amax / 2688", "block": "(a / 6 or 1) * 448 / (amax / 6)", "element": "x / (s * t)",
        "least_scale": 2.0**-9, "zero_sign": "negative",
    },
    "torchao": {
        "tensor": "t = amax / 2688", "block": "(a / 6) / t", "element": "x * (g / s)", "least_scale": 2.0**-6
    },
    "torchao-local": {"stored": "none", "element": "x * (g / s)", "least_scale": 2.0**-6},
    "auto-round": {
        "stored": "g", "tensor": "g = 2688 * (1 / amax)", "block": "g * (a * (1 / 6))",
        "element": "x * (1 / (s * t))", "zero_sign": "negative",
    },
    "ggml": {"stored": "none", "element": "nearest", "rounding": "half_to_zero", "zero_sign": "dropped"},
}  # fmt: skip


def encode(
    x: np.ndarray,
    rule: Rule = RULE,
    granularity: Granularity = BLOCK,
    rng: np.random.Generator | None = None,
    scale: np.ndarray | float | None = None,
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Return (codes, scale, extras); a `scale` that is given is the tensor's.

    Raises ShapeError, NonFiniteError, RangeError (a scale that is not positive), SchemeError (no rng, none to give).
    """
    if rule.rounding == "stochastic" and rng is None:
        raise SchemeError("nvfp4.encode: rng = None, expected a np.random.Generator for stochastic rounding")
    x = as_float32("nvfp4.encode", x)
    shape = groups.scale_shape("nvfp4.encode", x.shape, granularity)
    rows = groups.split("nvfp4.encode", x, granularity)  # (groups, members)
    peak = peaks(rows)
    g, t = _tensor_scales(peak.max(), rule) if scale is None else _given(scale, rule)
    s = _block_scales(peak, g, t, peak.max() if scale is None else REACH * t, rule)
    codes = np.empty(rows.shape, np.uint8)
    with np.errstate(all="ignore"):
        for part in groups.slabs(rows.shape, _SLAB):
            _encode_into(codes[part], rows[part], s[part[0], None], g, t, rule, rng)
    extras = {} if rule.extra is None else {rule.extra: np.array(g if rule.stored == "g" else t)}
    return groups.join(codes, x.shape, granularity), s.reshape(shape), extras


def decode(
    codes: np.ndarray,
    scale: np.ndarray,
    extras: dict[str, np.ndarray],
    rule: Rule = RULE,
    granularity: Granularity = BLOCK,
) -> np.ndarray:
    """The float32 array of `codes`; overflow gives infinity silently. Raises RangeError for a code above 15."""
    minifloat.require_codes("nvfp4.decode", codes, E2M1)
    with np.errstate(all="ignore"):
        if rule.stored == "t":
            scale = scale * extras["tensor_scale"]
        elif rule.stored == "g":
            scale = scale / extras["global_scale"]
    return scaled_values("nvfp4.decode", codes, minifloat.values(E2M1), scale, granularity)


@np.errstate(all="ignore")
def _tensor_scales(amax: np.float32, rule: Rule) -> tuple[np.float32, np.float32]:
    """(g, t)"""
    if rule.stored == "none" or amax == 0:
        return ONE, ONE
    value = TENSOR[rule.tensor](amax)
    if rule.tensor.startswith("t"):
        return (ONE / value, value) if value > 0 else (ONE, ONE)
    g = value if np.isfinite(value) else np.float32(rule.g_overflow)
    return g, ONE / g


@np.errstate(all="ignore")
def _given(scale: np.ndarray | float, rule: Rule) -> tuple[np.float32, np.float32]:
    """(g, t) of a tensor scale that the caller knows."""
    if rule.stored == "none":
        raise SchemeError("nvfp4.encode: scale is given, expected none: this dialect has no scale of the tensor")
    value = np.asarray(scale, np.float32)
    if value.size != 1 or not 0 < value.reshape(()) < np.inf:
        raise RangeError(f"nvfp4.encode: scale = {scale}, expected one positive finite number")
    value = np.float32(value.reshape(()))
    return (value, ONE / value) if rule.stored == "g" else (ONE / value, value)


@np.errstate(all="ignore")
def _block_scales(peak: np.ndarray, g: np.float32, t: np.float32, amax: np.float32, rule: Rule) -> np.ndarray:
    """s of every block, float32 values that E4M3 has."""
    if rule.element == "nearest":
        return 2 * ggml.UE4M3_HALF[ggml.encode_ue4m3(peak / SIX)].astype(np.float32)
    wide = BLOCKS[rule.block](peak, g, t, amax)
    wide = np.where(wide == 0, np.float32(rule.zero_scale), wide)
    s = minifloat.decode(minifloat.encode(np.maximum(wide, np.float32(rule.least_scale)), E4M3), E4M3)
    return np.where(s == 0, np.float32(rule.lost_scale), s)


def _encode_into(
    codes: np.ndarray, x: np.ndarray, s: np.ndarray, g: np.float32, t: np.float32, rule: Rule, rng
) -> None:
    if rule.element == "nearest":
        codes[:] = ggml.nearest_codes(x, s[:, 0] / 2)
        return
    scaled = ELEMENTS[rule.element](x, s, g, t)
    lost = np.flatnonzero(s == 0)
    if lost.size:
        scaled[lost] = x[lost] * (np.float32(0) if rule.lost_codes == "zero" else LARGEST)
    minifloat.encode_into(codes, scaled, E2M1, rule.rounding, "saturate", rule.zero_sign, rng)
