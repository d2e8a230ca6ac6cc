"""The classic table, sums done by hand, and the size of files that were written."""

import json

import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf, memory
from refquant.__main__ import main
from refquant.errors import RangeError, SchemeError
from refquant.layouts import safetensors_file
from refquant.pipeline import convert_to_gguf, oneshot, open_checkpoint
from refquant.pipeline.estimate import bits_per_weight, estimate, memory_size, parameters, recommend, training

GB = 10**9


@pytest.mark.parametrize(
    "count, fp16, int8, nf4", [("10B", 20, 10, 5), ("7B", 14, 7, 3.5), ("0.5B", 1, 0.5, 0.25), (1000, 2e-6, 1e-6, 5e-7)]
)
def test_the_classic_table(count, fp16, int8, nf4):
    got = [estimate(count, scheme).weights / GB for scheme in ("FP16", "INT8", "NF4")]
    assert got == pytest.approx([fp16, int8, nf4])


def test_the_scales_of_a_scheme_are_counted():
    assert estimate("8B", "nf4").weights == 8 * GB * 4.5 / 8
    assert estimate("8B", "Q6_K").weights == pytest.approx(8 * GB * 6.5625 / 8, rel=1e-3)
    assert estimate("8B", "W4A16").weights == estimate("8B", "int4-g128").weights
    assert estimate("8B", "bf16") == estimate("8B", "FP16")
    # the sizes of Llama 3 8B's files by llama.cpp, tools/quantize/README.md: 4.89 bits and 5.70
    assert bits_per_weight("Q4_K_M") == pytest.approx(4.89, abs=0.01)
    assert bits_per_weight("Q5_K_M") == pytest.approx(5.70, abs=0.01)
    assert estimate("8B", "int4-g128").weights == 8 * GB * 4.25 / 8


@pytest.mark.parametrize("stage, bytes_each", [(0, 16), (1, 4 + 12 / 8), (2, 2 + 14 / 8), (3, 16 / 8)])
def test_the_stages_of_zero_on_eight_devices(stage, bytes_each):
    assert training("1B", "full", stage=stage, devices=8) == pytest.approx(bytes_each * GB)


def test_adapters_cost_little_beside_frozen_weights():
    assert training("10B", "lora") == pytest.approx(20 * GB + 16 * 0.05 * GB)
    assert training("10B", "qlora") < training("10B", "lora") / 3
    assert training("10B", "lora", stage=3, devices=4) == pytest.approx(training("10B", "lora") / 4)


def test_a_folder_is_counted_tensor_by_tensor(tmp_path):
    checkpoint = open_checkpoint(write_tiny_checkpoint(tmp_path / "m", dtype="BF16"))
    assert parameters(checkpoint) == checkpoint.parameters
    got = estimate(checkpoint, "FP16", context=100, batch=3)
    assert got.weights == 2 * checkpoint.parameters
    assert got.cache == 2 * 2 * 2 * 16 * 2 * 100 * 3  # k and v, layers, heads, head_dim, bytes, tokens, sequences
    assert got.activations == 3 * 100 * 64 * 16
    assert estimate(checkpoint, "FP16", context=100, kv="q8_0").cache < got.cache / 5


RECIPES = ("W4A16", "W4A16_ASYM", "W8A16", "W8A8", "FP8", "NVFP4", "MXFP4", "nf4", "nf4-dq", "load_in_8bit", "gptq8")
CHANGED = {"gptq8": {"scheme": "int8-g64", "layout": "gptq"}}


@pytest.fixture(scope="module")
def half_million(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("m") / "m", n_embd=512, n_ff=1024, dtype="BF16")


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_estimate_is_within_3_percent_of_the_tensors_written(half_million, tmp_path, recipe):
    ids = [[5, 6, 7]] if recipe == "NVFP4" else None
    oneshot(half_million, CHANGED.get(recipe, recipe), ids, tmp_path / "q")
    files = [safetensors_file.read(path) for path in sorted((tmp_path / "q").glob("*.safetensors"))]
    written = sum(tensor.data.nbytes for file in files for tensor in file.tensors.values())
    got = estimate(half_million, "int8-g64-f16" if recipe == "gptq8" else recipe).weights
    assert got == pytest.approx(written, rel=0.03)
    assert estimate(tmp_path / "q").weights == pytest.approx(written, rel=1e-3)  # from its header


