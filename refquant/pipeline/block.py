"""One decoder block by Hugging Face's names: hidden states in and out, the inputs of its matrices on the way.

    h = rms_norm(x)      q, k, v = Wq h, Wk h, Wv h      qwen3: q, k = rms_norm per head;  q, k = rope(q), rope(k)
    x = x + Wo attention(q, k, v)
    h = rms_norm(x)      x = x + Wdown (silu(Wgate h) * Wup h)       or experts (models/experts.py)

models/forward.py has the same arithmetic for whole GGUF files; here a block is all that memory holds. Rows of q and k
are in Hugging Face's order, so rope turns the pairs (i, i + d/2) for every architecture.

Shapes   x (tokens, n_embd) float32, one sequence from position 0; weights {name without "model.layers.N.": array}.
"""

from collections.abc import Callable, Mapping

import numpy as np

from refquant.models import ModelConfig, rope
from refquant.models.attention import attend
from refquant.models.experts import mixture, sigmoid
from refquant.models.norm import rms_norm, silu

Tap = Callable[[str, np.ndarray], np.ndarray | None]
Weights = Mapping[str, np.ndarray]
_PARTS = {"mlp": ("gate_proj", "up_proj", "down_proj"), "block_sparse_moe": ("w1", "w3", "w2")}


def rope_table(config: ModelConfig, divisors: np.ndarray | None, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines of the first positions, float32 (tokens, rope_dim / 2)."""
    inv_freq = rope.inv_freq(config, divisors)
    cos, sin = rope.table(inv_freq, np.arange(tokens), rope.mscale(config))
    return cos.astype(np.float32), sin.astype(np.float32)


def forward(
    config: ModelConfig,
    weights: Weights,
    x: np.ndarray,
    table: tuple[np.ndarray, np.ndarray],
    tap: Tap | None = None,
) -> np.ndarray:
    """x after the block. `tap(name, X)` sees the input X (tokens, in) of every matrix, named without `.weight`, and
    may return an array to be multiplied in its place: rounded activations, say."""
    c, W, tokens = config, weights, len(x)

    def linear(name: str, h: np.ndarray) -> np.ndarray:
        replaced = None if tap is None else tap(name, h)
        y = (h if replaced is None else replaced) @ W[f"{name}.weight"].T
        bias = W.get(f"{name}.bias")
        return y if bias is None else y + bias

    def heads(part: str, h: np.ndarray, count: int) -> np.ndarray:
        y = linear(f"self_attn.{part}_proj", h).reshape(tokens, count, -1)
        norm = W.get(f"self_attn.{part}_norm.weight")
        y = y if norm is None else rms_norm(y, norm, c.rms_eps)
        return y if part == "v" else rope.rotate(y, table[0][:tokens], table[1][:tokens], "neox")

    def gated(block: str, parts: tuple[str, str, str], h: np.ndarray) -> np.ndarray:
        gate, up, down = (f"{block}.{part}" for part in parts)
        return linear(down, silu(linear(gate, h)) * linear(up, h))

    h = rms_norm(x, W["input_layernorm.weight"], c.rms_eps)
    attended = attend(heads("q", h, c.n_head), heads("k", h, c.n_head_kv), heads("v", h, c.n_head_kv), c.attn_scale)
    x = x + linear("self_attn.o_proj", attended)
    h = rms_norm(x, W["post_attention_layernorm.weight"], c.rms_eps)
    if c.mixture is None:
        return x + gated("mlp", _PARTS["mlp"], h)
    kind = "block_sparse_moe" if "block_sparse_moe.gate.weight" in W else "mlp"
    scores = h @ W[f"{kind}.gate.weight"].T
    m = c.mixture
    y = mixture(h, scores, m.n_used, m.normalized, lambda e, part: gated(f"{kind}.experts.{e}", _PARTS[kind], part))
    if m.n_ff_shared:
        gate = sigmoid(h @ W["mlp.shared_expert_gate.weight"][0])
        y = y + gate[:, None] * gated("mlp.shared_expert", _PARTS["mlp"], h)
    return x + y


def linears(weights: Weights) -> list[str]:
    """Names of the matrices that a recipe may quantize: all but routers and the gate of a shared expert."""
    kept = ("mlp.gate", "block_sparse_moe.gate", "mlp.shared_expert_gate")
    names = [name.removesuffix(".weight") for name, w in weights.items() if name.endswith(".weight") and w.ndim == 2]
    return [name for name in names if name not in kept]
