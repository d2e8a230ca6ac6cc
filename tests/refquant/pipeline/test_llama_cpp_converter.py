"""GGUF files of folders are those of llama.cpp's converter (golden/llama_cpp_converter.json): tensors byte for byte,
metadata key by key, but for what DIFFERENT names."""

import json

import pytest
from llama_cpp_converter import CASES, FIXTURE, described, write_folder

from refquant.gguf.file_types import file_order
from refquant.pipeline import convert_to_gguf

DIFFERENT = {  # (name of the case, key): why ours is another
    ("tiny-mistral", "tokenizer.ggml.scores"): "it gives -1000 to all tokens of a tokenizer.json: no merge goes first",
}


@pytest.mark.parametrize("name", CASES)
def test_tensors_and_metadata_are_those_of_llama_cpps_converter(tmp_path, name):
    ref = json.loads(FIXTURE.read_text(encoding="utf-8"))["cases"][name]
    convert_to_gguf(write_folder(tmp_path, name), tmp_path / "m.gguf", CASES[name][2])
    got = described(tmp_path / "m.gguf")
    assert got["tensors"] == ref["tensors"]
    assert list(got["tensors"]) == sorted(ref["tensors"], key=file_order)  # as llama-quantize sorts them
    differing = {k for k in got["metadata"] | ref["metadata"] if got["metadata"].get(k) != ref["metadata"].get(k)}
    assert differing == {key for case, key in DIFFERENT if case == name}
