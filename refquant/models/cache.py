"""The keys and values of the tokens read so far, so that the next token need not read them again.

Per layer K (position, n_head_kv, head_dim) after rope and V (position, n_head_kv, head_dim_v). They are held in the
dtype of the computation, or rounded once, when they are stored, so that all tokens attend to the rounded ones,
including the token itself:

    float16   every element to nearest even
    "q8_0"    every 32 elements of a head to a block of Q8_0 (refquant.gguf.legacy), the last block of a head filled up
              with zeros; held as what the blocks decode to, in the dtype of the computation

Memory   n_layer * position * n_head_kv * (head_dim + head_dim_v) elements.
"""

import numpy as np

from refquant.errors import RangeError
from refquant.gguf import FORMATS, dequantize, quantize
from refquant.models.config import ModelConfig


class KVCache:
    """State of one sequence. `position` tokens are complete in every layer; a step that fails leaves it unchanged."""

    def __init__(self, config: ModelConfig, dtype: type[np.floating], storage: type[np.floating] | str):
        self.config, self.dtype, self.position = config, np.dtype(dtype), 0
        self._blocks = storage == "q8_0"
        k, v = (0, config.n_head_kv, config.head_dim), (0, config.n_head_kv, config.head_dim_v)
        storage = dtype if self._blocks else storage
        self._layers = [(np.zeros(k, storage), np.zeros(v, storage)) for _ in range(config.n_layer)]

    def extend(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put k and v of the next tokens after `position`; return all keys and values of the layer, (context, ...)."""
        new = (_as_q8_0(k), _as_q8_0(v)) if self._blocks else (k, v)
        grown = tuple(_append(old[: self.position], x) for old, x in zip(self._layers[layer], new, strict=True))
        self._layers[layer] = grown
        return grown[0].astype(self.dtype, copy=False), grown[1].astype(self.dtype, copy=False)

    def advance(self, tokens: int) -> None:
        """All layers have been extended by `tokens`."""
        self.position += tokens

    def truncate(self, position: int) -> None:
        """Forget everything from `position` on."""
        if not 0 <= position <= self.position:
            raise RangeError(f"KVCache.truncate: position = {position}, expected 0..{self.position}")
        self.position = position


def _as_q8_0(x: np.ndarray) -> np.ndarray:
    """x (tokens, heads, dim) rounded to blocks of Q8_0, which begin with each head."""
    size, dim = FORMATS["Q8_0"].values, x.shape[-1]
    largest = 127 * float(np.finfo(np.float16).max)  # the scale is a float16
    if (peak := np.abs(x).max()) > largest:
        raise RangeError(f"KVCache.extend: magnitude = {peak}, expected at most {largest}: q8_0")
    rows = np.zeros((*x.shape[:-1], -(-dim // size) * size), np.float32)
    rows[..., :dim] = x
    decoded = dequantize(quantize(rows.reshape(-1, rows.shape[-1]), "Q8_0"), "Q8_0")
    return decoded.reshape(rows.shape)[..., :dim]


def _append(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    peak = np.abs(new).max()
    if peak > np.finfo(old.dtype).max:
        raise RangeError(f"KVCache.extend: magnitude = {peak}, expected at most {np.finfo(old.dtype).max}: {old.dtype}")
    return np.concatenate([old, new.astype(old.dtype)])
