"""Whole checkpoints: converted layer by layer, everything else copied, or nothing written at all. And the commands."""

import json

import numpy as np
import pytest

import refquant
from refquant.__main__ import main
from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import pack, safetensors_file, transcode_file, unpack
from refquant.layouts.linear import Linear, middle


def save(path, tensors, dtypes=None):
    entries = [(n, (dtypes or {}).get(n, safetensors_file.NAMES[a.dtype.name]), a) for n, a in tensors.items()]
    safetensors_file.write(path, entries, {"format": "pt"})
    return path


@pytest.fixture
def checkpoint(linear, tmp_path):
    """Two GPTQ layers with a bias, a norm and an embedding in bfloat16."""
    tensors = {"model.embed.weight": np.arange(8, dtype=np.uint16).reshape(2, 4)}
    for layer, zero in (("model.0.q_proj", "middle"), ("model.0.k_proj", "middle")):
        arrays = pack(linear(4, zero=zero), "gptq")
        tensors |= {f"{layer}.{name}": array for name, array in arrays.items()}
        tensors[f"{layer}.bias"] = np.ones(64, np.float16)
    tensors["model.norm.weight"] = np.ones(4, np.float32)
    return save(tmp_path / "in.safetensors", tensors), tensors


@pytest.mark.parametrize("target", ["awq-gemm", "pack-quantized", "mlx", "gptq_v2", "torchao-int4", "modelopt-int4"])
def test_layers_are_converted_and_the_rest_is_copied(checkpoint, linear, tmp_path, target):
    path, tensors = checkpoint
    done = transcode_file(path, tmp_path / "out.safetensors", target)
    assert (done.source, done.target, done.layers, done.copied) == ("gptq", target, 2, 4)
    out = safetensors_file.read(tmp_path / "out.safetensors")
    assert out.metadata == {"format": "pt"}
    for name in ("model.embed.weight", "model.0.q_proj.bias", "model.norm.weight"):
        assert out.tensors[name].dtype == safetensors_file.read(path).tensors[name].dtype
        np.testing.assert_array_equal(out.tensors[name].data, tensors[name])
    ref = linear(4, zero="middle")
    prefix = "model.0.k_proj."
    arrays = {n[len(prefix) :]: t.data for n, t in out.tensors.items() if n.startswith(prefix)}
    options = {"bits": 4, "group_size": 64} if target == "mlx" else {}
    np.testing.assert_array_equal(unpack(arrays, target, **options).dequantize(), ref.dequantize())


def test_there_and_back_is_the_same_file_but_for_order(checkpoint, tmp_path):
    path, tensors = checkpoint
    transcode_file(path, tmp_path / "a.safetensors", "awq-gemm")
    transcode_file(tmp_path / "a.safetensors", tmp_path / "b.safetensors", "gptq")
    back = safetensors_file.read(tmp_path / "b.safetensors").tensors
    assert sorted(back) == sorted(tensors)
    for name in tensors:
        np.testing.assert_array_equal(back[name].data, tensors[name])


def test_a_layer_that_cannot_be_the_same_stops_everything(checkpoint, linear, tmp_path):
    _, tensors = checkpoint
    odd = pack(linear(4, g_idx=True), "gptq")
    tensors |= {f"model.1.v_proj.{name}": array for name, array in odd.items()}
    path = save(tmp_path / "mixed.safetensors", tensors)
    with pytest.raises(QuantError, match=r"mixed.safetensors: layer 'model.1.v_proj': awq.pack_gemm: g_idx\[0\]"):
        transcode_file(path, tmp_path / "out.safetensors", "awq-gemm")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.safetensors", "mixed.safetensors"]


def test_eight_bit_floats_get_their_dtypes(tmp_path):
    tensors = {"a.weight": np.full((4, 32), 0x21, np.uint8), "a.weight_scale": np.full((4, 4), 0x70, np.uint8)}
    tensors["a.weight_scale_2"] = np.array(2.0**-9, np.float32)
    path = save(tmp_path / "in", tensors, {"a.weight_scale": "F8_E4M3"})
    done = transcode_file(path, tmp_path / "out", "nvfp4-pack-quantized")
    out = safetensors_file.read(tmp_path / "out").tensors
    assert (done.source, done.config) == ("modelopt-nvfp4", None)
    assert out["a.weight_scale"].dtype == "F8_E4M3"
    assert out["a.weight_global_scale"].data == 512


