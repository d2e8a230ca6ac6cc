"""The command `python -m runtime.bench`: what it prints, measures and refuses."""

import csv
import io
import json

import pytest
from tiny_models import write_tiny_model

from runtime import bench

COLUMNS = ["model", "size", "params", "backend", "threads", "test", "t/s", "of read"]
SMALL = ["-p", "8", "-n", "3", "-r", "2", "-t", "1"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("bench") / "m.gguf", arch="qwen2", types="Q8_0")


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_has_the_columns_of_llama_bench(path, capsys):
    assert bench.main([str(path), *SMALL, "-d", "0,16"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert cells(lines[0]) == COLUMNS
    rows = [dict(zip(COLUMNS, cells(line), strict=True)) for line in lines[2:6]]
    assert [row["test"] for row in rows] == ["pp8", "tg3", "pp8 @ d16", "tg3 @ d16"]
    for row in rows:
        assert row["threads"] == "1"
        mean, deviation = map(float, row["t/s"].split(" ± "))
        assert mean > 0
        assert deviation >= 0
        assert (row["of read"] == "-") == row["test"].startswith("pp")
    assert cells(lines[7])[:4] == ["model", "threads", "load", "peak of load"]
    assert "tg3 @ d16" in err


def test_json_has_every_run_and_adds_up(path, capsys):
    assert bench.main([str(path), *SMALL, "-o", "json", "-q"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    prompt, written = json.loads(out)
    assert (prompt["n_prompt"], prompt["n_gen"], prompt["test"]) == (8, 0, "pp8")
    assert (written["n_prompt"], written["n_gen"], written["test"]) == (0, 3, "tg3")
    for row, tokens in ((prompt, 8), (written, 3)):
        assert len(row["samples_ns"]) == 2
        assert row["samples_ts"] == [1e9 * tokens / ns for ns in row["samples_ns"]]
        assert row["avg_ts"] == pytest.approx(sum(row["samples_ts"]) / 2)
        assert row["load_seconds"] > 0
        assert row["read_bytes_per_second"] > 1e8
        assert row["type_k"] == row["type_v"] == "f16"
    assert prompt["bandwidth_percent"] is None
    assert written["bandwidth_percent"] > 0


def test_csv_has_one_line_a_test(path, capsys):
    assert bench.main([str(path), *SMALL, "-o", "csv", "-q", "-pg", "4,2", "-p", "0"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["test"] for row in rows] == ["tg3", "pp4+tg2"]
    assert rows[0]["model_n_params"] == rows[1]["model_n_params"]
    assert "samples_ns" not in rows[0]


def test_each_number_of_threads_is_a_load(path, capsys):
    assert bench.main([str(path), "-p", "0", "-n", "2", "-r", "1", "-t", "1,2", "-o", "json", "-q"]) == 0
    assert [row["n_threads"] for row in json.loads(capsys.readouterr().out)] == [1, 2]


def test_what_was_complete_before_an_error_is_printed(path, tmp_path, capsys):
    assert bench.main([str(path), str(tmp_path / "none.gguf"), *SMALL, "-q"]) == 2
    out, err = capsys.readouterr()
    assert "tg3" in out
    assert err.startswith("refquant-bench: ")
    assert "none.gguf" in err
    assert err.count("\n") == 1


def test_an_interruption_ends_with_130(path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(bench, "_measure_loaded", interrupted)
    assert bench.main([str(path), *SMALL]) == 130
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["-p", "0", "-n", "0"], "leaves no test"),
        (["-t", "0"], "expected whole numbers 1.."),
        (["-p", "-1"], "expected whole numbers 0.."),
        (["-p", "8,x"], "expected whole numbers"),
        (["-n", "99999999999"], "expected whole numbers"),
        (["-pg", "4"], "two whole numbers"),
        (["-r", "0"], "expected 1.."),
        (["-o", "sql"], "invalid choice"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        bench.main(["m.gguf", *arguments])
    assert end.value.code == 2
    err = capsys.readouterr().err
    assert complaint in err
    assert err.count("\n") == 1


def test_a_test_beyond_the_context_is_refused(path, capsys):
    assert bench.main([str(path), "-p", "300", "-n", "0", "-q"]) == 2
    assert "n_ctx = 300, expected 1..256" in capsys.readouterr().err
