import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import GGUFError
from refquant.gguf import open as open_gguf
from refquant.models import Mixture, ModelConfig, RopeScaling

N_VOCAB = 40


def metadata(arch="llama", **changes):
    """The required keys of `arch`; changes name keys below it with `__` for a dot, None removes a key."""
    keys = {
        "block_count": 3,
        "context_length": 128,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 8,
        "attention.layer_norm_rms_epsilon": 1e-5,
    }
    keys |= {key.replace("__", "."): value for key, value in changes.items()}
    return {"general.architecture": arch} | {f"{arch}.{key}": value for key, value in keys.items() if value is not None}


def read(keys, rows=N_VOCAB, tied=True):
    tensors = {"token_embd.weight": SimpleNamespace(shape=(rows, 64))}
    tensors |= {} if tied else {"output.weight": SimpleNamespace(shape=(rows, 64))}
    return ModelConfig.from_metadata(SimpleNamespace(path="m.gguf", metadata=keys, tensors=tensors))


def test_defaults_follow_from_the_required_keys():
    assert read(metadata()) == ModelConfig(
        arch="llama",
        n_layer=3,
        n_embd=64,
        n_ff=96,
        n_head=8,
        n_head_kv=8,
        head_dim=8,
        head_dim_v=8,
        n_vocab=N_VOCAB,
        n_ctx_train=128,
        rms_eps=1e-5,
        rope_dim=8,
        rope_base=10000.0,
        rope_style="norm",
        rope_scaling=RopeScaling(original_context=128),
        attn_scale=1 / math.sqrt(8),
        tied_output=True,
    )


@pytest.mark.parametrize("arch, keys, mixture", [
    ("llama", {"expert_count": 8, "expert_used_count": 2}, Mixture(8, 2, 96, 0, True)),
    ("llama", {"expert_count": 8, "expert_used_count": np.array([3, 3, 3])}, Mixture(8, 3, 96, 0, True)),
    ("llama", {"expert_count": 0, "expert_used_count": 0}, None),
    ("qwen2moe", {"expert_count": 60, "expert_used_count": 4}, Mixture(60, 4, 24, 96, False)),
    ("qwen2moe", {"expert_count": 60, "expert_used_count": 4, "expert_feed_forward_length": 40,
                  "expert_shared_feed_forward_length": 50}, Mixture(60, 4, 40, 50, False)),
    ("qwen3moe", {"expert_count": 128, "expert_used_count": 8}, Mixture(128, 8, 12, 0, True)),
    ("qwen3moe", {"expert_count": 128, "expert_used_count": 8, "expert_feed_forward_length": 7,
                  "expert_weights_norm": True, "expert_gating_func": 1}, Mixture(128, 8, 7, 0, True)),
])  # fmt: skip
def test_experts_are_read(arch, keys, mixture):
    config = read(metadata(arch, **keys))
    assert config.mixture == mixture
    assert config.n_ff_dense == (mixture.n_ff_shared if mixture else 96)


@pytest.mark.parametrize("arch", ["qwen2moe", "qwen3moe"])
def test_an_architecture_of_experts_must_have_some(arch):
    for keys, message in (
        ({}, "expert_count is missing"),
        ({"expert_count": 0}, "expert_count = 0, expected an integer"),
    ):
        with pytest.raises(GGUFError, match=message):
            read(metadata(arch, **keys))


@pytest.mark.parametrize("arch", ["qwen2", "qwen3"])
def test_experts_elsewhere_are_refused(arch):
    with pytest.raises(GGUFError, match="expert_count = 8, expected 0: the computation this key asks for"):
        read(metadata(arch, expert_count=8, expert_used_count=2))


STYLES = {"llama": "norm", "qwen2": "neox", "qwen3": "neox"}


@pytest.mark.parametrize("arch, style", STYLES.items())
def test_the_architecture_decides_the_rope_style(arch, style):
    assert read(metadata(arch)).rope_style == style


