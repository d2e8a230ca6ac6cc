"""`python -m runtime.quantize FOLDER OUT.gguf TYPE`: the compiled encoders behind the pipeline."""

import json
import pickle

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf
from refquant.pipeline import convert_to_gguf, oneshot
from runtime import quantize_folder
from runtime.quantize import main


def folder(path, kind="llama", **options):
    return write_tiny_checkpoint(path, kind, n_embd=256, n_ff=256, dtype="BF16", **options)


def test_the_file_is_the_one_of_our_encoders_and_of_the_way_over_a_gguf_file(tmp_path, capsys):
    source = folder(tmp_path / "m")
    assert main([str(source), str(tmp_path / "fast.gguf"), "Q4_K_M", "--threads", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["bytes"] == (tmp_path / "fast.gguf").stat().st_size and " MB in " in err
    convert_to_gguf(source, tmp_path / "slow.gguf", "Q4_K_M")
    assert (tmp_path / "fast.gguf").read_bytes() == (tmp_path / "slow.gguf").read_bytes()
    convert_to_gguf(source, tmp_path / "f32.gguf", "F32")
    assert main([str(tmp_path / "f32.gguf"), str(tmp_path / "two.gguf"), "Q4_K_M", "-q"]) == 0
    with gguf.open(tmp_path / "fast.gguf") as a, gguf.open(tmp_path / "two.gguf") as b:
        assert list(a.tensors) == list(b.tensors)
        for name, tensor in a.tensors.items():
            assert tensor.type == b.tensors[name].type
            np.testing.assert_array_equal(tensor.data, b.tensors[name].data, err_msg=name)


def test_the_table_can_be_pickled_and_is_that_of_oneshot(tmp_path):
    table = pickle.loads(pickle.dumps(quantize_folder.encoders(["Q8_0", "F16", "Q4_0"], weighted=True)))
    assert set(table) == {"Q8_0", "Q4_0"}
    x = np.random.default_rng(0).standard_normal((3, 256), np.float32)
    for name in table:
        weight = np.random.default_rng(1).random(256, np.float32)
        np.testing.assert_array_equal(table[name](x, imatrix=weight), gguf.quantize(x, name, weight))
    source = folder(tmp_path / "m")
    oneshot(source, "Q8_0", None, tmp_path / "a.gguf", encoders=table, executor="serial")
    oneshot(source, "Q8_0", None, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_methods_choices_and_dry_runs_reach_the_pipeline(tmp_path, capsys):
    source = folder(tmp_path / "m", "qwen2")
    (tmp_path / "t.txt").write_text("the command and that file with this output " * 40)
    calibrated = ["--method", "gptq", "--calibration", str(tmp_path / "t.txt"), "--samples", "4", "--seq-len", "32"]
    assert main([str(source), str(tmp_path / "g.gguf"), "Q4_0", "-q", *calibrated]) == 0
    said = ["--tensor-type", "ffn_down=Q8_0", "--pure"]
    assert main([str(source), str(tmp_path / "n.gguf"), "Q4_0", "-q", *said]) == 0
    with gguf.open(tmp_path / "g.gguf") as a, gguf.open(tmp_path / "n.gguf") as b:
        assert b.tensors["blk.0.ffn_down.weight"].type == "Q8_0"
        assert not np.array_equal(a.tensors["blk.0.attn_q.weight"].data, b.tensors["blk.0.attn_q.weight"].data)
    capsys.readouterr()
    assert main(["--dry-run", str(source), "Q4_K_M"]) == 0
    assert "blk.0.attn_q.weight  Q4_K" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["m", "out.gguf", "Q4_K_M", "--method", "gptq"], "Q4_K is no grid"),
        (["m", "out.gguf", "Q4_K_M", "--method", "awq"], "calibration = None"),
        (["m", "out.gguf", "IQ2_XXS"], "importance = none"),
        (["m", "there.gguf", "Q8_0"], "exists already"),
        (["nothing", "out.gguf", "Q8_0"], "nothing"),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "m")
    (tmp_path / "there.gguf").write_bytes(b"")
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err and err.splitlines()[-1].startswith("refquant-quantize: ") and "Traceback" not in err
    assert not (tmp_path / "out.gguf").exists()


def test_calibration_is_for_folders_alone(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path / "m.gguf"), "out.gguf", "Q4_0", "--method", "awq"])
    assert "expected a Hugging Face folder" in capsys.readouterr().err
