"""The KV cache of one sequence: keys and values of every layer, float32 or float16."""

import numpy as np

from refquant.errors import RangeError
from refquant.models import ModelConfig

DTYPES = {"f16": np.uint16, "f32": np.float32}  # float16 as its bits: Numba's CPU code knows no float16


class KVCache:
    """keys[layer] (kv_heads, head_dim, n_ctx), values[layer] (kv_heads, n_ctx, head_dim_v).

    The memory is zeros that the system hands out page by page when they are first written.
    """

    def __init__(self, config: ModelConfig, n_ctx: int, kv_dtype: str = "f16"):
        if kv_dtype not in DTYPES:
            raise RangeError(f"KVCache: kv_dtype = {kv_dtype!r}, expected one of {', '.join(DTYPES)}")
        if n_ctx < 1:
            raise RangeError(f"KVCache: n_ctx = {n_ctx}, expected at least 1")
        dtype, heads = DTYPES[kv_dtype], config.n_head_kv
        self.n_ctx = n_ctx
        self.keys = [np.zeros((heads, config.head_dim, n_ctx), dtype) for _ in range(config.n_layer)]
        self.values = [np.zeros((heads, n_ctx, config.head_dim_v), dtype) for _ in range(config.n_layer)]

    @property
    def nbytes(self) -> int:
        """Bytes when every position is filled."""
        return sum(array.nbytes for array in self.keys + self.values)