def test_every_optional_key_is_read():
    keys = metadata(
        "qwen3",
        attention__head_count_kv=2,
        attention__key_length=32,
        attention__value_length=24,
        rope__dimension_count=16,
        rope__freq_base=1e6,
        attention__scale=0.25,
        vocab_size=N_VOCAB,
    )
    config = read(keys | {"tokenizer.ggml.tokens": ["x"] * N_VOCAB}, tied=False)
    got = (config.n_head_kv, config.head_dim, config.head_dim_v, config.rope_dim, config.rope_base, config.attn_scale)
    assert got == (2, 32, 24, 16, 1e6, 0.25)
    assert (config.n_group, config.q_width, config.k_width, config.v_width, config.o_width) == (4, 256, 64, 48, 192)
    assert not config.tied_output


def test_heads_need_not_divide_the_width_when_their_length_is_given():
    keys = metadata("qwen3", attention__head_count=5, attention__key_length=16, attention__value_length=16)
    assert read(keys).q_width == 80


def test_a_list_with_one_number_for_all_layers_is_that_number():
    heads, ff = np.array([8, 8, 8], np.int32), np.array([96, 96, 96], np.uint32)
    assert read(metadata(attention__head_count=heads, feed_forward_length=ff)) == read(metadata())


@pytest.mark.parametrize("changes, expected", [
    ({}, RopeScaling(original_context=128)),
    ({"type": "none", "factor": 4.0}, RopeScaling(original_context=128)),
    ({"type": "linear"}, RopeScaling(original_context=128)),
    ({"type": "linear", "factor": 0.0}, RopeScaling(original_context=128)),
    ({"factor": 4.0}, RopeScaling("linear", 4.0, 128)),
    ({"type": "yarn", "factor": 4.0, "original_context_length": 32}, RopeScaling("yarn", 4.0, 32)),
    (
        {"type": "yarn", "factor": 2.0, "attn_factor": 0.5, "yarn_beta_fast": 16.0, "yarn_beta_slow": 2.0},
        RopeScaling("yarn", 2.0, 128, 0.5, 16.0, 2.0),
    ),
])  # fmt: skip
def test_rope_scaling_is_read(changes, expected):
    assert read(metadata(**{f"rope__scaling__{key}": value for key, value in changes.items()})).rope_scaling == expected


def test_the_old_name_of_linear_scaling_is_read():
    assert read(metadata(rope__scale_linear=2.0)).rope_scaling == RopeScaling("linear", 2.0, 128)


NUMBERS = ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention__head_count"]


@pytest.mark.parametrize("key", NUMBERS)
@pytest.mark.parametrize("value", [None, 0, -1, True, 8.0, "8", 2**31, 2**63, np.ones(3), np.array([True] * 3), ["8"]])
def test_a_size_must_be_a_positive_integer_of_reasonable_size(key, value):
    with pytest.raises(GGUFError, match=rf"m\.gguf: llama\.{key.replace('__', '.')}"):
        read(metadata(**{key: value}))


@pytest.mark.parametrize("key", ["attention__layer_norm_rms_epsilon", "rope__freq_base", "rope__scaling__factor"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf, 1e30, 1, True, "1.0"])
def test_a_constant_must_be_a_finite_float_in_its_range(key, value):
    with pytest.raises(GGUFError, match=rf"m\.gguf: llama\.{key.replace('__', '.')} = .*, expected a float in"):
        read(metadata(**{key: value}))


