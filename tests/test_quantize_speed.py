"""The benchmark of quantizing: one real run against itself, its table, and what it says when it cannot run."""

import sys
from pathlib import Path

import pytest
from tiny_models import write_tiny_model

from benchmarks import quantize_speed, quantize_worker
from benchmarks.quantize_speed import Result, as_markdown


def run(seconds, engine="refquant"):
    found = {"version": f"{engine} 1", "seconds": seconds, "cpu_seconds": 2 * seconds, "peak": 3_000_000}
    return found | ({"compiling": 0.5} if engine == "refquant" else {})


def test_the_table_tells_medians_ratios_and_whether_the_bytes_are_the_same(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(bytes(10))
    ours, theirs = (run(1.0), run(2.0), run(4.0)), tuple(run(s, "llama.cpp") for s in (3.0, 8.0, 8.0))
    lines = as_markdown(path, 2, [Result("Q4_K_M", ours, theirs, False, 10**9)]).splitlines()
    assert lines[0].startswith("m.gguf (0.00 GB), 2 threads, ")
    cells = [cell.strip() for cell in lines[4].strip("|").split("|")]
    assert cells == [
        "Q4_K_M", "1.00", "2.00 (1.00-4.00)", "8.00 (3.00-8.00)", "3.00 (2.00-4.00)", "4.0", "16.0", "3", "3", "NO",
    ]  # fmt: skip


def test_our_worker_quantizes_and_tells_what_it_took(tmp_path):
    source = write_tiny_model(tmp_path / "in.gguf")
    found = quantize_worker.ours(str(source), str(tmp_path / "out.gguf"), 7, 1)
    assert (tmp_path / "out.gguf").stat().st_size < source.stat().st_size
    assert found["seconds"] > 0 and found["peak"] > 1e6


def test_a_worker_that_cannot_run_is_told_in_one_line(tmp_path, capsys):
    source = write_tiny_model(tmp_path / "in.gguf")
    command = [str(source), "--folder", str(tmp_path), "--types", "Q8_0", "--repetitions", "1"]
    code = quantize_speed.main([*command, "--llama-python", str(Path(sys.executable).with_name("no-python"))])
    assert code == 2
    assert capsys.readouterr().err.startswith("quantize_speed: ")
    with pytest.raises(SystemExit):
        quantize_speed.main(["--shape", "none"])
