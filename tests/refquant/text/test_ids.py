"""Ids against llama.cpp: committed vocabularies with its answers, and the vectors that are not part of the project."""

import hashlib
import json

import numpy as np
import pytest
import small_vocabularies as small

import refquant.gguf as gguf
from refquant.text import Tokenizer

IDS = json.loads((small.FOLDER / "ids.json").read_text("ascii"))
SEPARATOR = "\n__ggml_vocab_test__\n"


def once(ids: list[int], bos: int) -> list[int]:
    """llama.cpp puts BOS in front of a text that spells it out, too; here there is one."""
    return ids[1:] if ids[:2] == [bos, bos] else ids


def variant(name: str) -> Tokenizer:
    recorded = IDS["variants"][name]
    file = small.opened(recorded["file"])
    file.metadata |= {k: np.array(v, np.int32) if isinstance(v, list) else v for k, v in recorded["metadata"].items()}
    return Tokenizer.from_gguf(file)


def assert_same(tokenizer: Tokenizer, recorded: dict) -> None:
    for i, text in enumerate(IDS["texts"]):
        assert tokenizer.encode(text, add_special=False) == recorded["plain"][i], repr(text)
        if "special" in recorded:
            ref = once(recorded["special"][i], recorded["bos"])
            assert tokenizer.encode(text, parse_special=True) == ref, repr(text)


@pytest.mark.parametrize("name", IDS["files"])
def test_ids_of_a_committed_vocabulary_are_those_of_llama_cpp(name):
    assert_same(small.tokenizer(name), IDS["files"][name])


@pytest.mark.parametrize("name", IDS["variants"])
def test_ids_under_changed_metadata_are_those_of_llama_cpp(name):
    assert_same(variant(name), IDS["variants"][name])


@pytest.mark.parametrize("name", IDS["files"])
def test_special_ids_and_printed_pieces_are_those_of_llama_cpp(name):
    got, ref = small.tokenizer(name), IDS["files"][name]
    assert (got.bos, got.eos) == (ref["bos"], ref["eos"])
    assert got.eog == set(ref["eog"])
    assert (got.eot is None) == (ref["eot"] == -1)
    printed = b"".join(got.piece(i) + b"\0" for i in range(got.vocab_size))
    assert hashlib.sha256(printed).hexdigest() == ref["pieces"]


@pytest.mark.parametrize("name", IDS["files"])
def test_every_text_comes_back(name):
    tokenizer = small.tokenizer(name)
    for text in IDS["texts"]:
        ref = text.replace("\u2581", " ") if name == "spm" else text  # where U+2581 is how a space is written
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == ref


@pytest.mark.parametrize("name", ["llama-spm", "llama-bpe", "qwen2", "gpt-2"])
def test_ids_of_the_published_vectors(shared, name):
    path = shared(f"tokenizers/ggml-vocab-{name}.gguf")
    texts = path.with_name(path.name + ".inp").read_bytes().decode("utf-8").split(SEPARATOR)
    lines = path.with_name(path.name + ".out").read_text("ascii").split("\n")
    with gguf.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
    assert len(texts) == 47
    for text, line in zip(texts, lines):
        assert tokenizer.encode(text, add_special=False) == [int(i) for i in line.split()], repr(text)


def test_the_vocabulary_of_a_published_model_has_its_special_tokens(shared):
    with gguf.open(shared("models/stories260K-f32.gguf")) as file:
        tokenizer = Tokenizer.from_gguf(file)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocab_size, tokenizer.add_bos) == (1, 2, 512, True)
    assert (
        tokenizer.decode(tokenizer.encode("Once upon a time, there was a ☃.")[1:]) == "Once upon a time, there was a ☃."
    )
