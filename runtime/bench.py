"""How fast a model runs here: `python -m runtime.bench MODEL -p 512 -n 128 -t 1,2 -r 5 -o md`.

The tests and columns are those of llama-bench (runtime.speed_tests, runtime.bench_rows), so that its tables and these
can be laid side by side. Each number of threads loads the model anew. Standard output carries the table only; after
Ctrl-C or an error it has the loads whose tests were complete. Exit status: 0, 2 for anything refused (one line on
standard error says why), 130 after Ctrl-C.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from refquant.errors import QuantError
from refquant.memory import KV_BLOCKS
from runtime import bench_rows
from runtime.bench_rows import Load, Row
from runtime.printable import one_line
from runtime.processor import processor
from runtime.progress import ProgressLine
from runtime.resident_memory import reset_peak, resident_memory

if TYPE_CHECKING:
    from runtime.model import Model
    from runtime.speed_tests import SpeedTest

PROGRAM = "refquant-bench"
MAX_TOKENS, MAX_REPEATS = 1 << 24, 10_000

Note = Callable[[str], None]


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parse(argv)
    rows: list[Row] = []
    status = 0
    try:
        for path in arguments.model:
            for row in measure(path, arguments, _quiet if arguments.quiet else _note):
                rows.append(row)
    except KeyboardInterrupt:
        status = 130
    except ModuleNotFoundError as error:
        print(f"{PROGRAM}: {error.name} is not installed, expected it: pip install 'refquant[chat]'", file=sys.stderr)
        status = 2
    except (QuantError, OSError, MemoryError) as error:
        print(f"{PROGRAM}: {one_line(error) or 'out of memory'}", file=sys.stderr)
        status = 2
    if rows:
        print(bench_rows.WRITERS[arguments.output](rows))
    return status


def measure(path: Path, arguments: argparse.Namespace, note: Note) -> Iterator[Row]:
    """Rows of one model, for every number of threads and every test."""
    from runtime.bandwidth import read_bandwidth
    from runtime.speed_tests import SpeedTest

    sizes = [(n, 0) for n in arguments.n_prompt if n] + [(0, n) for n in arguments.n_gen if n] + arguments.pg
    tests = [SpeedTest(*size, depth) for depth, size in product(arguments.n_depth, sizes)]
    for threads in arguments.threads or [None]:
        rows = list(_measure_loaded(path, tests, threads, arguments, note))
        # The array it reads is as large as the model, which has been let go by now.
        read = read_bandwidth(max(rows[0].model_size, 1 << 20), rows[0].n_threads)
        note(f"a plain read of as many bytes: {read / 1e9:.1f} GB/s")
        yield from (replace(row, read_bytes_per_second=read) for row in rows)


def _measure_loaded(
    path: Path, tests: list["SpeedTest"], threads: int | None, arguments: argparse.Namespace, note: Note
) -> Iterator[Row]:
    from runtime.model import Model
    from runtime.speed_tests import SpeedRun

    reset_peak()
    began = time.perf_counter()
    with ProgressLine(sys.stderr, enabled=not arguments.quiet) as progress:
        n_ctx = max(test.n_ctx for test in tests)
        model = Model.load(path, n_ctx=n_ctx, threads=threads, kv_dtype=arguments.kv, progress=progress)
    seconds = time.perf_counter() - began
    with model:
        loaded = resident_memory()
        note(f"{path.name}: threads {model.threads}: loaded in {seconds:.2f} s")
        samples = {}
        for test in tests:
            run = SpeedRun(model, test)
            samples[test] = tuple(int(1e9 * run.seconds()) for _ in range(arguments.repetitions))
            mean = sum(samples[test]) / len(samples[test])
            note(f"{path.name}: threads {model.threads}: {test}: {1e9 * test.n_tokens / mean:.2f} t/s")
        after = resident_memory()
        load = Load(seconds, loaded.peak, after.peak, after.anonymous, after.file)
        yield from [_row(model, test, samples[test], load) for test in tests]


def _row(model: "Model", test: "SpeedTest", samples_ns: tuple[int, ...], load: Load) -> Row:
    from runtime.model_facts import cache_bytes, model_type, parameters, tensor_bytes, weight_traffic
    from runtime.simd.tier import TIER

    traffic = 0
    if test.n_gen and not test.n_prompt:
        before = test.n_depth + (test.n_gen - 1) / 2  # on average
        traffic = weight_traffic(model.gguf, model.config) + cache_bytes(model.config, before, model.kv_dtype)
    return Row(
        cpu_info=processor()[0],
        backend=f"CPU {TIER}",
        model_filename=str(model.gguf.path),
        model_type=model_type(model.gguf),
        model_size=tensor_bytes(model.gguf),
        model_n_params=parameters(model.gguf),
        n_threads=model.threads,
        type_k=model.kv_dtype,
        type_v=model.kv_dtype,
        n_prompt=test.n_prompt,
        n_gen=test.n_gen,
        n_depth=test.n_depth,
        test=str(test),
        test_time=datetime.now(UTC).isoformat(timespec="seconds"),
        samples_ns=samples_ns,
        traffic_bytes=int(traffic),
        read_bytes_per_second=float("nan"),
        load=load,
    )


class _Parser(argparse.ArgumentParser):
    """Errors in one line."""

    def error(self, message: str):
        print(f"{self.prog}: {message} (--help lists the options)", file=sys.stderr)
        raise SystemExit(2)


def _parse(argv: list[str] | None) -> argparse.Namespace:
    p = _Parser(
        prog=PROGRAM,
        description="Measure how fast GGUF models read and write, with the tests of llama-bench.",
        epilog="Numbers may be lists: -t 1,2 -d 0,4096. -p 0 or -n 0 leaves that test out.",
        allow_abbrev=False,
    )
    p.add_argument("model", nargs="+", type=Path, metavar="MODEL", help="GGUF files")
    p.add_argument("-p", "--n-prompt", type=_numbers(0), default=[512], metavar="N", help="tokens of a prompt (512)")
    p.add_argument("-n", "--n-gen", type=_numbers(0), default=[128], metavar="N", help="tokens to write (128)")
    p.add_argument(
        "-pg", type=_pair, action="append", default=[], metavar="PP,TG", help="a prompt, then tokens to write"
    )
    p.add_argument("-d", "--n-depth", type=_numbers(0), default=[0], metavar="N", help="tokens read before (0)")
    p.add_argument("-t", "--threads", type=_numbers(1), metavar="N", help="threads (the physical cores)")
    p.add_argument("-r", "--repetitions", type=int, default=5, metavar="N", help="runs of each test (5)")
    p.add_argument("--kv", choices=tuple(KV_BLOCKS), default="f16", help="type of the KV cache (f16)")
    p.add_argument("-o", "--output", choices=tuple(bench_rows.WRITERS), default="md", help="format of the output (md)")
    p.add_argument("-q", "--quiet", action="store_true", help="no progress on standard error")
    arguments = p.parse_args(argv)
    if not 1 <= arguments.repetitions <= MAX_REPEATS:
        p.error(f"-r {arguments.repetitions}: expected 1..{MAX_REPEATS}")
    if not any([*arguments.n_prompt, *arguments.n_gen, *arguments.pg]):
        p.error("-p 0 -n 0 leaves no test, expected one")
    return arguments


def _numbers(least: int) -> Callable[[str], list[int]]:
    def numbers(text: str) -> list[int]:
        values = [int(part) if part.isascii() and part.isdigit() else -1 for part in text.split(",")]
        if not all(least <= value <= MAX_TOKENS for value in values):
            raise argparse.ArgumentTypeError(f"{text!r}, expected whole numbers {least}..{MAX_TOKENS} between commas")
        return values

    return numbers


def _pair(text: str) -> tuple[int, int]:
    values = _numbers(1)(text)
    if len(values) != 2:
        raise argparse.ArgumentTypeError(f"{text!r}, expected two whole numbers with a comma between them")
    return values[0], values[1]


def _note(text: str) -> None:
    print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)


def _quiet(_: str) -> None:
    """Progress that nobody asked for."""


if __name__ == "__main__":
    sys.exit(main())
