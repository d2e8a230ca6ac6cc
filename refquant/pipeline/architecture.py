"""What config.json of a Hugging Face folder says, in the words of GGUF: sizes as metadata, tensors by both names.

    model_type             architecture   feed-forward block
    llama, mistral         llama          mlp.{gate,up,down}_proj
    mixtral                llama          block_sparse_moe.gate, .experts.N.{w1,w3,w2}
    qwen2, qwen3           the same       mlp.{gate,up,down}_proj
    qwen2_moe, qwen3_moe   qwen2moe ...   mlp.gate, mlp.experts.N.*_proj; qwen2_moe: mlp.shared_expert.*_proj too

The numbers are checked once, by models.ModelConfig, which reads them as it reads those of a GGUF file.

Refused   another activation than SiLU, a scaling of rope that is none of linear, yarn and llama3, layers that differ
          (mlp_only_layers, decoder_sparse_step), a window in use (use_sliding_window); the window of Mistral 7B v0.1 is
          ignored, as llama.cpp does.
Source    transformers, models/{llama,mistral,mixtral,qwen2,qwen3,qwen2_moe,qwen3_moe}/configuration_*.py; llama.cpp,
          convert_hf_to_gguf.py (set_gguf_parameters, generate_extra_tensors) and gguf-py's tensor_mapping.py.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from refquant.errors import QuantError, UnsupportedError
from refquant.models import ModelConfig

ARCHITECTURES = {
    "llama": "llama",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}
FILLED = ("llama", "mistral")  # transformers fills in head_dim, so that llama.cpp's converter writes it
QWEN3_HEAD = 128  # the default of transformers' Qwen3Config
_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm", "ffn_norm": "post_attention_layernorm", "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "ffn_gate_inp": "mlp.gate",
    "ffn_gate_inp_shexp": "mlp.shared_expert_gate", "ffn_gate_shexp": "mlp.shared_expert.gate_proj",
    "ffn_up_shexp": "mlp.shared_expert.up_proj", "ffn_down_shexp": "mlp.shared_expert.down_proj",
}  # fmt: skip
_MIXTRAL = {"ffn_gate_inp": "block_sparse_moe.gate"}
_EXPERT = {"ffn_gate_exps": "gate_proj", "ffn_up_exps": "up_proj", "ffn_down_exps": "down_proj"}
_MIXTRAL_EXPERT = {"ffn_gate_exps": "w1", "ffn_up_exps": "w3", "ffn_down_exps": "w2"}
_MODEL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


class Fields:
    """config.json with a type for every key; a missing or wrong value is a QuantError that names file and key."""

    def __init__(self, path: object, config: Mapping[str, Any]):
        self.path, self.config = path, config

    def whole(self, key: str, default: int | None = None) -> int:
        """An integer of at least 0."""
        value = self.config.get(key)
        value = default if value is None else value
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise QuantError(f"{self.path}: {key} = {_shown(value)}, expected an integer from 0 to 2^31 - 1")
        return value

    def real(self, key: str, default: float | None = None, among: Mapping[str, Any] | None = None) -> float:
        """A finite number, of `among` where that is given."""
        value = (self.config if among is None else among).get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise QuantError(f"{self.path}: {key} = {_shown(value)}, expected a finite number")
        return float(value)


def metadata(path: object, config: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """{key: (type, value)} of `general.architecture` and everything below it; `path` is for messages.

    Raises UnsupportedError (an architecture or a computation that is not known here), QuantError (missing, mistyped).
    """
    fields, kind = Fields(path, config), config.get("model_type")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UnsupportedError(f"{path}: model_type = {_shown(kind)}, expected one of {known}")
    arch = ARCHITECTURES[kind]
    _refuse_others(path, config, kind)
    heads = fields.whole("num_attention_heads")
    if not heads:
        raise QuantError(f"{path}: num_attention_heads = 0, expected at least 1")
    rope = _rope(config)
    found = {
        "block_count": ("u32", fields.whole("num_hidden_layers")),
        "context_length": ("u32", fields.whole("max_position_embeddings")),
        "embedding_length": ("u32", fields.whole("hidden_size")),
        "feed_forward_length": ("u32", fields.whole("intermediate_size")),
        "attention.head_count": ("u32", heads),
        "attention.head_count_kv": ("u32", fields.whole("num_key_value_heads", heads)),
        "rope.freq_base": ("f32", fields.real("rope_theta", fields.real("rope_theta", 10000.0, rope))),
        "attention.layer_norm_rms_epsilon": ("f32", fields.real("rms_norm_eps", 1e-6)),
    }
    width = fields.whole("hidden_size")
    filled = width // heads if kind in FILLED and width % heads == 0 else 0
    head_dim = fields.whole("head_dim", QWEN3_HEAD if arch.startswith("qwen3") else filled)
    if head_dim:
        found |= {"attention.key_length": ("u32", head_dim), "attention.value_length": ("u32", head_dim)}
    found["rope.dimension_count"] = "u32", head_dim or width // heads
    found["vocab_size"] = "u32", fields.whole("vocab_size")
    found |= _scaling(fields, rope) | _experts(fields, kind)
    return {"general.architecture": ("str", arch)} | {f"{arch}.{key}": entry for key, entry in found.items()}


def rope_divisors(path: object, config: Mapping[str, Any]) -> np.ndarray | None:
    """What Llama 3 divides the frequencies by, float32 (head_dim / 2,), for rope_freqs.weight; None for all others.

    With wavelength w = 2 pi / f:  1 where w < original / high,  factor where w > original / low,  and between the two
    1 / ((1 - t) / factor + t) with t = (original / w - low) / (high - low).
    """
    fields, rope = Fields(path, config), _rope(config)
    if _kind(rope) != "llama3":
        return None
    low, high = fields.real("low_freq_factor", 1.0, rope), fields.real("high_freq_factor", 4.0, rope)
    factor = fields.real("factor", 8.0, rope)
    original = fields.real("original_max_position_embeddings", 8192, rope)
    base = fields.real("rope_theta", fields.real("rope_theta", 10000.0, rope))
    if not (low > 0 and high > low and factor > 0 and original > 0 and base > 0):
        raise QuantError(f"{path}: rope_scaling = {_shown(rope)}, expected 0 < low < high and a factor above 0")
    dim = fields.whole("head_dim", fields.whole("hidden_size") // max(1, fields.whole("num_attention_heads")))
    f = np.float32(1) / np.float32(base) ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    w = 2 * math.pi / f.astype(np.float64)
    t = (original / w - low) / (high - low)
    between = 1 / ((1 - t) / factor + t)
    return np.where(w < original / high, 1.0, np.where(w > original / low, factor, between)).astype(np.float32)


def sources(name: str, config: ModelConfig, kind: str) -> tuple[str, ...]:
    """The Hugging Face names of what the GGUF tensor `name` holds: one, or one for each expert."""
    mixtral = kind == "mixtral"
    found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias|scale)", name)
    if found is None:
        return ()
    layer, part, end = found.groups()
    if layer is None:
        return (f"{_MODEL[part]}.{end}",) if part in _MODEL else ()
    start = f"model.layers.{layer}."
    if part in _EXPERT and config.mixture is not None:
        last = (_MIXTRAL_EXPERT if mixtral else _EXPERT)[part]
        block = "block_sparse_moe" if mixtral else "mlp"
        return tuple(f"{start}{block}.experts.{e}.{last}.{end}" for e in range(config.mixture.n_expert))
    names = _LAYER | _MIXTRAL if mixtral else _LAYER
    return (f"{start}{names[part]}.{end}",) if part in names else ()


def _refuse_others(path: object, config: Mapping[str, Any], kind: str) -> None:
    neutral = {
        "hidden_act": ("silu", "swish", None),
        "use_sliding_window": (False, None),
        "mlp_only_layers": ([], None),
        "decoder_sparse_step": (1, None),
        "norm_topk_prob": {"qwen2_moe": (False, None), "qwen3_moe": (True,)}.get(kind, (config.get("norm_topk_prob"),)),
    }
    for key, allowed in neutral.items():
        if config.get(key) not in allowed:
            got = _shown(config.get(key))
            raise UnsupportedError(f"{path}: {key} = {got}, expected {allowed[0]!r}: another computation")


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """rope_scaling, or what newer files call rope_parameters."""
    for key in ("rope_scaling", "rope_parameters"):
        if isinstance(config.get(key), dict):
            return config[key]
    return {}


def _kind(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _scaling(fields: Fields, rope: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    kind = _kind(rope)
    if kind in ("default", "llama3"):
        return {}
    if kind not in ("linear", "yarn"):
        raise UnsupportedError(f"{fields.path}: rope_type = {kind!r}, expected default, linear, yarn or llama3")
    found = {"rope.scaling.type": ("str", kind), "rope.scaling.factor": ("f32", fields.real("factor", None, rope))}
    if kind == "yarn":
        original = int(fields.real("original_max_position_embeddings", None, rope))
        found["rope.scaling.original_context_length"] = "u32", original
        named = {"attention_factor": "attn_factor", "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}
        for key, ours in named.items():
            if rope.get(key) is not None:
                found[f"rope.scaling.{ours}"] = "f32", fields.real(key, None, rope)
    return found


def _experts(fields: Fields, kind: str) -> dict[str, tuple[str, Any]]:
    if kind == "mixtral":
        used = fields.whole("num_experts_per_tok")
        return {"expert_count": ("u32", fields.whole("num_local_experts")), "expert_used_count": ("u32", used)}
    if not kind.endswith("_moe"):
        return {}
    count = "num_experts" if "num_experts" in fields.config else "num_local_experts"  # as transformers 5 writes it
    found = {
        "expert_count": ("u32", fields.whole(count)),
        "expert_used_count": ("u32", fields.whole("num_experts_per_tok")),
        "expert_feed_forward_length": ("u32", fields.whole("moe_intermediate_size")),
    }
    if kind == "qwen2_moe":
        found["expert_shared_feed_forward_length"] = "u32", fields.whole("shared_expert_intermediate_size")
    return found


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
