"""Scales of whole tensors in NVFP4 folders: one for the layers that are multiplied at once, and those of inputs."""

import json

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant.errors import QuantError
from refquant.layouts import catalogue, safetensors_file
from refquant.pipeline import block, oneshot, open_checkpoint, recipe

IDS = [np.random.default_rng(i).integers(3, 200, 40) for i in range(3)]
BLOCK = "model.layers.0."
TOGETHER = [[f"self_attn.{part}_proj" for part in "qkv"], ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]]


@pytest.fixture
def source(tmp_path):
    return write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256)


def arrays(folder, layer):
    """{array: data} of a layer of the first block."""
    tensors = safetensors_file.read(next(folder.glob("model-00001-*"))).tensors
    start = f"{BLOCK}{layer}."
    return {name[len(start) :]: np.array(t.data) for name, t in tensors.items() if name.startswith(start)}


def inputs_in(folder):
    config = json.loads((folder / "config.json").read_text())["quantization_config"]
    return config["config_groups"]["group_0"]["input_activations"]


@pytest.mark.parametrize("method", ["nearest", "gptq"])
def test_layers_that_are_multiplied_at_once_share_a_scale_and_keep_their_weights(tmp_path, source, method):
    oneshot(source, recipe.read("NVFP4", method=method), IDS, tmp_path / "q")
    checkpoint = open_checkpoint(source)
    for layers in TOGETHER:
        weights = {layer: checkpoint.weight(f"{BLOCK}{layer}.weight") for layer in layers}
        ref = np.float32(2688) * (np.float32(1) / max(np.abs(W).max() for W in weights.values()))
        for layer, W in weights.items():
            made = arrays(tmp_path / "q", layer)
            assert made["weight_global_scale"] == ref
            stored = {n: a for n, a in made.items() if n not in ("input_global_scale", "bias")}
            got = catalogue.unpack(stored, "nvfp4-pack-quantized").dequantize()
            assert got.shape == W.shape
            assert np.linalg.norm(got - W) < 0.2 * np.linalg.norm(W)


def test_inputs_get_a_scale_from_the_largest_of_the_calibration_text(tmp_path, source):
    oneshot(source, "NVFP4", IDS, tmp_path / "q")
    checkpoint, peaks = open_checkpoint(source), {}
    weights = {n[len(BLOCK) :]: checkpoint.weight(n) for n in checkpoint.tensors if n.startswith(BLOCK)}

    def tap(name, X):
        peaks[name] = max(peaks.get(name, np.float32(0)), np.abs(X).max())

    for ids in IDS:
        x = checkpoint.weight("model.embed_tokens.weight")[ids]
        block.forward(checkpoint.model, weights, x, block.rope_table(checkpoint.model, None, len(ids)), tap)
    for layer, peak in peaks.items():
        got = arrays(tmp_path / "q", layer)["input_global_scale"]
        assert got.dtype == np.float32 and got.shape == (1,) and got[0] == np.float32(2688) / peak
    assert (inputs_in(tmp_path / "q")["dynamic"], inputs_in(tmp_path / "q")["strategy"]) == ("local", "tensor_group")


def test_experts_that_no_token_reaches_get_a_scale_of_one(tmp_path):
    source = write_tiny_checkpoint(tmp_path / "m", "qwen3_moe", n_embd=64, n_ff=64)
    oneshot(source, "NVFP4", [[5]], tmp_path / "q")  # one token, two of four experts
    got = [arrays(tmp_path / "q", f"mlp.experts.{e}.up_proj")["input_global_scale"][0] for e in range(4)]
    assert sum(g == 1 for g in got) == 2 and all(g >= 1 for g in got)


def test_without_a_text_the_way_out_is_named_and_leaves_inputs_alone(tmp_path, source):
    with pytest.raises(QuantError, match=r"calibration = None, expected a text .* such as NVFP4A16"):
        oneshot(source, "NVFP4", None, tmp_path / "q")
    oneshot(source, "NVFP4A16", None, tmp_path / "q")
    assert inputs_in(tmp_path / "q") is None and "input_global_scale" not in arrays(tmp_path / "q", "mlp.up_proj")
