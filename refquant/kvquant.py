"""KVQuant: caches in a fitted table of levels (nuq), with outliers kept apart and the first token exact.

    fit       per channel (keys) or token (values): lower and upper quantile of x, `outliers` / 2 beyond either
              mid = (upper + lower) / 2,  reach = (upper - lower) / 2,  u = (x - mid) / reach
              levels = weighted k-means of all u in -1 .. 1                    one table for keys and one for values
    Q-Norm    levels <- (levels - m') * s / s' + m, with mean m and deviation s of u before, m' and s' after quantizing
    encode    |u| > 1: an outlier, stored as it is with its place; else code = nearest level of u
    decode    x^ = levels[code] * reach + mid, then the outliers

Keys      are taken before RoPE, whose rotation would mix the channels: hand them in so, and rotate what keys() returns.
          Their mid and reach are those of the calibration data.
Values    have mid and reach of every token of each head, from the token itself.
First     tokens of the sequence are kept in float16: attention falls on the first one far more than on others.
Weights   of the k-means: the Fisher information, squared gradients of the loss by x, of the calibration data.
Arithmetic float32; quantiles by linear interpolation, in float64. mid and reach of values are stored as float16.
Ties      to the lower level.
Constant  reach 0: u is 0, and x^ = levels[code] * 0 + mid.
Bytes     bits a value; an outlier 2 for the value and 4 for its place; 4 a token of a head for mid and reach.
Source    Hooper et al. 2024, KVQuant, arXiv:2401.18079, sec. 3.1 to 3.5 and appendix (Q-Norm);
          SqueezeAILab/KVQuant, simquant_module_quantizer.py. Kept there and not here: a limit of 21 outliers a token.
"""

from dataclasses import dataclass, replace

import numpy as np

from refquant import codebook, kmeans
from refquant.errors import RangeError, ShapeError
from refquant.inputs import as_float32
from refquant.kv_cache import checked


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """What calibration finds: levels (2^bits,) ascending in about -1 .. 1; for keys lower and upper (heads, dim)."""

    levels: np.ndarray
    lower: np.ndarray | None
    upper: np.ndarray | None
    outliers: float  # the share of x beyond either bound, both together

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return (len(self.levels) - 1).bit_length()


def fit_keys(
    k: np.ndarray, bits: int, weights: np.ndarray | None = None, outliers: float = 0.01, q_norm: bool = False
) -> Table:
    """The table of keys k (tokens, heads, dim) before RoPE, weighted by `weights` of the same shape."""
    k = _calibration("k", k, bits, weights, outliers)
    lower, upper = _bounds(k, outliers, axis=0)
    return replace(_levels(k, lower, upper, bits, weights, outliers, q_norm), lower=lower[0], upper=upper[0])


