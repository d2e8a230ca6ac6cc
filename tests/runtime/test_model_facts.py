"""What a benchmark says of a model."""

from types import SimpleNamespace

import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.models import ModelConfig
from runtime.model_facts import cache_bytes, model_type, parameters, tensor_bytes, weight_traffic


@pytest.mark.parametrize("tied", [True, False])
def test_a_token_reads_every_tensor_but_an_embedding_of_its_own(tmp_path, tied):
    path = write_tiny_model(tmp_path / "m.gguf", tied=tied)
    with gguf.open(path) as file:
        embedding = file.tensors["token_embd.weight"].nbytes
        got = weight_traffic(file, ModelConfig.from_metadata(file))
        assert got == tensor_bytes(file) - (0 if tied else embedding)
        assert parameters(file) * 4 == tensor_bytes(file)  # all of it is float32


def test_a_token_reads_its_own_experts_only(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", arch="qwen2moe", experts=8, experts_used=3)) as file:
        experts = sum(tensor.nbytes for name, tensor in file.tensors.items() if "_exps" in name)
        others = tensor_bytes(file) - file.tensors["token_embd.weight"].nbytes - experts
        assert experts > 0
        assert weight_traffic(file, ModelConfig.from_metadata(file)) == others + experts * 3 // 8


def test_the_cache_grows_with_layers_heads_and_positions(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", n_layer=3, n_head_kv=2, head_dim=24, head_dim_v=16)
    with gguf.open(path) as file:
        config = ModelConfig.from_metadata(file)
    assert cache_bytes(config, 10, "f16") == 10 * 3 * 2 * (24 + 16) * 2
    assert cache_bytes(config, 0.5, "f32") == 0.5 * 3 * 2 * (24 + 16) * 4
    assert cache_bytes(config, 10, "q8_0") == 10 * 3 * 2 * (34 + 34)


@pytest.mark.parametrize(
    "count, file_type, name",
    [
        (1_543_714_304, 15, "qwen2 1.5B Q4_K_M"),
        (494_032_768, 1024 + 2, "qwen2 494M Q4_0"),
        (960_000_000, 9999, "qwen2 1.0B Q6_K"),
        (1000, None, "qwen2 0M Q6_K"),
    ],
)
def test_names_say_architecture_size_and_mix(count, file_type, name):
    shapes = {"a": ((count // 2,), "Q6_K", 90), "b": ((count - count // 2,), "F32", 10)}
    tensors = {k: SimpleNamespace(shape=shape, type=type, nbytes=n) for k, (shape, type, n) in shapes.items()}
    metadata = {"general.architecture": "qwen2"} | ({} if file_type is None else {"general.file_type": file_type})
    assert model_type(SimpleNamespace(tensors=tensors, metadata=metadata)) == name


def test_counts_are_python_numbers(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "m.gguf")) as file:
        assert not isinstance(parameters(file), np.generic)
