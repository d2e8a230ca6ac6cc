"""The keys and values of the tokens read so far, so that the next token need not read them again.

Per layer K (position, n_head_kv, head_dim) after rope and V (position, n_head_kv, head_dim_v). They are held in the
dtype of the computation, or in float16 where that was asked for: then every element is rounded to nearest even once,
when it is stored, and all tokens attend to the rounded ones, including the token itself.

Memory   n_layer * position * n_head_kv * (head_dim + head_dim_v) elements.
"""

import numpy as np

from refquant.errors import RangeError
from refquant.models.config import ModelConfig


class KVCache:
    """State of one sequence. `position` tokens are complete in every layer; a step that fails leaves it unchanged."""

    def __init__(self, config: ModelConfig, dtype: type[np.floating], storage: type[np.floating]):
        self.config, self.dtype, self.position = config, np.dtype(dtype), 0
        k, v = (0, config.n_head_kv, config.head_dim), (0, config.n_head_kv, config.head_dim_v)
        self._layers = [(np.zeros(k, storage), np.zeros(v, storage)) for _ in range(config.n_layer)]

    def extend(self, layer: int, k: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put k and v of the next tokens after `position`; return all keys and values of the layer, (context, ...)."""
        grown = tuple(_append(old[: self.position], new) for old, new in zip(self._layers[layer], (k, v), strict=True))
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


def _append(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    peak = np.abs(new).max()
    if peak > np.finfo(old.dtype).max:
        raise RangeError(f"KVCache.extend: magnitude = {peak}, expected at most {np.finfo(old.dtype).max}: {old.dtype}")
    return np.concatenate([old, new.astype(old.dtype)])
