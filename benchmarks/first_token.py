"""From starting a program to its first token: fresh processes, the first of each engine discarded.

    python -m benchmarks.first_token MODEL ... [-t 2] [-r 5] [--llama-python PATH]

process   from starting Python to the answer, imports and all: what a person waits
inside    from the call that loads to the token, the engine's own imports among it
cold      the same as process, once, with an empty cache of kernels: the first start ever
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import worker
from benchmarks.comparison import Spread
from benchmarks.worker import Worker, ours
from refquant.errors import QuantError
from runtime.bench_rows import table
from runtime.cores import physical_cores

PROMPT = [100, 200, 300, 400, 500, 600, 700, 800]  # any eight tokens
N_CTX = 4096
HEADS = ("model", "process s", "llama.cpp", "inside s", "llama.cpp", "cold s")


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Seconds of both engines, run by run; page cache warm, kernels cached."""

    model: str
    threads: int
    ours_process: tuple[float, ...]
    theirs_process: tuple[float, ...]
    ours_inside: tuple[float, ...]
    theirs_inside: tuple[float, ...]
    ours_cold: float | None

    @property
    def cells(self) -> tuple[str, ...]:
        """Medians and spreads for a table; a dash for what was left out."""
        samples = (self.ours_process, self.theirs_process, self.ours_inside, self.theirs_inside)
        cold = "-" if self.ours_cold is None else f"{self.ours_cold:.1f}"
        return *(Spread.of(sample).text(2) if sample else "-" for sample in samples), cold


def main(argv: list[str] | None = None) -> int:
    """Print a row for each model."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.first_token", description=__doc__.partition("\n")[0])
    p.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    p.add_argument("-t", "--threads", type=int, default=physical_cores(), metavar="N", help="(physical cores)")
    p.add_argument("-r", "--runs", type=int, default=5, metavar="N", help="processes that count (5)")
    p.add_argument("--llama-python", metavar="PATH", help="a Python that has llama_cpp: measure it too, in turn")
    p.add_argument("--no-cold", action="store_true", help="leave out the start that compiles")
    arguments = p.parse_args(argv)
    theirs = (lambda: worker.llama_cpp(arguments.llama_python)[0]) if arguments.llama_python else None
    rows = []
    try:
        for model in arguments.models:
            found = first_token(str(model), arguments.threads, arguments.runs, theirs, not arguments.no_cold)
            rows.append((model.name, *found.cells))
    except QuantError as error:
        print(f"first_token: {error}", file=sys.stderr)
        return 2
    print(table(HEADS, "<>>>>>", rows))
    return 0


def first_token(
    model: str, threads: int, runs: int, theirs: Callable[[], Worker] | None, cold_start: bool = True
) -> FirstToken:
    """`runs` processes of each engine in turn, after one of each that is not counted. `theirs` starts the other one."""
    process, inside, cold = ([], []), ([], []), None
    if cold_start:
        with tempfile.TemporaryDirectory() as empty:
            cold, _ = _seconds(lambda: ours(empty), model, threads)
    engines = (ours,) if theirs is None else (ours, theirs)
    for run in range(runs + 1):
        for i, start in enumerate(engines):
            outer, inner = _seconds(start, model, threads)
            if run:
                process[i].append(outer)
                inside[i].append(inner)
    return FirstToken(model, threads, *map(tuple, process), *map(tuple, inside), cold)


def _seconds(start: Callable[[], Worker], model: str, threads: int) -> tuple[float, float]:
    """(process, inside) of one fresh process."""
    began = time.perf_counter()
    with start() as worker:
        answer = worker.ask("first_token", path=model, threads=threads, ids=PROMPT, n_ctx=N_CTX)
        return time.perf_counter() - began, answer["seconds"]


if __name__ == "__main__":
    sys.exit(main())
