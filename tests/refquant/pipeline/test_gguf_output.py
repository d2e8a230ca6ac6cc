"""GGUF files by recipes: methods before encoding, codes that are moved, runs that go on where they were killed."""

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf
from refquant.__main__ import main
from refquant.errors import SchemeError, ShapeError
from refquant.gguf.importance_file import Entry, ImportanceMatrix, write_gguf
from refquant.layouts import unpack
from refquant.models import Oracle
from refquant.pipeline import convert_to_gguf, oneshot, open_checkpoint, recipe
from refquant.pipeline.rows import permuted, restored


def ids(count: int = 4, length: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(3, 200, length) for i in range(count)]


def folder(path, kind="llama", **options):
    return write_tiny_checkpoint(path, kind, n_embd=128, n_ff=256, dtype="BF16", **options)


def tensors(path) -> dict[str, tuple[str, np.ndarray]]:
    with gguf.open(path) as file:
        return {name: (tensor.type, np.array(tensor.data)) for name, tensor in file.tensors.items()}


def test_rows_that_were_permuted_are_restored():
    x = np.arange(64 * 3).reshape(64, 3)
    np.testing.assert_array_equal(restored(permuted(x, 4), 4), x)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("file_type, bits", [("Q4_0", 4), ("Q8_0", 8)])
def test_the_codes_of_gptq_are_those_of_the_file(tmp_path, kind, file_type, bits):
    source = folder(tmp_path / "m", kind)
    made = oneshot(source, recipe.read(file_type, method="gptq"), ids(), tmp_path / "m.gguf")
    assert made.layers >= 14 and [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    said = {"scheme": f"int{bits}-g32", "method": "gptq", "layout": "gptq_v2", "ignore": ["lm_head"]}
    oneshot(source, said, ids(), tmp_path / "q")
    ref = open_checkpoint(tmp_path / "q").record("model.layers.0.self_attn.q_proj.weight")
    type_name, data = tensors(tmp_path / "m.gguf")["blk.0.attn_q.weight"]
    got = unpack({"weight": data}, f"gguf-{type_name}")
    assert type_name == file_type
    order = permuted(np.arange(128), 4) if kind == "llama" else np.arange(128)
    np.testing.assert_array_equal(got.codes, ref.codes[order])
    np.testing.assert_array_equal(got.dequantize(), ref.dequantize()[order])


def test_gptq_is_nearer_to_the_model_than_rounding(tmp_path):
    source = folder(tmp_path / "m")
    oneshot(source, "Q4_0", None, tmp_path / "nearest.gguf")
    oneshot(source, recipe.read("Q4_0", method="gptq"), ids(), tmp_path / "gptq.gguf")
    convert_to_gguf(source, tmp_path / "f.gguf", "F32")
    logits = {}
    for name in ("f", "nearest", "gptq"):
        with gguf.open(tmp_path / f"{name}.gguf") as file:
            oracle = Oracle(file)
            logits[name] = np.concatenate([oracle.logits(one) for one in ids()])
    error = {name: np.square(logits[name] - logits["f"]).mean() for name in ("nearest", "gptq")}
    assert error["gptq"] < 0.9 * error["nearest"]


@pytest.mark.parametrize("method", ["awq", "smoothquant"])
def test_scaled_weights_are_encoded_and_the_model_stays_the_same(tmp_path, method):
    source = folder(tmp_path / "m", num_key_value_heads=4)
    oneshot(source, {"scheme": "F32", "method": method, "weights": "int4-g32"}, ids(), tmp_path / "s.gguf")
    convert_to_gguf(source, tmp_path / "f.gguf", "F32")
    got, ref = tensors(tmp_path / "s.gguf"), tensors(tmp_path / "f.gguf")
    changed = {name for name in ref if not np.array_equal(got[name][1], ref[name][1])}
    assert {"blk.0.attn_norm.weight", "blk.0.attn_q.weight", "blk.1.ffn_up.weight"} <= changed
    assert ("blk.0.ffn_down.weight" in changed) == (method == "awq")
    assert not changed & {"token_embd.weight", "output.weight"}


def test_methods_without_a_grid_in_the_type_are_refused(tmp_path):
    source = folder(tmp_path / "m")
    with pytest.raises(
        SchemeError, match="gptq to Q4_K_M: Q4_K is no grid that is known column by column, expected Q4_0"
    ):
        oneshot(source, recipe.read("Q4_K_M", method="gptq"), ids(), tmp_path / "m.gguf")
    with pytest.raises(SchemeError, match="awq to IQ1_S"):
        recipe.read({"scheme": "IQ1_S", "method": "awq"})


class Stopped(RuntimeError):
    """What a test raises in place of a kill."""


@pytest.mark.parametrize("method", [None, "smoothquant"])
def test_a_file_that_was_begun_is_gone_on_with_and_gives_the_same_bytes(tmp_path, method):
    source, said = folder(tmp_path / "m"), recipe.read("Q4_0", method=method)
    data = ids() if method else None
    oneshot(source, said, data, tmp_path / "whole.gguf", gguf={"name": "m"})
    encoded = []

    def stop(what, done, total):
        if what == "convert":
            encoded.append(done)
        if len(encoded) == 6:
            raise Stopped

    with pytest.raises(Stopped):
        oneshot(source, said, data, tmp_path / "m.gguf", progress=stop, gguf={"name": "m"})
    assert not (tmp_path / "m.gguf").exists()
    left = tmp_path / ".m.gguf.partial"
    finished = (left / "finished.txt").read_text().split()
    assert len(finished) == 5
    with (left / "finished.txt").open("a") as file:
        file.write("blk.1.ffn_up")  # half a line: not finished
    again = []
    made = oneshot(
        source, said, data, tmp_path / "m.gguf", progress=lambda what, *n: again.append((what, *n)), gguf={"name": "m"}
    )
    assert made.resumed == 5 + (3 if method else 0) and not left.exists()
    assert len([step for step in again if step[0] == "convert"]) == len(tensors(tmp_path / "m.gguf")) - 5
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "m.gguf").read_bytes()


