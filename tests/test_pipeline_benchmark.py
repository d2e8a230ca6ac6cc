"""The folders and the measurements of benchmarks.pipeline."""

from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from benchmarks.pipeline import jobs, measured, write_text
from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.shapes import SHAPES
from refquant.pipeline import open_checkpoint


@pytest.mark.parametrize("name", ["qwen2.5-0.5b", "llama-3.2-1b"])
def test_random_folders_open_with_the_sizes_of_their_shape(tmp_path, name):
    sizes = {"n_layer": 1, "n_embd": 64, "n_ff": 96, "n_head": 4, "n_head_kv": 2, "n_vocab": 600, "bpe_tokens": 300}
    shape = replace(SHAPES[name], **sizes)
    got = open_checkpoint(random_checkpoint(shape, tmp_path / "m"))
    assert (got.model.n_layer, got.model.n_embd, got.model.n_vocab) == (1, 64, 600)
    assert got.model.tied_output == shape.tied and got.dtype("model.norm.weight") == "bfloat16"
    W = got.weight("model.layers.0.mlp.up_proj.weight")
    assert 0.1 < W.std() < 0.15  # 1 / sqrt(64)
    made = (tmp_path / "m" / "model-00001-of-00001.safetensors").stat().st_mtime_ns
    random_checkpoint(shape, tmp_path / "m")
    assert (tmp_path / "m" / "model-00001-of-00001.safetensors").stat().st_mtime_ns == made
    text = write_text(tmp_path / "t.txt", 50).read_text()
    assert len(text.split()) == 50
    tokenizer = Tokenizer.from_file(str(tmp_path / "m" / "tokenizer.json"))
    assert max(tokenizer.encode(text).ids) < 600


def test_a_job_is_measured_in_a_process_of_its_own():
    seconds, used, nbytes = measured(["-c", "x = bytearray(200_000_000)"])
    assert seconds > 0 and used > 0 and 200e6 < nbytes < 400e6
    commands = jobs(Path("m"), Path("t.txt"), Path("out"), 4, 16)
    assert [command[1] for command in commands.values()] == ["refquant", "runtime.quantize"]
