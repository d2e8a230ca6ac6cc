"""Random Hugging Face folders small enough for tests, which refquant, transformers and the converters all load.

    folder = write_tiny_checkpoint(tmp_path / "m", kind="qwen2", shards=2, dtype="BF16")

Two layers, 64 wide, with config.json, safetensors and a byte-level BPE tokenizer.json (llama: a BPE with byte fallback,
as Llama 2's). The same arguments give the same bytes.
"""

import json
from pathlib import Path

import numpy as np
import tiny_models

from refquant.layouts import safetensors_file
from refquant.layouts.arrays import stored
from refquant.rounding import narrow

QWEN2_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
CLASSES = {"llama": "Llama", "mistral": "Mistral", "mixtral": "Mixtral", "qwen2": "Qwen2", "qwen3": "Qwen3"}
CLASSES |= {"qwen2_moe": "Qwen2Moe", "qwen3_moe": "Qwen3Moe"}
EXPERTS = 4


def write_tiny_checkpoint(
    folder: Path,
    kind: str = "llama",
    dtype: str = "F32",
    shards: int = 1,
    tied: bool = False,
    n_embd: int = 64,
    n_ff: int = 96,
    seed: int = 0,
    **changes: object,
) -> Path:
    """Write the folder and return it. `changes` are entries of config.json; None takes one away."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = write_tokenizer(folder, kind)
    config = {
        "architectures": [CLASSES[kind] + "ForCausalLM"],
        "model_type": kind,
        "vocab_size": tokens,
        "hidden_size": n_embd,
        "intermediate_size": n_ff,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": tied,
        "torch_dtype": DTYPES[dtype],
    }
    if kind.startswith("qwen3"):
        config["head_dim"] = 32
    if kind == "mixtral":
        config |= {"num_local_experts": EXPERTS, "num_experts_per_tok": 2}
    if kind.endswith("_moe"):
        config |= {"num_experts": EXPERTS, "num_experts_per_tok": 2, "moe_intermediate_size": n_ff}
        config["norm_topk_prob"] = kind == "qwen3_moe"
    if kind == "qwen2_moe":
        config["shared_expert_intermediate_size"] = 64
    config = {key: value for key, value in (config | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    rng = np.random.default_rng([seed, n_embd, n_ff])
    tensors = [(name, dtype, _stored(_weights(rng, name, shape), dtype)) for name, shape in _shapes(config).items()]
    write_shards(folder, tensors, shards)
    return folder


def write_shards(folder: Path, tensors: list, shards: int) -> None:
    if shards == 1:
        safetensors_file.write(folder / "model.safetensors", tensors, {"format": "pt"})
        return
    step, weight_map = -(-len(tensors) // shards), {}
    for i in range(shards):
        name = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = tensors[i * step : (i + 1) * step]
        safetensors_file.write(folder / name, part, {"format": "pt"})
        weight_map |= {tensor: name for tensor, _, _ in part}
    index = {"metadata": {"total_size": sum(a.nbytes for _, _, a in tensors)}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_tokenizer(folder: Path, kind: str) -> int:
    """tokenizer.json and tokenizer_config.json; how many tokens there are."""
    llama = kind in ("llama", "mistral", "mixtral")
    made = tiny_models.spm_tokenizer() if llama else tiny_models.bpe_tokenizer()
    tokens, types = made["tokenizer.ggml.tokens"][1], made["tokenizer.ggml.token_type"][1]
    special = [i for i, t in enumerate(types) if t in (2, 3)]
    added = [{"id": i, "content": tokens[i], "special": True, **_FLAGS} for i in special]
    if llama:
        pieces = [t for t in tokens if len(t) > 1 and t[0] == "\u2581" and not t.startswith("<")]
        merges = [[piece[:-1], piece[-1]] for piece in pieces]
        model = {"byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True}
        replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
        normalizer = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}
        pre, single = None, [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
        processor = {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
        }
        decoder = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}
        settings = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    else:
        merges = [merge.split(" ") for merge in made["tokenizer.ggml.merges"][1]]
        model, normalizer, processor = {"byte_fallback": False, "unk_token": None}, {"type": "NFC"}, None
        split = {"type": "Split", "pattern": {"Regex": QWEN2_REGEX}, "behavior": "Isolated", "invert": False}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
        pre, decoder = {"type": "Sequence", "pretokenizers": [split, level]}, {**level, "use_regex": True}
        settings = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    settings["chat_template"] = made["tokenizer.chat_template"][1]
    settings["added_tokens_decoder"] = {str(a["id"]): {k: v for k, v in a.items() if k != "id"} for a in added}
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    model |= {"type": "BPE", "vocab": {t: i for i, t in enumerate(tokens) if llama or i not in special}}
    model["merges"] = merges
    whole = {"version": "1.0", "added_tokens": added, "normalizer": normalizer, "pre_tokenizer": pre}
    whole |= {"post_processor": processor, "decoder": decoder, "model": model}
    (folder / "tokenizer.json").write_text(json.dumps(whole))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(tokens)


_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def _shapes(config: dict) -> dict[str, tuple[int, ...]]:
    kind, width, ff = config["model_type"], config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim", width // config["num_attention_heads"])
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], width)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        shapes[f"{layer}.input_layernorm.weight"] = (width,)
        for part, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{layer}.self_attn.{part}_proj.weight"] = (rows, width)
            if kind in ("qwen2", "qwen2_moe"):
                shapes[f"{layer}.self_attn.{part}_proj.bias"] = (rows,)
        if kind.startswith("qwen3"):
            shapes |= {f"{layer}.self_attn.{part}_norm.weight": (head,) for part in "qk"}
        shapes[f"{layer}.self_attn.o_proj.weight"] = (width, q)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (width,)
        if kind == "mixtral":
            shapes[f"{layer}.block_sparse_moe.gate.weight"] = (EXPERTS, width)
            blocks = {f"{layer}.block_sparse_moe.experts.{e}": ("w1", "w3", "w2", ff) for e in range(EXPERTS)}
        elif kind.endswith("_moe"):
            shapes[f"{layer}.mlp.gate.weight"] = (EXPERTS, width)
            blocks = {f"{layer}.mlp.experts.{e}": ("gate_proj", "up_proj", "down_proj", ff) for e in range(EXPERTS)}
            if kind == "qwen2_moe":
                shapes[f"{layer}.mlp.shared_expert_gate.weight"] = (1, width)
                blocks[f"{layer}.mlp.shared_expert"] = ("gate_proj", "up_proj", "down_proj", 64)
        else:
            blocks = {f"{layer}.mlp": ("gate_proj", "up_proj", "down_proj", ff)}
        for block, (gate, up, down, n) in blocks.items():
            shapes |= {f"{block}.{gate}.weight": (n, width), f"{block}.{up}.weight": (n, width)}
            shapes[f"{block}.{down}.weight"] = (width, n)
    shapes["model.norm.weight"] = (width,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    return shapes


def _weights(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform numbers of a size that keeps activations near 1."""
    size = 0.5 if "embed" in name or "lm_head" in name else 0.1 if len(shape) == 1 else 1.5 * shape[-1] ** -0.5
    x = size * np.sqrt(12) * (rng.random(shape) - 0.5)
    return (x + ("norm" in name)).astype(np.float32)


def _stored(x: np.ndarray, dtype: str) -> np.ndarray:
    return stored("tiny_checkpoints", "weight", narrow(x, DTYPES[dtype]), DTYPES[dtype])