@pytest.mark.parametrize("changes, message", [
    ({"block_count": 513}, r"llama\.block_count = 513, expected an integer in 1\.\.512"),
    ({"attention__layer_norm_rms_epsilon": 0.0}, r"epsilon = 0\.0, expected a float in"),
    ({"attention__head_count": 7}, "head_count = 7, expected a divisor of embedding_length = 64"),
    ({"attention__head_count_kv": 3}, r"head_count_kv = 3, expected a divisor of attention\.head_count = 8"),
    ({"attention__head_count_kv": 0}, "head_count_kv = 0, expected an integer in 1..8"),
    ({"attention__head_count_kv": 16}, "head_count_kv = 16, expected an integer in 1..8"),
    ({"attention__head_count": np.array([8, 8, 4])}, r"head_count = array\(.*expected one number for every layer"),
    ({"attention__head_count_kv": np.array([4, 2, 4])}, "head_count_kv = .*expected one number for every layer"),
    ({"attention__head_count": np.array([8, 8])}, "expected an integer or 3 integers, one a layer"),
    ({"rope__dimension_count": 6}, "rope.dimension_count = 6, expected the head dimension 8"),
    ({"rope__dimension_count": 10}, r"rope\.dimension_count = 10, expected an integer in 2\.\.8"),
    ({"attention__key_length": 9}, "rope.dimension_count = 9, expected an even number"),
    ({"attention__key_length": 2**23}, "attention.key_length = 8388608, expected an integer in 1..2097152"),
    ({"rope__scaling__type": "longrope"}, "rope.scaling.type = 'longrope', expected one of none, linear, yarn"),
    ({"rope__scaling__original_context_length": 0}, "original_context_length = 0, expected an integer"),
    ({"rope__scaling__yarn_beta_fast": 0.5}, "yarn_beta_fast = 0.5, expected at least beta_slow = 1.0"),
    ({"vocab_size": 41}, "llama.vocab_size = 41, expected 40, the rows of token_embd.weight"),
    ({"expert_count": 8}, "llama.expert_used_count is missing"),
    ({"expert_count": 8, "expert_used_count": 9}, r"expert_used_count = 9, expected an integer in 1\.\.8"),
    ({"expert_count": 0, "expert_used_count": 2}, r"expert_used_count = 2, expected an integer in 0\.\.0"),
    ({"expert_count": 1025, "expert_used_count": 2}, r"expert_count = 1025, expected an integer in 0\.\.1024"),
    ({"expert_gating_func": 2}, "llama.expert_gating_func = 2, expected 0"),
    ({"expert_weights_norm": False}, "llama.expert_weights_norm = False, expected True"),
    ({"expert_weights_scale": 2.5}, "llama.expert_weights_scale = 2.5, expected 0"),
    ({"expert_group_count": 4}, "llama.expert_group_count = 4, expected 0"),
    ({"expert_shared_feed_forward_length": 64}, "expert_shared_feed_forward_length = 64, expected 0"),
    ({"attention__sliding_window": 64}, "attention.sliding_window = 64, expected 0: sliding windows"),
    ({"embedding_length_out": 32}, "embedding_length_out = 32, expected 64"),
    ({"final_logit_softcapping": 30.0}, "llama.final_logit_softcapping = 30.0, expected 0"),
    ({"attn_logit_softcapping": math.nan}, "llama.attn_logit_softcapping = nan, expected 0"),
    ({"attention__causal": False}, "llama.attention.causal = False, expected True"),
    ({"logit_scale": 0.5}, "llama.logit_scale = 0.5"),
    ({"residual_scale": 0.5}, "llama.residual_scale"),
    ({"embedding_scale": 12.0}, "llama.embedding_scale"),
    ({"attention__clamp_kqv": 8.0}, "llama.attention.clamp_kqv"),
    ({"nextn_predict_layers": 1}, "llama.nextn_predict_layers = 1"),
    ({"hidden_activation": "gelu"}, "llama.hidden_activation = 'gelu', expected silu"),
    ({"rope__dimension_sections": np.array([2, 1, 1, 0])}, r"rope\.dimension_sections = array\(\[2, 1, 1, 0\]\)"),
    ({"rope__scaling__yarn_log_multiplier": 0.1}, "yarn_log_multiplier = 0.1"),
])  # fmt: skip
def test_what_would_be_computed_wrongly_is_refused_by_name(changes, message):
    with pytest.raises(GGUFError, match=message):
        read(metadata(**changes))