@pytest.mark.parametrize("layout, wanted", [("mlx", "say bits or group_size"), (None, "expected one|say bits")])
def test_what_the_arrays_do_not_tell_has_to_be_said(linear, tmp_path, layout, wanted):
    positive = linear(4, zero="offset")
    positive.offset[:] = 0.5  # no reading of it has a mean near 0
    arrays = pack(positive, "mlx")
    path = save(tmp_path / "in", {f"a.{n}": a for n, a in arrays.items()})
    with pytest.raises(QuantError, match=wanted):
        transcode_file(path, tmp_path / "out", "quanto", layout=layout)
    done = transcode_file(path, tmp_path / "out", "quanto", layout="mlx", bits=4, source_group_size=64)
    assert done.layers == 1


def test_bits_of_mlx_are_told_by_the_numbers_of_every_layer(tmp_path):
    tensors = {}
    for layer, bits in (("a", 4), ("b", 8)):
        x = np.random.default_rng(bits).normal(0, 0.02, (64, 256)).astype(np.float32)
        q = refquant.quantize(x, f"uint{bits}-g64-sym-f16")
        record = Linear(np.array(q.codes), np.array(q.scale), middle(bits, q.scale.shape), bits, 64)
        tensors |= {f"{layer}.{name}": array for name, array in pack(record, "mlx").items()}
    done = transcode_file(save(tmp_path / "in", tensors), tmp_path / "out", "pack-quantized")
    assert (done.source, done.layers) == ("mlx", 2)
    out = safetensors_file.read(tmp_path / "out").tensors
    assert out["b.weight_packed"].data.shape == (64, 64)


def test_requests_that_make_no_sense_are_refused(checkpoint, tmp_path):
    path, _ = checkpoint
    with pytest.raises(UnsupportedError, match="expected safetensors files on both sides"):
        transcode_file(path, tmp_path / "out", "gguf-Q4_0")
    with pytest.raises(QuantError, match="expected another file than the source"):
        transcode_file(path, path, "awq-gemm")
    plain = save(tmp_path / "plain", {"norm.weight": np.ones(3, np.float32)})
    with pytest.raises(QuantError, match="no quantized layer"):
        transcode_file(plain, tmp_path / "out", "awq-gemm")
    with pytest.raises(QuantError, match="is no regular file"):
        transcode_file(tmp_path / "none", tmp_path / "out", "awq-gemm")


@pytest.mark.parametrize(
    "target, wanted",
    [
        ("gptq_v2", {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True}),
        ("awq-gemm", {"quant_method": "awq", "version": "gemm", "zero_point": False}),
        ("mlx", {"bits": 4, "group_size": 64}),
        ("pack-quantized", {"format": "pack-quantized", "quant_method": "compressed-tensors"}),
    ],
)
def test_the_entry_for_config_json_is_given(checkpoint, tmp_path, target, wanted):
    config = transcode_file(checkpoint[0], tmp_path / "out", target).config
    assert wanted.items() <= config.items()


def test_detect_prints_evidence(checkpoint, capsys):
    path, _ = checkpoint
    assert main(["detect", str(path)]) == 0
    text = capsys.readouterr().out
    assert "gptq: 2 weights" in text
    assert "every zero field is 7" in text
    assert main(["detect", str(path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model.0.q_proj."]["layouts"] == ["gptq"]


def test_transcode_prints_what_it_did(checkpoint, tmp_path, capsys):
    path, _ = checkpoint
    out = tmp_path / "out.safetensors"
    assert main(["transcode", str(path), str(out), "--to", "awq-gemm"]) == 0
    text = capsys.readouterr().out
    assert "2 weights from gptq to awq-gemm, every value equal; 4 other tensors copied" in text
    assert '"version": "gemm"' in text
    assert main(["transcode", str(path), str(out), "--to", "deepspeed"]) == 1
    assert "1/scale is rounded" in capsys.readouterr().err
    assert main(["transcode", str(path), str(out), "--to", "nonsense"]) == 2


def test_commands_refuse_files_that_are_none(tmp_path, capsys):
    (tmp_path / "junk").write_bytes(b"\x1b[31mjunk" * 3)
    assert main(["detect", str(tmp_path / "junk")]) == 1
    assert main(["detect", str(tmp_path / "gone")]) == 1
    error = capsys.readouterr().err
    assert "length of the header" in error
    assert "is no regular file" in error
    save(tmp_path / "plain", {"norm.weight": np.ones(3, np.float32)})
    assert main(["detect", str(tmp_path / "plain")]) == 0
    assert "no quantized weight" in capsys.readouterr().out
