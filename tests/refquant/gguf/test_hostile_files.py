"""Files that are damaged, hostile or something else: a GGUFError that says where, at once, or a sound file.

REFQUANT_FUZZ_CASES sets how many mutated files the fuzz test opens.
"""

import mmap
import os
import random
import re
import struct
import time
import tracemalloc
from contextlib import suppress

import gguf_bytes as raw
import numpy as np
import pytest
from gguf_bytes import STR, U8
from hostile_gguf import CASES, LONG, TYPE_COUNT, TYPE_F32, mutate, small_file, tensors

from refquant import gguf
from refquant.errors import GGUFError
from refquant.gguf.formats import FORMATS_BY_ID, REJECTED_IDS
from refquant.gguf.header import MAX_KEYS
from refquant.gguf.tensors import MAX_TENSORS
from refquant.gguf.values import MAX_TOKEN, MAX_TOKENS


@pytest.fixture
def write(tmp_path):
    def write(fields, name="model.gguf"):
        path = tmp_path / name
        path.write_bytes(fields if isinstance(fields, bytes) else raw.join(fields))
        return path

    return write


def refusal(path):
    """(message, seconds of processor time, the least of five as other programs share the caches) of the GGUFError."""
    seconds = []
    for _ in range(5):
        start = time.thread_time()
        with pytest.raises(GGUFError) as caught:
            gguf.open(path)
        seconds.append(time.thread_time() - start)
    return str(caught.value), min(seconds)


@pytest.mark.parametrize("name", CASES)
def test_cases_of_llama_cpp_and_more(write, name):
    fields, words = CASES[name]
    path = write(fields)
    if words is None:
        with gguf.open(path) as got:
            for tensor in got.tensors.values():
                assert tensor.data.nbytes == tensor.nbytes
        return
    message, seconds = refusal(path)
    assert message.startswith(f"{path}: ")
    assert re.search(words, message), message
    assert "\n" not in message and len(message) < len(str(path)) + 400
    assert seconds < 0.05


@pytest.mark.parametrize("id", REJECTED_IDS)
def test_types_that_ggml_does_not_have_any_more_or_never_had_are_refused_by_name(write, id):
    message, _ = refusal(write(raw.gguf([], tensors(type=id, dims=[1024]))))
    assert f"'my_tensor_0' type = {id} ({REJECTED_IDS[id]}) at byte" in message


def test_type_ids_are_known_refused_by_name_or_refused(write):
    assert FORMATS_BY_ID.keys() | {i for i in REJECTED_IDS if i < TYPE_COUNT} == set(range(TYPE_COUNT))
    assert not FORMATS_BY_ID.keys() & REJECTED_IDS.keys()


def test_a_zero_dimension_in_65_bytes_is_a_tensor_without_elements(write):
    path = write(raw.gguf([], [raw.tensor("x", [4, 0], TYPE_F32, 0)]))
    assert path.stat().st_size == 65
    with gguf.open(path) as got:
        assert got.tensors["x"].data.shape == (0, 4)
    message, _ = refusal(write(raw.gguf([], [raw.tensor("x", [1], TYPE_F32, 0)])))
    assert "end of data" in message


@pytest.mark.parametrize("element", [U8, STR, 12])
def test_an_array_length_of_2_63_costs_nothing_at_any_cut(write, element):
    whole = raw.join(raw.gguf([raw.array("abc", element, [], 2**63)]))
    for size in range(43, len(whole) + 1):
        message, seconds = refusal(write(whole[:size]))
        assert seconds < 0.05
    assert "array length = 9223372036854775808 at byte 43" in message