def test_keys_that_change_nothing_are_accepted():
    neutral = metadata(
        expert_count=0,
        attention__sliding_window=128,
        attention__causal=True,
        logit_scale=1.0,
        rope__dimension_sections=np.zeros(4, np.int32),
        embedding_length_out=64,
        tensor_data_layout="Meta AI original pth",
        some_future_key=7,
    )
    assert read(neutral) == read(metadata())


@pytest.mark.parametrize("arch", ["gemma3", "", None, 7, "x" * 10**6])
def test_an_unknown_architecture_is_named_with_the_supported_ones(arch):
    with pytest.raises(GGUFError, match=r"architecture = '.{0,64}', expected one of llama, qwen2, qwen3"):
        read(metadata() | {"general.architecture": arch})


@pytest.mark.parametrize("tokens", [["x"] * 39, [], np.zeros(N_VOCAB), 40])
def test_the_vocabulary_must_have_a_token_for_every_embedding(tokens):
    with pytest.raises(GGUFError, match=r"tokenizer\.ggml\.tokens = .*, expected 40, the rows of token_embd\.weight"):
        read(metadata() | {"tokenizer.ggml.tokens": tokens})


@pytest.mark.parametrize("tensors, message", [
    ({}, "token_embd.weight is missing"),
    ({"token_embd.weight": SimpleNamespace(shape=(64,))}, "token_embd.weight is missing or not a matrix"),
    ({"token_embd.weight": SimpleNamespace(shape=(0, 64))}, "token_embd.weight has 0 rows"),
    ({"token_embd.weight": SimpleNamespace(shape=(2**40, 64))}, "token_embd.weight has 1099511627776 rows"),
])  # fmt: skip
def test_the_embedding_must_be_a_matrix(tensors, message):
    with pytest.raises(GGUFError, match=message):
        ModelConfig.from_metadata(SimpleNamespace(path="m.gguf", metadata=metadata(), tensors=tensors))


VALUES = st.one_of(
    st.integers(-(2**63), 2**64 - 1),
    st.integers(0, 10),
    st.floats(),
    st.floats(0, 10),
    st.booleans(),
    st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=3),
    st.builds(lambda v: np.array(v, np.int64), st.lists(st.integers(0, 9), max_size=4)),
    st.builds(lambda v: np.array(v, np.float32), st.lists(st.floats(width=32), max_size=4)),
)
OPTIONAL = [
    "attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.scale", "vocab_size",
    "rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.attn_factor",
    "rope.scaling.original_context_length", "attention.sliding_window", "expert_count", "expert_used_count",
]  # fmt: skip
KEYS = [key for key in metadata() if key.startswith("llama.")] + [f"llama.{key}" for key in OPTIONAL]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=4))
def test_whatever_the_keys_hold_the_answer_is_a_sound_configuration_or_a_gguf_error(changes):
    try:
        c = read(metadata() | changes)
    except GGUFError:
        return
    assert 1 <= c.n_layer <= 512 and c.n_head % c.n_head_kv == 0 and 2 <= c.rope_dim <= c.head_dim
    assert all(type(x) is int for x in (c.n_layer, c.n_embd, c.n_ff, c.n_head, c.head_dim, c.head_dim_v, c.n_ctx_train))
    assert all(math.isfinite(x) and x > 0 for x in (c.rms_eps, c.rope_base, c.attn_scale, c.rope_scaling.factor))
    assert hash(c) == hash(replace(c))


def test_a_published_model_is_read(shared):
    with open_gguf(shared("models/stories260K-f32.gguf")) as gguf:
        c = ModelConfig.from_metadata(gguf)
    assert (c.arch, c.n_layer, c.n_embd, c.n_ff, c.n_head, c.n_head_kv, c.n_vocab) == ("llama", 5, 64, 172, 8, 4, 512)
