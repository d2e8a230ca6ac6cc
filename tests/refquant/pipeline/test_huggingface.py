"""Folders are opened whole or refused by name."""

import json

import numpy as np
import pytest
from tiny_checkpoints import CLASSES, write_tiny_checkpoint

from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import safetensors_file
from refquant.pipeline import open_checkpoint


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_every_architecture_opens_with_its_sizes(tmp_path, kind):
    got = open_checkpoint(write_tiny_checkpoint(tmp_path, kind))
    assert (got.kind, got.model.n_layer, got.model.n_embd, got.unused) == (kind, 2, 64, ())
    assert got.model.head_dim == (32 if kind.startswith("qwen3") else 16)
    assert (got.model.mixture is None) == (not kind.endswith("_moe") and kind != "mixtral")


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_shards_hold_the_tensors_of_one_file(tmp_path, dtype):
    one = open_checkpoint(write_tiny_checkpoint(tmp_path / "one", "qwen2", dtype))
    many = open_checkpoint(write_tiny_checkpoint(tmp_path / "many", "qwen2", dtype, shards=3))
    assert list(one.tensors) == list(many.tensors) and len(set(many.files.values())) == 3
    assert one.parameters == many.parameters
    for name in one.tensors:
        assert one.weight(name).dtype == np.float32
        np.testing.assert_array_equal(one.weight(name), many.weight(name))
    np.testing.assert_array_equal(many.weight(name, slice(1, 3)), many.weight(name)[1:3])


def test_a_tied_model_needs_no_output_matrix(tmp_path):
    got = open_checkpoint(write_tiny_checkpoint(tmp_path, tied=True))
    assert got.model.tied_output and "lm_head.weight" not in got.tensors


def test_tensors_that_nothing_needs_are_named(tmp_path):
    folder = write_tiny_checkpoint(tmp_path)
    file = safetensors_file.read(folder / "model.safetensors")
    old = ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", np.ones(8, np.float32))
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()] + [old]
    safetensors_file.write(folder / "model.safetensors", tensors)
    got = open_checkpoint(folder)
    assert got.unused == (old[0],) and got.warnings == ()
    odd = ("model.layers.2.mtp.weight", "F32", np.ones((2, 8), np.float32))
    safetensors_file.write(folder / "model.safetensors", [*tensors, odd])
    got = open_checkpoint(folder)
    assert got.unused == (old[0], odd[0])
    assert got.warnings == (f"{folder}: 1 tensors that a llama does not have are left out: {odd[0]}",)


def test_a_missing_shard_is_named_with_what_it_held(tmp_path):
    folder = write_tiny_checkpoint(tmp_path, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(QuantError, match=r"shard model-00002-of-00003.safetensors is missing, expected it with \d+ te"):
        open_checkpoint(folder)


@pytest.mark.parametrize("kept", [0, 4, 100, 5000])
def test_a_file_that_was_cut_off_is_refused(tmp_path, kept):
    folder = write_tiny_checkpoint(tmp_path)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(QuantError, match=r"model\.safetensors"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[]", "holds list, expected an object"),
        ("model.safetensors", None, "neither model.safetensors nor"),
        ("model.safetensors.index.json", '{"weight_map": {}}', "weight_map expected"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "../b"}}', "expected files of the same folder"),
        ("model.safetensors.index.json", '{"weight_map": {"a": "model.safetensors"}}', "tensor 'a' is missing"),
    ],
)
def test_files_that_are_missing_or_broken_are_named(tmp_path, name, content, message):
    folder = write_tiny_checkpoint(tmp_path)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_text(content)
    with pytest.raises(QuantError, match=message):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model_type": "gpt_neox"}, "model_type = 'gpt_neox', expected one of llama"),
        ({"model_type": 5}, "model_type = 5"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_type = 'longrope'"),
        ({"use_sliding_window": True}, "use_sliding_window = True"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"quantized already \(gptq\)"),
    ],
)
def test_what_is_not_known_here_is_unsupported(tmp_path, changes, message):
    folder = write_tiny_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=message):
        open_checkpoint(folder)


def test_experts_are_counted_under_the_names_of_transformers_4_and_5(tmp_path):
    named = {"num_experts": None, "num_local_experts": 4}
    old, new = (write_tiny_checkpoint(tmp_path / n, "qwen3_moe", **c) for n, c in (("old", {}), ("new", named)))
    assert open_checkpoint(old).model == open_checkpoint(new).model
    silent = write_tiny_checkpoint(tmp_path / "silent", "qwen3_moe", norm_topk_prob=None)  # transformers: False
    with pytest.raises(UnsupportedError, match="norm_topk_prob = None, expected True"):
        open_checkpoint(silent)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"num_hidden_layers": 3}, "'model.layers.2.input_layernorm.weight' is missing"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers = '2', expected an integer"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"hidden_size": 128}, "shape = "),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"tie_word_embeddings": False}, "'lm_head.weight' is missing"),
        ({"num_key_value_heads": 3}, "head_count_kv = 3"),
    ],
)
def test_sizes_that_do_not_fit_the_tensors_are_refused(tmp_path, changes, message):
    folder = write_tiny_checkpoint(tmp_path, tied=True)
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(QuantError, match=message):
        open_checkpoint(folder)


def test_a_weight_that_is_not_finite_is_refused_when_it_is_read(tmp_path):
    folder = write_tiny_checkpoint(tmp_path)
    file = safetensors_file.read(folder / "model.safetensors")
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()]
    tensors[0][2][3, 5] = np.nan
    safetensors_file.write(folder / "model.safetensors", tensors)
    got = open_checkpoint(folder)
    with pytest.raises(QuantError, match=r"embed_tokens\.weight holds NaN"):
        got.weight("model.embed_tokens.weight")
    with pytest.raises(QuantError, match="tensor 'nothing' is missing"):
        got.weight("nothing")


def test_weights_of_another_dtype_are_refused(tmp_path):
    folder = write_tiny_checkpoint(tmp_path)
    file = safetensors_file.read(folder / "model.safetensors")
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()]
    tensors[0] = (tensors[0][0], "I8", tensors[0][2].astype(np.int8))
    safetensors_file.write(folder / "model.safetensors", tensors)
    with pytest.raises(UnsupportedError, match="dtype = I8, expected one of F32, F16, BF16"):
        open_checkpoint(folder)


def test_the_models_of_the_shared_data_open(shared):
    for name, tied in (("tiny-llama", False), ("tiny-qwen2", True)):
        got = open_checkpoint(shared(f"models/{name}"))
        assert (got.model.n_layer, got.model.n_vocab, got.model.tied_output) == (8, 8192, tied)
        assert got.dtype("model.norm.weight") == "bfloat16" and got.unused == ()
