"""What sound GGUF files look like through the reader: metadata, tensors, alignment, split models, real files."""

import os
import time

import gguf_bytes as raw
import numpy as np
import pytest
from gguf_bytes import BOOL, F32, F64, I8, I16, I32, I64, STR, U8, U16, U32, U64

from refquant import gguf
from refquant.errors import GGUFError
from refquant.gguf.formats import FORMATS
from refquant.gguf.strings import Strings

PREFIX = "model"
SPELLINGS = {
    U8: "u8", I8: "i8", U16: "u16", I16: "i16", U32: "u32", I32: "i32", F32: "f32", U64: "u64", I64: "i64", F64: "f64"
}  # fmt: skip
EXTREMES = {
    U8: (0, 255), I8: (-128, 127), U16: (0, 2**16 - 1), I16: (-(2**15), 2**15 - 1), U32: (0, 2**32 - 1),
    I32: (-(2**31), 2**31 - 1), U64: (0, 2**64 - 1), I64: (-(2**63), 2**63 - 1), F32: (-1.5, 2.0**127),
    F64: (0.1, -1e300),
}  # fmt: skip


def write_file(tmp_path, *args, name="model.gguf", **fields):
    path = tmp_path / name
    path.write_bytes(raw.join(raw.gguf(*args, **fields)))
    return path


def split_model(tmp_path, **changes):
    """Three files with one, two and no tensors; `changes` maps `keyN` of file N (from 0) to (type, value)."""
    tensors = (["a"], ["b", "c"], [])
    for i, names in enumerate(tensors):
        values = {"split.no": (U16, i), "split.count": (U16, 3), "split.tensors.count": (I32, 3)}
        values |= {key[:-1].replace("_", "."): change for key, change in changes.items() if key.endswith(str(i))}
        pairs = [raw.pair(key, *value) for key, value in values.items()]
        pairs += [raw.pair("general.name", STR, f"part {i}"), raw.pair("general.alignment", U32, 64 >> i)]
        step = 64 >> i
        infos = [raw.tensor(name, [4], 24, j * step) for j, name in enumerate(names)]
        data = b"".join(name.encode() * 4 + bytes(step - 4) for name in names)
        write_file(tmp_path, pairs, infos, data, name=f"{PREFIX}-{i + 1:05d}-of-00003.gguf", alignment=step)
    return tmp_path / f"{PREFIX}-00001-of-00003.gguf"


@pytest.mark.parametrize("version", [2, 3])
def test_a_header_without_entries_is_a_file(tmp_path, version):
    with gguf.open(write_file(tmp_path, version=version)) as got:
        assert (got.version, got.alignment, got.metadata, got.types, got.tensors) == (version, 32, {}, {}, {})


@pytest.mark.parametrize("type", SPELLINGS)
def test_numbers_keep_their_value_and_the_spelling_of_their_type(tmp_path, type):
    lo, hi = EXTREMES[type]
    path = write_file(tmp_path, [raw.pair("lo", type, lo), raw.pair("hi", type, hi), raw.array("both", type, [lo, hi])])
    with gguf.open(path) as got:
        assert got.types == {"lo": SPELLINGS[type], "hi": SPELLINGS[type], "both": f"arr[{SPELLINGS[type]}]"}
        assert (got.metadata["lo"], got.metadata["hi"]) == (lo, hi)
        both = got.metadata["both"]
        assert isinstance(got.metadata["lo"], float if type in (F32, F64) else int)
        assert both.dtype.itemsize == len(raw.number(type, 0))
        assert both.tolist() == [lo, hi]
        assert not both.flags.writeable and both.flags.aligned


