"""Mixtures of experts: Mixtral, Qwen2-MoE and Qwen3-MoE folders in; GGUF and compressed-tensors out.

What llama.cpp's converter (conversion/{llama,qwen}.py of llama-cpp-python 0.3.36) makes of these very folders was
compared by hand: the same names, shapes and types, and every tensor byte for byte, in F32, BF16 and Q8_0. Its names and
shapes are written down here.
"""

import json

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import gguf
from refquant.layouts import safetensors_file, unpack
from refquant.models import Oracle
from refquant.pipeline import block, convert_to_gguf, oneshot, open_checkpoint

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe")
LAYER = {  # of every kind
    "attn_norm.weight": (64,), "ffn_norm.weight": (64,), "attn_output.weight": (64, -1), "attn_q.weight": (-1, 64),
    "attn_k.weight": (-1, 64), "attn_v.weight": (-1, 64), "ffn_gate_inp.weight": (4, 64),
    "ffn_gate_exps.weight": (4, 96, 64), "ffn_up_exps.weight": (4, 96, 64), "ffn_down_exps.weight": (4, 64, 96),
}  # fmt: skip
OWN = {
    "mixtral": {},
    "qwen2_moe": {
        "attn_q.bias": (64,), "attn_k.bias": (32,), "attn_v.bias": (32,), "ffn_gate_inp_shexp.weight": (1, 64),
        "ffn_gate_shexp.weight": (64, 64), "ffn_up_shexp.weight": (64, 64), "ffn_down_shexp.weight": (64, 64),
    },
    "qwen3_moe": {"attn_q_norm.weight": (32,), "attn_k_norm.weight": (32,)},
}  # fmt: skip


def ids(count: int = 4, length: int = 40) -> list[np.ndarray]:
    return [np.random.default_rng(i).integers(3, 200, length) for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_names_shapes_and_types_are_those_of_llama_cpps_converter(tmp_path, kind):
    source = write_tiny_checkpoint(tmp_path / "m", kind, "BF16")
    convert_to_gguf(source, tmp_path / "m.gguf", "BF16")
    with gguf.open(tmp_path / "m.gguf") as file:
        got = {name: (tensor.shape, tensor.type) for name, tensor in file.tensors.items()}
    names = {f"blk.{i}.{name}" for i in range(2) for name in LAYER | OWN[kind]}
    assert set(got) == names | {"token_embd.weight", "output.weight", "output_norm.weight"}
    for name, shape in (LAYER | OWN[kind]).items():
        found, type_name = got[f"blk.1.{name}"]
        assert len(found) == len(shape) and all(a == b or b == -1 for a, b in zip(found, shape)), name
        kept = "norm" in name or "bias" in name or "_inp" in name
        assert type_name == ("F32" if kept else "BF16"), name


def test_a_shared_experts_gate_is_read_with_and_without_its_axis_of_one(tmp_path):
    convert_to_gguf(write_tiny_checkpoint(tmp_path / "m", "qwen2_moe"), tmp_path / "m.gguf", "F32")
    with gguf.open(tmp_path / "m.gguf") as file:
        flat = {
            name: (np.array(t.data).reshape(-1) if "inp_shexp" in name else np.array(t.data), t.type)
            for name, t in file.tensors.items()
        }
        ref = Oracle(file).logits([1, 2, 3])
        gguf.write(tmp_path / "flat.gguf", file.metadata, flat, file.types)
    with gguf.open(tmp_path / "flat.gguf") as file:
        assert file.tensors["blk.0.ffn_gate_inp_shexp.weight"].shape == (64,)
        np.testing.assert_array_equal(Oracle(file).logits([1, 2, 3]), ref)


@pytest.mark.parametrize("kind", KINDS)
def test_every_expert_is_quantized_and_routers_are_not(tmp_path, kind):
    source = write_tiny_checkpoint(tmp_path / "m", kind, "BF16", n_embd=128, n_ff=128)
    made = oneshot(source, {"scheme": "int4-g64", "method": "gptq"}, ids(), tmp_path / "q")
    shared = 3 if kind == "qwen2_moe" else 0
    assert made.layers == 2 * (4 + 3 * 4 + shared)
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    router = "block_sparse_moe.gate" if kind == "mixtral" else "mlp.gate"
    assert {"lm_head", f"model.layers.0.{router}", f"model.layers.1.{router}"} <= set(config["ignore"])
    assert ("model.layers.0.mlp.shared_expert_gate" in config["ignore"]) == bool(shared)
    down = f"model.layers.1.{router.partition('.')[0]}.experts.2.{'w2' if kind == 'mixtral' else 'down_proj'}"
    tensors = safetensors_file.read(tmp_path / "q" / "model-00002-of-00003.safetensors").tensors
    arrays = {n[len(down) + 1 :]: t.data for n, t in tensors.items() if n.startswith(f"{down}.")}
    again = open_checkpoint(tmp_path / "q")
    np.testing.assert_array_equal(unpack(arrays, "pack-quantized").dequantize(), again.weight(f"{down}.weight"))
    x = [again.weight("model.embed_tokens.weight")[one] for one in ids(1)]
    plain = open_checkpoint(source)
    table = block.rope_table(again.model, None, 40)
    outputs = []
    for checkpoint in (again, plain):
        start = "model.layers.0."
        weights = {n[len(start) :]: checkpoint.weight(n) for n in checkpoint.tensors if n.startswith(start)}
        outputs.append(block.forward(checkpoint.model, weights, x[0], table))
    assert np.linalg.norm(outputs[0] - outputs[1]) < 0.3 * np.linalg.norm(outputs[1] - x[0])


@pytest.mark.parametrize("kind", KINDS)
def test_experts_that_no_token_chose_are_rounded_to_nearest(tmp_path, kind):
    source = write_tiny_checkpoint(tmp_path / "m", kind, "BF16", n_embd=128, n_ff=128)
    said = {"scheme": "int4-g64", "method": "gptq"}
    oneshot(source, said, [[5]], tmp_path / "q")  # one token: two experts of four
    oneshot(source, "int4-g64", None, tmp_path / "nearest")
    last = "block_sparse_moe.experts.{}.w1" if kind == "mixtral" else "mlp.experts.{}.gate_proj"
    names = [f"model.layers.0.{last.format(e)}.weight" for e in range(4)]
    found = [open_checkpoint(tmp_path / name) for name in ("q", "nearest")]
    same = [np.array_equal(found[0].weight(name), found[1].weight(name)) for name in names]
    assert sum(same) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_mixes_of_types_and_methods_reach_experts_too(tmp_path, kind):
    source = write_tiny_checkpoint(tmp_path / "m", kind, "BF16", n_embd=128, n_ff=128)
    oneshot(source, {"scheme": "Q4_0", "method": "gptq"}, ids(), tmp_path / "m.gguf")
    with gguf.open(tmp_path / "m.gguf") as file:
        assert file.tensors["blk.0.ffn_up_exps.weight"].type == "Q4_0"
        assert np.isfinite(Oracle(file).logits([1, 2, 3])).all()