def fit_values(
    v: np.ndarray, bits: int, weights: np.ndarray | None = None, outliers: float = 0.01, q_norm: bool = False
) -> Table:
    """The table of values v (tokens, heads, dim); their bounds are found again for every token."""
    v = _calibration("v", v, bits, weights, outliers)
    return _levels(v, *_bounds(v, outliers, axis=-1), bits, weights, outliers, q_norm)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Tokens as they are stored."""

    codes: np.ndarray  # uint8 (tokens, heads, dim); 0 at outliers
    mid: np.ndarray  # of keys (heads, dim), shared by all tokens; of values (tokens, heads, 1)
    reach: np.ndarray
    places: np.ndarray  # of outliers in the flat codes
    exact: np.ndarray  # float16

    def decode(self, levels: np.ndarray) -> np.ndarray:
        x = levels[self.codes] * self.reach + self.mid
        x.reshape(-1)[self.places] = self.exact
        return x


class KVQuant:
    """A key-value cache (kv_cache.KVCodec) by two tables; the first `first` tokens are exact in float16."""

    def __init__(self, keys: Table, values: Table, first: int = 1):
        if keys.lower is None:
            raise ShapeError("kvquant.KVQuant: keys.lower = None, expected a table of fit_keys")
        self.tables, self.first = (keys, values), first
        self._shapes: list[tuple[int, int]] = []
        self._exact: list[list[np.ndarray]] = [[], []]
        self._parts: list[list[_Part]] = [[], []]
        self._tokens = 0

    def append(self, k: np.ndarray, v: np.ndarray) -> None:
        """Take in tokens: k before RoPE and v (tokens, heads, dim)."""
        k, v = checked("kvquant.append", k, v, self._shapes)
        if k.shape[1:] != self.tables[0].lower.shape:
            raise ShapeError(
                f"kvquant.append: k.shape = {k.shape}, expected (tokens, *{self.tables[0].lower.shape}) of the table"
            )
        alone = max(0, self.first - self._tokens)
        ends = [(self.tables[0].lower, self.tables[0].upper), _bounds(v[alone:], self.tables[1].outliers, axis=-1)]
        exact = [_float16(x[:alone]) for x in (k, v)]
        parts = [_encode(x[alone:], t.levels, *e) for x, t, e in zip((k, v), self.tables, ends, strict=True)]
        for which in (0, 1):  # only now: an error above leaves the cache as it was
            self._exact[which].append(exact[which])
            self._parts[which].append(parts[which])
        self._tokens += len(k)

    def keys(self) -> np.ndarray:
        """All keys before RoPE, decoded: float32 (tokens, heads, dim)."""
        return self._decoded(0)

    def values(self) -> np.ndarray:
        """All values, decoded: float32 (tokens, heads, dim)."""
        return self._decoded(1)

    @property
    def nbytes(self) -> int:
        """Bytes that are stored, without the tables."""
        codes = sum(-(-p.codes.size * t.bits // 8) for t, parts in zip(self.tables, self._parts) for p in parts)
        sparse = sum(6 * p.places.size for parts in self._parts for p in parts)
        ranges = sum(4 * p.mid.size for p in self._parts[1])
        return codes + sparse + ranges + sum(a.nbytes for exact in self._exact for a in exact)

    def __len__(self) -> int:
        return self._tokens

    def _decoded(self, which: int) -> np.ndarray:
        if not self._tokens:
            raise ShapeError("kvquant: tokens = 0, expected append before keys and values")
        first = [a.astype(np.float32) for a in self._exact[which]]
        return np.concatenate([*first, *(p.decode(self.tables[which].levels) for p in self._parts[which])])


def _bounds(x: np.ndarray, outliers: float, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The quantiles outliers / 2 and 1 - outliers / 2 along an axis, which is kept: float32."""
    if not x.size:
        return x[..., :1], x[..., :1]
    ends = np.quantile(x.astype(np.float64), [outliers / 2, 1 - outliers / 2], axis=axis, keepdims=True)
    return ends[0].astype(np.float32), ends[1].astype(np.float32)


def _mid_reach(lower: np.ndarray, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with np.errstate(over="ignore"):
        return (upper + lower) / np.float32(2), (upper - lower) / np.float32(2)


def _normalized(x: np.ndarray, mid: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """(x - mid) / reach; 0 at mid, and infinite beside it, where reach is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.where(x == mid, np.float32(0), (x - mid) / reach)


def _levels(
    x: np.ndarray,
    lower: np.ndarray,
    upper: np.ndarray,
    bits: int,
    weights: np.ndarray | None,
    outliers: float,
    q_norm: bool,
) -> Table:
    u = _normalized(x, *_mid_reach(lower, upper))
    inside = np.abs(u) <= 1
    levels = kmeans.lloyd(u[inside], 1 << bits, None if weights is None else np.asarray(weights)[inside])
    if q_norm:
        before = u[inside].astype(np.float64)
        after = levels[codebook.nearest(u[inside], levels)].astype(np.float64)
        ratio = before.std() / after.std() if after.std() > 0 else 1.0
        levels = ((levels - after.mean()) * ratio + before.mean()).astype(np.float32)
    return Table(levels, None, None, outliers)


def _encode(x: np.ndarray, levels: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> _Part:
    mid, reach = _mid_reach(lower, upper)
    if lower.ndim == x.ndim:  # of values: stored with the tokens, in float16
        mid, reach = _float16(mid).astype(np.float32), _float16(reach).astype(np.float32)
    u = _normalized(x, mid, reach)
    codes = codebook.nearest(u, levels)
    outside = np.abs(u) > 1
    codes[outside] = 0
    places = np.flatnonzero(outside)
    return _Part(codes, mid, reach, places, _float16(x.reshape(-1)[places]))


def _float16(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", under="ignore"):
        narrowed = x.astype(np.float16)
    if not np.isfinite(narrowed).all():
        raise RangeError(f"kvquant: |x| = {np.abs(x).max():.6g}, expected at most 65504 where float16 is stored")
    return narrowed


def _calibration(name: str, x: np.ndarray, bits: int, weights: np.ndarray | None, outliers: float) -> np.ndarray:
    where = f"kvquant.fit ({name})"
    x = as_float32(where, x, name)
    if x.ndim != 3 or (weights is not None and np.shape(weights) != x.shape):
        raise ShapeError(f"{where}: shape = {x.shape}, expected (tokens, heads, dim), weights alike")
    if bits not in range(1, 9) or not 0 <= outliers < 1:
        raise RangeError(f"{where}: bits = {bits}, outliers = {outliers}, expected 1 to 8 and 0 <= outliers < 1")
    return x
