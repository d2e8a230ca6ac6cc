"""Mutants in a forked process: each is loaded, then the tests that reach it run until one fails.

The parent has everything loaded, arrays of the tests too, and a process tries one mutant after the other, so a trial
costs little more than the tests themselves. A mutant may use a few times the processor time that its tests need, and
some memory: endless loops and huge arrays kill, and with them the process, which is no loss. What could not be put
back ends the process too:

    a module was imported anew                     after the verdict
    a test does not pass without the mutant        before the verdict, unless this was the first mutant of the process:
                                                   another one may have left something behind
"""

import gc
import importlib
import json
import os
import resource
import signal
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.mutation.coverage import Reach
from conformance.mutation.loading import exchanged, reloaded
from conformance.mutation.mutants import Mutant
from conformance.protocol import PASS, Adapter
from conformance.runner import run
from conformance.vectors import Test

MEMORY = 2 << 30  # bytes beyond those that the parent has
PATIENCE = 5  # times the seconds that the tests took under the tracer
LEAST = 3  # seconds of processor time that a trial may use in any case
SHARE = 20  # times the processor time that a trial is given: on a busy machine it waits
RECENT = 8  # tests that killed neighbours, which are tried first
KILLED, SURVIVED = "killed", "survived"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant. by: the test that noticed, `import`, or `limit`."""

    status: str
    by: str = ""
    reason: str = ""
    test: int = -1


LIMIT = Verdict(KILLED, "limit", "time, memory or a crash")


def start(
    batch: Sequence[Mutant], tests: Sequence[Test], killers: Sequence[int], reach: Reach, adapter: str
) -> tuple[int, int]:
    """Fork a process for mutants of one file; returns (process id, descriptor on which a verdict a line will come)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        gc.disable()  # what the parent holds shall stay shared
        os.close(reading)
        _confine()
        _try(batch, tests, deque(killers, RECENT), reach, adapter, writing)
        status = 0
    finally:
        os._exit(status)  # never back into the parent's program


def read(line: bytes) -> Verdict:
    """A verdict as the process wrote it."""
    return Verdict(**json.loads(line))


def remember(killers: deque[int], verdict: Verdict) -> None:
    """Put the test that killed in front."""
    if verdict.test in killers:
        killers.remove(verdict.test)
    if verdict.test >= 0:
        killers.appendleft(verdict.test)


def _confine() -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.path.exists("/proc/self/statm"):  # Linux; elsewhere the limits of time must do
        with open("/proc/self/statm", encoding="ascii") as stream:
            size = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _allow(seconds: float) -> None:
    """What one mutant may use, of processor time and of the time on the wall: more ends the process."""
    allowed, used = LEAST + PATIENCE * seconds, resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + allowed) + 1, hard))
    signal.setitimer(signal.ITIMER_REAL, SHARE * allowed)


def _try(
    batch: Sequence[Mutant], tests: Sequence[Test], killers: deque[int], reach: Reach, adapter: str, writing: int
) -> None:
    backend = importlib.import_module(adapter)
    warnings.resetwarnings()
    for number, mutant in enumerate(batch):
        order = _killers_first(reach.tests_of(mutant), killers)
        _allow(sum(reach.seconds[test] for test in order))
        with exchanged(mutant, reach.early) as done:
            if done:
                verdict = _verdict(tests, order, backend)
        if not done:
            verdict = _anew(mutant, tests, order, adapter)
        whole = done and (verdict.test < 0 or _verdict(tests, [verdict.test], backend).status == SURVIVED)
        if whole or not done or number == 0:
            os.write(writing, f"{json.dumps(vars(verdict))}\n".encode())
            remember(killers, verdict)
        if not whole:
            return


def _killers_first(order: list[int], killers: Sequence[int]) -> list[int]:
    reaching = set(order)
    first = [test for test in killers if test in reaching]
    return first + [test for test in order if test not in first]


def _anew(mutant: Mutant, tests: Sequence[Test], order: Sequence[int], adapter: str) -> Verdict:
    warnings.simplefilter("ignore")
    try:
        backend = reloaded(mutant, adapter)
    except Exception as error:  # a module that cannot be imported is noticed by everyone
        return Verdict(KILLED, "import", f"{type(error).__name__}: {error}"[:200])
    return _verdict(tests, order, backend)


def _verdict(tests: Sequence[Test], order: Sequence[int], backend: Adapter) -> Verdict:
    warnings.simplefilter("error")
    for number in order:
        (outcome,) = run([tests[number]], backend)
        if outcome.status != PASS:
            return Verdict(KILLED, outcome.test, outcome.reason[:200], number)
    return Verdict(SURVIVED)