def test_a_bool_is_false_for_zero_alone(tmp_path):
    pairs = [
        raw.pair("no", BOOL, 0),
        raw.pair("yes", BOOL, 1),
        raw.pair("two", BOOL, 2),
        raw.array("all", BOOL, [0, 1, 255]),
    ]
    with gguf.open(write_file(tmp_path, pairs)) as got:
        assert [got.metadata[k] for k in ("no", "yes", "two")] == [False, True, True]
        assert all(type(got.metadata[k]) is bool for k in ("no", "yes", "two"))
        assert got.metadata["all"].dtype == np.bool_
        assert got.metadata["all"].tolist() == [False, True, True]
        assert not got.metadata["all"].flags.writeable
        assert got.types == {"no": "bool", "yes": "bool", "two": "bool", "all": "arr[bool]"}


def test_strings_keep_bytes_that_are_not_utf8(tmp_path):
    texts = ["", "a", "Ġthe", "\0", "日本", b"\xe2\x96", b"\xff\0"]
    pairs = [
        raw.array("s", STR, texts),
        raw.array("none", STR, []),
        raw.pair("one", STR, "é"),
        raw.pair("cut", STR, b"\1" + bytes(7) + b"\xe9"),
    ]
    with gguf.open(write_file(tmp_path, pairs)) as got:
        assert isinstance(got.metadata["s"], Strings)
        back = [s.encode("utf-8", "surrogateescape") for s in got.metadata["s"]]
        assert back == [t if isinstance(t, bytes) else t.encode() for t in texts]
        assert got.metadata["none"] == []
        assert got.metadata["one"] == "é"
        assert got.metadata["cut"] == "\udce9"
        assert got.types == {"s": "arr[str]", "none": "arr[str]", "one": "str", "cut": "str"}


def test_offsets_say_where_a_value_begins(tmp_path):
    path = write_file(tmp_path, [raw.pair("ab", U8, 7), raw.array("c", STR, ["x"]), raw.pair("d", F32, 0.5)])
    whole = path.read_bytes()
    with gguf.open(path) as got:
        assert got.offsets == {key: whole.index(key.encode()) + len(key) for key in ("ab", "c", "d")}


def test_shapes_are_the_reverse_of_the_file(tmp_path):
    path = write_file(tmp_path, [], [raw.tensor("w", [2, 3, 1, 4], 26, 0)], np.arange(24, dtype="<i4").tobytes())
    with gguf.open(path) as got:
        w = got.tensors["w"]
        assert (w.name, w.shape, w.type, w.nbytes, w.path) == ("w", (4, 1, 3, 2), "I32", 96, path)
        np.testing.assert_array_equal(w.data, np.arange(24).reshape(4, 1, 3, 2))


@pytest.mark.parametrize("name", FORMATS)
def test_every_tensor_type_is_a_read_only_view_of_the_file(tmp_path, name):
    format = FORMATS[name]
    rows, blocks = 3, 2
    nbytes = rows * blocks * format.layout.itemsize
    data = np.random.default_rng(format.ggml_id).integers(0, 256, nbytes, np.uint8)
    infos = [raw.tensor("pad", [5], 24, 0), raw.tensor("w", [blocks * format.values, rows], format.ggml_id, 32)]
    path = write_file(tmp_path, [], infos, bytes(32) + data.tobytes())
    with gguf.open(path) as got:
        w = got.tensors["w"]
        assert (w.type, w.shape, w.nbytes) == (name, (rows, blocks * format.values), nbytes)
        assert path.read_bytes()[w.offset :] == data.tobytes()
        if format.values == 1:
            assert w.data.dtype == {"BF16": np.uint16}.get(name, format.layout)
            assert w.data.shape == w.shape
        else:
            assert w.data.dtype == np.uint8
            assert w.data.shape == (rows, blocks * format.layout.itemsize)
        assert w.data.tobytes() == data.tobytes()
        assert not w.data.flags.writeable and not w.data.flags.owndata
        with pytest.raises(ValueError, match="WRITEABLE"):
            w.data.flags.writeable = True
        with path.open("r+b") as file:  # a view of the file sees what is written to it, a copy would not
            file.seek(w.offset)
            file.write(bytes(255 - b for b in data))
        assert w.data.tobytes() == bytes(255 - b for b in data)


