"""Rows of the benchmark: rates, deviations, formats."""

import json
import statistics
from dataclasses import replace

from runtime import bench_rows
from runtime.bench_rows import Load, Row

LOAD = Load(0.5, 3 << 20, 4 << 20, 1 << 20, 3 << 20)
ROW = Row(
    cpu_info="a CPU",
    backend="CPU test",
    model_filename="m.gguf",
    model_type="qwen2 1.5B Q4_0",
    model_size=3 << 29,
    model_n_params=1_540_000_000,
    n_threads=2,
    type_k="f16",
    type_v="f16",
    n_prompt=0,
    n_gen=100,
    n_depth=0,
    test="tg100",
    test_time="2026-01-01T00:00:00+00:00",
    samples_ns=(2_000_000_000, 4_000_000_000, 5_000_000_000),
    traffic_bytes=1_000_000_000,
    read_bytes_per_second=50e9,
    load=LOAD,
)


def test_rates_are_tokens_by_seconds_of_each_run():
    assert ROW.samples_ts == [50, 25, 20]
    assert ROW.as_dict()["avg_ts"] == statistics.mean([50, 25, 20])
    assert ROW.as_dict()["stddev_ts"] == statistics.stdev([50, 25, 20])
    assert ROW.as_dict()["avg_ns"] == statistics.mean(ROW.samples_ns)


def test_one_run_has_no_deviation():
    assert replace(ROW, samples_ns=(5,)).as_dict()["stddev_ns"] == 0


def test_the_bandwidth_is_bytes_a_token_times_rate_by_a_plain_read():
    assert ROW.bandwidth_percent == 100 * 1e9 * statistics.mean([50, 25, 20]) / 50e9
    assert replace(ROW, traffic_bytes=0).bandwidth_percent is None


def test_markdown_looks_like_llama_bench():
    first = bench_rows.as_markdown([ROW]).splitlines()[2]
    assert first == "| qwen2 1.5B Q4_0 | 1.50 GiB | 1.54 B | CPU test |       2 | tg100 | 31.67 ± 16.07 |    63 % |"


def test_memory_that_is_not_known_is_a_dash():
    unknown = replace(ROW, load=Load(0.5, None, None, None, None))
    assert bench_rows.as_markdown([unknown]).splitlines()[-1].count(" - ") == 4


def test_loads_are_listed_once():
    rows = [ROW, replace(ROW, test="pp1"), replace(ROW, n_threads=1)]
    assert len(bench_rows.as_markdown(rows).split("\n\n")[1].splitlines()) == 2 + 2


def test_json_and_csv_agree():
    row = json.loads(bench_rows.as_json([ROW]))[0]
    names, values = (line.split(",") for line in bench_rows.as_csv([ROW]).splitlines())
    assert set(names) == set(row) - {"samples_ns", "samples_ts"}
    assert float(dict(zip(names, values))["avg_ts"]) == row["avg_ts"]
    assert row["load_peak_bytes"] == 3 << 20


def test_columns_of_a_table_line_up():
    got = bench_rows.table(("a", "long"), "<>", [("xyz", "1"), ("", "22")])
    assert got == "| a   | long |\n| --- | ---: |\n| xyz |    1 |\n|     |   22 |"
