"""QuaRot through the pipeline: the model computes the same, its outliers are gone, and recipes go on from there."""

import json

import numpy as np
import pytest
from tiny_checkpoints import write_shards, write_tiny_checkpoint

from refquant import gguf
from refquant.errors import SchemeError, UnsupportedError
from refquant.layouts import safetensors_file
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, oneshot, open_checkpoint, recipe

TOKENS = np.random.default_rng(3).integers(3, 200, 24)


def folder(path, kind="llama", **options):
    return write_tiny_checkpoint(path, kind, n_embd=128, n_ff=256, dtype="F32", **options)


def with_outliers(path):
    """Some inputs have weights thirty times as large, and gains as much smaller: the model stays what it was."""
    source = folder(path)
    file = safetensors_file.read(source / "model.safetensors")
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()]
    for name, _, array in tensors:
        if name.endswith("layernorm.weight"):
            array[[5, 77]] /= 30
        elif name.endswith(tuple(f"{part}_proj.weight" for part in ("q", "k", "v", "gate", "up"))):
            array[:, [5, 77]] *= 30
    write_shards(source, tensors, 1)
    return source


def logits(path):
    with gguf.open(path) as file:
        return Oracle(file).logits(TOKENS)


@pytest.mark.parametrize("kind, tied", [("llama", False), ("qwen2", True), ("qwen3", False)])
def test_a_turned_model_computes_the_same(tmp_path, kind, tied):
    source = folder(tmp_path / "m", kind, tied=tied)
    oneshot(source, recipe.read("F32", method="quarot"), None, tmp_path / "turned.gguf")
    convert_to_gguf(source, tmp_path / "plain.gguf", "F32")
    got, ref = logits(tmp_path / "turned.gguf"), logits(tmp_path / "plain.gguf")
    np.testing.assert_allclose(got, ref, atol=2e-3 * np.abs(ref).max())
    with gguf.open(tmp_path / "turned.gguf") as file:
        assert (file.tensors["blk.0.attn_norm.weight"].data == 1).all() and "output.weight" in file.tensors


def test_rounding_after_a_turn_loses_less_where_there_are_outliers(tmp_path):
    source = with_outliers(tmp_path / "m")
    said = {"modifiers": [{"method": "quarot", "seed": 1}, {"method": "nearest", "scheme": "int4-channel"}]}
    oneshot(source, said, None, tmp_path / "turned")
    oneshot(source, "int4-channel", None, tmp_path / "plain")
    convert_to_gguf(source, tmp_path / "f.gguf", "F32")
    ref, error = logits(tmp_path / "f.gguf"), {}
    for name in ("turned", "plain"):
        convert_to_gguf(tmp_path / name, tmp_path / f"{name}.gguf", "F32")
        error[name] = np.square(logits(tmp_path / f"{name}.gguf") - ref).mean()
    assert error["turned"] < 0.7 * error["plain"]


def test_recipes_go_on_from_the_turned_model(tmp_path):
    source = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256, dtype="BF16", tied=True)
    ids = [np.random.default_rng(i).integers(3, 200, 40) for i in range(3)]
    said = {"modifiers": [{"method": "quarot"}, {"method": "gptq", "scheme": "W4A16"}]}
    made = oneshot(source, said, ids, tmp_path / "q")
    assert made.layers == 14 and not (tmp_path / "q" / "rotated").exists()
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    assert config["tie_word_embeddings"] is False and config["quantization_config"]["ignore"] == ["lm_head"]
    got = open_checkpoint(tmp_path / "q")
    assert got.dtype("model.embed_tokens.weight") == got.dtype("lm_head.weight") == "bfloat16"
    assert (got.path / "tokenizer.json").is_file()
    oneshot(source, {"scheme": "Q4_0", "method": "quarot", "seed": 2}, None, tmp_path / "q.gguf")
    with gguf.open(tmp_path / "q.gguf") as file:
        assert np.isfinite(Oracle(file).logits(TOKENS)).all()


@pytest.mark.parametrize(
    "kind, options, error, message",
    [
        ("mixtral", {}, UnsupportedError, "has experts, expected a dense model"),
        ("llama", {"speed": 1}, SchemeError, "'speed' of quarot is unknown"),
        ("llama", {"seed": -1}, SchemeError, "seed"),
    ],
)
def test_what_cannot_be_turned_is_refused(tmp_path, kind, options, error, message):
    said = {"modifiers": [{"method": "quarot"} | options, {"scheme": "W4A16"}]}
    with pytest.raises(error, match=message):
        oneshot(folder(tmp_path / "m", kind), said, None, tmp_path / "q")
