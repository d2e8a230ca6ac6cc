"""All mutants, a few trials at a time.

    for mutant, verdict in session.run(chosen, tests, reach, jobs=2): ...

A test that killed a mutant of a file is tried first on the next one of that file: neighbours die of the same tests.
"""

import contextlib
import os
import selectors
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from conformance.mutation import trial
from conformance.mutation.coverage import Reach
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import Verdict
from conformance.vectors import Test

ADAPTER = "conformance.adapters.refquant"
SHARE = 20  # times the processor time that a trial is given: on a busy machine it waits


@dataclass(frozen=True)
class _Running:
    mutant: Mutant
    child: int
    until: float


def run(
    chosen: Sequence[Mutant], tests: Sequence[Test], reach: Reach, jobs: int, adapter: str = ADAPTER
) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they come. Children are ended when the caller stops early."""
    killers: dict[str, deque[int]] = {}
    waiting, running = deque(chosen), {}
    with selectors.DefaultSelector() as ready:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    mutant = waiting.popleft()
                    order = _killers_first(reach.tests_of(mutant), killers.get(mutant.file, ()))
                    needed = sum(reach.seconds[test] for test in order)
                    child, descriptor = trial.start(mutant, tests, order, reach, adapter)
                    limit = SHARE * (trial.LEAST + trial.PATIENCE * needed)
                    running[descriptor] = _Running(mutant, child, time.monotonic() + limit)
                    ready.register(descriptor, selectors.EVENT_READ)
                for descriptor in _ended(ready, running):
                    one = running.pop(descriptor)
                    ready.unregister(descriptor)
                    verdict = trial.read(descriptor)
                    os.waitpid(one.child, 0)
                    if verdict.test >= 0:
                        _remember(killers.setdefault(one.mutant.file, deque(maxlen=8)), verdict.test)
                    yield one.mutant, verdict
        finally:
            for descriptor, one in running.items():
                _stop(one.child)
                os.waitpid(one.child, 0)
                os.close(descriptor)


def _killers_first(order: list[int], killers: Sequence[int]) -> list[int]:
    first = [test for test in killers if test in set(order)]
    return first + [test for test in order if test not in first]


def _remember(killers: deque[int], test: int) -> None:
    if test in killers:
        killers.remove(test)
    killers.appendleft(test)


def _ended(ready: selectors.BaseSelector, running: dict[int, _Running]) -> list[int]:
    """Descriptors of trials that spoke or closed; those past their time are stopped, which closes them."""
    now = time.monotonic()
    for one in running.values():
        if one.until < now:
            _stop(one.child)
    wait = min(one.until for one in running.values()) - now
    return [key.fd for key, _ in ready.select(min(max(wait, 0.01), 60))]


def _stop(child: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
