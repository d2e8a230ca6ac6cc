"""Importance matrices on disk: both layouts there and back, ggml's bytes, and files that lie."""

import struct

import numpy as np
import pytest

from refquant import gguf
from refquant.errors import GGUFError
from refquant.gguf import importance_file
from refquant.gguf.importance_file import Entry, ImportanceMatrix


def matrix():
    rng = np.random.default_rng(0)
    dense = Entry(rng.random((1, 6), dtype=np.float32), np.array([1024]))
    experts = Entry(rng.random((3, 4), dtype=np.float32), np.array([512, 0, 100]))
    return ImportanceMatrix({"blk.1.b.weight": experts, "blk.0.a.weight": dense}, ("a.txt", "b.txt"), 2, 512)


def test_the_current_layout_comes_back(tmp_path):
    importance_file.write_gguf(tmp_path / "i.gguf", matrix())
    got = importance_file.read(tmp_path / "i.gguf")
    assert (got.datasets, got.chunk_count, got.chunk_size, got.legacy) == (("a.txt", "b.txt"), 2, 512, False)
    assert list(got.entries) == ["blk.0.a.weight", "blk.1.b.weight"]
    for name, entry in matrix().entries.items():
        np.testing.assert_array_equal(got.entries[name].sums, entry.sums)
        np.testing.assert_array_equal(got.entries[name].counts, entry.counts)


def test_the_current_layout_is_that_of_llama_cpp(tmp_path):
    importance_file.write_gguf(tmp_path / "i.gguf", matrix())
    with gguf.open(tmp_path / "i.gguf") as file:
        assert file.types == {
            "general.type": "str", "imatrix.datasets": "arr[str]", "imatrix.chunk_count": "u32",
            "imatrix.chunk_size": "u32",
        }  # fmt: skip
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    assert shapes == {
        "blk.0.a.weight.in_sum2": (6,), "blk.0.a.weight.counts": (1,),
        "blk.1.b.weight.in_sum2": (3, 4), "blk.1.b.weight.counts": (3, 1),
    }  # fmt: skip
    assert list(shapes) == sorted(shapes, key=lambda name: (name.rsplit(".", 1)[0], name.endswith("counts")))


def test_weights_are_means_and_ones_for_experts_without_tokens():
    weights = matrix().weights()
    entry = matrix().entries["blk.1.b.weight"]
    np.testing.assert_array_equal(weights["blk.1.b.weight"][0], entry.sums[0] / np.float32(512))
    np.testing.assert_array_equal(weights["blk.1.b.weight"][1], np.ones(4, np.float32))
    assert weights["blk.0.a.weight"].dtype == np.float32


def test_the_old_layout_keeps_the_means(tmp_path):
    importance_file.write_dat(tmp_path / "i.dat", matrix())
    got = importance_file.read(tmp_path / "i.dat")
    assert (got.datasets, got.chunk_count, got.legacy) == (("b.txt",), 2, True)
    for name, values in matrix().weights().items():
        np.testing.assert_allclose(got.weights()[name].reshape(values.shape), values, rtol=2e-7)
    importance_file.write_dat(tmp_path / "again.dat", got)
    assert (tmp_path / "again.dat").read_bytes() == (tmp_path / "i.dat").read_bytes()


def old(tmp_path, data):
    (tmp_path / "i.dat").write_bytes(data)
    return importance_file.read(tmp_path / "i.dat")


def test_an_old_file_is_read_with_and_without_its_end(tmp_path):
    data = struct.pack("<ii1sii2f", 1, 1, b"w", 3, 2, 1.0, 2.0)
    got = old(tmp_path, data)
    np.testing.assert_array_equal(got.weights()["w"], np.array([[1, 2]], np.float32) / np.float32(3))
    assert (got.chunk_count, got.datasets) == (0, ())
    got = old(tmp_path, data + struct.pack("<ii1s", 7, 1, b"t"))
    assert (got.chunk_count, got.datasets) == (7, ("t",))


@pytest.mark.parametrize("data, message", [
    (b"", "number of entries at byte 0 = 4 bytes, expected at most 0"),
    (struct.pack("<i", 0), "number of entries at byte 0 = 0, expected 1 to"),
    (struct.pack("<i", 1 << 30), "number of entries at byte 0 = 1073741824"),
    (struct.pack("<ii", 1, -5), "entry 0: length of the name at byte 4 = -5"),
    (struct.pack("<ii1si", 1, 1, b"w", -1), "calls at byte 9 = -1"),
    (struct.pack("<ii1sii", 1, 1, b"w", 1, 2**31 - 1), "values at byte 17 = 8589934588 bytes, expected at most 0"),
    (struct.pack("<ii1siif", 1, 1, b"w", 1, 1, 0.5) + b"\1", "chunks at byte 21 = 4 bytes, expected at most 1"),
])  # fmt: skip
def test_old_files_that_lie_are_refused(tmp_path, data, message):
    with pytest.raises(GGUFError, match=message):
        old(tmp_path, data)


@pytest.mark.parametrize("tensors, metadata, message", [
    ({"w.in_sum2": np.zeros(4)}, {"imatrix.chunk_count": 1}, "'w.in_sum2' stands alone"),
    ({"w.in_sum2": np.zeros(4), "w.counts": np.zeros(3)}, {}, "values = 4, expected a multiple of the 3 counts"),
    ({"w.in_sum2": np.zeros(4), "w.counts": -np.ones(1)}, {}, "expected numbers of tokens"),
    ({"w.in_sum2": np.zeros(4), "w.counts": np.ones(1)}, {}, "expected those of an importance matrix"),
    ({"w": np.zeros(4)}, {"imatrix.chunk_count": 1}, "entries = 0"),
    ({"w.in_sum2": np.zeros(4), "w.counts": np.ones(1)}, {"imatrix.chunk_count": "1"}, "imatrix.chunk_count = '1'"),
])  # fmt: skip
def test_files_that_are_no_importance_matrix_are_refused(tmp_path, tensors, metadata, message):
    arrays = {name: (x.astype(np.float32), "F32") for name, x in tensors.items()}
    gguf.write(tmp_path / "i.gguf", metadata, arrays)
    with pytest.raises(GGUFError, match=message):
        importance_file.read(tmp_path / "i.gguf")


def test_importances_that_are_no_numbers_are_refused():
    bad = ImportanceMatrix({"w": Entry(np.array([[np.nan, 1]], np.float32), np.array([1]))}, (), 1, 512)
    with pytest.raises(GGUFError, match="'w' holds nan, expected finite values"):
        bad.weights()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(GGUFError, match="cannot be opened"):
        importance_file.read(tmp_path / "none.gguf")
