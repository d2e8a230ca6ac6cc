"""Speed beside programs that want the same cores: what a computer in use leaves to each engine.

    python -m benchmarks.busy_neighbour MODEL [-t 1,2] [-b 0,1,2] [-n 16] [-p 128] [-r 3] [--llama-python PATH]

A neighbour is a process at normal priority that never waits. With b of them on c cores, t threads that the system
treats as well as any other process get t / (t + b) of all time, or at most their own cores:

    fair      min(1, c / (t + b)) of the speed of t threads without neighbours
    kept      what was measured, as a part of the speed without neighbours

Both engines run the same test in turn beside the same neighbours.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import worker
from benchmarks.comparison import SETTLE, Spread
from benchmarks.worker import Worker
from refquant.errors import QuantError
from runtime.bench_rows import table
from runtime.cores import physical_cores
from runtime.speed_tests import SpeedTest

HEADS = ("threads", "neighbours", "test", "refquant t/s", "kept", "llama.cpp t/s", "kept", "fair")
BUSY = "while True: pass"


def main(argv: list[str] | None = None) -> int:
    """Print a row for each number of threads and neighbours and each test."""
    arguments = _parse(argv)
    tests = [SpeedTest(arguments.n_prompt, 0)] * bool(arguments.n_prompt) + [SpeedTest(0, arguments.n_gen)]
    rows = []
    try:
        for threads in arguments.threads:
            with ExitStack() as stack:
                engines = [stack.enter_context(worker.ours())]
                if arguments.llama_python:
                    engines.append(stack.enter_context(worker.llama_cpp(arguments.llama_python)[0]))
                for engine in engines:
                    n_ctx = max(test.n_ctx for test in tests)
                    engine.ask("load", path=str(arguments.model), threads=threads, n_ctx=n_ctx, kv="f16")
                for test in tests:
                    rows += _beside_neighbours(engines, test, threads, arguments)
    except QuantError as error:
        print(f"busy_neighbour: {error}", file=sys.stderr)
        return 2
    print(table(HEADS, "<<<>>>>>", rows))
    return 0


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """`count` busy processes until the end of the block."""
    processes = [subprocess.Popen([sys.executable, "-S", "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def fair(threads: int, busy: int, cores: int) -> float:
    """The part of its speed that a process should keep."""
    return min(1.0, cores / (threads + busy))


def _beside_neighbours(engines: list[Worker], test: SpeedTest, threads: int, arguments: argparse.Namespace) -> list:
    rows, quiet = [], [None] * len(engines)
    for engine in engines:
        engine.ask("prepare", n_prompt=test.n_prompt, n_gen=test.n_gen, n_depth=test.n_depth)
    for busy in sorted({0, *arguments.busy}):
        with neighbours(busy):
            samples = [[_rate(engine, test) for engine in engines] for _ in range(arguments.repetitions)]
        rates = [Spread.of(sample) for sample in zip(*samples)]
        quiet = [before or rate.median for before, rate in zip(quiet, rates)]
        cells = [cell for rate, before in zip(rates, quiet) for cell in (rate.text(1), f"{rate.median / before:.0%}")]
        cells += ["-"] * (4 - len(cells))
        rows.append((str(threads), str(busy), str(test), *cells, f"{fair(threads, busy, physical_cores()):.0%}"))
        print(f"busy_neighbour: {' '.join(rows[-1])}", file=sys.stderr, flush=True)
    return rows


def _rate(engine: Worker, test: SpeedTest) -> float:
    time.sleep(SETTLE)
    return test.n_tokens / engine.ask("run")["seconds"]


def _parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="python -m benchmarks.busy_neighbour", description=__doc__.partition("\n")[0])
    whole = lambda text: [int(part) for part in text.split(",")]
    p.add_argument("model", type=Path, metavar="MODEL")
    p.add_argument("-t", "--threads", type=whole, default=[1, 2], metavar="N,...", help="(1,2)")
    p.add_argument("-b", "--busy", type=whole, default=[1, 2], metavar="N,...", help="neighbours, after none (1,2)")
    p.add_argument("-n", "--n-gen", type=int, default=32, metavar="N", help="tokens to write (32)")
    p.add_argument(
        "-p", "--n-prompt", type=int, default=256, metavar="N", help="tokens of a prompt; 0: no such test (256)"
    )
    p.add_argument("-r", "--repetitions", type=int, default=3, metavar="N", help="runs of each engine (3)")
    p.add_argument("--llama-python", metavar="PATH", help="a Python that has llama_cpp: measure it too, in turn")
    arguments = p.parse_args(argv)
    if min(*arguments.threads, arguments.n_gen, arguments.repetitions) < 1:
        p.error("-t, -n and -r: expected 1 or more")
    if min(*arguments.busy, arguments.n_prompt) < 0:
        p.error("-b and -p: expected 0 or more")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