@pytest.mark.parametrize("file_type", ["Q8_0", "Q4_K_M", "Q2_K", "BF16"])
def test_the_estimate_of_a_gguf_file_is_that_of_its_tensors(half_million, tmp_path, file_type):
    convert_to_gguf(half_million, tmp_path / "m.gguf", file_type, with_vocabulary=False)
    got = estimate(half_million, file_type).weights
    with gguf.open(tmp_path / "m.gguf") as file:
        assert got == sum(tensor.nbytes for tensor in file.tensors.values())
    assert got == estimate(tmp_path / "m.gguf").weights
    assert got == pytest.approx((tmp_path / "m.gguf").stat().st_size, rel=0.03)


def test_memory_estimate_is_the_same_function(half_million):
    options = {"context": 128, "kv": "q8_0", "batch": 2}
    assert memory.estimate(half_million, "nf4", **options) == estimate(half_million, "nf4", **options)
    assert memory.estimate("10B", "FP16").total == 20 * GB


@pytest.mark.parametrize("memory, found", [(24, "FP16"), (12, "int8-channel"), (7, "Q4_K_M"), (6, "nf4-dq"), (1, None)])
def test_the_widest_format_that_fits_is_recommended(memory, found):
    assert recommend("10B", memory * GB) == found


@pytest.mark.parametrize("said", ["", "B", "-1B", "1e9B", "ten", 0, "9999999T"])
def test_counts_that_are_none_are_refused(said):
    with pytest.raises(RangeError, match="expected a number such as 10B"):
        parameters(said)


def test_other_arguments_are_checked():
    for wrong in ({"context": -1}, {"batch": 0}, {"kv": "q4"}):
        with pytest.raises(RangeError, match="context, batch, kv"):
            estimate("1B", "FP16", **wrong)
    with pytest.raises(SchemeError, match="or one of FP32"):
        estimate("1B", "int9")
    with pytest.raises(RangeError, match="stage"):
        training("1B", "full", stage=4)


@pytest.mark.parametrize("said, count", [("8GB", 8 * GB), ("8", 8 * GB), ("24 GiB", 24 << 30), ("500M", GB // 2)])
def test_sizes_of_memory(said, count):
    assert memory_size(said) == count


@pytest.mark.parametrize("said", ["", "GB", "-1GB", "8XB", "0", "9999999T"])
def test_sizes_of_memory_that_are_none_are_refused(said):
    with pytest.raises(RangeError, match="expected a size such as 8GB"):
        memory_size(said)


def test_the_command_prints_the_tables(capsys, half_million, tmp_path):
    assert main(["estimate", "10B", "--fits", "12GB"]) == 0
    out = capsys.readouterr().out
    assert "20.00" in out and "ZeRO stage 3" in out and "12GB: int8-channel" in out
    assert main(["estimate", "10B", "--context", "64"]) == 0
    assert "the cache of a bare count is not known" in capsys.readouterr().out
    assert main(["estimate", "no/folder"]) == 1
    assert "'no/folder', expected a number such as 10B, 7.6B or 500M, or a folder" in capsys.readouterr().err
    assert main(["estimate", str(half_million), "--context", "64", "--json", "--fits", "1MB"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["run"]["as it is"]["weights"] == facts["run"]["FP16"]["weights"] and facts["fits"] is None
    convert_to_gguf(half_million, tmp_path / "m.gguf", "Q8_0")
    assert main(["estimate", str(tmp_path / "m.gguf"), "--context", "64", "--kv", "q8_0", "--rank", "64"]) == 0
    out = capsys.readouterr().out
    assert "in the runtime: " in out and "(64 tokens, q8_0)" in out