@pytest.mark.parametrize("dims, shape", [([], ()), ([7], (7,)), ([7, 1, 1, 1], (1, 1, 1, 7))])
def test_trailing_dimensions_are_kept_as_the_file_has_them(tmp_path, dims, shape):
    with gguf.open(write_file(tmp_path, [], [raw.tensor("w", dims, 24, 0)], bytes(7))) as got:
        assert got.tensors["w"].shape == got.tensors["w"].data.shape == shape


@pytest.mark.parametrize("type, dims, shape, data_shape", [
    (0, [0], (0,), (0,)),
    (0, [4, 0], (0, 4), (0, 4)),
    (2, [0, 5], (5, 0), (5, 0)),
    (12, [256, 0, 3], (3, 0, 256), (3, 0, 144)),
    (0, [0, 2**60], (2**60, 0), (2**60, 0)),
])  # fmt: skip
def test_tensors_of_size_zero_open_even_without_data(tmp_path, type, dims, shape, data_shape):
    infos = [raw.tensor("none", dims, type, 0), raw.tensor("also", dims, type, 0)]
    with gguf.open(write_file(tmp_path, [], infos)) as got:
        for tensor in got.tensors.values():
            assert (tensor.shape, tensor.nbytes) == (shape, 0)
            assert tensor.data.shape == data_shape
            assert not tensor.data.flags.writeable


