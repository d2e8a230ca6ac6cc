"""The results of `runtime.bench` as Markdown, JSON or CSV.

One row a test. Names of fields are those of `llama-bench -o json` where they mean the same; Markdown has its columns
and one more, `of read`: the bytes that writing a token reads times the rate, as a part of the bandwidth of a plain read
of as many bytes (runtime.bandwidth). A second table has what belongs to a load: its time and the memory it took.
"""

import csv
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from refquant.memory import human

CSV_OMITS = ("samples_ns", "samples_ts")
NOT_KNOWN = "-"


@dataclass(frozen=True, slots=True)
class Load:
    """What loading took with some number of threads. Bytes are None where the system does not say."""

    seconds: float
    peak_bytes: int | None  # most of resident memory while the model was loaded
    test_peak_bytes: int | None  # ... and until the last test ended
    anonymous_bytes: int | None  # after the tests
    file_bytes: int | None  # after the tests: mapped files


@dataclass(frozen=True, slots=True)
class Row:
    """One test of one model. `traffic_bytes` is what writing one token reads on average, 0 where a prompt is read."""

    cpu_info: str
    backend: str
    model_filename: str
    model_type: str
    model_size: int  # bytes of the tensors
    model_n_params: int
    n_threads: int
    type_k: str
    type_v: str
    n_prompt: int
    n_gen: int
    n_depth: int
    test: str
    test_time: str  # ISO 8601, UTC
    samples_ns: tuple[int, ...]
    traffic_bytes: int
    read_bytes_per_second: float
    load: Load

    @property
    def samples_ts(self) -> list[float]:
        """Tokens per second of each run."""
        return [1e9 * (self.n_prompt + self.n_gen) / ns for ns in self.samples_ns]

    @property
    def bandwidth_percent(self) -> float | None:
        """How much of the read bandwidth was reached."""
        if not self.traffic_bytes:
            return None
        return 100 * self.traffic_bytes * statistics.mean(self.samples_ts) / self.read_bytes_per_second

    def as_dict(self) -> dict[str, object]:
        """Every number, flat, ready for JSON."""
        fields = asdict(self)
        load = fields.pop("load")
        rates = self.samples_ts
        fields |= {
            "avg_ns": statistics.mean(self.samples_ns),
            "stddev_ns": deviation(self.samples_ns),
            "avg_ts": statistics.mean(rates),
            "stddev_ts": deviation(rates),
            "samples_ts": rates,
            "bandwidth_percent": self.bandwidth_percent,
        }
        return fields | {f"load_{name}": value for name, value in load.items()}


def deviation(samples: Sequence[float]) -> float:
    """The standard deviation of a sample (n - 1), as llama-bench has it; 0 for one."""
    return statistics.stdev(samples) if len(samples) > 1 else 0.0


def as_json(rows: Sequence[Row]) -> str:
    """A list of objects."""
    return json.dumps([row.as_dict() for row in rows], indent=2)


def as_csv(rows: Sequence[Row]) -> str:
    """A header and one line a row, without the single samples."""
    out = io.StringIO()
    dicts = [{key: value for key, value in row.as_dict().items() if key not in CSV_OMITS} for row in rows]
    writer = csv.DictWriter(out, list(dicts[0]) if dicts else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(dicts)
    return out.getvalue().rstrip("\n")


def as_markdown(rows: Sequence[Row]) -> str:
    """llama-bench's table, and one of loading and memory."""
    tests = table(
        ("model", "size", "params", "backend", "threads", "test", "t/s", "of read"),
        "<>><>>>>",
        [_test_cells(row) for row in rows],
    )
    loads = {(row.model_filename, row.n_threads): row for row in rows}.values()
    memory = table(
        ("model", "threads", "load", "peak of load", "peak", "anonymous", "file-backed", "plain read"),
        "<>>>>>>>",
        [_load_cells(row) for row in loads],
    )
    return f"{tests}\n\n{memory}"


def table(header: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> str:
    """Markdown whose columns are also in line as plain text; `align` has < or > for every column."""
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    rule = ["-" * (width - (side == ">")) + ":" * (side == ">") for width, side in zip(widths, align)]
    lines = [[f"{cell:{side}{width}}" for cell, side, width in zip(line, align, widths)] for line in [header, *rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def size(count: int) -> str:
    """Bytes as llama-bench writes them."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


def _test_cells(row: Row) -> tuple[str, ...]:
    count, rates = row.model_n_params, row.samples_ts
    return (
        row.model_type,
        size(row.model_size),
        f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.2f} M",
        row.backend,
        str(row.n_threads),
        row.test,
        f"{statistics.mean(rates):.2f} ± {deviation(rates):.2f}",
        NOT_KNOWN if row.bandwidth_percent is None else f"{row.bandwidth_percent:.0f} %",
    )


def _load_cells(row: Row) -> tuple[str, ...]:
    load = row.load
    amounts = (load.peak_bytes, load.test_peak_bytes, load.anonymous_bytes, load.file_bytes)
    return (
        row.model_type,
        str(row.n_threads),
        f"{load.seconds:.2f} s",
        *(NOT_KNOWN if amount is None else human(amount) for amount in amounts),
        f"{row.read_bytes_per_second / 1e9:.1f} GB/s",
    )


WRITERS = {"md": as_markdown, "json": as_json, "csv": as_csv}
