"""Whole folders through recipes: what is written, what it computes, what a killed run leaves."""

import json

import numpy as np
import pytest
from tiny_checkpoints import CLASSES, write_tiny_checkpoint

import refquant
from refquant import gguf
from refquant.__main__ import main
from refquant.errors import QuantError, SchemeError, ShapeError
from refquant.layouts import detect_file, safetensors_file, unpack
from refquant.models import Oracle
from refquant.pipeline import block, convert_to_gguf, oneshot, open_checkpoint, recipe, work

UP = "model.layers.0.mlp.up_proj"
COMPRESSED = {"W4A16": "pack-quantized", "W8A8": "int-quantized", "FP8": "float-quantized"}


def ids(count: int = 4, length: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(3, 200, length) for i in range(count)]


def folder(path, kind="llama", **options):
    return write_tiny_checkpoint(path, kind, n_embd=128, n_ff=256, dtype="BF16", **options)


def arrays(path, layer=UP):
    """The arrays of one layer of a written folder, without its prefix."""
    found = {}
    for file in sorted(path.glob("*.safetensors")):
        tensors = safetensors_file.read(file).tensors
        found |= {n[len(layer) + 1 :]: t.data for n, t in tensors.items() if n.startswith(f"{layer}.")}
    return found


def weights(path, layer=UP):
    made = arrays(path, layer)
    config = json.loads((path / "config.json").read_text())["quantization_config"]
    layout = config.get("checkpoint_format") or config.get("format")
    if config["quant_method"] == "awq":
        layout = "awq-" + config["version"]
    if config["quant_method"] == "bitsandbytes":
        layout = "bitsandbytes-nf4" if config.get("load_in_4bit") else "bitsandbytes-int8"
    return unpack(made, layout).dequantize()


@pytest.mark.parametrize("kind", sorted(CLASSES))
def test_a_block_computes_what_the_oracle_computes(tmp_path, kind):
    source = open_checkpoint(write_tiny_checkpoint(tmp_path / "m", kind))
    convert_to_gguf(source, tmp_path / "m.gguf", "F32")
    tokens, seen = ids(1)[0], []
    table = block.rope_table(source.model, None, len(tokens))
    x = source.weight("model.embed_tokens.weight")[tokens]
    for i in range(2):
        start = f"model.layers.{i}."
        names = {n[len(start) :]: source.weight(n) for n in source.tensors if n.startswith(start)}
        x = block.forward(source.model, names, x, table, lambda name, X: seen.append(name))
    with gguf.open(tmp_path / "m.gguf") as file:
        inputs = {}
        ref = Oracle(file).logits(tokens, tap=lambda name, X: inputs.__setitem__(name, X))
    got = inputs["output.weight"]
    norm = source.weight("model.norm.weight")
    mine = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + 1e-5) * norm
    np.testing.assert_allclose(mine, got, atol=2e-4)
    assert ref.shape[0] == len(tokens) and "self_attn.q_proj" in seen


@pytest.mark.parametrize("name, layout", COMPRESSED.items())
def test_rounding_to_nearest_stores_what_quantize_gives(tmp_path, name, layout):
    source = folder(tmp_path / "m")
    made = oneshot(source, name, None, tmp_path / "q")
    assert made.layers == 14 and made.resumed == 0
    W = open_checkpoint(source).weight(f"{UP}.weight")
    scheme = refquant.PRESETS[name].weights if name in refquant.PRESETS else "fp8_e4m3fn-channel"
    ref = refquant.quantize(W, scheme, scale_dtype="bfloat16").dequantize()
    np.testing.assert_array_equal(weights(tmp_path / "q"), ref)
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert (config["format"], config["ignore"]) == (layout, ["lm_head"])
    inputs = config["config_groups"]["group_0"]["input_activations"]
    assert (inputs is None) == name.endswith("A16")
    assert inputs is None or (inputs["strategy"], inputs["dynamic"]) == ("token", True)


