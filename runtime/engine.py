"""What computes: packed weights, compiled kernels and the threads that run them."""

from collections.abc import Callable

import numpy as np

from refquant.errors import RangeError
from refquant.gguf import GGUFFile
from refquant.models import ModelConfig, rope
from runtime import weights
from runtime.arena import Arena
from runtime.cache import KVCache
from runtime.compilation import prepare
from runtime.graph import BATCH, Graph
from runtime.kernels.kv_rows import ROWS
from runtime.packing import KERNELS, Packing
from runtime.step import empty, follow, lead
from runtime.workers import Crew

POSITIONS = 512  # whose angles are worked out at a time: in float64 they take much more room than they are kept in


class Engine:
    """The steps of one model: `prepare` once, then `step`. Not to be used by two threads at a time."""

    def __init__(self, file: GGUFFile, config: ModelConfig, n_ctx: int, threads: int, kv_dtype: str, arena: Arena):
        if kv_dtype not in ROWS:
            raise RangeError(f"Model.load: kv_dtype = {kv_dtype!r}, expected one of {', '.join(ROWS)}")
        self._config, self._n_ctx, self._kv_dtype = config, n_ctx, kv_dtype
        self.crew = Crew(threads)
        self._packing = Packing(self.crew, arena)
        self.weights = weights.load(file, config, self._packing)

    def prepare(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Compile what no start before has compiled; then pack, and meanwhile read what is compiled."""
        config, kv_dtype = self._config, self._kv_dtype
        needed = [*KERNELS, lead, follow, empty, *Graph.kernels(config, self.weights, kv_dtype)]
        if not all(function.is_cached for function in needed):
            prepare(needed, progress)
        with self._packing.beside(progress):
            prepare(needed, progress)
            inv_freq = rope.inv_freq(config, self.weights.rope_freqs)
            cos, sin = _angles(inv_freq, self._n_ctx, rope.mscale(config))
            self.graph = Graph(config, self.weights, cos, sin, self.crew, kv_dtype, self._n_ctx)

    def step(self, ids: np.ndarray, cache: KVCache, start: int, wanted: int) -> np.ndarray:
        """Read `ids` at positions start.. of `cache`; logits (wanted, n_vocab) float32 after the last `wanted` ids."""
        if len(ids) == 1:
            return self.graph.token(int(ids[0]), cache, start)[None][1 - wanted :].copy()
        parts = []
        for i in range(0, len(ids), BATCH):
            part = ids[i : i + BATCH]
            behind = len(ids) - i - len(part)
            parts.append(self.graph.prompt(part, cache, start + i, min(len(part), max(0, wanted - behind))))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Let the threads go."""
        self.crew.close()


def _angles(inv_freq: np.ndarray, n_ctx: int, mscale: float) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of every position, (n_ctx, rope_dim / 2): float64 narrowed to float32, some positions at a time."""
    tables = np.empty((2, n_ctx, len(inv_freq)), np.float32)
    for first in range(0, n_ctx, POSITIONS):
        tables[:, first : first + POSITIONS] = rope.table(
            inv_freq, np.arange(first, min(first + POSITIONS, n_ctx)), mscale
        )
    tables.flags.writeable = False
    return tables[0], tables[1]
