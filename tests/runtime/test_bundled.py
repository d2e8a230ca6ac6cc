import hashlib
import re
from pathlib import Path

import numpy as np
from tiny_models import write_tiny_model

from refquant import gguf
from runtime import bundled
from runtime.bundled.make import CARD, make

CARD_TEXT = Path(bundled.__file__).with_name("README.md").read_text("utf-8")


def test_the_card_names_the_size_and_hash_of_the_file():
    data = bundled.path().read_bytes()
    assert f"| {len(data):,} bytes |" in CARD_TEXT
    assert f"`{hashlib.sha256(data).hexdigest()}`" in CARD_TEXT


def test_the_card_describes_the_model_in_the_file():
    with gguf.open(bundled.path()) as model:
        types = [tensor.type for tensor in model.tensors.values()]
        matrices, vectors = map(int, re.search(r"(\d+) matrices in Q8_0, (\d+) norms", CARD_TEXT).groups())
        assert (types.count("Q8_0"), types.count("F32"), len(types)) == (matrices, vectors, matrices + vectors)
        weights = sum(np.prod(tensor.shape, dtype=np.int64) for tensor in model.tensors.values())
        assert f"{weights / 1e6:.1f} million parameters" in CARD_TEXT
        assert f"{model.metadata['qwen2.context_length']} tokens" in CARD_TEXT
        assert f"Vocabulary | {model.metadata['qwen2.vocab_size']}," in CARD_TEXT


def test_the_file_says_its_name_and_licence():
    with gguf.open(bundled.path()) as model:
        assert model.metadata["general.name"] == "refquant tiny chat (Qwen2 28M)"
        assert model.metadata["general.license"] == "apache-2.0"
        assert {key: (model.types[key], model.metadata[key]) for key in CARD} == CARD


def test_making_quantizes_matrices_and_copies_the_rest(tmp_path):
    source = write_tiny_model(tmp_path / "f32.gguf", arch="qwen2")
    make(source, tmp_path / "q8.gguf")
    with gguf.open(source) as ref, gguf.open(tmp_path / "q8.gguf") as got:
        assert got.metadata["tokenizer.ggml.tokens"] == ref.metadata["tokenizer.ggml.tokens"]
        assert got.types.items() >= ref.types.items()
        assert list(got.tensors) == list(ref.tensors)
        for name, tensor in ref.tensors.items():
            data = gguf.quantize(tensor.data, "Q8_0") if tensor.data.ndim == 2 else tensor.data
            np.testing.assert_array_equal(got.tensors[name].data, data)


def test_making_twice_gives_equal_bytes(tmp_path):
    source = write_tiny_model(tmp_path / "f32.gguf", arch="qwen2")
    make(source, tmp_path / "a.gguf")
    make(source, tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