def test_the_folder_is_whole_and_names_every_tensor(tmp_path):
    source = folder(tmp_path / "m", "qwen2", tied=True, shards=2)
    oneshot(source, "W4A16", None, tmp_path / "q")
    index = json.loads((tmp_path / "q" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        assert name in safetensors_file.read(tmp_path / "q" / file).tensors
    assert f"{UP}.weight_packed" in index["weight_map"] and f"{UP}.weight" not in index["weight_map"]
    before = safetensors_file.read(source / "model-00001-of-00002.safetensors").tensors
    for name in ("model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.bias"):
        after = safetensors_file.read(tmp_path / "q" / index["weight_map"][name]).tensors[name]
        assert after.dtype == before[name].dtype
        np.testing.assert_array_equal(after.data, before[name].data)
    assert sorted(p.name for p in (tmp_path / "q").iterdir() if p.suffix == ".json") == [
        "config.json",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize(
    "name, layout",
    [("gptq", "gptq"), ("awq", "awq-gemm"), ("nf4", "bitsandbytes-nf4"), ("load_in_8bit", "bitsandbytes-int8")],
)
def test_other_layouts_are_recognized_and_read(tmp_path, name, layout):
    source = folder(tmp_path / "m")
    oneshot(source, name, ids(), tmp_path / "q")
    found = detect_file(tmp_path / "q" / "model-00001-of-00003.safetensors")
    assert len(found) == 7 and all(layout in detection.layouts for detection in found.values())
    W = open_checkpoint(source).weight(f"{UP}.weight")
    error = np.linalg.norm(weights(tmp_path / "q") - W) / np.linalg.norm(W)
    assert error < (0.02 if name == "load_in_8bit" else 0.5)


def mean_error(source, path, layer="model.layers.0.mlp.gate_proj"):
    """Of the outputs of a layer, on what the float model feeds it."""
    checkpoint = open_checkpoint(source)
    start = "model.layers.0."
    names = {n[len(start) :]: checkpoint.weight(n) for n in checkpoint.tensors if n.startswith(start)}
    table, fed = block.rope_table(checkpoint.model, None, 40), []
    for one in ids(4):
        x = checkpoint.weight("model.embed_tokens.weight")[one]
        block.forward(checkpoint.model, names, x, table, lambda n, X: fed.append(X) if n == "mlp.gate_proj" else None)
    difference = weights(path, layer) - checkpoint.weight(f"{layer}.weight")
    return float(np.mean(np.square(np.concatenate(fed) @ difference.T)))


def test_gptq_with_the_inputs_of_the_layer_beats_rounding(tmp_path):
    source = folder(tmp_path / "m")
    oneshot(source, "W4A16", None, tmp_path / "nearest")
    oneshot(source, recipe.read("W4A16", method="gptq"), ids(), tmp_path / "gptq")
    assert mean_error(source, tmp_path / "gptq") < 0.8 * mean_error(source, tmp_path / "nearest")


def test_sparsegpt_prunes_and_rounds(tmp_path):
    said = {"modifiers": [{"method": "sparsegpt", "scheme": "W8A16", "sparsity": 0.5, "pattern": (2, 4)}]}
    oneshot(folder(tmp_path / "m"), said, ids(), tmp_path / "q")
    zeros = (weights(tmp_path / "q") == 0).reshape(256, -1, 4).sum(axis=-1)
    assert zeros.min() >= 2


@pytest.mark.parametrize("method", ["smoothquant", "awq"])
def test_scaling_changes_norms_and_weights_and_not_what_the_block_computes(tmp_path, method):
    from refquant.pipeline import scaling

    checkpoint = open_checkpoint(write_tiny_checkpoint(tmp_path / "m", n_embd=128, n_ff=256, num_key_value_heads=4))
    names = {n.split(".", 3)[3]: checkpoint.weight(n) for n in checkpoint.tensors if n.startswith("model.layers.0.")}
    table, fed = block.rope_table(checkpoint.model, None, 40), {}
    x = checkpoint.weight("model.embed_tokens.weight")[ids(1)[0]]
    ref = block.forward(checkpoint.model, names, x, table, lambda name, X: fed.__setitem__(name, X))
    modifier = recipe.read("W4A16", method=method).modifiers[0]
    if method == "awq":
        modifier = recipe.read({"scheme": "W4A16", "method": "awq", "clip": False}).modifiers[0]
    pairs = scaling.pairs(modifier, "model.layers.0.", checkpoint.model, names)
    found = {p: scaling.search(modifier, [names[f"{n}.weight"] for n in p.layers], fed[p.layers[0]]) for p in pairs}
    changes = scaling.changes(modifier, "model.layers.0.", names, found, fed)
    changed = {name: scaling.changed(modifier, names[name], change) for name, change in changes.items()}
    assert {"input_layernorm.weight", "self_attn.q_proj.weight", "mlp.up_proj.weight"} <= set(changed)
    assert ("mlp.down_proj.weight" in changed) == (method == "awq")
    got = block.forward(checkpoint.model, names | changed, x, table)
    np.testing.assert_allclose(got, ref, atol=1e-4)


def test_targets_and_ignore_leave_layers_as_they_are(tmp_path):
    source = folder(tmp_path / "m")
    said = {"scheme": "W4A16", "targets": ["re:.*mlp"], "ignore": ["lm_head", "down_proj"]}
    made = oneshot(source, said, None, tmp_path / "q")
    assert made.layers == 4
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert "model.layers.1.mlp.down_proj" in config["ignore"] and "model.layers.1.mlp.up_proj" not in config["ignore"]
    assert set(arrays(tmp_path / "q", "model.layers.1.mlp.down_proj")) == {"weight"}


def test_two_formats_become_two_groups_and_are_refused_where_one_is_all(tmp_path):
    source = folder(tmp_path / "m")
    down = {"scheme": "W8A16", "targets": ["down_proj"]}
    said = {"modifiers": [down, {"scheme": "W4A16"}]}
    oneshot(source, said, None, tmp_path / "q")
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    assert config["format"] == "mixed-precision" and len(config["config_groups"]) == 2
    assert config["config_groups"]["group_1"]["targets"] == [f"model.layers.{i}.mlp.down_proj" for i in range(2)]
    with pytest.raises(SchemeError, match="2 formats in gptq, expected one"):
        oneshot(source, said | {"layout": "gptq"}, None, tmp_path / "g")


def test_the_output_matrix_is_quantized_when_nothing_ignores_it(tmp_path):
    source = folder(tmp_path / "m")
    made = oneshot(source, recipe.read("W4A16", method="gptq", ignore=[]), ids(), tmp_path / "q")
    assert made.layers == 15 and "weight_packed" in arrays(tmp_path / "q", "lm_head")


def test_gguf_comes_from_the_same_entry(tmp_path):
    source = folder(tmp_path / "m")
    oneshot(source, "Q8_0", None, tmp_path / "q.gguf")
    convert_to_gguf(source, tmp_path / "ref.gguf", "Q8_0")
    assert (tmp_path / "q.gguf").read_bytes() == (tmp_path / "ref.gguf").read_bytes()


class Stopped(RuntimeError):
    """What a test raises in place of a kill."""


def test_a_killed_run_goes_on_where_it_was_and_gives_the_same_bytes(tmp_path):
    source, said = folder(tmp_path / "m"), recipe.read("W4A16", method="gptq")
    oneshot(source, said, ids(), tmp_path / "whole")

    def stop(what, done, total):
        if done == 1:
            raise Stopped

    with pytest.raises(Stopped):
        oneshot(source, said, ids(), tmp_path / "q", progress=stop)
    assert not (tmp_path / "q").exists()
    left = tmp_path / ".q.partial"
    first = left / "model-00001-of-00003.safetensors"
    before = first.stat().st_mtime_ns
    (left / ".half.safetensors.tmp").write_bytes(b"half")
    made = oneshot(source, said, ids(), tmp_path / "q")
    assert made.resumed == 1 and not left.exists()
    assert (tmp_path / "q" / first.name).stat().st_mtime_ns == before
    whole, resumed = (sorted(p for p in (tmp_path / n).iterdir()) for n in ("whole", "q"))
    assert [p.name for p in whole] == [p.name for p in resumed]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(whole, resumed))


def test_another_job_does_not_go_on_with_what_is_there(tmp_path):
    source = folder(tmp_path / "m")

    def stop(*_):
        raise Stopped

    with pytest.raises(Stopped):
        oneshot(source, "W8A16", None, tmp_path / "q", progress=stop)
    made = oneshot(source, "W4A16", None, tmp_path / "q")
    assert made.resumed == 0 and "weight_packed" in arrays(tmp_path / "q")


def test_files_of_others_are_never_removed(tmp_path):
    source = folder(tmp_path / "m")
    (tmp_path / "q").mkdir()
    with pytest.raises(QuantError, match="exists already"):
        oneshot(source, "W4A16", None, tmp_path / "q")
    (tmp_path / ".r.partial").mkdir()
    (tmp_path / ".r.partial" / "mine").write_text("x")
    with pytest.raises(QuantError, match="holds files of something else"):
        oneshot(source, "W4A16", None, tmp_path / "r")
    assert (tmp_path / ".r.partial" / "mine").read_text() == "x"


def test_a_disk_that_is_full_is_an_error_with_the_path(tmp_path, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(work, "put", full)
    with pytest.raises(QuantError, match="No space left on device"):
        oneshot(folder(tmp_path / "m"), "W4A16", None, tmp_path / "q")
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    "said, error, message",
    [
        ("int4-g96", ShapeError, r"layer model\.layers\.0\.self_attn\.q_proj: .*128"),
        ({"scheme": "W4A16", "targets": "nothing"}, SchemeError, "matches = 0"),
        ({"scheme": "W4A16", "method": "gptq"}, QuantError, "calibration = None"),
        ("mxint8", SchemeError, "mxint8 as compressed-tensors"),
        ({"scheme": "nf4", "layout": "gptq"}, SchemeError, "nf4 as gptq"),
    ],
)
def test_recipes_that_do_not_fit_the_model_are_refused(tmp_path, said, error, message):
    with pytest.raises(error, match=message):
        oneshot(folder(tmp_path / "m"), said, None, tmp_path / "q")
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_option_that_the_method_does_not_have_is_named(tmp_path):
    said = {"scheme": "W4A16", "method": "gptq", "dampp": 0.1}
    with pytest.raises(SchemeError, match="dampp"):
        oneshot(folder(tmp_path / "m"), said, ids(), tmp_path / "q")


@pytest.mark.parametrize("name", ["text.txt", "lines.jsonl"])
def test_text_is_cut_into_sequences_by_the_models_tokenizer(tmp_path, name):
    from refquant.pipeline.calibration import sequences

    checkpoint = open_checkpoint(folder(tmp_path / "m", "qwen2"))
    text = "the command and that file with this output " * 20
    lines = [json.dumps({"text": text}), "", json.dumps({"messages": [{"role": "user", "content": text}]})]
    (tmp_path / "text.txt").write_text(text)
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    got = sequences(checkpoint, tmp_path / name, 5, 16)
    assert len(got) == 5 and {len(one) for one in got} == {16}
    assert len(sequences(checkpoint, tmp_path / name, 1, 9999)[0]) <= 256


def test_messages_go_through_the_chat_template_and_texts_do_not(tmp_path):
    from tokenizers import Tokenizer

    from refquant.pipeline.calibration import sequences

    checkpoint = open_checkpoint(folder(tmp_path / "m", "qwen2"))
    messages = [{"role": "user", "content": "the file"}, {"role": "assistant", "content": "that output"}]
    lines = [json.dumps({"messages": messages}), json.dumps({"text": "the command"})]
    (tmp_path / "l.jsonl").write_text("\n".join(lines))
    rendered = "<|im_start|>user\nthe file<|im_end|>\n<|im_start|>assistant\nthat output<|im_end|>\n"
    tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
    ref = tokenizer.encode(rendered, add_special_tokens=False).ids + tokenizer.encode("the command").ids
    (got,) = sequences(checkpoint, tmp_path / "l.jsonl", 9, 999)
    assert got.tolist() == ref


def test_the_bar_tells_the_time_that_is_left_by_the_pace_of_the_last_steps():
    import io

    from refquant.pipeline.progress import Bar, clock

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    now, shown = [0.0], Terminal()
    bar = Bar(shown, lambda: now[0])
    for done in range(1, 41):  # an earlier run had finished these
        bar("quantize", done, 100)
    for done in range(41, 61):
        now[0] += 2.0
        bar("quantize", done, 100)
    assert shown.getvalue().rpartition("\r")[2] == "quantize  [############--------]  60 %, 1:20 left\x1b[K"
    bar("convert", 1, 10)
    bar.end()
    assert shown.getvalue().endswith("\r\x1b[K") and "convert" not in shown.getvalue().rpartition("left")[2][:-4]
    silent = io.StringIO()
    Bar(silent)("quantize", 1, 2)
    assert silent.getvalue() == ""
    assert [clock(s) for s in (4.4, 61, 3725)] == ["4 s", "1:01", "1:02:05"]


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", "", "no tokens"),
        ("a.txt", b"\xff\xfe", "cannot be read as text"),
        ("a.jsonl", "{", "line 1 is no JSON"),
        ("a.jsonl", '{"x": 1}', "line 1, expected an object with text or messages"),
        ("missing.txt", None, "cannot be read as text"),
    ],
)
def test_calibration_files_that_are_none_are_refused(tmp_path, name, content, message):
    from refquant.pipeline.calibration import sequences

    checkpoint = open_checkpoint(folder(tmp_path / "m", "qwen2"))
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(QuantError, match=message):
        sequences(checkpoint, tmp_path / name, 4, 16)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path):
    with pytest.raises(QuantError, match=r"expected 0\.\."):
        oneshot(folder(tmp_path / "m"), "gptq", [[1, 100000]], tmp_path / "q")


def test_the_command_quantizes_and_says_what_it_made(tmp_path, capsys):
    source = folder(tmp_path / "m", "qwen2")
    (tmp_path / "t.txt").write_text("the command and that file with this output " * 20)
    arguments = ["quantize", str(source), "--recipe", "W4A16", "--method", "gptq", "--ignore", "lm_head"]
    arguments += ["--calibration", str(tmp_path / "t.txt"), "--samples", "4", "--seq-len", "32"]
    assert main([*arguments, "--out", str(tmp_path / "q")]) == 0
    assert "q: 14 matrices, " in capsys.readouterr().out
    assert main([*arguments, "--out", str(tmp_path / "q")]) == 1
    assert "exists already" in capsys.readouterr().err
