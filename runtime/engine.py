"""What computes: packed weights, compiled kernels and the threads that run them. Importing it imports Numba."""

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
            angles = rope.table(inv_freq, np.arange(self._n_ctx), rope.mscale(config))
            self.graph = Graph(config, self.weights, *map(_float32, angles), self.crew, kv_dtype, self._n_ctx)

    def step(self, ids: np.ndarray, cache: KVCache, start: int, last: bool) -> np.ndarray:
        """Read `ids` at positions start.. of `cache`; logits (1 or len(ids), n_vocab) float32."""
        if len(ids) == 1:
            return self.graph.token(int(ids[0]), cache, start)[None].copy()
        parts = [self.graph.prompt(ids[i : i + BATCH], cache, start + i, last) for i in range(0, len(ids), BATCH)]
        return parts[-1] if last else np.concatenate(parts)

    def close(self) -> None:
        """Let the threads go."""
        self.crew.close()


def _float32(table: np.ndarray) -> np.ndarray:
    narrow = table.astype(np.float32)
    narrow.flags.writeable = False
    return narrow
