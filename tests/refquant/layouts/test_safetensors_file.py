"""safetensors files: equal to the library's both ways, and refused where they are broken."""

import json
import os

import numpy as np
import pytest

from refquant.errors import QuantError
from refquant.layouts import safetensors_file

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(-3, np.int64),
    "c": np.zeros((0, 4), np.int32),
    "d": np.arange(5, dtype=np.int8),
    "e": np.arange(4, dtype=np.float16),
}


def entries(arrays):
    return [(name, safetensors_file.NAMES[a.dtype.name], a) for name, a in arrays.items()]


def test_what_the_library_writes_is_read(peer, tmp_path):
    library = peer("safetensors.numpy")
    library.save_file(ARRAYS, tmp_path / "x.safetensors", metadata={"format": "pt"})
    file = safetensors_file.read(tmp_path / "x.safetensors")
    assert file.metadata == {"format": "pt"}
    for name, ref in ARRAYS.items():
        got = file.tensors[name].data
        assert got.dtype == ref.dtype
        np.testing.assert_array_equal(got, ref)
        assert not got.flags.writeable


def test_the_library_reads_what_is_written(peer, tmp_path):
    library = peer("safetensors.numpy")
    safetensors_file.write(tmp_path / "x.safetensors", entries(ARRAYS), {"format": "np"})
    got = library.load_file(tmp_path / "x.safetensors")
    assert sorted(got) == sorted(ARRAYS)
    for name, ref in ARRAYS.items():
        np.testing.assert_array_equal(got[name], ref)


def test_dtypes_that_numpy_lacks_are_their_bits(tmp_path):
    half, eighth = np.array([0x3F80, 0xC000], np.uint16), np.array([[0x38]], np.uint8)
    safetensors_file.write(tmp_path / "x", [("h", "BF16", half), ("e", "F8_E4M3", eighth)])
    file = safetensors_file.read(tmp_path / "x")
    assert (file.tensors["h"].dtype, file.tensors["e"].dtype) == ("BF16", "F8_E4M3")
    np.testing.assert_array_equal(file.tensors["h"].data, half)
    np.testing.assert_array_equal(file.tensors["e"].data, eighth)


def raw(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "0 bytes, expected a regular file"),
        (b"abc", "length of the header"),
        (raw({"a": ONE}, bytes(8), length=2**63), "length of the header = 9223372036854775808"),
        (raw({"a": ONE}, bytes(8), length=1000), "cut off, or no safetensors file"),
        (raw(b"{nonsense"), "header is no JSON"),
        (raw(b"[" * 100_000), "header is no JSON"),
        (raw(b"\xff\xfe"), "header is no JSON"),
        (raw(b"[]"), "header = list, expected an object"),
        (
            raw(b'{"a":' + json.dumps(ONE).encode() + b',"a":' + json.dumps(ONE).encode() + b"}", bytes(8)),
            "stands twice",
        ),
        (raw({"a": ONE | {"dtype": "F4"}}, bytes(8)), "dtype = 'F4'"),
        (raw({"a": ONE | {"dtype": ["F32"]}}, bytes(8)), "dtype = "),
        (raw({"a": ONE | {"shape": [-2]}}, bytes(8)), r"shape = \[-2\], expected"),
        (raw({"a": ONE | {"shape": [2**61, 2**61]}}, bytes(8)), "data_offsets"),
        (raw({"a": ONE | {"shape": [True]}}, bytes(8)), "shape = "),
        (raw({"a": ONE | {"data_offsets": [0]}}, bytes(8)), "data_offsets"),
        (raw({"a": ONE | {"data_offsets": [8, 16]}}, bytes(16)), "begins at 8, expected 0"),
        (raw({"a": ONE, "b": ONE}, bytes(8)), "begins at 0, expected 8: tensors overlap"),
        (raw({"a": ONE}, bytes(7)), "expected 8 bytes"),
        (raw({"a": ONE}, bytes(9)), "the tensors end at 8, expected 9"),
        (raw({"a": 3}), "dtype = 'None'"),
        (raw({"__metadata__": {"a": 1}}), "expected an object of strings"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(QuantError, match=message):
        safetensors_file.read(path)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(QuantError, match="cannot be opened"):
        safetensors_file.read(tmp_path / "missing")
    with pytest.raises(QuantError, match=r"regular file|cannot be opened"):
        safetensors_file.read(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(QuantError, match="expected a regular file"):
        safetensors_file.read(tmp_path / "pipe")


def test_a_header_of_odd_length_is_aligned_by_copying(tmp_path):
    (tmp_path / "x").write_bytes(raw(json.dumps({"a": ONE}).encode() + b" ", np.array([1, 2], "<f4").tobytes()))
    np.testing.assert_array_equal(safetensors_file.read(tmp_path / "x").tensors["a"].data, [1, 2])


def test_nothing_appears_unless_everything_was_written(tmp_path):
    def failing():
        yield "a", "I8", np.zeros(3, np.int8)
        raise QuantError("no more")

    for tensors, room in ((failing(), 1 << 16), (entries(ARRAYS), 8), ([("a", "F32", np.zeros(1))], 99)):
        with pytest.raises(QuantError):
            safetensors_file.write(tmp_path / "x", tensors, header_room=room)
    assert list(tmp_path.iterdir()) == []
    safetensors_file.write(tmp_path / "x", entries(ARRAYS), None, safetensors_file.room(ARRAYS))
