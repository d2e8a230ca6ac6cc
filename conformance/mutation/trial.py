"""One mutant in a forked process: it is loaded, then the tests that reach it run until one fails.

The parent has everything loaded, arrays of the tests too, so a trial costs little more than the tests themselves. It
may use a few times the processor time that its tests need, and some memory: endless loops and huge arrays kill.
"""

import gc
import json
import os
import resource
import signal
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from conformance.mutation.coverage import Reach
from conformance.mutation.loading import load
from conformance.mutation.mutants import Mutant
from conformance.protocol import PASS
from conformance.runner import run
from conformance.vectors import Test

MEMORY = 2 << 30  # bytes beyond those that the parent has
PATIENCE = 5  # times the seconds that the tests took under the tracer
LEAST = 3  # seconds of processor time that a trial may use in any case
KILLED, SURVIVED = "killed", "survived"


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant. by: the test that noticed, `import`, or `limit`."""

    status: str
    by: str = ""
    reason: str = ""
    test: int = -1


def start(mutant: Mutant, tests: Sequence[Test], order: Sequence[int], reach: Reach, adapter: str) -> tuple[int, int]:
    """Fork a trial; returns (process id, descriptor on which its verdict will come)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    status = 1
    try:
        gc.disable()  # what the parent holds shall stay shared
        os.close(reading)
        _confine(sum(reach.seconds[number] for number in order))
        verdict = _verdict(mutant, tests, order, reach, adapter)
        os.write(writing, json.dumps(vars(verdict)).encode())
        status = 0
    finally:
        os._exit(status)  # never back into the parent's program


def read(descriptor: int) -> Verdict:
    """The verdict of a trial that has ended; one that said nothing was stopped by a limit."""
    with os.fdopen(descriptor, "rb") as stream:
        text = stream.read()
    return Verdict(**json.loads(text)) if text else Verdict(KILLED, "limit", "time, memory or a crash")


def _confine(seconds: float) -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its children itself
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime + LEAST + PATIENCE * seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.path.exists("/proc/self/statm"):  # Linux; elsewhere the limits of time must do
        with open("/proc/self/statm", encoding="ascii") as stream:
            size = int(stream.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))


def _verdict(mutant: Mutant, tests: Sequence[Test], order: Sequence[int], reach: Reach, adapter: str) -> Verdict:
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    try:
        backend = load(mutant, adapter, reach.early)
    except Exception as error:  # a module that cannot be imported is noticed by everyone
        return Verdict(KILLED, "import", f"{type(error).__name__}: {error}"[:200])
    warnings.simplefilter("error")
    for number in order:
        (outcome,) = run([tests[number]], backend)
        if outcome.status != PASS:
            return Verdict(KILLED, outcome.test, outcome.reason[:200], number)
    return Verdict(SURVIVED)
