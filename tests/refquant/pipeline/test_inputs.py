"""Models that are no plain folders as input: quantized checkpoints, decoded or moved, and GGUF files."""

import dataclasses
import json

import numpy as np
import pytest
from tiny_checkpoints import CLASSES, write_tiny_checkpoint
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import safetensors_file, unpack
from refquant.pipeline import block, convert_to_gguf, oneshot, open_checkpoint
from refquant.text.tokenizer import Tokenizer

UP = "model.layers.0.mlp.up_proj.weight"
FORMATS = {
    "gptq": "gptq",
    "awq": "awq-gemm",
    "nf4": "bitsandbytes-nf4",
    "nf4-dq": "bitsandbytes-nf4",
    "load_in_8bit": "bitsandbytes-int8",
    "W4A16": "pack-quantized",
    "W8A8": "int-quantized",
    "FP8": "float-quantized",
}
TEXT = "the command with that file\n  prints 42 options, and \u00e4 path "


def ids(count: int = 2, length: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(3, 200, length) for i in range(count)]


def folder(path, kind="llama", **options):
    return write_tiny_checkpoint(path, kind, n_embd=128, n_ff=256, dtype="F16", **options)


def written(path, layer, layout):
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors = safetensors_file.read(file).tensors
        found |= {n[len(layer) + 1 :]: t.data for n, t in tensors.items() if n.startswith(f"{layer}.")}
    return unpack(found, layout)


@pytest.mark.parametrize("recipe, layout", FORMATS.items())
def test_quantized_folders_open_with_the_numbers_of_their_layouts(tmp_path, recipe, layout):
    source = folder(tmp_path / "m")
    oneshot(source, recipe, ids(), tmp_path / "q")
    got = open_checkpoint(tmp_path / "q")
    ref = written(tmp_path / "q", UP.removesuffix(".weight"), layout).dequantize()
    np.testing.assert_array_equal(got.weight(UP), ref)
    np.testing.assert_array_equal(got.weight(UP, slice(3, 7)), ref[3:7])
    assert (got.dtype(UP), got.tensors[UP].data.shape, got.unused) == ("float16", (256, 128), ())
    assert "quantization_config" not in got.config and got.parameters == open_checkpoint(source).parameters
    assert f"14 layers of {layout}" in got.warnings[0]


def test_the_warning_reaches_whoever_quantizes(tmp_path, capsys):
    from refquant.__main__ import main

    oneshot(folder(tmp_path / "m"), "W4A16", None, tmp_path / "q")
    with pytest.warns(UserWarning, match="is quantized already"):
        oneshot(tmp_path / "q", "W8A16", None, tmp_path / "again")
    assert main(["quantize", str(tmp_path / "q"), "--recipe", "W8A16", "--out", str(tmp_path / "cli")]) == 0
    assert "refquant: warning: " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:.*is quantized already")
@pytest.mark.parametrize(
    "first, then, before, after",
    [
        ("gptq", {"scheme": "int4-g128", "layout": "compressed-tensors"}, "gptq", "pack-quantized"),
        ("gptq", {"scheme": "int4-g128", "layout": "gptq_v2"}, "gptq", "gptq_v2"),
        ("awq", {"scheme": "uint4-g128", "layout": "gptq"}, "awq-gemm", "gptq"),
        ("W4A16", {"scheme": "int4-g128", "layout": "gptq"}, "pack-quantized", "gptq"),
    ],
)
def test_where_only_the_layout_changes_the_codes_are_moved(tmp_path, first, then, before, after):
    oneshot(folder(tmp_path / "m"), first, ids(), tmp_path / "a")
    oneshot(tmp_path / "a", then, None, tmp_path / "b")
    layer = UP.removesuffix(".weight")
    a, b = written(tmp_path / "a", layer, before), written(tmp_path / "b", layer, after)
    np.testing.assert_array_equal(a.codes, b.codes)
    np.testing.assert_array_equal(a.dequantize(), b.dequantize())


@pytest.mark.filterwarnings("ignore:.*is quantized already")
def test_codes_in_blocks_of_32_move_into_gguf_and_others_are_rounded(tmp_path):
    said = {"scheme": "int4-g32", "layout": "gptq", "method": "gptq"}
    oneshot(folder(tmp_path / "m"), said, ids(), tmp_path / "q")
    oneshot(tmp_path / "q", "Q4_0", None, tmp_path / "q4.gguf")
    oneshot(tmp_path / "q", "Q5_0", None, tmp_path / "q5.gguf")
    ref = open_checkpoint(tmp_path / "q").weight(UP)
    with gguf.open(tmp_path / "q4.gguf") as file:
        np.testing.assert_array_equal(gguf.dequantize(file.tensors["blk.0.ffn_up.weight"].data, "Q4_0"), ref)
    with gguf.open(tmp_path / "q5.gguf") as file:
        got = np.array(file.tensors["blk.0.ffn_up.weight"].data)
    np.testing.assert_array_equal(got, gguf.quantize(ref, "Q5_0"))


