"""The KV cache of one sequence: keys and values of every layer, float32 or float16."""

import numpy as np

from refquant.errors import RangeError
from refquant.models import ModelConfig
from runtime.step import CUT
from runtime.weights import padded

DTYPES = {"f16": np.uint16, "f32": np.float32}  # float16 as its bits: Numba's CPU code knows no float16


class KVCache:
    """keys (layers, kv_heads, cuts, head_dim, 256) and values (layers, kv_heads, cuts, 256, head_dim_v up to a
    multiple of 32).

    The memory is zeros that the system hands out page by page when they are first written.
    """

    def __init__(self, config: ModelConfig, n_ctx: int, kv_dtype: str = "f16"):
        if kv_dtype not in DTYPES:
            raise RangeError(f"KVCache: kv_dtype = {kv_dtype!r}, expected one of {', '.join(DTYPES)}")
        if n_ctx < 1:
            raise RangeError(f"KVCache: n_ctx = {n_ctx}, expected at least 1")
        dtype, cuts = DTYPES[kv_dtype], -(-n_ctx // CUT)
        self.n_ctx, self.cuts = n_ctx, cuts
        self.keys = np.zeros((config.n_layer, config.n_head_kv, cuts, config.head_dim, CUT), dtype)
        self.values = np.zeros((config.n_layer, config.n_head_kv, cuts, CUT, padded(config.head_dim_v)), dtype)

    @property
    def nbytes(self) -> int:
        """Bytes when every position is filled."""
        return self.keys.nbytes + self.values.nbytes