@pytest.mark.parametrize("alignment", [1, 2, 8, 64, 4096])
def test_the_alignment_of_the_file_places_the_data(tmp_path, alignment):
    size = -(-5 // alignment) * alignment
    infos = [raw.tensor("a", [5], 24, 0), raw.tensor("b", [1], 0, size)]
    data = b"hello".ljust(size, b"\0") + raw.number(F32, 0.5)
    pairs = [raw.pair("general.alignment", U32, alignment)]
    with gguf.open(write_file(tmp_path, pairs, infos, data, alignment=alignment)) as got:
        assert got.alignment == alignment
        assert got.tensors["a"].data.tobytes() == b"hello"
        assert got.tensors["b"].data.tolist() == [0.5]
        assert got.tensors["b"].offset % alignment == 0


def test_bytes_after_the_last_tensor_are_ignored(tmp_path):
    infos = [raw.tensor("a", [5], 24, 0)]
    for tail in (b"", bytes(27), bytes(1000)):
        with gguf.open(write_file(tmp_path, [], infos, b"hello" + tail)) as got:
            assert got.tensors["a"].data.tobytes() == b"hello"


def test_views_outlive_the_file_and_a_closed_file_gives_no_more(tmp_path):
    path = write_file(tmp_path, [raw.array("n", I32, [1, 2])], [raw.tensor("a", [5], 24, 0)], b"hello")
    with gguf.open(path) as got:
        view = got.tensors["a"].data
    os.remove(path)
    assert view.tobytes() == b"hello"
    assert got.metadata["n"].tolist() == [1, 2]
    with pytest.raises(GGUFError, match="is closed"):
        _ = got.tensors["a"].data
    got.close()  # again


def test_tensors_and_files_cannot_be_changed(tmp_path):
    with gguf.open(write_file(tmp_path, [], [raw.tensor("a", [5], 24, 0)], b"hello")) as got:
        with pytest.raises(AttributeError):
            got.tensors["a"].shape = (4,)
        with pytest.raises(AttributeError):
            got.version = 2


def test_a_path_may_be_a_string(tmp_path):
    path = write_file(tmp_path)
    with gguf.open(str(path)) as got:
        assert got.path == path


def test_a_split_model_opens_by_its_first_file(tmp_path):
    path = split_model(tmp_path)
    with gguf.open(path) as got:
        assert list(got.tensors) == ["a", "b", "c"]
        assert got.metadata["general.name"] == "part 0"
        assert got.alignment == 64
        assert [t.data.tobytes() for t in got.tensors.values()] == [b"aaaa", b"bbbb", b"cccc"]
        assert [t.path.name[6:11] for t in got.tensors.values()] == ["00001", "00002", "00002"]


def test_a_model_in_one_file_needs_no_special_name(tmp_path):
    path = write_file(tmp_path, [raw.pair("split.count", U16, 1)], name="anything.bin")
    with gguf.open(path) as file:
        assert file.metadata["split.count"] == 1


@pytest.mark.parametrize("changes, message", [
    ({"split_no0": (U16, 1)}, "split.no = 1 at byte .*file 2 of 3, open the first, model-00001-of-00003.gguf"),
    ({"split_no0": (U32, 0)}, "type of split.no = u32 at byte .*expected u16"),
    ({"split_count0": (U16, 2)}, "file name = 'model-00001-of-00003.gguf', expected model-00001-of-00002.gguf"),
    ({"split_count0": (I32, 3)}, "type of split.count = i32 at byte .*expected u16"),
    ({"split_count0": (U16, 65535)}, "expected model-00001-of-65535.gguf"),
    ({"split_no1": (U16, 2)}, "00002-of-00003.gguf: split.no = 2 at byte .*expected 1"),
    ({"split_no2": (U16, 1)}, "00003-of-00003.gguf: split.no = 1 at byte .*expected 2"),
    ({"split_count1": (U16, 4)}, "00002-of-00003.gguf: split.count = 4 at byte .*expected 3"),
    ({"split_tensors_count0": (I32, 2)}, "split.tensors.count = 2 at byte .*expected 3"),
    ({"split_tensors_count0": (U16, 3)}, "type of split.tensors.count = u16 at byte .*expected i32"),
])  # fmt: skip
def test_what_the_files_of_a_split_model_say_must_agree(tmp_path, changes, message):
    path = split_model(tmp_path, **changes)
    with pytest.raises(GGUFError, match=message):
        gguf.open(path)


def test_a_later_file_of_a_split_model_names_the_first(tmp_path):
    split_model(tmp_path)
    with pytest.raises(GGUFError, match=r"split.no = 2 at byte .*, open the first, model-00001-of-00003.gguf"):
        gguf.open(tmp_path / f"{PREFIX}-00003-of-00003.gguf")


def test_a_missing_file_of_a_split_model_is_named(tmp_path):
    path = split_model(tmp_path)
    (tmp_path / f"{PREFIX}-00002-of-00003.gguf").unlink()
    with pytest.raises(GGUFError, match=r"model-00002-of-00003.gguf: cannot be opened: No such file"):
        gguf.open(path)


def test_a_renamed_split_model_is_refused_with_the_name_it_needs(tmp_path):
    path = split_model(tmp_path).rename(tmp_path / "first.gguf")
    with pytest.raises(GGUFError, match=r"expected <prefix>-00001-of-00003.gguf"):
        gguf.open(path)


def test_a_file_that_says_nothing_of_the_split_does_not_belong_to_it(tmp_path):
    path = split_model(tmp_path)
    write_file(tmp_path, name=f"{PREFIX}-00002-of-00003.gguf")
    with pytest.raises(GGUFError, match=r"00002-of-00003.gguf: type of split.no = absent, expected u16"):
        gguf.open(path)


def test_a_name_in_two_files_of_a_split_model_is_refused(tmp_path):
    path = split_model(tmp_path)
    other = tmp_path / f"{PREFIX}-00002-of-00003.gguf"
    other.write_bytes(other.read_bytes().replace(b"\1" + bytes(7) + b"c", b"\1" + bytes(7) + b"a"))
    with pytest.raises(GGUFError, match=r"00002-of-00003.gguf: tensor 'a' is also in model-00001-of-00003.gguf"):
        gguf.open(path)


@pytest.mark.parametrize("name, tensors, tokens", [
    ("models/stories260K-f32.gguf", 48, 512),
    ("models/tiny-qwen2-Q4_K_M.gguf", 98, 8192),
    ("tokenizers/ggml-vocab-gpt-2.gguf", 0, 50257),
    ("tokenizers/ggml-vocab-llama-spm.gguf", 0, 32000),
    ("tokenizers/ggml-vocab-qwen2.gguf", 0, 151936),
    ("tokenizers/ggml-vocab-llama-bpe.gguf", 0, 128256),
])  # fmt: skip
def test_published_files_open_in_less_than_a_second(shared, name, tensors, tokens):
    path = shared(name)
    start = time.perf_counter()
    with gguf.open(path) as got:
        elapsed = time.perf_counter() - start
        assert len(got.tensors) == tensors
        assert len(got.metadata["tokenizer.ggml.tokens"]) == tokens
        assert len(got.metadata["tokenizer.ggml.token_type"]) == tokens
        for tensor in got.tensors.values():
            assert tensor.data.nbytes == tensor.nbytes
            assert tensor.offset % got.alignment == 0
    assert elapsed < 1, elapsed


@pytest.mark.parametrize("name", ["models/stories260K-f32.gguf", "models/tiny-qwen2-Q4_K_M.gguf"])
def test_published_models_read_as_the_gguf_package_reads_them(shared, name):
    import gguf as peer

    ref = peer.GGUFReader(shared(name))
    with gguf.open(shared(name)) as got:
        assert [t.name for t in ref.tensors] == list(got.tensors)
        for tensor in ref.tensors:
            mine = got.tensors[tensor.name]
            assert mine.type == tensor.tensor_type.name
            assert mine.shape == tuple(int(d) for d in tensor.shape[::-1])
            assert mine.offset == tensor.data_offset
            np.testing.assert_array_equal(mine.data, tensor.data)
        fields = {k: f.contents() for k, f in ref.fields.items() if not k.startswith("GGUF.")}
        assert list(fields) == list(got.metadata)
        for key, value in fields.items():
            mine = got.metadata[key]
            assert (mine.tolist() if isinstance(mine, np.ndarray) else mine) == value, key


def test_files_of_the_gguf_package_are_read(tmp_path):
    import gguf as peer

    path = tmp_path / "theirs.gguf"
    writer = peer.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int16("i16", -3)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_array("ints", [1, -2, 3])
    writer.add_array("texts", ["a", "日本", ""])
    writer.add_custom_alignment(64)
    weights = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    blocks = peer.quantize(weights, peer.GGMLQuantizationType.Q5_1)
    writer.add_tensor("w", weights)
    writer.add_tensor("q", blocks, raw_dtype=peer.GGMLQuantizationType.Q5_1)
    writer.add_tensor("h", weights[0].astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with gguf.open(path) as got:
        assert got.metadata["general.architecture"] == "llama"
        assert (got.metadata["u8"], got.types["u8"]) == (200, "u8")
        assert (got.metadata["i16"], got.types["i16"]) == (-3, "i16")
        assert (got.metadata["f64"], got.types["f64"]) == (0.1, "f64")
        assert got.metadata["yes"] is True
        assert got.metadata["ints"].tolist() == [1, -2, 3]
        assert got.metadata["texts"] == ["a", "日本", ""]
        assert got.alignment == 64
        np.testing.assert_array_equal(got.tensors["w"].data, weights)
        np.testing.assert_array_equal(got.tensors["q"].data, blocks)
        np.testing.assert_array_equal(got.tensors["h"].data, weights[0].astype(np.float16))
        assert got.tensors["q"].shape == (3, 64)


def test_split_models_of_the_gguf_package_are_read(tmp_path):
    import gguf as peer

    writer = peer.GGUFWriter(tmp_path / "theirs.gguf", "llama", split_max_tensors=2)
    arrays = {f"t{i}": np.full((2, 8), i, np.float32) for i in range(5)}
    for name, array in arrays.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with gguf.open(tmp_path / "theirs-00001-of-00003.gguf") as got:
        assert got.metadata["general.architecture"] == "llama"
        assert list(got.tensors) == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(got.tensors[name].data, array)
