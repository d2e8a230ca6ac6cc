"""All mutants, a few processes at a time, each with a batch of mutants of one file.

    for mutant, verdict in session.run(chosen, tests, reach, jobs=2): ...

A test that killed a mutant of a file is tried first on the next one of that file: neighbours die of the same tests.
"""

import contextlib
import itertools
import os
import selectors
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from conformance.mutation import mutants, trial
from conformance.mutation.coverage import Reach
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import Verdict
from conformance.vectors import Test

ADAPTER = "conformance.adapters.refquant"
BATCH = 40  # mutants a process is given: few enough that all processes end at about the same time


@dataclass
class _Running:
    child: int
    batch: deque[Mutant]  # without a verdict yet
    text: bytes = field(default=b"")


def run(
    chosen: Sequence[Mutant], tests: Sequence[Test], reach: Reach, jobs: int, adapter: str = ADAPTER
) -> Iterator[tuple[Mutant, Verdict]]:
    """Each mutant with its verdict, as they come. Children are ended when the caller stops early."""
    killers: dict[str, deque[int]] = {mutant.file: deque(maxlen=trial.RECENT) for mutant in chosen}
    waiting, running = deque(_batches(chosen)), {}
    with selectors.DefaultSelector() as ready:
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    batch = waiting.popleft()
                    mutants.prepare(batch[0].file)
                    child, descriptor = trial.start(list(batch), tests, killers[batch[0].file], reach, adapter)
                    running[descriptor] = _Running(child, batch)
                    ready.register(descriptor, selectors.EVENT_READ)
                for key, _ in ready.select():
                    one = running[key.fd]
                    part = os.read(key.fd, 1 << 16)
                    *lines, one.text = (one.text + part).split(b"\n")
                    verdicts = [trial.read(line) for line in lines]
                    if not part:  # the process has ended
                        ready.unregister(key.fd)
                        os.close(key.fd)
                        del running[key.fd]
                        if os.waitpid(one.child, 0)[1]:
                            verdicts.append(trial.LIMIT)
                    for verdict in verdicts:
                        mutant = one.batch.popleft()
                        trial.remember(killers[mutant.file], verdict)
                        yield mutant, verdict
                    if not part and one.batch:
                        waiting.appendleft(one.batch)
        finally:
            for descriptor, one in running.items():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.child, signal.SIGKILL)
                os.waitpid(one.child, 0)
                os.close(descriptor)


def _batches(chosen: Sequence[Mutant]) -> Iterator[deque[Mutant]]:
    for _, group in itertools.groupby(chosen, key=lambda mutant: mutant.file):
        of_file = list(group)
        yield from (deque(of_file[begin : begin + BATCH]) for begin in range(0, len(of_file), BATCH))
