"""Quantizing whole files: llama.cpp's bytes, split models, what is refused, and that nothing is left behind."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from llama_quantize import BYTES_OF, IMATRIX, types_digest, write_model
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.errors import NonFiniteError, RangeError, UnsupportedError
from refquant.gguf import importance_file
from refquant.gguf.file_types import Choices, lookup
from refquant.gguf.importance_file import Entry, ImportanceMatrix
from runtime import quantization, quantize
from runtime.quantization import run
from runtime.quantization_plan import Importance, make_plan

ROOT = Path(__file__).parents[2]
RECORDED = json.loads((ROOT / "tests" / "refquant" / "gguf" / "llama_quantize.json").read_text())["models"]


def importance(weights):
    return None if weights is None else Importance(weights, IMATRIX["file"], IMATRIX["dataset"], IMATRIX["chunks"])


@pytest.mark.parametrize("name", BYTES_OF)
def test_files_are_those_of_llama_cpp_byte_for_byte(tmp_path, name):
    imatrix = write_model(tmp_path / "in.gguf", name)
    found = {}
    with gguf.open(tmp_path / "in.gguf") as source:
        for file_type in RECORDED[name]:
            try:
                plan = make_plan(source, lookup(file_type), importance=importance(imatrix))
            except UnsupportedError:
                found[file_type] = None
                continue
            run(plan, tmp_path / "out.gguf", threads=2)
            types = {conversion.name: conversion.type for conversion in plan.conversions}
            digest = hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest()
            found[file_type] = {"types": types_digest(types), "file": digest}
    assert found == RECORDED[name]


def test_a_published_model_quantizes_to_the_published_file(shared, tmp_path):
    """BF16 from safetensors, then Q4_K_M: the file that llama.cpp made of the same weights."""
    ref = shared("models/tiny-qwen2-Q4_K_M.gguf")
    tensors = safetensors(shared("models/tiny-qwen2"))
    with gguf.open(ref) as file:
        arrays = {name: source_of(name, tensor, tensors) for name, tensor in file.tensors.items()}
        gguf.write(tmp_path / "in.gguf", file.metadata, arrays, file.types)
    assert quantize.main([str(tmp_path / "in.gguf"), str(tmp_path / "out.gguf"), "Q4_K_M", "-q"]) == 0
    with gguf.open(ref) as want, gguf.open(tmp_path / "out.gguf") as got:
        assert {name: t.type for name, t in got.tensors.items()} == {name: t.type for name, t in want.tensors.items()}
        for name, tensor in want.tensors.items():
            np.testing.assert_array_equal(got.tensors[name].data, tensor.data, err_msg=name)


NAMES = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip


def safetensors(folder):
    found = {}
    for path in folder.glob("*.safetensors"):
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for name, entry in json.loads(data[8 : 8 + length]).items():
            if name != "__metadata__":
                first, last = (8 + length + offset for offset in entry["data_offsets"])
                assert entry["dtype"] == "BF16"
                found[name] = np.frombuffer(data[first:last], "<u2").reshape(entry["shape"])
    return found


def source_of(name, tensor, tensors):
    """Norms and biases as F32, as converters write them."""
    parts = name.split(".")
    if parts[0] == "blk":
        spelled = f"model.layers.{parts[1]}.{NAMES[parts[2]]}.{parts[3]}"
    else:
        spelled = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}[parts[0]]
        spelled = f"{spelled}.{parts[1]}"
    bits = tensors[spelled]
    return (gguf.dequantize(bits, "BF16"), "F32") if len(tensor.shape) == 1 else (bits, "BF16")


def plan_of(path, file_type, choices=None, **options):
    with gguf.open(path) as source:
        return make_plan(source, lookup(file_type), choices, **options)


def test_f16_and_bf16_and_quantized_sources_are_decoded(tmp_path):
    for type in ("F16", "BF16", "Q8_0", "F32"):
        source = write_tiny_model(tmp_path / f"{type}.gguf", types=type, n_embd=256, n_ff=256)
        with gguf.open(source) as file:
            plan = make_plan(file, lookup("Q4_0"), allow_requantize=True)
            run(plan, tmp_path / "out.gguf")
            tensor = file.tensors["blk.0.attn_q.weight"]
            ref = gguf.quantize(gguf.dequantize(tensor.data, type), "Q4_0")
            with gguf.open(tmp_path / "out.gguf") as got:
                np.testing.assert_array_equal(got.tensors["blk.0.attn_q.weight"].data, ref)


def test_slabs_and_threads_change_no_byte(tmp_path, monkeypatch):
    source = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=512, experts=3, arch="qwen3moe")
    digests = set()
    for slab, threads in ((1 << 18, 1), (1, 1), (1000, 3)):
        monkeypatch.setattr(quantization, "SLAB", slab)
        monkeypatch.setattr(quantization, "COPY", slab)
        with gguf.open(source) as file:
            run(make_plan(file, lookup("Q4_K_M")), tmp_path / "out.gguf", threads)
        digests.add(hashlib.sha256((tmp_path / "out.gguf").read_bytes()).hexdigest())
    assert len(digests) == 1


def split(source, folder, cuts):
    """The model in as many files."""
    with gguf.open(source) as file:
        names = list(file.tensors)
        count = len(cuts) + 1
        for no, (first, last) in enumerate(zip((0, *cuts), (*cuts, None))):
            metadata = file.metadata if no == 0 else {}
            metadata = metadata | {"split.no": no, "split.count": count, "split.tensors.count": len(names)}
            types = file.types | {"split.no": "u16", "split.count": "u16", "split.tensors.count": "i32"}
            tensors = {name: file.tensors[name] for name in names[first:last]}
            gguf.write(folder / f"in-{no + 1:05d}-of-{count:05d}.gguf", metadata, tensors, types)
    return folder / f"in-00001-of-{count:05d}.gguf"


def test_a_split_model_becomes_one_file_or_stays_split(tmp_path):
    whole = write_tiny_model(tmp_path / "whole.gguf", n_embd=256, n_ff=256)
    first = split(whole, tmp_path, (5, 11))
    assert quantize.main([str(whole), str(tmp_path / "a.gguf"), "Q4_K_M", "-q"]) == 0
    assert quantize.main([str(first), str(tmp_path / "b.gguf"), "Q4_K_M", "-q"]) == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert quantize.main([str(first), str(tmp_path / "c.gguf"), "Q4_K_M", "-q", "--keep-split"]) == 0
    with gguf.open(tmp_path / "c-00001-of-00003.gguf") as got, gguf.open(tmp_path / "a.gguf") as ref:
        assert got.metadata["split.count"] == 3
        assert {t.path.name for t in got.tensors.values()} == {f"c-0000{i}-of-00003.gguf" for i in (1, 2, 3)}
        for name, tensor in ref.tensors.items():
            np.testing.assert_array_equal(got.tensors[name].data, tensor.data)


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path, capsys):
    source = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=256)
    assert quantize.main(["--dry-run", str(source), "IQ2_M"]) == 0
    out = capsys.readouterr().out
    assert "blk.0.attn_q.weight" in out and "IQ2_S" in out and "bits a weight" in out
    assert quantize.main(["--dry-run", str(source), str(tmp_path / "x.gguf"), "Q8_0", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert quantize.main([str(source), str(tmp_path / "x.gguf"), "Q8_0", "-q"]) == 0
    with gguf.open(tmp_path / "x.gguf") as file:
        assert plan["bytes"] == sum(t.nbytes for t in file.tensors.values())
        assert [t["name"] for t in plan["tensors"]] == list(file.tensors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gguf", "x.gguf"]


def test_options_reach_the_tensors(tmp_path, capsys):
    source = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=256)
    options = ["--tensor-type", "FFN_(up|gate)=q8_0", "--output-tensor-type", "F16", "--token-embedding-type", "q5_1"]
    assert quantize.main(["--dry-run", "--json", str(source), "Q4_K_S", *options]) == 0
    types = {t["name"]: t["to"] for t in json.loads(capsys.readouterr().out)["tensors"]}
    assert types["output.weight"] == "F16" and types["token_embd.weight"] == "Q5_1"
    assert types["blk.1.ffn_up.weight"] == types["blk.1.ffn_gate.weight"] == "Q8_0"
    assert types["blk.1.attn_q.weight"] == "Q4_K"


def test_an_importance_file_is_used_and_noted(tmp_path):
    source = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=256)
    values = np.random.default_rng(0).exponential(size=(1, 256)).astype(np.float32)
    entries = {name: Entry(values, np.array([1])) for name in ("blk.0.attn_q.weight", "blk.1.attn_q.weight")}
    importance_file.write_gguf(tmp_path / "i.gguf", ImportanceMatrix(entries, ("t.txt",), 3, 512))
    matrix, out = str(tmp_path / "i.gguf"), str(tmp_path / "out.gguf")
    command = [str(source), out, "Q4_0", "--imatrix", matrix, "--exclude-weights", "blk.1", "-q"]
    assert quantize.main(command) == 0
    with gguf.open(out) as got, gguf.open(source) as file:
        noted = {key: value for key, value in got.metadata.items() if key.startswith("quantize.")}
        assert noted == {
            "quantize.imatrix.file": matrix[:127], "quantize.imatrix.dataset": "t.txt",
            "quantize.imatrix.entries_count": 1, "quantize.imatrix.chunks_count": 3,
        }  # fmt: skip
        for layer, v in ((0, values[0]), (1, None)):
            name = f"blk.{layer}.attn_q.weight"
            np.testing.assert_array_equal(got.tensors[name].data, gguf.quantize(file.tensors[name].data, "Q4_0", v))


def test_copying_changes_nothing_but_the_order(tmp_path):
    source = write_tiny_model(tmp_path / "in.gguf", types="Q4_0")
    assert quantize.main([str(source), str(tmp_path / "out.gguf"), "COPY", "-q"]) == 0
    with gguf.open(source) as ref, gguf.open(tmp_path / "out.gguf") as got:
        assert got.tensors.keys() == ref.tensors.keys()
        for name, tensor in ref.tensors.items():
            np.testing.assert_array_equal(got.tensors[name].data, tensor.data)


def test_a_quantized_source_needs_permission(tmp_path):
    path = write_tiny_model(tmp_path / "in.gguf", types="Q8_0", n_embd=256, n_ff=256)
    with pytest.raises(UnsupportedError, match=r"type = Q8_0, expected F32, F16 or BF16; --allow-requantize"):
        plan_of(path, "Q4_K_M")
    assert plan_of(path, "Q4_K_M", allow_requantize=True).nbytes > 0
    assert all(c.is_copy or c.name == "output.weight" for c in plan_of(path, "Q8_0").conversions)


def test_few_bits_need_importance(tmp_path):
    path = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=256)
    with pytest.raises(UnsupportedError, match=r"blk.0.attn_k.weight as IQ2_XXS: importance = none"):
        plan_of(path, "IQ2_XXS")
    assert plan_of(path, "IQ2_XXS", dry_run=True).nbytes > 0
    wrong = Importance({"blk.0.attn_k.weight": np.ones((1, 7), np.float32)}, "i", None, 0)
    with pytest.raises(RangeError, match=r"values for blk.0.attn_k.weight = 7, expected 256"):
        plan_of(path, "Q4_0", importance=wrong)


@pytest.mark.parametrize("value, type", [(np.nan, "Q4_0"), (np.inf, "Q4_K_M"), (1e30, "Q8_0"), (1e30, "F16")])
def test_weights_that_no_scale_can_hold_are_refused_and_leave_nothing(tmp_path, value, type, capsys):
    x = np.ones((4, 256), np.float32)
    x[2, 3] = value
    metadata = {"general.architecture": "llama", "llama.block_count": 1}
    gguf.write(tmp_path / "in.gguf", metadata, {"output.weight": (x, "F32"), "blk.0.ffn_up.weight": (x, "F32")})
    with gguf.open(tmp_path / "in.gguf") as file, pytest.raises(NonFiniteError, match=r"ffn_up.weight|output.weight"):
        run(make_plan(file, lookup(type)), tmp_path / "out.gguf", threads=2)
    assert quantize.main([str(tmp_path / "in.gguf"), str(tmp_path / "out.gguf"), type]) == 2
    assert "finite" in capsys.readouterr().err or value == 1e30
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


@pytest.mark.parametrize("command, message", [
    (["in.gguf", "out.gguf", "Q9"], "file type = 'Q9', expected one such as"),
    (["none.gguf", "out.gguf", "Q4_0"], "cannot be opened"),
    (["in.gguf", "in.gguf", "Q4_0"], "is the input, expected another file"),
    (["in.gguf", "out.gguf", "Q4_0", "--tensor-type", "ffn"], "expected REGEX=TYPE"),
    (["in.gguf", "out.gguf", "Q4_0", "--tensor-type", "(=Q4_0"], "missing"),
    (["in.gguf", "out.gguf", "Q4_0", "--output-tensor-type", "Q7"], "type = 'Q7', expected a tensor type"),
    (["in.gguf", "out.gguf", "Q4_0", "--imatrix", "none.dat"], "none.dat: cannot be opened"),
    (["in.gguf", "no/such/out.gguf", "Q4_0"], "No such file or directory"),
])  # fmt: skip
def test_commands_that_cannot_be_carried_out_say_why(tmp_path, monkeypatch, capsys, command, message):
    write_tiny_model(tmp_path / "in.gguf")
    monkeypatch.chdir(tmp_path)
    assert quantize.main(command) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing(tmp_path, number):
    x = np.random.default_rng(0).standard_normal((4096, 8192), dtype=np.float32)
    metadata = {"general.architecture": "llama", "llama.block_count": 1}
    gguf.write(tmp_path / "in.gguf", metadata, {"blk.0.ffn_up.weight": (x, "F32")})
    gguf.write(tmp_path / "small.gguf", metadata, {"blk.0.ffn_up.weight": (x[:32], "F32")})
    command = [sys.executable, "-m", "runtime.quantize", "in.gguf", "out.gguf", "IQ3_S", "--threads", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert quantize.main([str(tmp_path / "small.gguf"), str(tmp_path / "small.out"), "IQ3_S", "-q"]) == 0
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".*.tmp")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.02)
    assert list(tmp_path.glob(".*.tmp"))
    process.send_signal(number)
    assert process.wait(60) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gguf", "small.gguf", "small.out"]


def test_choices_are_those_of_the_plan(tmp_path):
    path = write_tiny_model(tmp_path / "in.gguf", n_embd=256, n_ff=256)
    plan = plan_of(path, "Q4_K_M", Choices(pure=True))
    assert {c.type for c in plan.conversions if len(c.shape) > 1} == {"Q4_K"}
    assert plan.metadata["general.file_type"] == 15
    assert list(plan.metadata)[-2:] == ["general.quantization_version", "general.file_type"]
