"""Hugging Face folders of public shapes with random weights: `python -m benchmarks.random_checkpoint qwen2.5-0.5b DIR`.

Weights are normal with a root mean square of 1 / sqrt(n_in), gains 1, biases 0, all bfloat16, in files of about a
gigabyte; the tokenizer is that of random_vocabulary. Weights are drawn a slab at a time. The same arguments give the
same bytes.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.random_vocabulary import random_vocabulary
from benchmarks.shapes import SHAPES, Shape
from refquant.layouts import safetensors_file
from refquant.pipeline import architecture, tokenizer_files

SHARD = 1 << 30  # bytes of a file
SLAB = 1 << 22  # weights that are drawn at a time
SEED = 1
KINDS = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}


def random_checkpoint(shape: Shape, folder: Path) -> Path:
    """Write the folder unless it is there whole, and return it."""
    index = folder / "model.safetensors.index.json"
    if index.is_file() and json.loads(index.read_text())["metadata"]["shape"] == repr(shape):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = SimpleNamespace(metadata={key: value for key, (_, value) in random_vocabulary(shape).items()})
    for name, text in tokenizer_files.files(vocabulary).items():
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "config.json").write_text(json.dumps(_config(shape), indent=1))
    rng, files, size = np.random.default_rng(SEED), [[]], 0
    for name, sizes in _shapes(shape).items():
        if size > SHARD:
            files.append([])
            size = 0
        files[-1].append((name, sizes))
        size += 2 * int(np.prod(sizes))
    weight_map = {}
    for i, tensors in enumerate(files):
        file = f"model-{i + 1:05d}-of-{len(files):05d}.safetensors"
        safetensors_file.write(folder / file, _drawn(rng, tensors), {"format": "pt"})
        weight_map |= {name: file for name, _ in tensors}
    index.write_text(json.dumps({"metadata": {"shape": repr(shape)}, "weight_map": weight_map}))
    return folder


def _drawn(rng: np.random.Generator, tensors: list[tuple[str, tuple[int, ...]]]) -> Iterator[tuple]:
    for name, sizes in tensors:
        if len(sizes) == 1:
            values = np.full(sizes, 0 if name.endswith("bias") else 1, np.float32).view(np.uint32)
            yield name, "BF16", (values >> np.uint32(16)).astype(np.uint16)
            continue
        x = np.empty(sizes, np.uint16)
        step = max(1, SLAB // sizes[1])
        for first in range(0, sizes[0], step):
            rows = rng.standard_normal((min(step, sizes[0] - first), sizes[1]), np.float32) / np.sqrt(sizes[1])
            x[first : first + step] = rows.astype(np.float32).view(np.uint32) >> np.uint32(16)
        yield name, "BF16", x


def _shapes(shape: Shape) -> dict[str, tuple[int, ...]]:
    q, kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    matrices = {"q_proj": (q, shape.n_embd), "k_proj": (kv, shape.n_embd), "v_proj": (kv, shape.n_embd)}
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (shape.n_vocab, shape.n_embd)}
    for layer in (f"model.layers.{i}" for i in range(shape.n_layer)):
        for part, sizes in matrices.items():
            found[f"{layer}.self_attn.{part}.weight"] = sizes
            if shape.biases:
                found[f"{layer}.self_attn.{part}.bias"] = sizes[:1]
        found[f"{layer}.self_attn.o_proj.weight"] = (shape.n_embd, q)
        found |= {f"{layer}.mlp.{part}_proj.weight": (shape.n_ff, shape.n_embd) for part in ("gate", "up")}
        found[f"{layer}.mlp.down_proj.weight"] = (shape.n_embd, shape.n_ff)
        found |= {f"{layer}.{part}_layernorm.weight": (shape.n_embd,) for part in ("input", "post_attention")}
    found["model.norm.weight"] = (shape.n_embd,)
    return found if shape.tied else found | {"lm_head.weight": (shape.n_vocab, shape.n_embd)}


def _config(shape: Shape) -> dict[str, object]:
    scaling = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = {
        "architectures": [KINDS[shape.arch]],
        "model_type": next(kind for kind, arch in architecture.ARCHITECTURES.items() if arch == shape.arch),
        "vocab_size": shape.n_vocab,
        "hidden_size": shape.n_embd,
        "intermediate_size": shape.n_ff,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_head_kv,
        "hidden_act": "silu",
        "max_position_embeddings": shape.n_ctx,
        "rms_norm_eps": shape.rms_eps,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied,
        "torch_dtype": "bfloat16",
    }
    original = {"original_max_position_embeddings": 8192}
    return config | ({"rope_scaling": scaling | original} if shape.llama3_rope else {})


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="random_checkpoint", description=__doc__.partition(":")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    print(random_checkpoint(SHAPES[arguments.shape], arguments.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
