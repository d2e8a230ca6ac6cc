"""refquant.difference and refquant.file_difference: what differs, where first, and which rule explains it."""

import json

import numpy as np
import pytest

from refquant import gguf
from refquant.__main__ import main
from refquant.difference import backends, between, nearest, schemes, tensors
from refquant.errors import QuantError
from refquant.file_difference import gguf_files, safetensors_files
from refquant.layouts import safetensors_file
from refquant.quantize import quantize


@pytest.fixture
def x():
    return np.random.default_rng(11).standard_normal((8, 256), np.float32)


def test_the_first_number_that_differs_is_named():
    a = np.arange(6, dtype=np.int8).reshape(2, 3)
    b = a.copy()
    b[1, 1] = 9
    (part,) = between({"codes": a}, {"codes": b}).parts
    assert (part.differing, part.first, part.numbers) == (1, (1, 1), ("4", "9"))


def test_minus_zero_is_not_zero_and_a_nan_is_itself():
    a, b = np.array([0.0, np.nan], np.float32), np.array([-0.0, np.nan], np.float32)
    assert between({"x": a}, {"x": b}).differing == 1
    assert between({"x": b}, {"x": b}).equal


@pytest.mark.parametrize("other", [np.zeros(3, np.float32), np.zeros((2, 2), np.float32), None])
def test_another_shape_dtype_or_no_array_differs_everywhere(other):
    a = np.zeros(4, np.int8)
    (part,) = between({"codes": a}, {} if other is None else {"codes": other}).parts
    assert part.differing == 4
    assert part.remark


def test_the_rule_that_explains_a_difference_explains_all_of_it(x):
    found = schemes("int4-g128", "int4-g128-restricted", x)
    assert not found.equal
    assert [(rule.field, rule.explains) for rule in found.rules] == [("range_mode", 1.0)]


def test_of_two_rules_each_gets_its_share(x):
    found = schemes("int4-g128-f16", "int4-g128-restricted", x)
    shares = {rule.field: rule.explains for rule in found.rules}
    assert shares.keys() == {"range_mode", "scale_dtype"}
    assert shares["range_mode"] > shares["scale_dtype"]


def test_equal_schemes_are_equal(x):
    assert schemes("nf4", "nf4-b64", x).equal


def test_two_tensors_list_their_rules(x):
    found = tensors(quantize(x, "int4-g32"), quantize(x, "int4-g32-full"))
    assert found.differing > 0
    assert [(rule.field, rule.a, rule.b) for rule in found.rules] == [("range_mode", "half", "full")]


def test_the_nearest_dialect_of_given_bytes_is_found(x):
    ties = (np.random.default_rng(1).integers(-28, 29, (4, 256)) / 4).astype(np.float32)
    q = quantize(ties, "mxfp4@modelopt")
    ranked = nearest(ties, {"codes": q.codes, "scale": q.scale}, "mxfp4")
    assert ranked[0] == ("mxfp4@modelopt", 0)
    assert dict(ranked)["mxfp4"] > 0


def test_backends_are_functions_that_may_not_write(x):
    def writes(array):
        array[0] = 0
        return {"codes": array}

    assert backends(lambda a: {"codes": a + 1}, lambda a: {"codes": a + 1}, x).equal
    with pytest.raises(ValueError, match="read-only"):
        backends(writes, writes, x)


@pytest.fixture
def files(tmp_path, x):
    def write(name, scale=1.0, kind="Q4_0", extra=None):
        data = gguf.quantize(x * np.float32(scale), kind)
        path = tmp_path / name
        gguf.write(path, {"general.architecture": "llama", **(extra or {})}, {"w": (data, kind), "v": (x, "F32")})
        return path

    return write


def test_gguf_files_differ_by_field_by_type_and_by_key(files, x):
    a = files("a.gguf")
    assert gguf_files(a, files("same.gguf")).equal
    found = gguf_files(a, files("b.gguf", scale=1.5, extra={"k": 1}))
    assert found.metadata == ("k: only in b",)
    assert [(t.name, t.remark) for t in found.tensors] == [("w", "Q4_0")]
    assert {part.name: part.differing for part in found.tensors[0].parts} == {"d": 64, "qs": 0}
    assert found.equal_tensors == 1
    (other,) = gguf_files(a, files("c.gguf", kind="Q8_0")).tensors
    assert other.remark.startswith("Q4_0 and Q8_0: values differ by at most 0.")


def test_safetensors_files_differ_by_array(tmp_path, x):
    for name, array in (("a", x), ("b", x * np.float32(2))):
        safetensors_file.write(tmp_path / f"{name}.safetensors", [("w", "F32", array)])
    found = safetensors_files(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert found.tensors[0].parts[0].differing == int((x != 0).sum())
    assert safetensors_files(tmp_path / "a.safetensors", tmp_path / "a.safetensors").equal


def test_the_command_reports_and_says_by_its_status(files, capsys):
    a, b = files("a.gguf"), files("b.gguf", scale=1.5)
    assert main(["diff", str(a), str(a)]) == 0
    assert main(["diff", str(a), str(b)]) == 1
    out = capsys.readouterr().out
    assert "  d: 64 of 64 differ, the first at [0]:" in out
    assert main(["diff", "int4", "int4-full", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rules"][0]["explains"] == 1
    assert main(["diff", "int4", str(a)]) == 1
    assert "expected two files of one format" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["nothing", "absent.npy"])
def test_bad_numbers_for_schemes_are_refused(what, capsys):
    assert main(["diff", "int4", "int8", "--input", what]) == 1
    assert "--input" in capsys.readouterr().err


def test_an_unknown_scheme_is_refused(x):
    with pytest.raises(QuantError, match="nearest are"):
        schemes("int44", "int4", x)
