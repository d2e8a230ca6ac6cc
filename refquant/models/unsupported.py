"""Metadata keys and tensors that ask for a computation which forward.py does not do.

They are refused by name: better no answer than wrong numbers. A key passes with the value that changes nothing.
Source   llama.cpp, src/llama-arch.cpp: its names, sorted here by whether they change the numbers of a decoder.
"""

import re

from refquant.models.metadata import Section

# The values with which a key changes nothing; 0 often stands for "not set".
NEUTRAL_VALUES = {
    "nextn_predict_layers": (0,),
    "leading_dense_block_count": (0,),
    "attention.causal": (True,),
    "attention.clamp_kqv": (0,),
    "attention.max_alibi_bias": (0,),
    "attention.output_scale": (0, 1),
    "attention.value_scale": (0, 1),
    "attention.temperature_length": (0,),
    "attention.temperature_scale": (0,),
    "attention.q_lora_rank": (0,),
    "attention.kv_lora_rank": (0,),
    "attention.shared_kv_layers": (0,),
    "attn_logit_softcapping": (0,),
    "final_logit_softcapping": (0,),
    "logit_scale": (0, 1),
    "residual_scale": (0, 1),
    "embedding_scale": (0, 1),
    "hidden_activation": ("silu",),
    "swiglu_clamp_exp": (0,),
    "swiglu_clamp_shexp": (0,),
    "use_parallel_residual": (False,),
    "rope.dimension_sections": (0,),
    "rope.scaling.alpha": (0,),
    "rope.scaling.yarn_ext_factor": (1, -1),
    "rope.scaling.yarn_attn_factor": (1, -1),
    "rope.scaling.yarn_log_multiplier": (0,),
}

NO_EXPERTS = {"expert_count": (0,), "expert_used_count": (0,)}
EXPERTS = {  # 0 stands for "not set"
    "expert_gating_func": (0, 1),  # softmax
    "expert_weights_scale": (0, 1),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "moe_every_n_layers": (0, 1),
    "interleave_moe_layer_step": (0, 1),
}
NORMALIZED = {"llama": (True,), "qwen2moe": (False,), "qwen3moe": (True,)}

# Experts, sinks, post-norms, sub-norms, gates, long-context factors, low-rank attention.
OTHER_TENSORS = re.compile(
    r"_exps|_shexp|_inp\b|_inp_|sinks|post_|_post_norm|sub_norm|attn_norm_2|attn_gate|rope_factors_|ssm_|nextn|_[ab]\.weight"
    r"|exp_probs|token_types|position_embd|token_embd_norm|token_embd\.scale|layer_output_scale|indexer|lora"
)


def refuse_other_computations(keys: Section, n_embd: int, n_ctx_train: int) -> None:
    """Raise GGUFError for a key above with another value, another output width, or a window inside the context."""
    neutral_values = NEUTRAL_VALUES | EXPERTS
    if keys.prefix in NORMALIZED:
        neutral_values = neutral_values | {"expert_weights_norm": NORMALIZED[keys.prefix]}
    else:
        neutral_values = neutral_values | NO_EXPERTS
    if keys.prefix != "qwen2moe":
        neutral_values = neutral_values | {"expert_shared_feed_forward_length": (0,), "expert_shared_count": (0,)}
    for key, neutral in neutral_values.items():
        keys.require_neutral(key, neutral)
    out = keys.whole("embedding_length_out", 0, 1 << 31, 0)
    if out not in (0, n_embd):
        raise keys.error("embedding_length_out", out, f"{n_embd}: another width than embedding_length is not supported")
    window = keys.whole("attention.sliding_window", 0, 1 << 31, 0)
    if 0 < window < n_ctx_train:
        raise keys.error("attention.sliding_window", window, "0: sliding windows are not supported")