def test_a_quantized_folder_whose_layout_is_unknown_or_broken_is_refused(tmp_path):
    oneshot(folder(tmp_path / "m"), "gptq", ids(), tmp_path / "q")
    path = tmp_path / "q" / "model-00001-of-00003.safetensors"
    file = safetensors_file.read(path)
    tensors = [(n, t.dtype, np.array(t.data)) for n, t in file.tensors.items()]
    at = next(i for i, (name, _, _) in enumerate(tensors) if name.endswith("0.mlp.up_proj.scales"))
    tensors[at] = (tensors[at][0], tensors[at][1], tensors[at][2][:, :-8])
    safetensors_file.write(path, tensors)
    with pytest.raises(QuantError, match=r"layer model\.layers\.0\.mlp\.up_proj"):
        open_checkpoint(tmp_path / "q").weight(UP)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "aqlm"}
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"quantized already \(aqlm\), but no layer has a layout that is known"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_a_gguf_file_opens_as_the_folder_that_it_was_made_of(tmp_path, kind):
    source = open_checkpoint(write_tiny_checkpoint(tmp_path / "m", kind))
    convert_to_gguf(source, tmp_path / "m.gguf", "F32")
    got = open_checkpoint(tmp_path / "m.gguf")
    assert got.config["rms_norm_eps"] == 1e-5 and got.model.rms_eps == np.float32(1e-5)
    assert dataclasses.replace(got.model, rms_eps=1e-5) == source.model and set(got.tensors) == set(source.tensors)
    assert got.kind == ("llama" if kind == "mistral" else kind) and got.warnings == ()
    for name in source.tensors:
        np.testing.assert_array_equal(got.weight(name), source.weight(name), err_msg=name)
    convert_to_gguf(got, tmp_path / "again.gguf", "F32", name="M")
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


@pytest.mark.filterwarnings("ignore:.*is quantized already")
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_blocks_of_a_gguf_file_are_decoded_or_moved(tmp_path, kind):
    source = folder(tmp_path / "m", kind)
    convert_to_gguf(source, tmp_path / "m.gguf", "Q4_0")
    oneshot(tmp_path / "m.gguf", "int4-g32", None, tmp_path / "q")
    assert "tensors of Q4_0" in open_checkpoint(tmp_path / "m.gguf").warnings[0]
    name = "model.layers.1.self_attn.q_proj"
    ref = open_checkpoint(tmp_path / "m.gguf").weight(f"{name}.weight")
    np.testing.assert_array_equal(written(tmp_path / "q", name, "pack-quantized").dequantize(), ref)
    error = np.abs(ref - open_checkpoint(source).weight(f"{name}.weight")).max() / np.abs(ref).max()
    assert 0 < error < 0.2  # the rows went back to their places


@pytest.mark.filterwarnings("ignore:.*is quantized already")
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_tokenizer_of_a_gguf_file_becomes_files_that_give_the_same_ids(tmp_path, kind):
    from tokenizers import Tokenizer as Theirs

    write_tiny_model(tmp_path / "m.gguf", arch=kind, n_embd=128, n_ff=256, types="Q8_0")
    (tmp_path / "t.txt").write_text(TEXT * 20)
    oneshot(tmp_path / "m.gguf", "gptq", tmp_path / "t.txt", tmp_path / "q", samples=2, seq_len=32)
    theirs = Theirs.from_file(str(tmp_path / "q" / "tokenizer.json"))
    with gguf.open(tmp_path / "m.gguf") as file:
        ours = Tokenizer.from_gguf(file)
        for text in (TEXT, "the", "option and print  ", "\u4f60 <|im_end|> x"):
            assert theirs.encode(text).ids == ours.encode(text, parse_special=True), text
    settings = json.loads((tmp_path / "q" / "tokenizer_config.json").read_text())
    assert settings["chat_template"] and settings["eos_token"]
    again = open_checkpoint(tmp_path / "q")
    convert_to_gguf(again, tmp_path / "again.gguf", "F16")


def test_the_shared_file_is_calibrated_with_its_own_tokenizer(shared, tmp_path):
    from tokenizers import Tokenizer as Theirs

    got = open_checkpoint(shared("models/tiny-qwen2-Q4_K_M.gguf"))
    ref = Theirs.from_file(str(shared("models/tiny-qwen2/tokenizer.json")))
    text = shared("text/docs.txt").read_text(encoding="utf-8")[:20000]
    assert Theirs.from_str(got.texts["tokenizer.json"]).encode(text).ids == ref.encode(text).ids
    source = open_checkpoint(shared("models/tiny-qwen2"))
    name = "model.layers.0.mlp.up_proj.weight"
    difference = got.weight(name) - source.weight(name)
    assert np.linalg.norm(difference) < 0.1 * np.linalg.norm(source.weight(name))
    tokens = np.array(ref.encode(text).ids[:16])
    x = got.weight("model.embed_tokens.weight")[tokens]
    assert np.isfinite(x).all() and block.rope_table(got.model, None, 16)[0].shape[0] == 16


def test_the_scaling_of_rope_comes_back(tmp_path):
    llama3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3 |= {"original_max_position_embeddings": 8192}
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "beta_fast": 16.0}
    for i, said in enumerate((llama3, yarn, {"rope_type": "linear", "factor": 2.5})):
        source = open_checkpoint(
            write_tiny_checkpoint(tmp_path / str(i), "llama" if i == 0 else "qwen2", rope_scaling=said)
        )
        convert_to_gguf(source, tmp_path / "m.gguf", "F32", name="m")
        got = open_checkpoint(tmp_path / "m.gguf")
        assert got.config["rope_scaling"] == said
        assert dataclasses.replace(got.model, rms_eps=1e-5) == source.model


def test_models_that_no_folder_can_be_are_refused(tmp_path):
    write_tiny_model(tmp_path / "r.gguf", arch="llama", rope_freqs=True)
    with pytest.raises(UnsupportedError, match=r"expected the divisors of Llama 3\.1 or 3\.2"):
        open_checkpoint(tmp_path / "r.gguf")
    write_tiny_model(tmp_path / "f.gguf", arch="qwen2", fused_qkv=True)
    with pytest.raises(UnsupportedError, match="attn_qkv"):
        open_checkpoint(tmp_path / "f.gguf")
    (tmp_path / "x").write_text("nothing")
    with pytest.raises(QuantError, match="x"):
        open_checkpoint(tmp_path / "x")
