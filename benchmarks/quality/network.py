"""A dense Llama or Qwen over all windows of a text at once, with one hook around the matrices that share an input.

    stage     input X                           matrices
    qkv       rms_norm(x)                       q_proj k_proj v_proj
    o         attention                         o_proj
    up        rms_norm(x)                       gate_proj up_proj
    down      silu(gate) * up                   down_proj

pipeline/block.py has the same arithmetic for one sequence. Here a hook sees the inputs of a stage for the whole text
before anything after it is computed, so that one pass calibrates a matrix on the outputs of all that was quantized
before it ("true sequential"), and it may compute the products in its own way.

Shapes   x (windows, tokens, n_embd) float32; X (windows * tokens, in); a product (windows * tokens, out).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant import rotations
from refquant.errors import UnsupportedError
from refquant.models import ModelConfig, rope
from refquant.models.attention import attend
from refquant.models.norm import rms_norm, silu
from refquant.pipeline import architecture, block, open_checkpoint

STAGES = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
Products = Callable[[int, str, np.ndarray], list[np.ndarray]]  # (block, stage, X) -> X W^T of each matrix
_GGUF = {  # names that rotations.py knows
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """Weights by Hugging Face's names without `model.layers.N.`, float32."""

    config: ModelConfig
    blocks: tuple[Mapping[str, np.ndarray], ...]
    embedding: np.ndarray
    norm: np.ndarray
    head: np.ndarray
    divisors: np.ndarray | None = None  # of rope's frequencies (Llama 3)

    def matrices(self, i: int, stage: str) -> list[np.ndarray]:
        """The weights (out, in) of a stage of block i."""
        return [self.blocks[i][f"{name}.weight"] for name in STAGES[stage]]

    @property
    def stages(self) -> list[tuple[int, str]]:
        """(block, stage) in the order of the forward pass."""
        return [(i, stage) for i in range(len(self.blocks)) for stage in STAGES]


def open_network(path: Path) -> Network:
    """Read a Hugging Face folder. Raises QuantError and its kinds."""
    checkpoint = open_checkpoint(path)
    config = checkpoint.model
    if config.mixture is not None:
        raise UnsupportedError(f"{path}: has experts, expected a dense model")
    blocks = []
    for i in range(config.n_layer):
        start = f"model.layers.{i}."
        names = [name for name in checkpoint.tensors if name.startswith(start) and name not in checkpoint.unused]
        blocks.append({name.removeprefix(start): checkpoint.weight(name) for name in names})
    embedding = checkpoint.weight("model.embed_tokens.weight")
    head = embedding if config.tied_output else checkpoint.weight("lm_head.weight")
    divisors = architecture.rope_divisors(checkpoint.path, checkpoint.config)
    return Network(config, tuple(blocks), embedding, checkpoint.weight("model.norm.weight"), head, divisors)


def hidden_states(network: Network, ids: np.ndarray, products: Products | None = None) -> np.ndarray:
    """x after the last block and its norm, for windows of token ids (windows, tokens)."""
    products = exact(network) if products is None else products
    table = block.rope_table(network.config, network.divisors, ids.shape[1])
    x = network.embedding[ids]
    for i in range(len(network.blocks)):
        x = _after_block(network, i, x, table, products)
    return rms_norm(x, network.norm, network.config.rms_eps)


def exact(network: Network) -> Products:
    """The products of the weights as they are."""
    return lambda i, stage, X: [X @ W.T for W in network.matrices(i, stage)]


def rotated(network: Network, Q: np.ndarray) -> Network:
    """The same function with its residual stream turned by the orthogonal Q (n_embd, n_embd); rotations.py."""
    named = {"token_embd.weight": network.embedding, "output.weight": network.head, "output_norm.weight": network.norm}
    for i, weights in enumerate(network.blocks):
        named |= {_gguf_name(i, name): w for name, w in weights.items()}
    turned = rotations.rotate_model(named, network.config, Q)
    turned = {name: w.astype(np.float32) for name, w in turned.items()}
    blocks = tuple({name: turned[_gguf_name(i, name)] for name in weights} for i, weights in enumerate(network.blocks))
    embedding, norm, head = (turned[f"{name}.weight"] for name in ("token_embd", "output_norm", "output"))
    return Network(network.config, blocks, embedding, norm, head, network.divisors)


def _gguf_name(i: int, name: str) -> str:
    layer, _, kind = name.rpartition(".")
    return f"blk.{i}.{_GGUF.get(layer, layer)}.{kind}"


def _after_block(
    network: Network, i: int, x: np.ndarray, table: tuple[np.ndarray, np.ndarray], products: Products
) -> np.ndarray:
    c, W = network.config, network.blocks[i]
    windows, tokens, _ = x.shape

    def stage(name: str, X: np.ndarray) -> list[np.ndarray]:
        found = products(i, name, X.reshape(windows * tokens, -1))
        biases = (W.get(f"{layer}.bias") for layer in STAGES[name])
        found = [y if bias is None else y + bias for y, bias in zip(found, biases)]
        return [y.reshape(windows, tokens, -1) for y in found]

    def turned(y: np.ndarray, part: str) -> np.ndarray:
        norm = W.get(f"self_attn.{part}_norm.weight")
        y = y if norm is None else rms_norm(y, norm, c.rms_eps)
        return rope.rotate(y, table[0], table[1], "neox")

    q, k, v = stage("qkv", rms_norm(x, W["input_layernorm.weight"], c.rms_eps))
    q, k, v = (y.reshape(windows, tokens, -1, c.head_dim) for y in (q, k, v))
    attended = [
        attend(turned(q[w], "q"), turned(k[w], "k"), v[w], c.attn_scale) for w in range(windows)
    ]  # (tokens, heads * head_dim) each
    x = x + stage("o", np.stack(attended))[0]
    gate, up = stage("up", rms_norm(x, W["post_attention_layernorm.weight"], c.rms_eps))
    return x + stage("down", silu(gate) * up)[0]
