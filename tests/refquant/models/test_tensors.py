from dataclasses import replace

import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf as container
from refquant.errors import GGUFError
from refquant.models import ModelConfig, check_tensors, expected_tensors, model_tensors


def write_again(path, opened, tensors):
    """The same metadata with other tensors, name -> (data, type)."""
    container.write(path, opened.metadata, tensors, types=opened.types)
    return path


def warnings_of(path):
    with container.open(path) as gguf:
        return check_tensors(gguf, ModelConfig.from_metadata(gguf))


@pytest.fixture
def changed(tmp_path):
    """A tiny model with some tensors replaced, added, or removed (None)."""

    def write(changes, **model):
        with container.open(write_tiny_model(tmp_path / "tiny.gguf", **model)) as gguf:
            tensors = {name: (t.data, t.type) for name, t in gguf.tensors.items()} | changes
            return write_again(tmp_path / "m.gguf", gguf, {n: t for n, t in tensors.items() if t is not None})

    return write


@pytest.mark.parametrize("arch", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_required_tensors_are_those_of_a_complete_model(tmp_path, arch, tied):
    with container.open(write_tiny_model(tmp_path / "m.gguf", arch=arch, tied=tied, biases=False)) as gguf:
        config = ModelConfig.from_metadata(gguf)
        required, optional = expected_tensors(config)
        assert required == {name: tensor.shape for name, tensor in gguf.tensors.items()}
        assert not required.keys() & optional.keys()
        assert check_tensors(gguf, config) == []


@pytest.mark.parametrize("arch", ["llama", "qwen2moe", "qwen3moe"])
def test_the_required_tensors_of_experts_are_those_of_a_complete_model(tmp_path, arch):
    with container.open(write_tiny_model(tmp_path / "m.gguf", arch=arch, experts=4, biases=False)) as gguf:
        required, optional = expected_tensors(ModelConfig.from_metadata(gguf))
        assert required == {name: tensor.shape for name, tensor in gguf.tensors.items()}
        assert optional["blk.1.ffn_down_exps.scale"] == (4,)
        assert check_tensors(gguf, ModelConfig.from_metadata(gguf)) == []


@pytest.mark.parametrize("name, x, message", [
    ("blk.0.ffn_gate_inp.weight", np.ones((3, 64), np.float32), r"has shape \(3, 64\), expected \(4, 64\)"),
    ("blk.0.ffn_up_exps.weight", np.ones((3, 96, 64), np.float32), r"has shape \(3, 96, 64\), expected \(4, 96, 64\)"),
    ("blk.0.ffn_down_exps.weight", np.ones((96, 64), np.float32), r"has shape \(96, 64\), expected \(4, 64, 96\)"),
    ("blk.0.ffn_up_exps.bias", np.ones((4, 96), np.float32), "belongs to a computation that is not supported"),
    ("blk.0.ffn_gate_up_exps.weight", np.ones((4, 192, 64), np.float32), "belongs to a computation"),
    ("blk.0.ffn_down_shexp.bias", np.ones(64, np.float32), "belongs to a computation that is not supported"),
    ("blk.0.ffn_gate_inp.bias", np.ones(4, np.float32), "belongs to a computation that is not supported"),
    ("blk.0.exp_probs_b.bias", np.ones(4, np.float32), "belongs to a computation that is not supported"),
    ("blk.0.ffn_gate_inp_shexp.weight", np.ones((2, 64), np.float32), r"has shape \(2, 64\), expected \(64,\)"),
])  # fmt: skip
def test_experts_that_do_not_fit_are_refused(changed, name, x, message):
    with pytest.raises(GGUFError, match=f"m.gguf: {name} {message}"):
        warnings_of(changed({name: (x, "F32")}, arch="qwen2moe", experts=4))


@pytest.mark.parametrize("name", ["output_norm.weight", "blk.1.ffn_down.weight", "blk.0.attn_k_norm.weight"])
def test_a_missing_tensor_is_named(changed, name):
    with pytest.raises(GGUFError, match=f"{name} is missing, expected shape"):
        warnings_of(changed({name: None}, arch="qwen3"))


@pytest.mark.parametrize("name, x, message", [
    ("blk.0.attn_norm.weight", np.ones(63, np.float32), r"has shape \(63,\), expected \(64,\)"),
    ("blk.0.attn_norm.weight", np.ones(0, np.float32), r"has shape \(0,\), expected \(64,\)"),
    ("blk.1.attn_q.weight", np.ones((64, 32), np.float32), r"has shape \(64, 32\), expected \(64, 64\)"),
    ("blk.1.ffn_up.bias", np.ones(64, np.float32), r"has shape \(64,\), expected \(96,\)"),
    ("blk.1.ffn_up.scale", np.ones(2, np.float32), r"has shape \(2,\), expected \(1,\)"),
    ("rope_freqs.weight", np.ones(16, np.float32), r"has shape \(16,\), expected \(8,\)"),
    ("rope_freqs.weight", np.zeros(8, np.float32), "divides frequencies, expected finite positive"),
    ("rope_freqs.weight", np.full(8, np.nan, np.float32), "divides frequencies, expected finite positive"),
    ("blk.0.ffn_gate_inp.weight", np.ones((4, 64), np.float32), "belongs to a computation that is not supported"),
    ("blk.0.post_attention_norm.weight", np.ones(64, np.float32), "belongs to a computation that is not supported"),
    ("rope_factors_long.weight", np.ones(8, np.float32), "belongs to a computation that is not supported"),
])  # fmt: skip
def test_a_tensor_that_does_not_fit_is_refused(changed, name, x, message):
    with pytest.raises(GGUFError, match=f"m.gguf: {name} {message}"):
        warnings_of(changed({name: (x, "F32")}))


@pytest.mark.parametrize("name, data, type_name, message", [
    ("blk.0.attn_norm.weight", container.quantize(np.ones((1, 64)), "Q8_0")[0], "Q8_0", "is Q8_0, expected one of F32"),
    ("blk.0.attn_q.weight", np.ones((64, 64), np.int8), "I8", "is I8, expected a float or block type"),
])  # fmt: skip
def test_a_type_that_makes_no_sense_is_refused(changed, name, data, type_name, message):
    with pytest.raises(GGUFError, match=message):
        warnings_of(changed({name: (data, type_name)}))


def test_optional_tensors_are_accepted(changed):
    ones = {f"blk.0.{name}.bias": np.ones(n) for name, n in {"attn_q": 64, "attn_output": 64, "ffn_gate": 96}.items()}
    ones |= {"output.bias": np.ones(318), "blk.1.ffn_down.scale": np.ones(1), "blk.0.attn_q_norm.weight": np.ones(16)}
    with container.open(changed({})) as gguf:
        ones["output.bias"] = np.ones(gguf.tensors["output.weight"].shape[0])
    assert warnings_of(changed({name: (x.astype(np.float32), "F32") for name, x in ones.items()})) == []


def test_a_tensor_that_is_not_used_is_named_in_a_warning(changed):
    warnings = warnings_of(changed({"cls.output.weight": (np.ones((2, 64), np.float32), "F32")}))
    assert len(warnings) == 1 and "cls.output.weight is not used by llama" in warnings[0]


@pytest.mark.parametrize("type_name", ["F32", "BF16", "Q8_0"])
def test_fused_rows_become_three_tensors_over_the_same_bytes(tmp_path, type_name):
    path = write_tiny_model(tmp_path / "m.gguf", types=type_name, fused_qkv=True, biases=True)
    with container.open(path) as gguf:
        config = ModelConfig.from_metadata(gguf)
        assert check_tensors(gguf, config) == []
        tensors = model_tensors(gguf, config)
        for kind in ("weight", "bias"):
            fused = gguf.tensors[f"blk.1.attn_qkv.{kind}"].data
            parts = [tensors[f"blk.1.attn_{part}.{kind}"] for part in "qkv"]
            assert [len(part.data) for part in parts] == [config.q_width, config.k_width, config.v_width]
            np.testing.assert_array_equal(np.concatenate([part.data for part in parts]), fused)
            assert all(np.shares_memory(part.data, fused) for part in parts)
        assert "blk.1.attn_qkv.weight" in gguf.tensors  # the file's own table stays as it was


def test_fused_rows_beside_split_ones_are_refused(changed):
    with pytest.raises(GGUFError, match=r"attn_k.weight is present beside blk.0.attn_qkv.weight"):
        warnings_of(changed({"blk.0.attn_k.weight": (np.ones((32, 64), np.float32), "F32")}, fused_qkv=True))


@pytest.mark.parametrize("rows", [0, 64, 127, 129])
def test_fused_rows_of_another_number_are_refused(changed, rows):
    with pytest.raises(GGUFError, match=rf"attn_qkv.weight has {rows} rows, expected"):
        warnings_of(changed({"blk.0.attn_qkv.weight": (np.ones((rows, 64), np.float32), "F32")}, fused_qkv=True))


def test_a_config_of_another_model_does_not_pass(tmp_path):
    with container.open(write_tiny_model(tmp_path / "m.gguf")) as gguf:
        config = replace(ModelConfig.from_metadata(gguf), n_layer=3)
        with pytest.raises(GGUFError, match=r"blk\.2\..* is missing"):
            check_tensors(gguf, config)
