"""Key-value caches in few bits: one small interface, and the codecs that treat every token by itself.

    cache.append(k, v)      tokens come in: k and v (tokens, heads, dim), in order, any number at a time
    cache.keys()            all keys so far, decoded, float32 (tokens, heads, dim)
    cache.values()          all values alike
    cache.nbytes            what is stored: codes packed, scales at their width
    len(cache)              tokens

However the tokens are cut into calls of append, the cache is the same, here and in kivi.py and kvquant.py.

TokenCache   any scheme that gives no scale to more than one token
             int8-token    one scale for a token of one head, or with shared_heads for all heads of a token
             uint4-token, int4-g64, ...   asymmetric, or by groups of the head
             Q8_0          ggml's block of 32, as llama.cpp --cache-type-k q8_0
             fp8_e4m3fn-token, fp8_e5m2-token    8-bit floats with a scale of each token (vLLM has one for the layer)
             F16           not quantized
KIVI         keys by channel, values by token: kivi.py          KVQuant      tables and outliers: kvquant.py

Errors       ShapeError for shapes that are no (tokens, heads, dim) or change, NonFiniteError, SchemeError for a scheme
             whose scales would span tokens.
"""

from typing import Protocol

import numpy as np

from refquant.errors import SchemeError, ShapeError
from refquant.inputs import as_float32
from refquant.quantize import quantize
from refquant.schemes import Scheme, parse
from refquant.tensor import QuantizedTensor


class KVCodec(Protocol):
    """What every cache here offers."""

    def append(self, k: np.ndarray, v: np.ndarray) -> None:
        """Take in tokens: k and v (tokens, heads, dim)."""

    def keys(self) -> np.ndarray:
        """All keys, decoded: float32 (tokens, heads, dim)."""

    def values(self) -> np.ndarray:
        """All values, decoded: float32 (tokens, heads, dim)."""

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""

    def __len__(self) -> int:
        """Tokens."""


def checked(where: str, k: np.ndarray, v: np.ndarray, shapes: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """k and v as float32; `shapes` holds (heads, dim) of both after the first call, and is filled by it."""
    k, v = as_float32(where, k, "k"), as_float32(where, v, "v")
    if k.ndim != 3 or v.ndim != 3 or len(k) != len(v):
        raise ShapeError(f"{where}: k.shape, v.shape = {k.shape}, {v.shape}, expected (tokens, heads, dim) of both")
    shapes[:] = shapes or [k.shape[1:], v.shape[1:]]
    if [k.shape[1:], v.shape[1:]] != shapes:
        raise ShapeError(
            f"{where}: k.shape, v.shape = {k.shape}, {v.shape}, expected (tokens, {shapes[0]}, {shapes[1]})"
        )
    return k, v


class TokenCache:
    """A cache whose tokens are quantized one by one, when they come in."""

    def __init__(self, keys: str | Scheme, values: str | Scheme | None = None, shared_heads: bool = False):
        self.schemes = [parse(keys), parse(values if values is not None else keys)]
        for scheme in self.schemes:
            if scheme.granularity.kind not in ("token", "group"):
                raise SchemeError(
                    f"kv_cache.TokenCache: scheme = {scheme}, expected scales of a token or of groups in it: "
                    f"{scheme.head}-token"
                )
        self.shared_heads = shared_heads
        self._shapes: list[tuple[int, int]] = []
        self._stored: list[list[QuantizedTensor]] = [[], []]

    def append(self, k: np.ndarray, v: np.ndarray) -> None:
        """Take in tokens: k and v (tokens, heads, dim)."""
        for x, scheme, stored in zip(
            checked("kv_cache.append", k, v, self._shapes), self.schemes, self._stored, strict=True
        ):
            stored.append(quantize(x.reshape(len(x), -1) if self.shared_heads else x, scheme))

    def keys(self) -> np.ndarray:
        """All keys, decoded: float32 (tokens, heads, dim)."""
        return self._decoded(0)

    def values(self) -> np.ndarray:
        """All values, decoded: float32 (tokens, heads, dim)."""
        return self._decoded(1)

    @property
    def nbytes(self) -> int:
        """Bytes that are stored."""
        return sum(q.nbytes for stored in self._stored for q in stored)

    def __len__(self) -> int:
        return sum(q.shape[0] for q in self._stored[0])

    def _decoded(self, which: int) -> np.ndarray:
        if not self._shapes:
            raise ShapeError("kv_cache: tokens = 0, expected append before keys and values")
        return np.concatenate([q.dequantize().reshape(-1, *self._shapes[which]) for q in self._stored[which]])
