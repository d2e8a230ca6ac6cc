"""Random models small enough for tests, as GGUF files that refquant, runtime and llama.cpp all load.

    write_tiny_model(tmp_path / "m.gguf", arch="qwen3", types="Q8_0", tied=True, seed=3)

Two layers, 64 wide, with a working tokenizer and chat template: SentencePiece for llama, byte-level BPE for the qwens.
Weights are of a size that keeps activations near 1 and logits within about +-20. Types without an encoder get
random blocks of about the same size. The same arguments give the same file.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from refquant import gguf

BYTES = 256
WORDS = ("the", "and", "that", "this", "with", "from", "have", "file", "command", "output", "option", "print", "path")
SPM_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # tokenizer.ggml.token_type


def write_tiny_model(
    path: str | Path,
    *,
    arch: str = "llama",
    n_layer: int = 2,
    n_embd: int = 64,
    n_ff: int = 96,
    n_head: int = 4,
    n_head_kv: int = 2,
    head_dim: int | None = None,
    head_dim_v: int | None = None,
    n_ctx: int = 256,
    types: str | Callable[[str], str] = "F32",
    tied: bool = False,
    rope_freqs: bool = False,
    rope_scaling: dict[str, Any] | None = None,
    rope_base: float = 10000.0,
    biases: bool | None = None,
    fused_qkv: bool = False,
    experts: int = 0,
    experts_used: int = 2,
    n_ff_shared: int = 64,
    extra: dict[str, tuple[str, Any]] | None = None,
    seed: int = 0,
) -> Path:
    """Write the model and return its path.

    head_dim, head_dim_v  None: n_embd / n_head, and no key in the metadata.
    types         of the matrices, one ggml name or a function of the tensor's name; n_in must be whole blocks.
    rope_freqs    with a tensor that slows the low frequencies down, as in Llama 3.
    rope_scaling  keys below `rope.scaling.`, such as {"type": "yarn", "factor": 4.0, "original_context_length": 64}.
    biases        on q, k, v; None: for qwen2 and qwen2moe only, as in the published models.
    experts       each n_ff wide, for llama, qwen2moe (with a shared one n_ff_shared wide) and qwen3moe.
    extra         more metadata, name -> (type as in GGUFFile.types, value); replaces what is there.
    """
    rng = np.random.default_rng([seed, n_layer, n_embd, n_head])
    metadata = spm_tokenizer() if arch == "llama" else bpe_tokenizer()
    metadata |= {
        "general.architecture": ("str", arch),
        "general.name": ("str", f"tiny random {arch}"),
        f"{arch}.block_count": ("u32", n_layer),
        f"{arch}.context_length": ("u32", n_ctx),
        f"{arch}.embedding_length": ("u32", n_embd),
        f"{arch}.feed_forward_length": ("u32", n_ff),
        f"{arch}.attention.head_count": ("u32", n_head),
        f"{arch}.attention.head_count_kv": ("u32", n_head_kv),
        f"{arch}.attention.layer_norm_rms_epsilon": ("f32", 1e-5),
        f"{arch}.rope.freq_base": ("f32", rope_base),
    }
    for key, dim in (("key_length", head_dim), ("value_length", head_dim_v or head_dim)):
        if dim is not None:
            metadata[f"{arch}.attention.{key}"] = ("u32", dim)
    for key, value in (rope_scaling or {}).items():
        metadata[f"{arch}.rope.scaling.{key}"] = ({str: "str", int: "u32", float: "f32"}[type(value)], value)
    if experts:
        metadata |= {
            f"{arch}.expert_count": ("u32", experts),
            f"{arch}.expert_used_count": ("u32", experts_used),
        }
        if arch != "llama":
            metadata[f"{arch}.expert_feed_forward_length"] = ("u32", n_ff)
        if arch == "qwen2moe":
            metadata[f"{arch}.expert_shared_feed_forward_length"] = ("u32", n_ff_shared)
    metadata |= extra or {}

    k_dim = head_dim or n_embd // n_head
    v_dim = head_dim_v or k_dim
    n_vocab = len(metadata["tokenizer.ggml.tokens"][1])
    tensors: dict[str, tuple[np.ndarray, str]] = {}

    def matrix(name: str, rows: int, n_in: int, size: float) -> None:
        type_name = types if isinstance(types, str) else types(name)
        tensors[name] = (_matrix(rng, rows, n_in, size, type_name), type_name)

    def matrices(name: str, count: int, rows: int, n_in: int, size: float) -> None:
        type_name = types if isinstance(types, str) else types(name)
        data = [_matrix(rng, rows, n_in, size, type_name) for _ in range(count)]
        tensors[name] = (np.stack(data), type_name)

    def vector(name: str, x: np.ndarray) -> None:
        tensors[name] = (x, "F32")

    matrix("token_embd.weight", n_vocab, n_embd, 0.5)
    vector("output_norm.weight", _spread(rng, 1, 0.1, n_embd))
    if not tied:
        matrix("output.weight", n_vocab, n_embd, 0.5)
    if rope_freqs:
        vector("rope_freqs.weight", np.linspace(1, 8, k_dim // 2, dtype=np.float32))
    heads = {"q": n_head * k_dim, "k": n_head_kv * k_dim, "v": n_head_kv * v_dim}
    for blk in (f"blk.{layer}" for layer in range(n_layer)):
        vector(f"{blk}.attn_norm.weight", _spread(rng, 1, 0.1, n_embd))
        for part, rows in {"qkv": sum(heads.values())}.items() if fused_qkv else heads.items():
            matrix(f"{blk}.attn_{part}.weight", rows, n_embd, 1.5 * n_embd**-0.5)
            if arch in ("qwen2", "qwen2moe") if biases is None else biases:
                vector(f"{blk}.attn_{part}.bias", _spread(rng, 0, 0.5, rows))
        if arch in ("qwen3", "qwen3moe"):
            vector(f"{blk}.attn_q_norm.weight", _spread(rng, 1.5, 0.2, k_dim))
            vector(f"{blk}.attn_k_norm.weight", _spread(rng, 1.5, 0.2, k_dim))
        matrix(f"{blk}.attn_output.weight", n_embd, n_head * v_dim, (n_head * v_dim) ** -0.5)
        vector(f"{blk}.ffn_norm.weight", _spread(rng, 1, 0.1, n_embd))
        if experts:
            vector(f"{blk}.ffn_gate_inp.weight", _spread(rng, 0, 1.5 * n_embd**-0.5, experts, n_embd))
            matrices(f"{blk}.ffn_gate_exps.weight", experts, n_ff, n_embd, 1.5 * n_embd**-0.5)
            matrices(f"{blk}.ffn_up_exps.weight", experts, n_ff, n_embd, n_embd**-0.5)
            matrices(f"{blk}.ffn_down_exps.weight", experts, n_embd, n_ff, n_ff**-0.5)
        if arch == "qwen2moe":
            vector(f"{blk}.ffn_gate_inp_shexp.weight", _spread(rng, 0, n_embd**-0.5, n_embd))
        if not experts or arch == "qwen2moe":
            width, end = (n_ff_shared, "_shexp") if experts else (n_ff, "")
            matrix(f"{blk}.ffn_gate{end}.weight", width, n_embd, 1.5 * n_embd**-0.5)
            matrix(f"{blk}.ffn_up{end}.weight", width, n_embd, n_embd**-0.5)
            matrix(f"{blk}.ffn_down{end}.weight", n_embd, width, width**-0.5)
    values = {key: value for key, (_, value) in metadata.items()}
    gguf.write(path, values, tensors, types={key: kind for key, (kind, _) in metadata.items()})
    return Path(path)


def spm_tokenizer() -> dict[str, tuple[str, Any]]:
    """Metadata of a SentencePiece BPE vocabulary: three specials, all bytes, letters, and some words by prefixes."""
    pieces = _prefixes(["▁" + word for word in WORDS])
    letters = ["▁", *"etaoinsrhldcumfpgwybvkxjqz"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(BYTES)), *pieces, *letters]
    kinds = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * BYTES, *[NORMAL] * (len(pieces) + len(letters))]
    scores = [*[0.0] * (3 + BYTES), *(-float(rank) for rank in range(len(pieces) + len(letters)))]
    return {
        "tokenizer.ggml.model": ("str", "llama"),
        "tokenizer.ggml.pre": ("str", "default"),
        "tokenizer.ggml.tokens": ("arr[str]", tokens),
        "tokenizer.ggml.scores": ("arr[f32]", np.array(scores, np.float32)),
        "tokenizer.ggml.token_type": ("arr[i32]", np.array(kinds, np.int32)),
        "tokenizer.ggml.bos_token_id": ("u32", 1),
        "tokenizer.ggml.eos_token_id": ("u32", 2),
        "tokenizer.ggml.unknown_token_id": ("u32", 0),
        "tokenizer.ggml.add_bos_token": ("bool", True),
        "tokenizer.ggml.add_eos_token": ("bool", False),
        "tokenizer.chat_template": ("str", SPM_TEMPLATE),
    }


def bpe_tokenizer() -> dict[str, tuple[str, Any]]:
    """Metadata of a byte-level BPE vocabulary with the qwen2 pre-tokenizer: all bytes, some words, three specials."""
    pieces = _prefixes(["\u0120" + word for word in WORDS])  # U+0120 is how the space byte is spelt
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*_byte_letters(), *pieces, *specials]
    kinds = [*[NORMAL] * (BYTES + len(pieces)), *[CONTROL] * len(specials)]
    return {
        "tokenizer.ggml.model": ("str", "gpt2"),
        "tokenizer.ggml.pre": ("str", "qwen2"),
        "tokenizer.ggml.tokens": ("arr[str]", tokens),
        "tokenizer.ggml.token_type": ("arr[i32]", np.array(kinds, np.int32)),
        "tokenizer.ggml.merges": ("arr[str]", [f"{piece[:-1]} {piece[-1]}" for piece in pieces]),
        "tokenizer.ggml.bos_token_id": ("u32", tokens.index("<|endoftext|>")),
        "tokenizer.ggml.eos_token_id": ("u32", tokens.index("<|im_end|>")),
        "tokenizer.ggml.padding_token_id": ("u32", tokens.index("<|endoftext|>")),
        "tokenizer.ggml.add_bos_token": ("bool", False),
        "tokenizer.chat_template": ("str", CHATML_TEMPLATE),
    }


def _prefixes(words: list[str]) -> list[str]:
    """Every prefix of two letters and more, once: each is a merge of the one before and a letter."""
    return list(dict.fromkeys(word[:n] for word in words for n in range(2, len(word) + 1)))


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in a GPT-2 vocabulary: itself where printable, else the next from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(BYTES) if b not in printable]
    return [chr(b) if b in printable else chr(0x100 + others.index(b)) for b in range(BYTES)]


def _spread(rng: np.random.Generator, mean: float, deviation: float, *shape: int) -> np.ndarray:
    """Uniform numbers, float32: no logarithm is drawn, so that every platform and NumPy version gives the same."""
    return (mean + deviation * np.sqrt(12) * (rng.random(shape) - 0.5)).astype(np.float32)


def _matrix(rng: np.random.Generator, rows: int, n_in: int, size: float, type_name: str) -> np.ndarray:
    """Weights with root mean square `size`, as GGUFFile holds them."""
    fmt = gguf.FORMATS[type_name]
    if fmt.encode is None:
        return _random_blocks(rng, rows, n_in // fmt.values, size, fmt)
    data = gguf.quantize(_spread(rng, 0, size, rows, n_in), type_name)
    return data.view(fmt.layout) if fmt.is_scalar else data


def _random_blocks(rng: np.random.Generator, rows: int, blocks: int, size: float, fmt: gguf.BlockFormat) -> np.ndarray:
    """Random codes and one value a float field: `dmin` makes the mean of the weights 0, then `d` their size."""
    data = rng.integers(0, BYTES, (rows, blocks * fmt.block_bytes), np.uint8).view(fmt.layout)
    scales = {name: 0.0 for name in fmt.layout.names if fmt.layout[name].kind == "f"}
    assert "d" in scales, f"{fmt.name} has no float scale that could be set"

    def decoded(**values: float) -> np.ndarray:
        for name in scales:
            data[name] = values.get(name, 0)
        return fmt.decode(data)

    scales["d"] = 1.0
    if "dmin" in scales:
        scales["dmin"] = -float(np.mean(decoded(d=1)) / np.mean(decoded(dmin=1)))
    unit = float(np.sqrt(np.mean(decoded(**scales) ** 2)))
    decoded(**{name: value * size / unit for name, value in scales.items()})
    return data.view(np.uint8)
