"""From starting a program to its first token: fresh processes, the first of each engine discarded.

process   from starting Python to the answer, imports and all: what a person waits
inside    from the call that loads to the token, the engine's own imports among it
cold      the same as process, once, with an empty cache of kernels: the first start ever
"""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.comparison import Spread
from benchmarks.worker import Worker, ours

PROMPT = [100, 200, 300, 400, 500, 600, 700, 800]  # any eight tokens
N_CTX = 4096


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Seconds of both engines, run by run; page cache warm, kernels cached."""

    model: str
    threads: int
    ours_process: tuple[float, ...]
    theirs_process: tuple[float, ...]
    ours_inside: tuple[float, ...]
    theirs_inside: tuple[float, ...]
    ours_cold: float

    @property
    def cells(self) -> tuple[str, ...]:
        """Medians and spreads for a table."""
        samples = (self.ours_process, self.theirs_process, self.ours_inside, self.theirs_inside)
        return *(Spread.of(sample).text(2) for sample in samples), f"{self.ours_cold:.1f}"


def first_token(model: str, threads: int, runs: int, theirs: Callable[[], Worker]) -> FirstToken:
    """`runs` processes of each engine in turn, after one of each that is not counted. `theirs` starts the other one."""
    ours_process, theirs_process, ours_inside, theirs_inside = [], [], [], []
    with tempfile.TemporaryDirectory() as empty:
        cold, _ = _seconds(lambda: ours(empty), model, threads)
    for run in range(runs + 1):
        for start, process, inside in ((ours, ours_process, ours_inside), (theirs, theirs_process, theirs_inside)):
            outer, inner = _seconds(start, model, threads)
            if run:
                process.append(outer)
                inside.append(inner)
    samples = map(tuple, (ours_process, theirs_process, ours_inside, theirs_inside))
    return FirstToken(model, threads, *samples, cold)


def _seconds(start: Callable[[], Worker], model: str, threads: int) -> tuple[float, float]:
    """(process, inside) of one fresh process."""
    began = time.perf_counter()
    with start() as worker:
        answer = worker.ask("first_token", path=model, threads=threads, ids=PROMPT, n_ctx=N_CTX)
        return time.perf_counter() - began, answer["seconds"]
