"""The forward pass of Llama, Qwen2 and Qwen3, with experts or without: token ids in, logits out.

    x = embedding[ids]
    layer    h = rms_norm(x)      q, k, v = Wq h, Wk h, Wv h      qwen3: q, k = rms_norm per head
             q, k = rope(q), rope(k)                              positions continue those of the cache
             x = x + Wo attention(q, K, V)                        K, V: all tokens so far
             h = rms_norm(x)      x = x + Wdown (silu(Wgate h) * Wup h)       or experts (experts.py)
    logits = Wout rms_norm(x)

Every W h is scale * (W h) + bias where the file has a scale or a bias. Architectures differ by values: which tensors
the file has, the rope style, the head sizes.

Weights are what the file's blocks decode to and activations are never quantized, so this is the exact arithmetic that
a runtime with quantized activations approximates. All of it is float32, or float64 with dtype=np.float64 (weights, KV
cache and rope tables included). Reading a prompt in chunks gives the logits of reading it at once up to rounding.

Source   llama.cpp, src/models/llama.cpp, qwen2.cpp, qwen3.cpp, qwen2moe.cpp and qwen3moe.cpp.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import RangeError, ShapeError, require_finite
from refquant.models import rope
from refquant.models.attention import attend
from refquant.models.cache import KVCache
from refquant.models.config import ModelConfig
from refquant.models.experts import mixture, sigmoid
from refquant.models.norm import rms_norm, silu
from refquant.models.tensors import check_tensors, model_tensors
from refquant.models.weights import Weights

if TYPE_CHECKING:
    from refquant.gguf import GGUFFile

Tap = Callable[[str, np.ndarray], np.ndarray | None]


class Oracle:
    """A model that computes logits from an open GGUF file, which must stay open.

    dtype     np.float32 or np.float64, of the whole computation.
    kv_dtype  np.float16 or "q8_0" rounds keys and values to it in the cache; np.float32 keeps them in dtype.
    keep      hold decoded weights (weights.py says what that costs) instead of decoding them at every call.

    `config` is the ModelConfig, `warnings` names tensors of the file that are not used. Raises GGUFError for a file
    that is not a supported model.
    """

    def __init__(
        self,
        gguf: "GGUFFile",
        dtype: type[np.floating] = np.float32,
        kv_dtype: type[np.floating] | str = np.float32,
        keep: bool = True,
    ):
        _require_dtype("dtype", dtype, (np.float32, np.float64))
        if kv_dtype != "q8_0":
            _require_dtype("kv_dtype", kv_dtype, (np.float32, np.float16))
            kv_dtype = np.float16 if np.dtype(kv_dtype) == np.float16 else dtype
        self.config = ModelConfig.from_metadata(gguf)
        self.warnings = check_tensors(gguf, self.config)
        self.dtype = np.dtype(dtype)
        self._storage = kv_dtype
        self._weights = Weights(model_tensors(gguf, self.config), self.dtype, keep)
        self._inv_freq = rope.inv_freq(self.config, self._weights.optional("rope_freqs.weight"))

    def new_cache(self) -> KVCache:
        """An empty sequence."""
        return KVCache(self.config, self.dtype, self._storage)

    @np.errstate(over="ignore", invalid="ignore")  # weights of absurd size: the logits are checked instead
    def logits(
        self, ids: Sequence[int] | np.ndarray, cache: KVCache | None = None, last: bool = False, tap: Tap | None = None
    ) -> np.ndarray:
        """Scores of the next token after each of `ids`, (len(ids), n_vocab), or after the last one only, (1, n_vocab).

        `cache` holds the tokens before `ids` and is extended by them; without it `ids` begin a sequence. `tap(name, X)`
        is called with the input X (tokens, in) of every matrix, `name` being the tensor ("blk.0.attn_q.weight"), with
        a number for an expert that any token chose ("blk.0.ffn_up_exps.weight[3]"), and may return an array to be
        multiplied in its place: rounded activations, say.
        Raises ShapeError for no ids or another model's cache, RangeError for what is not a token id, NonFiniteError
        where the weights are so large that the logits overflow. The cache is then as it was.
        """
        c, W = self.config, self._weights
        ids = _require_ids(ids, c.n_vocab)
        cache = self.new_cache() if cache is None else cache
        if cache.config != c or cache.dtype != self.dtype:
            raise ShapeError("Oracle.logits: cache is another model's, expected one of this model's new_cache()")

        def tapped(name: str, x: np.ndarray) -> np.ndarray:
            replaced = None if tap is None else tap(name, x)
            return x if replaced is None else replaced

        def linear(name: str, x: np.ndarray, matrix: str | None = None) -> np.ndarray:
            matrix = matrix or f"{name}.weight"
            y = tapped(matrix, x) @ W[matrix].T  # (tokens, out)
            scale, bias = W.optional(f"{name}.scale"), W.optional(f"{name}.bias")
            y = y if scale is None else y * scale
            return y if bias is None else y + bias

        def head_norm(name: str, x: np.ndarray) -> np.ndarray:
            weight = W.optional(f"{name}.weight")
            return x if weight is None else rms_norm(x, weight, c.rms_eps)

        def gated(blk: str, end: str, h: np.ndarray) -> np.ndarray:
            h = silu(linear(f"{blk}.ffn_gate{end}", h)) * linear(f"{blk}.ffn_up{end}", h)  # (tokens, n_ff)
            return linear(f"{blk}.ffn_down{end}", h)

        def expert_linear(name: str, e: int, x: np.ndarray) -> np.ndarray:
            y = tapped(f"{name}.weight[{e}]", x) @ W.expert(f"{name}.weight", e).T
            scale = W.optional(f"{name}.scale")
            return y if scale is None else y * scale[e]

        def experts(blk: str, h: np.ndarray) -> np.ndarray:
            def expert(e: int, x: np.ndarray) -> np.ndarray:
                gate, up = (expert_linear(f"{blk}.ffn_{part}_exps", e, x) for part in ("gate", "up"))
                return expert_linear(f"{blk}.ffn_down_exps", e, silu(gate) * up)

            y = mixture(h, linear(f"{blk}.ffn_gate_inp", h), c.mixture.n_used, c.mixture.normalized, expert)
            if c.mixture.n_ff_shared:
                gate = sigmoid(h @ W[f"{blk}.ffn_gate_inp_shexp.weight"])  # (tokens,)
                y = y + gate[:, None] * gated(blk, "_shexp", h)
            return y

        tokens = len(ids)
        positions = cache.position + np.arange(tokens)
        cos, sin = (t.astype(self.dtype) for t in rope.table(self._inv_freq, positions, rope.mscale(c)))
        x = W.rows("token_embd.weight", ids)  # (tokens, n_embd)
        for layer in range(c.n_layer):
            blk = f"blk.{layer}"
            h = rms_norm(x, W[f"{blk}.attn_norm.weight"], c.rms_eps)  # (tokens, n_embd)
            q = linear(f"{blk}.attn_q", h).reshape(tokens, c.n_head, c.head_dim)
            k = linear(f"{blk}.attn_k", h).reshape(tokens, c.n_head_kv, c.head_dim)
            v = linear(f"{blk}.attn_v", h).reshape(tokens, c.n_head_kv, c.head_dim_v)
            q = rope.rotate(head_norm(f"{blk}.attn_q_norm", q), cos, sin, c.rope_style)
            k = rope.rotate(head_norm(f"{blk}.attn_k_norm", k), cos, sin, c.rope_style)
            keys, values = cache.extend(layer, k, v)  # (context, n_head_kv, head_dim or head_dim_v)
            h = attend(q, keys, values, c.attn_scale)  # (tokens, n_head * head_dim_v)
            x = x + linear(f"{blk}.attn_output", h)  # (tokens, n_embd)
            h = rms_norm(x, W[f"{blk}.ffn_norm.weight"], c.rms_eps)  # (tokens, n_embd)
            x = x + (gated(blk, "", h) if c.mixture is None else experts(blk, h))  # (tokens, n_embd)
        x = x[-1:] if last else x
        h = rms_norm(x, W["output_norm.weight"], c.rms_eps)
        scores = linear("output", h, "token_embd.weight" if c.tied_output else None)  # (tokens or 1, n_vocab)
        require_finite("Oracle.logits", scores, "logits")
        cache.advance(tokens)
        return scores


def _require_dtype(name: str, got: type[np.floating], allowed: tuple[type[np.floating], ...]) -> None:
    if np.dtype(got) not in allowed:
        names = " or ".join(np.dtype(t).name for t in allowed)
        raise RangeError(f"Oracle: {name} = {np.dtype(got).name}, expected {names}")


def _require_ids(ids: Sequence[int] | np.ndarray, n_vocab: int) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 1 or array.size == 0:
        raise ShapeError(f"Oracle.logits: ids.shape = {array.shape}, expected (tokens,) with at least one token")
    if array.dtype.kind not in "iu":
        raise RangeError(f"Oracle.logits: ids are {array.dtype}, expected integers")
    if array.min() < 0 or array.max() >= n_vocab:
        raise RangeError(f"Oracle.logits: ids are in {array.min()}..{array.max()}, expected 0..{n_vocab - 1}")
    return array
