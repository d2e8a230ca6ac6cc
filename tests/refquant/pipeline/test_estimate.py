"""The classic table, sums done by hand, and the size of files that were written."""

import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant.__main__ import main
from refquant.errors import RangeError, SchemeError
from refquant.pipeline import oneshot, open_checkpoint
from refquant.pipeline.estimate import estimate, parameters, recommend, training

GB = 10**9


@pytest.mark.parametrize(
    "count, fp16, int8, nf4", [("10B", 20, 10, 5), ("7B", 14, 7, 3.5), ("0.5B", 1, 0.5, 0.25), (1000, 2e-6, 1e-6, 5e-7)]
)
def test_the_classic_table(count, fp16, int8, nf4):
    got = [estimate(count, scheme).weights / GB for scheme in ("FP16", "INT8", "NF4")]
    assert got == pytest.approx([fp16, int8, nf4])


def test_the_scales_of_a_scheme_are_counted():
    assert estimate("8B", "nf4").weights == 8 * GB * 4.5 / 8
    assert estimate("8B", "Q4_K").weights == 8 * GB * 4.5 / 8
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


@pytest.mark.parametrize("recipe, scheme", [("W4A16", "int4-g128-bf16"), ("nf4", "nf4"), ("W8A16", "int8-channel")])
def test_the_estimate_is_within_3_percent_of_the_files(tmp_path, recipe, scheme):
    source = write_tiny_checkpoint(tmp_path / "m", n_embd=512, n_ff=1024, dtype="BF16")
    made = oneshot(source, recipe, None, tmp_path / "q")
    padding = 3 * 1024 * 12  # headers of three files and the tokenizer, which no estimate of weights has
    got = estimate(open_checkpoint(source), scheme).weights
    assert abs(got / made.nbytes - 1) < 0.03 + padding / made.nbytes


@pytest.mark.parametrize("memory, found", [(24, "FP16"), (12, "int8-channel"), (7, "Q4_K"), (6, "nf4-dq"), (1, None)])
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


def test_the_command_prints_the_tables(capsys):
    assert main(["estimate", "10B", "--memory", "12"]) == 0
    out = capsys.readouterr().out
    assert "20.00" in out and "ZeRO stage 3" in out and "12 GB: int8-channel" in out
    assert main(["estimate", "ten"]) == 1
