import json

import numpy as np
import pytest

from refquant import gguf, inspection

TENSORS = {
    "a.weight": (np.arange(4 * 18 * 2, dtype=np.uint8).reshape(4, 36), "Q4_0"),
    "b.weight": (np.ones((3, 2), np.float32), "F32"),
}
METADATA = {
    "general.architecture": "llama",
    "text": "two\nlines \x1b[31m and \udcff",
    "words": [f"token {i}" for i in range(100)],
    "numbers": np.arange(1_000_000, 1_000_010, dtype=np.int32),
    "strange": float("nan"),
    "flag": True,
}


@pytest.fixture
def facts(tmp_path):
    gguf.write(tmp_path / "model.gguf", METADATA, TENSORS)
    with gguf.open(tmp_path / "model.gguf") as file:
        return inspection.summary(file)


def test_totals_and_tensors_are_counted(facts):
    assert (facts["weights"], facts["nbytes"]) == (4 * 64 + 6, 4 * 36 + 24)
    assert facts["types"] == {"Q4_0": {"tensors": 1, "nbytes": 144}, "F32": {"tensors": 1, "nbytes": 24}}
    assert facts["tensors"][0] | {"offset": 0} == {
        "name": "a.weight", "type": "Q4_0", "shape": [4, 64], "nbytes": 144, "offset": 0, "file": "model.gguf"
    }  # fmt: skip


def test_the_summary_is_strict_json_without_long_arrays(facts):
    text = json.dumps(facts, allow_nan=False)
    assert len(text) < 3000
    assert facts["metadata"]["words"] == {"type": "arr[str]", "count": 100, "first": [f"token {i}" for i in range(6)]}
    assert facts["metadata"]["numbers"]["first"][0] == 1_000_000
    assert facts["metadata"]["strange"]["value"] == "nan"


def test_lines_are_printable_and_in_human_units(facts):
    lines = list(inspection.lines(facts))
    assert all(line.isprintable() for line in lines)
    text = "\n".join(lines)
    assert "GGUF version 3, 2 tensors, 262 weights, 168 B, 5.13 bits per weight" in text
    assert r"two\nlines \x1b[31m and \udcff" in text
    assert "100 values: 'token 0', " in text
    assert "1000000, 1000001" in text
    row = next(line.split() for line in lines if "a.weight" in line)
    assert row == ["a.weight", "Q4_0", "4", "x", "64", "144", "B", "4.5"]


def test_a_file_without_tensors_is_described(tmp_path):
    gguf.write(tmp_path / "empty.gguf", {"general.architecture": "llama"}, {})
    with gguf.open(tmp_path / "empty.gguf") as file:
        text = "\n".join(inspection.lines(inspection.summary(file)))
    assert "0 tensors, 0 weights, 0 B, no weights" in text


def test_long_text_is_cut():
    assert inspection.printable("x" * 1000, 10) == "x" * 10 + "..."


def test_columns_line_up():
    rows = list(inspection.table(("name", "size"), [("a", "1"), ("bcdefg", "100")], right=(1,)))
    assert rows == ["  name    size", "  a          1", "  bcdefg   100"]
