"""What `write` writes: the reader and the `gguf` package read it back, and what cannot be written is refused."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import gguf_bytes as raw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refquant import gguf
from refquant.errors import QuantError, RangeError, SchemeError, ShapeError
from refquant.gguf.formats import FORMATS
from refquant.gguf.strings import Strings
from refquant.gguf.value_encoding import spelling_of

PEER_NAMES = {
    "u8": "UINT8", "i8": "INT8", "u16": "UINT16", "i16": "INT16", "u32": "UINT32", "i32": "INT32", "f32": "FLOAT32",
    "bool": "BOOL", "str": "STRING", "u64": "UINT64", "i64": "INT64", "f64": "FLOAT64",
}  # fmt: skip
PEER_LACKS = ("Q1_0", "Q2_0", "Q8_1")  # two are younger than gguf 0.19; of Q8_1 it has the size before 2024, 40 bytes
METADATA = {
    "u8": (255, "u8"),
    "i8": (-128, "i8"),
    "u16": (65535, "u16"),
    "i16": (-32768, "i16"),
    "u32": (2**32 - 1, "u32"),
    "i32": (-(2**31), "i32"),
    "f32": (0.5, "f32"),
    "bool": (True, "bool"),
    "str": ("日本 \udce9\n", "str"),
    "u64": (2**64 - 1, "u64"),
    "i64": (-(2**63), "i64"),
    "f64": (0.1, "f64"),
    "strs": (["a", "", "Ġthe", "\udcff"], "arr[str]"),
    "bools": ([True, False], "arr[bool]"),
    "none": ([], "arr[str]"),
    "no numbers": ([], "arr[f64]"),
} | {
    f"arr {dtype}": (np.array([0, 1, 100], dtype), f"arr[{name}]")
    for name, dtype in zip(
        ("u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64"),
        ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"),
        strict=True,
    )
}
VALUES = {key: value for key, (value, _) in METADATA.items()}
TYPES = {key: spelling for key, (_, spelling) in METADATA.items()}


def tensor_data(name, *rows):
    """Random bytes as a tensor of type `name` with two blocks in each row."""
    format = FORMATS[name]
    data = np.random.default_rng(format.ggml_id).integers(0, 256, (*rows, 2 * format.layout.itemsize), np.uint8)
    return data.view(format.layout) if format.values == 1 else data


TENSORS = {
    f"{name}.{len(rows)}d": (tensor_data(name, *rows), name) for name in FORMATS for rows in ((), (3,), (2, 1, 3))
}


def assert_same(got, ref):
    assert type(got) is (Strings if isinstance(ref, list) else type(ref))
    if isinstance(ref, np.ndarray):
        assert got.dtype == ref.dtype
        assert got.shape == ref.shape
        assert got.tobytes() == ref.tobytes()
    else:
        assert got == ref


def test_every_value_and_tensor_comes_back(tmp_path):
    path = tmp_path / "model.gguf"
    gguf.write(path, VALUES, TENSORS, TYPES)
    with gguf.open(path) as got:
        assert (got.version, got.alignment) == (3, 32)
        assert got.types == TYPES
        assert list(got.metadata) == list(VALUES)
        for key in ("bools", "no numbers"):  # lists of numbers come back as arrays
            assert got.metadata[key].tolist() == VALUES[key]
        for key in VALUES.keys() - {"bools", "no numbers"}:
            assert_same(got.metadata[key], VALUES[key])
        assert list(got.tensors) == list(TENSORS)
        for name, (data, type) in TENSORS.items():
            assert got.tensors[name].type == type
            assert got.tensors[name].shape[:-1] == data.shape[:-1]
            assert got.tensors[name].shape[-1] == 2 * FORMATS[type].values
            assert_same(got.tensors[name].data, data)


def test_an_opened_file_writes_itself_again(tmp_path):
    gguf.write(tmp_path / "a.gguf", VALUES, TENSORS, TYPES, alignment=64)
    with gguf.open(tmp_path / "a.gguf") as a:
        gguf.write(tmp_path / "b.gguf", a.metadata, a.tensors, a.types)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_published_files_write_themselves_again(shared, tmp_path):
    for name in ("models/stories260K-f32.gguf", "models/tiny-qwen2-Q4_K_M.gguf"):
        with gguf.open(shared(name)) as got:
            gguf.write(tmp_path / "again.gguf", got.metadata, got.tensors, got.types)
        ref = shared(name).read_bytes()
        written = (tmp_path / "again.gguf").read_bytes()
        assert written[: len(ref)] == ref
        assert not any(written[len(ref) :])  # zeros after the last tensor, which some writers leave out


def test_the_gguf_package_reads_what_is_written(tmp_path):
    import gguf as peer

    path = tmp_path / "model.gguf"
    known = {name: pair for name, pair in TENSORS.items() if pair[1] not in PEER_LACKS}
    strict = {k: v for k, v in VALUES.items() if k not in ("str", "strs")} | {"str": "日本", "strs": ["a", "", "Ġthe"]}
    gguf.write(path, strict, known, TYPES)
    reader = peer.GGUFReader(path)
    fields = {key: field for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert list(fields) == list(strict)
    for key, value in strict.items():
        ref = value.tolist() if isinstance(value, np.ndarray) else value
        assert fields[key].contents() == ref, key
        if np.size(value):  # of an empty array the package does not say what it would hold
            element = TYPES[key].removeprefix("arr[").rstrip("]")
            assert fields[key].types[-1].name == PEER_NAMES[element]
    assert [t.name for t in reader.tensors] == list(known)
    for tensor in reader.tensors:
        data, type = known[tensor.name]
        assert tensor.tensor_type.name == type
        assert tensor.data.tobytes() == data.tobytes()
        assert tuple(int(d) for d in tensor.shape[::-1]) == (*data.shape[:-1], 2 * FORMATS[type].values)


def test_bytes_are_those_of_a_file_made_by_hand(tmp_path):
    path = tmp_path / "model.gguf"
    w = np.arange(6, dtype=np.int8).reshape(2, 3)
    gguf.write(path, {"k": 7, "s": ["a", "bc"]}, {"w": (w, "I8"), "v": (np.float32([0.5]), "F32")})
    pairs = [raw.pair("k", raw.U32, 7), raw.array("s", raw.STR, ["a", "bc"])]
    infos = [raw.tensor("w", [3, 2], 24, 0), raw.tensor("v", [1], 0, 32)]
    data = bytes(range(6)) + bytes(26) + raw.number(raw.F32, 0.5) + bytes(28)
    assert path.read_bytes() == raw.join(raw.gguf(pairs, infos, data))


@pytest.mark.parametrize("value, spelling", [
    (True, "bool"), (np.True_, "bool"), ("x", "str"), (1.5, "f32"), (np.float64(1.5), "f64"), (np.int8(1), "i8"),
    (0, "u32"), (2**32 - 1, "u32"), (2**32, "i64"), (2**63, "u64"), (-1, "i32"), (-(2**31) - 1, "i64"),
    ([1, 2], "arr[u32]"), ([-1, 2], "arr[i32]"), ([0, 2**31, -1], "arr[i64]"), ([2**63], "arr[u64]"),
    ([1.5], "arr[f32]"), ([True], "arr[bool]"), (["x"], "arr[str]"), (("x", "y"), "arr[str]"),
    (np.zeros(0, np.int16), "arr[i16]"), (np.zeros(2, bool), "arr[bool]"), (np.zeros(2, ">f8"), "arr[f64]"),
])  # fmt: skip
def test_types_follow_from_values(tmp_path, value, spelling):
    assert spelling_of(value) == spelling
    gguf.write(tmp_path / "model.gguf", {"k": value}, {})
    with gguf.open(tmp_path / "model.gguf") as got:
        assert got.types == {"k": spelling}
        back = got.metadata["k"]
        assert np.array_equal(back, value)


@given(st.dictionaries(
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
        lambda key: key != "general.alignment" and not key.startswith("split.")  # which say something about the file
    ),
    st.one_of(
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.floats(width=32, allow_nan=False),
        st.binary(max_size=20).map(lambda b: b.decode("utf-8", "surrogateescape")),
        st.lists(st.text(st.characters(codec="utf-8"), max_size=5), min_size=1, max_size=5),
    ),
    max_size=8,
))  # fmt: skip
def test_any_metadata_come_back(tmp_path_factory, metadata):
    path = tmp_path_factory.getbasetemp() / "any.gguf"
    gguf.write(path, metadata, {})
    with gguf.open(path) as got:
        assert got.metadata == metadata
        assert [type(v) for v in got.metadata.values()] == [
            Strings if isinstance(v, list) else type(v) for v in metadata.values()
        ]


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_an_alignment_of_ones_own_is_noted_and_kept(tmp_path, alignment):
    data = {"a": (np.arange(5, dtype=np.int8), "I8"), "b": (np.arange(3, dtype="<i2"), "I16")}
    gguf.write(tmp_path / "a.gguf", {}, data, alignment=alignment)
    gguf.write(tmp_path / "b.gguf", {"general.alignment": alignment}, data)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    with gguf.open(tmp_path / "a.gguf") as got:
        assert (got.metadata, got.types) == ({"general.alignment": alignment}, {"general.alignment": "u32"})
        for name, (array, _) in data.items():
            assert got.tensors[name].offset % alignment == 0
            assert_same(got.tensors[name].data, array)


def test_arguments_are_not_changed(tmp_path):
    metadata, types = {"k": 1}, {"k": "u8", "other": "str"}
    gguf.write(tmp_path / "model.gguf", metadata, {}, types, alignment=64)
    assert (metadata, types) == ({"k": 1}, {"k": "u8", "other": "str"})


def test_arrays_in_any_order_of_memory_are_written_in_rows(tmp_path):
    w = np.arange(12, dtype=np.float32).reshape(3, 4)
    gguf.write(
        tmp_path / "m.gguf",
        {},
        {"t": (w.T, "F32"), "s": (w[:, ::2], "F32"), "point": (np.array(1, np.float32), "F32")},
    )
    with gguf.open(tmp_path / "m.gguf") as got:
        np.testing.assert_array_equal(got.tensors["t"].data, w.T)
        np.testing.assert_array_equal(got.tensors["s"].data, w[:, ::2])
        assert got.tensors["point"].shape == ()


def test_empty_tensors_are_written(tmp_path):
    gguf.write(
        tmp_path / "m.gguf", {}, {"a": (np.zeros((0, 3), np.float32), "F32"), "b": (np.zeros((2, 0), np.uint8), "Q4_0")}
    )
    with gguf.open(tmp_path / "m.gguf") as got:
        assert [t.shape for t in got.tensors.values()] == [(0, 3), (2, 0)]


ONE = (np.zeros(32, np.float32), "F32")


@pytest.mark.parametrize("tensors, error, message", [
    ({"": ONE}, RangeError, "tensor name = '', expected 1 to 63 bytes"),
    ({"n" * 64: ONE}, RangeError, "tensor name 'nnn.*': length = 64 bytes, expected at most 63"),
    ({"é" * 32: ONE}, RangeError, "length = 64 bytes, expected at most 63"),
    ({"a\0": ONE}, RangeError, "tensor name = 'a.x00', expected"),
    ({"\udc80": ONE}, RangeError, r"character 0 = U\+DC80"),
    ({7: ONE}, SchemeError, "tensor name = 7, expected str"),
    ({"w": (ONE[0], "Q4_9")}, SchemeError, r"tensor 'w': type = 'Q4_9', expected a ggml type such as .*Q4_0"),
    ({"w": (ONE[0].astype(np.float64), "F32")}, QuantError, "data = float64, expected an array of float32 for F32"),
    ({"w": (ONE[0].astype(">f4"), "F32")}, QuantError, "data = >f4, expected an array of float32"),
    ({"w": (ONE[0], "BF16")}, QuantError, "data = float32, expected an array of uint16 for BF16"),
    ({"w": (ONE[0], "Q4_0")}, QuantError, "data = float32, expected an array of uint8 for Q4_0"),
    ({"w": ([0.5], "F32")}, QuantError, "data = list, expected an array of float32"),
    ({"w": (np.zeros((2, 19), np.uint8), "Q4_0")}, ShapeError, r"shape\[-1\] = 19, expected a positive multiple of 18"),
    ({"w": (np.zeros((), np.uint8), "Q4_0")}, ShapeError, "data.ndim = 0, expected rows of Q4_0 blocks"),
    ({"w": (np.zeros((1,) * 5, np.float32), "F32")}, ShapeError, "ndim = 5, expected at most 4"),
    ({f"t{i}": ONE for i in range(4097)}, RangeError, "number of tensors = 4097, expected at most 4096"),
])  # fmt: skip
def test_tensors_that_cannot_be_written_are_refused(tmp_path, tensors, error, message):
    with pytest.raises(error, match=message):
        gguf.write(tmp_path / "model.gguf", {}, tensors)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key, value, type, error, message", [
    ("", 1, None, RangeError, "metadata key = '', expected 1 to 65535 bytes"),
    ("k" * 65536, 1, None, RangeError, "length = 65536 bytes, expected at most 65535"),
    ("a\0b", 1, None, RangeError, "metadata key = 'a.x00b'"),
    (3, 1, None, SchemeError, "metadata key = 3, expected str"),
    ("k", 256, "u8", RangeError, "metadata 'k': value = 256, expected 0 to 255 for type u8"),
    ("k", -1, "u64", RangeError, "value = -1, expected 0 to 18446744073709551615"),
    ("k", [1, -129], "arr[i8]", RangeError, "value = -129, expected -128 to 127"),
    ("k", np.array([1, 300]), "arr[u8]", RangeError, "value = 300, expected 0 to 255"),
    ("k", [-1, 2**63], "arr[i64]", RangeError, "value = 9223372036854775808"),
    ("k", 2**64, None, RangeError, "values = 18446744073709551616 to .* share a type of 64 bits"),
    ("k", [-1, 2**63], None, RangeError, "values = -1 to 9223372036854775808"),
    ("k", 1e39, None, RangeError, r"max\|value\| = 1e\+39, expected a value within f32"),
    ("k", 2**24 + 1, "f32", RangeError, "value = 16777217, expected -16777216 to 16777216"),
    ("k", 1.5, "u32", SchemeError, "type of the values = float, expected what u32 holds"),
    ("k", True, "u32", SchemeError, "type of the values = bool"),
    ("k", 1, "bool", SchemeError, "type of the values = int, expected what bool holds"),
    ("k", "1", "u32", SchemeError, "type of the values = str"),
    ("k", 1, "str", SchemeError, "value = int, expected str"),
    ("k", [1], "arr[str]", SchemeError, "value = int, expected str"),
    ("k", [1], "u32", SchemeError, "value = list, expected a single value for type u32"),
    ("k", 1, "arr[u32]", SchemeError, "value = int, expected a list or an array"),
    ("k", 1, "u33", SchemeError, "type = 'u33', expected one of str, u8"),
    ("k", [[1]], "arr[arr[u32]]", SchemeError, "type = 'arr.arr.u32..'"),
    ("k", [[1]], None, SchemeError, r"types of the elements = arr\[u32\]"),
    ("k", [[1]], "arr[u32]", ShapeError, "ndim = 2, expected 1: arrays do not nest"),
    ("k", np.zeros((2, 2)), None, ShapeError, "ndim = 2, expected 1"),
    ("k", [], None, SchemeError, "length = 0, expected `types` to say"),
    ("k", [1, "a"], None, SchemeError, "types of the elements = str, u32"),
    ("k", None, None, SchemeError, "value = NoneType, expected bool, int"),
    ("k", np.float16(1), None, SchemeError, "dtype = float16"),
    ("k", "\ud800", None, RangeError, r"character 0 = U\+D800, expected no surrogates"),
    ("general.alignment", 48, None, RangeError, "alignment = 48, expected a power of two"),
    ("general.alignment", 0, None, RangeError, "alignment = 0, expected a power of two"),
    ("general.alignment", "32", None, RangeError, "alignment = '32', expected a power of two"),
])  # fmt: skip
def test_metadata_that_cannot_be_written_are_refused(tmp_path, key, value, type, error, message):
    with pytest.raises(error, match=message):
        gguf.write(tmp_path / "model.gguf", {key: value}, {}, {key: type} if type else None)
    assert not list(tmp_path.iterdir())


def test_two_alignments_are_refused(tmp_path):
    with pytest.raises(RangeError, match=r"'general\.alignment' = 64, expected the alignment, 32"):
        gguf.write(tmp_path / "model.gguf", {"general.alignment": 64}, {}, alignment=32)
    with pytest.raises(RangeError, match="alignment = 4294967296"):
        gguf.write(tmp_path / "model.gguf", {}, {}, alignment=2**32)


def test_too_many_entries_are_refused(tmp_path):
    with pytest.raises(RangeError, match="number of metadata entries = 1025, expected at most 1024"):
        gguf.write(tmp_path / "model.gguf", {str(i): i for i in range(1025)}, {})


def test_nan_and_infinity_are_values_of_f32(tmp_path):
    gguf.write(tmp_path / "m.gguf", {"k": float("nan"), "i": [float("inf"), -0.0]}, {})
    with gguf.open(tmp_path / "m.gguf") as got:
        assert np.isnan(got.metadata["k"])
        assert got.metadata["i"].tobytes() == np.float32([np.inf, -0.0]).tobytes()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.gguf"
    gguf.write(path, {"k": 1}, {})
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        gguf.write(path, {"k": 2}, {"w": ONE})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_may_be_replaced_by_its_own_tensors(tmp_path):
    path = tmp_path / "model.gguf"
    gguf.write(path, {"k": 1}, TENSORS)
    with gguf.open(path) as got:
        view = got.tensors["F32.1d"].data
        gguf.write(path, {"k": 2}, dict(reversed(got.tensors.items())))
        np.testing.assert_array_equal(view, TENSORS["F32.1d"][0])  # still the old bytes
    with gguf.open(path) as got:
        assert got.metadata == {"k": 2}
        for name, (data, _) in TENSORS.items():
            assert_same(got.tensors[name].data, data)


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    gguf.write(tmp_path / "model.gguf", {}, {})
    (tmp_path / "other").touch()
    assert stat.S_IMODE((tmp_path / "model.gguf").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_pieces_make_the_file_that_whole_tensors_make(tmp_path):
    gguf.write(tmp_path / "whole.gguf", VALUES, TENSORS, TYPES, alignment=64)
    shapes = {}
    with gguf.open(tmp_path / "whole.gguf") as got:
        shapes = {name: (tensor.shape, tensor.type) for name, tensor in got.tensors.items()}
    with gguf.create(tmp_path / "pieces.gguf", VALUES, shapes, TYPES, alignment=64) as file:
        assert file.nbytes == (tmp_path / "whole.gguf").stat().st_size
        for name, (data, _) in reversed(TENSORS.items()):
            flat = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
            middle = len(flat) // 2
            file.put(name, middle, flat[middle:])
            file.put(name, 0, bytes(flat[:middle]))
    assert (tmp_path / "pieces.gguf").read_bytes() == (tmp_path / "whole.gguf").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("positional", [True, False])
def test_threads_may_put_at_the_same_time(tmp_path, monkeypatch, positional):
    if not positional:
        monkeypatch.delattr(os, "pwrite", raising=False)  # as on Windows
    data = np.random.default_rng(0).integers(0, 256, 1 << 20, np.uint8)
    with gguf.create(tmp_path / "m.gguf", {}, {"w": ((1 << 20,), "I8")}) as file, ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda at: file.put("w", at, data[at : at + 1000]), range(0, 1 << 20, 1000)))
    with gguf.open(tmp_path / "m.gguf") as got:
        np.testing.assert_array_equal(got.tensors["w"].data.view(np.uint8), data)


@pytest.mark.parametrize("first, count", [(-1, 1), (0, 37), (36, 1), (1 << 70, 1)])
def test_pieces_beyond_their_tensor_are_refused_and_leave_nothing(tmp_path, first, count):
    refusal = pytest.raises(RangeError, match=r"tensor 'w': bytes .* expected bytes within the 36 of the tensor")
    with refusal, gguf.create(tmp_path / "m.gguf", {}, {"w": ((2, 32), "Q4_0")}) as file:
        file.put("w", first, bytes(count))
    assert not list(tmp_path.iterdir())


def test_a_shape_that_its_type_cannot_have_is_refused(tmp_path):
    for shape in ((2, 33), ()):
        with pytest.raises(ShapeError, match=r"shape\[-1\] = .*, expected a multiple of 32"):
            gguf.create(tmp_path / "m.gguf", {}, {"w": (shape, "Q4_0")})
    assert not list(tmp_path.iterdir())