def test_the_command_takes_an_importance_matrix_from_its_file(tmp_path, capsys):
    source, rng = folder(tmp_path / "m"), np.random.default_rng(0)
    oneshot(source, "F16", None, tmp_path / "f.gguf")
    sizes = {n: w.shape[1] for n, (_, w) in tensors(tmp_path / "f.gguf").items() if w.ndim == 2}
    entries = {n: Entry(rng.random((1, size), np.float32), np.ones(1, np.int64)) for n, size in sizes.items()}
    matrix = ImportanceMatrix(entries, ("text",), 1, 512)
    write_gguf(tmp_path / "i.gguf", matrix)
    said = ["quantize", str(source), "--recipe", "Q4_0", "--imatrix", str(tmp_path / "i.gguf"), "--out"]
    assert main([*said, str(tmp_path / "a.gguf")]) == 0
    oneshot(source, "Q4_0", None, tmp_path / "b.gguf", gguf={"importance": matrix.weights()})
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    capsys.readouterr()
    said[3] = "W4A16"
    assert main([*said, str(tmp_path / "q")]) == 1
    assert "--imatrix with layout compressed-tensors, expected a recipe of GGUF" in capsys.readouterr().err
    other = {"blk.0.ffn_up.weight": np.ones((2, 128), np.float32)}
    with pytest.raises(ShapeError, match=r"ffn_up\.weight: shape = \(2, 128\), expected \(128,\) or \(1, 128\)"):
        oneshot(source, "Q4_0", None, tmp_path / "c.gguf", gguf={"importance": other})


def test_choices_and_importance_reach_the_file_and_tell_jobs_apart(tmp_path):
    import re

    from refquant.gguf.file_types import Choices

    source = folder(tmp_path / "m")
    choices = Choices(tensor_types=((re.compile("ffn_down"), "Q8_0"),))
    oneshot(source, "Q4_0", None, tmp_path / "c.gguf", gguf={"choices": choices, "name": "x"})
    types = {name: kind for name, (kind, _) in tensors(tmp_path / "c.gguf").items()}
    assert (types["blk.0.ffn_down.weight"], types["blk.0.ffn_up.weight"]) == ("Q8_0", "Q4_0")
    with gguf.open(tmp_path / "c.gguf") as file:
        assert file.metadata["general.name"] == "x"
    rng = np.random.default_rng(0)
    importance = {"blk.0.ffn_up.weight": rng.random(128, np.float32)}
    oneshot(source, "Q4_0", None, tmp_path / "i.gguf", gguf={"importance": importance, "name": "x"})
    plain, weighed = tensors(tmp_path / "c.gguf"), tensors(tmp_path / "i.gguf")
    assert not np.array_equal(plain["blk.0.ffn_up.weight"][1], weighed["blk.0.ffn_up.weight"][1])
    np.testing.assert_array_equal(plain["blk.1.ffn_up.weight"][1], weighed["blk.1.ffn_up.weight"][1])
