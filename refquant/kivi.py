"""KIVI: keys are quantized by channel, values by token, and the newest tokens are kept in float16.

    keys     a channel of one head, over `group` tokens in a row, is a group
    values   `group` channels of one head, of one token, are a group
    lo = min x, scale = (max x - lo) / (2^bits - 1)         q = round(clip((x - lo) / scale, 0, 2^bits - 1))
    x^ = q * scale + lo

Why      a few channels of the keys are large in every token: a scale of their own keeps them from all others. Values
         have no such channels, and the sum over tokens averages their errors.
Window   of n tokens, the first n // residual * residual keys are quantized, the others not yet: a group of tokens must
         be whole. The last `residual` values are kept, older ones quantized as they leave the window.
Arithmetic float16, each operation rounded: the cache holds x, lo and scale in float16. Ties to even.
Constant a group without extent has scale 0 and codes 0 and decodes exactly. (The authors' code has 0 / 0 = NaN.)
Shapes   k, v (tokens, heads, dim); dim a multiple of group, residual a multiple of group.
Bytes    bits / 8 a value, 4 a group, 2 for each value in the window. At 2 bits, groups of 32: 3 bits a value.
Errors   RangeError for |x| > 65504, and for a group wider than that; ShapeError, NonFiniteError.
Source   Liu et al. 2024, KIVI, arXiv:2402.02750, algorithm 1; jy-yuan/KIVI quant/new_pack.py.
"""

from dataclasses import dataclass

import numpy as np

from refquant.errors import RangeError, ShapeError, require_multiple
from refquant.kv_cache import checked
from refquant.rounding import half_even


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Quantized groups: codes uint8 (..., groups, members), lo and scale float16 (..., groups, 1)."""

    codes: np.ndarray
    lo: np.ndarray
    scale: np.ndarray
    bits: int

    @property
    def nbytes(self) -> int:
        """Bytes with the codes packed."""
        return -(-self.codes.size * self.bits // 8) + self.lo.nbytes + self.scale.nbytes


def encode(x: np.ndarray, bits: int) -> Groups:
    """Quantize float16 groups along the last axis (..., members)."""
    lo, hi = x.min(axis=-1, keepdims=True), x.max(axis=-1, keepdims=True)
    steps = np.float16((1 << bits) - 1)
    with np.errstate(over="ignore", under="ignore"):
        extent = hi - lo
        if not np.isfinite(extent).all():
            raise RangeError("kivi.encode: max - min of a group = inf, expected at most 65504, the largest float16")
        scale = extent / steps
        quotient = (x - lo) / np.where(scale == 0, np.float16(np.inf), scale)
    codes = half_even(np.clip(quotient, np.float16(0), steps)).astype(np.uint8)
    return Groups(codes, lo, scale, bits)


def decode(groups: Groups) -> np.ndarray:
    """codes * scale + lo in float16, like codes."""
    with np.errstate(over="ignore", under="ignore"):
        return groups.codes.astype(np.float16) * groups.scale + groups.lo


class KIVI:
    """A key-value cache (kv_cache.KVCodec) of `bits` bits, groups of `group`, a window of `residual` tokens."""

    def __init__(self, bits: int = 2, group: int = 32, residual: int = 128):
        if bits not in range(1, 9):
            raise RangeError(f"kivi.KIVI: bits = {bits}, expected 1 to 8")
        require_multiple("kivi.KIVI", "residual", residual, group)
        self.bits, self.group, self.residual = bits, group, residual
        self._shapes: list[tuple[int, int]] = []
        self._keys: list[Groups] = []  # codes (tokens / group, heads, dim, group)
        self._values: list[Groups] = []  # codes (tokens, heads, dim / group, group)
        self._recent_keys = self._recent_values = np.empty((0, 0, 0), np.float16)

    def append(self, k: np.ndarray, v: np.ndarray) -> None:
        """Take in tokens: k and v (tokens, heads, dim)."""
        k, v = checked("kivi.append", k, v, self._shapes)
        require_multiple("kivi.append", "v.shape[-1]", v.shape[-1], self.group)
        recent_keys = _joined(self._recent_keys, _float16("k", k))
        recent_values = _joined(self._recent_values, _float16("v", v))
        whole = len(recent_keys) // self.residual * self.residual
        old = max(0, len(recent_values) - self.residual)
        keys, values = [], []
        if whole:
            tokens = recent_keys[:whole].reshape(-1, self.group, *k.shape[1:])
            keys.append(encode(np.moveaxis(tokens, 1, -1), self.bits))
        if old:
            values.append(encode(recent_values[:old].reshape(old, v.shape[1], -1, self.group), self.bits))
        self._keys += keys  # only now: an error above leaves the cache as it was
        self._values += values
        self._recent_keys, self._recent_values = recent_keys[whole:], recent_values[old:]

    def keys(self) -> np.ndarray:
        """All keys, decoded: float32 (tokens, heads, dim)."""
        shape = self._shape(0)
        parts = [np.moveaxis(decode(g), -1, 1).reshape(-1, *shape) for g in self._keys]
        return np.concatenate([*parts, self._recent_keys]).astype(np.float32)

    def values(self) -> np.ndarray:
        """All values, decoded: float32 (tokens, heads, dim)."""
        shape = self._shape(1)
        parts = [decode(g).reshape(-1, *shape) for g in self._values]
        return np.concatenate([*parts, self._recent_values]).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return (
            sum(g.nbytes for g in (*self._keys, *self._values)) + self._recent_keys.nbytes + self._recent_values.nbytes
        )

    def __len__(self) -> int:
        return sum(len(g.codes) for g in self._values) + len(self._recent_values)

    def _shape(self, which: int) -> tuple[int, int]:
        if not self._shapes:
            raise ShapeError("kivi: tokens = 0, expected append before keys and values")
        return self._shapes[which]


def _joined(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.concatenate([old, new]) if len(old) else new


def _float16(name: str, x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        narrowed = x.astype(np.float16)
    if not np.isfinite(narrowed).all():
        raise RangeError(f"kivi.append: max |{name}| = {np.abs(x).max():.6g}, expected at most 65504 (float16)")
    return narrowed