@pytest.mark.parametrize("first, words", [
    (b"PK\3\4" + bytes(30), "a zip archive, as PyTorch"),
    (struct.pack("<Q", 40) + b'{"__metadata__":{}, "w":{"dtype":"F32"', "a safetensors file: convert"),
    (b"<!DOCTYPE html><html><head><title>Log in</title>", "a web page"),
    (b"\n  <html lang=en>", "a web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "a Git LFS pointer .*git lfs pull"),
    (b"\x1f\x8b\x08" + bytes(40), "a gzip archive"),
    (b"tjgg\3\0\0\0" + bytes(30), "a GGJT file of before August 2023"),
    (b"lmgg" + bytes(30), "a GGML file"),
    (b"fmgg" + bytes(30), "a GGMF file"),
    (b'{"error":"Repository not found"}', "JSON text"),
    (bytes(4096), "zeros: the download reserved the space"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"x", "an unknown kind of file"),
    (bytes(range(200, 256)), "an unknown kind of file"),
])  # fmt: skip
def test_other_kinds_of_files_are_called_what_they_are(write, first, words):
    message, _ = refusal(write(first))
    assert re.search(f"magic = .* at byte 0, expected b'GGUF': this is {words}", message), message


def test_there_must_be_a_file_to_read(tmp_path, monkeypatch):
    with pytest.raises(GGUFError, match=r"none.gguf: cannot be opened: No such file or directory$"):
        gguf.open(tmp_path / "none.gguf")
    with pytest.raises(GGUFError, match=r": is a directory, expected a GGUF file$"):
        gguf.open(tmp_path)
    (tmp_path / "empty.gguf").touch()
    with pytest.raises(GGUFError, match=r"empty.gguf: size = 0 bytes, expected a GGUF file"):
        gguf.open(tmp_path / "empty.gguf")
    with pytest.raises(GGUFError, match=r"expected a path without zeros"):
        gguf.open("a\0b")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(GGUFError, match=r"pipe: is not a regular file"):
        gguf.open(tmp_path / "pipe")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(GGUFError, match=r"empty.gguf: cannot be opened: Permission denied$"):
        gguf.open(tmp_path / "empty.gguf")


def test_a_file_that_shrinks_before_it_is_mapped_is_refused(write, monkeypatch):
    path = write(CASES["DATA_SUCCESS"][0])
    real = mmap.mmap

    def map_late(descriptor, size, **options):
        os.truncate(path, 10)
        return real(descriptor, size, **options)

    monkeypatch.setattr(mmap, "mmap", map_late)
    with pytest.raises(GGUFError, match=r"size of \d+ bytes cannot be mapped"):
        gguf.open(path)


def test_a_file_that_shrinks_later_refuses_its_tensors(write):
    path = write(CASES["DATA_SUCCESS"][0])
    with gguf.open(path) as got:
        os.truncate(path, got.tensors["my_tensor_2"].offset + 17)
        assert got.tensors["my_tensor_1"].data.shape == (5,)
        with pytest.raises(GGUFError, match=r"size = \d+ bytes, expected \d+ as when it was opened"):
            _ = got.tensors["my_tensor_2"].data


def test_names_from_a_file_cannot_drive_the_terminal_or_fill_it(write):
    message, _ = refusal(write(raw.gguf([raw.pair("\x1b[2J\n" + "k" * 5000, U8, 1)] * 2)))
    assert "key = '\\x1b[2J\\nkkk" in message
    assert message.isprintable() and len(message) < 400


def test_a_file_cut_at_any_byte_is_refused(write):
    whole = raw.join(small_file())
    gguf.open(write(whole)).close()
    for size in range(len(whole)):
        with pytest.raises(GGUFError):
            gguf.open(write(whole[:size]))


@pytest.mark.parametrize("name", LONG)
def test_long_headers_are_refused_in_time_and_memory(write, name):
    fields, allowed = LONG[name]
    path = write(fields)
    message, seconds = refusal(path)
    assert " at byte " in message
    assert seconds < allowed
    tracemalloc.start()
    with pytest.raises(GGUFError):
        gguf.open(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * path.stat().st_size, peak  # Python's objects for the entries; strings are not decoded yet


@pytest.mark.parametrize("name", CASES)
def test_claims_of_a_small_file_allocate_nothing(write, name):
    path = write(CASES[name][0])
    tracemalloc.start()
    with suppress(GGUFError):
        gguf.open(path).close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000 + 4 * path.stat().st_size, peak


def test_counts_and_tokens_have_caps(write):
    enough = bytes(25 * MAX_TENSORS + 25)
    assert f"expected 0 to {MAX_TENSORS}" in refusal(write([*raw.gguf(n_tensors=MAX_TENSORS + 1), enough]))[0]
    assert f"expected 0 to {MAX_KEYS}" in refusal(write([*raw.gguf(n_kv=MAX_KEYS + 1), enough]))[0]
    long = ["a", "b" * (MAX_TOKEN + 1)]
    message, _ = refusal(write(raw.gguf([raw.array("tokenizer.ggml.tokens", STR, long)])))
    assert f"string 1 of 2 = {MAX_TOKEN + 1} bytes long" in message
    with gguf.open(write(raw.gguf([raw.array("other", STR, long)]))) as got:
        assert got.metadata["other"] == long
    many = [*raw.array("tokenizer.ggml.merges", STR, [], MAX_TOKENS + 1), bytes(8 * MAX_TOKENS + 8)]
    assert f"array length = {MAX_TOKENS + 1} at byte" in refusal(write(raw.gguf([many])))[0]


def test_mutated_files_are_sound_or_refused(write):
    rng = random.Random(2026)
    base = small_file()
    outcomes = {"opened": 0, "refused": 0}
    for case in range(int(os.environ.get("REFQUANT_FUZZ_CASES", "2500"))):
        mutated = mutate(base, rng)
        path = write(mutated)
        start = time.perf_counter()
        try:
            with gguf.open(path) as got:
                for tensor in got.tensors.values():
                    assert tensor.data.nbytes == tensor.nbytes <= len(mutated)
                    assert np.frombuffer(tensor.data.tobytes(), np.uint8).size == tensor.nbytes  # touches every page
                outcomes["opened"] += 1
        except GGUFError as error:
            assert str(error).startswith(f"{path}: "), (case, error)
            outcomes["refused"] += 1
        assert time.perf_counter() - start < 1, case
    assert min(outcomes.values()) > 100, outcomes
