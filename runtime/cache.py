"""The KV cache of one sequence: keys and values of every layer in float32, float16 or Q8_0."""

import numpy as np

from refquant.errors import RangeError
from refquant.models import ModelConfig
from runtime.aligned import zeros
from runtime.kernels.kv_rows import CUT, ROWS


class KVCache:
    """keys and values (layers, kv_heads, cuts, bytes) uint8, laid out as runtime.kernels.kv_rows says.

    The memory is zeros that the system hands out page by page when they are first written.
    """

    def __init__(self, config: ModelConfig, n_ctx: int, kv_dtype: str = "f16"):
        if kv_dtype not in ROWS:
            raise RangeError(f"KVCache: kv_dtype = {kv_dtype!r}, expected one of {', '.join(ROWS)}")
        if n_ctx < 1:
            raise RangeError(f"KVCache: n_ctx = {n_ctx}, expected at least 1")
        self.rows, self.n_ctx, self.cuts = ROWS[kv_dtype], n_ctx, -(-n_ctx // CUT)
        shape = (config.n_layer, config.n_head_kv, self.cuts)
        self.keys = zeros((*shape, self.rows.key_cut(config.head_dim)), np.uint8)
        self.values = zeros((*shape, self.rows.value_cut(config.head_dim_v)), np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes when every position is filled."""
        return self.keys.nbytes + self.values.nbytes
