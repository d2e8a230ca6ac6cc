"""What a quantized folder computes, by our reading of its bytes and our forward pass, for comparisons with peers.

layers = read_folder(source, folder, "pack-quantized")
logits(layers, sequences)                      inputs as they are
logits(layers, sequences, rounded)             rounded(layer, i, X) is multiplied instead of the input X of a layer
perplexity(logits, sequences)
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.arrays import floats
from refquant.pipeline import block, open_checkpoint
from refquant.pipeline.huggingface import Checkpoint


@dataclass(frozen=True)
class Layers:
    """`weights` by Hugging Face's names, float32; `quantized` are the layers that were stored in few bits."""

    source: Checkpoint
    weights: dict[str, np.ndarray]
    quantized: frozenset[str]


def read_folder(source: Path, folder: Path, layout: str) -> Layers:
    """Every weight of `folder`; `source` is the folder that it was made of, which has the plain names."""
    checkpoint, tensors = open_checkpoint(source), {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors_file.read(file).tensors
    weights, quantized = {}, set()
    for name in checkpoint.tensors:
        layer = name.removesuffix(".weight")
        fields = {n[len(layer) + 1 :]: t.data for n, t in tensors.items() if n.startswith(f"{layer}.")}
        for other in ("bias", "input_global_scale"):
            fields.pop(other, None)
        if name.endswith(".weight") and set(fields) != {"weight"}:
            weights[name] = catalogue.unpack(fields, layout).dequantize()
            quantized.add(layer)
        else:
            weights[name], _ = floats(tensors[name].data)
    return Layers(checkpoint, weights, frozenset(quantized))


def logits(
    layers: Layers, sequences: np.ndarray, rounded: Callable[[str, int, np.ndarray], np.ndarray] | None = None
) -> np.ndarray:
    """(sequences, tokens, n_vocab) of `sequences` (sequences, tokens)."""
    config, top = layers.source.model, layers.weights
    table = block.rope_table(config, None, sequences.shape[1])
    xs = [top["model.embed_tokens.weight"][one] for one in sequences]
    for i in range(config.n_layer):
        prefix = f"model.layers.{i}."
        weights = {n[len(prefix) :]: w for n, w in top.items() if n.startswith(prefix)}
        for j, x in enumerate(xs):

            def tap(name, X, prefix=prefix, j=j):
                return rounded(prefix + name, j, X) if rounded and prefix + name in layers.quantized else None

            xs[j] = block.forward(config, weights, x, table, tap)
    x = np.stack(xs)
    h = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + config.rms_eps) * top["model.norm.weight"]
    return h @ top.get("lm_head.weight", top["model.embed_tokens.weight"]).T


def perplexity(logits: np.ndarray, sequences: np.ndarray) -> float:
    """Of every token but the first of each sequence."""
    shifted = logits[:, :-1].astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, sequences[:, 1:, None], axis=-1)[..., 0]
    return float(np.exp(np.mean(np.log(np.exp(shifted).sum(axis=-1)) - chosen)))


def text_sequences(tokenizer: object, text: str, count: int, length: int) -> np.ndarray:
    """The first count * length tokens of a text, by the tokenizer of the package `tokenizers`."""
    return np.array(tokenizer.encode(text).ids[: count * length]).reshape(count, length)
