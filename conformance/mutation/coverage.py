"""Which tests run which lines of refquant, found by running each test once under a tracer.

    reach = coverage.measure(tests, adapter)
    reach.tests_of(mutant)          indices of the tests worth running, the most promising first

Tables made once and kept (`functools.cache`) are forgotten before the first test of a group, so that it is seen to make
them; functions that only the first test of a group ran count for the others too. Code that runs when a file is imported
belongs to the tests that run anything in that file, and after them to those that do in a file that imports it.
"""

import importlib
import inspect
import itertools
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import CodeType, FrameType

from conformance.mutation.importers import dependents, direct
from conformance.mutation.loading import caches
from conformance.mutation.mutants import ROOT, Mutant, module_name
from conformance.mutation.scope import FILES
from conformance.protocol import PASS, Adapter
from conformance.runner import run
from conformance.vectors import Test
from refquant.errors import QuantError

PREFIX = f"{ROOT}/"
WATCHED = f"{ROOT / 'refquant'}/"
NEAR = 4  # seconds, under the tracer, of the tests that know a file only through another: about one of each group


@dataclass(frozen=True)
class Reach:
    """Lines by file and test, and the seconds that each test took."""

    groups: Sequence[str]  # "gguf.Q4_0:decode" of each test
    seconds: Sequence[float]
    lines: dict[str, dict[int, set[int]]] = field(default_factory=dict)  # file -> line -> tests
    early: frozenset[tuple[str, str]] = frozenset()  # (file, function) of what runs while refquant is imported

    def tests_of(self, mutant: Mutant) -> list[int]:
        """The tests that run the mutant's lines, the quickest of each group first."""
        lines = self.lines.get(mutant.file, {})
        first, last = mutant.lines
        found = set() if mutant.imported else set().union(*(lines.get(line, ()) for line in range(first, last + 1)))
        if found or not (mutant.imported or (mutant.file, mutant.function) in self.early):
            return self._ordered(found)
        own, near = self._of_modules({mutant.module}), self._of_modules(direct(mutant.module))
        near = self._ordered((near or self._of_modules(dependents(mutant.module))) - own)
        spent = itertools.accumulate(self.seconds[test] for test in near)
        return self._ordered(own) + [test for test, seconds in zip(near, spent, strict=True) if seconds <= NEAR]

    def _of_modules(self, modules: Collection[str]) -> set[int]:
        """The tests that run anything in one of the modules."""
        found = [of_file.values() for file, of_file in self.lines.items() if module_name(file) in modules]
        return set().union(*(tests for of_file in found for tests in of_file))

    def _ordered(self, tests: set[int]) -> list[int]:
        """Quickest first, and one of each group before the second of any."""
        turn: dict[str, int] = defaultdict(int)
        ranked = []
        for test in sorted(tests, key=lambda test: (self.seconds[test], test)):
            turn[self.groups[test]] += 1
            ranked.append((turn[self.groups[test]], self.seconds[test], test))
        return [test for _, _, test in sorted(ranked)]


def measure(tests: Sequence[Test], adapter: Adapter) -> Reach:
    """Run every test traced. Raises QuantError where one does not pass: mutants of wrong code say nothing."""
    for module in sorted(set().union(*(dependents(module_name(file)) for file in FILES))):
        importlib.import_module(module)  # or the first test that needs it would be seen to run all of it
    groups, seconds = [f"{test.algorithm}:{test.group}" for test in tests], [0.0] * len(tests)
    reach = Reach(groups, seconds, early=_early())
    made: set[tuple[CodeType, int]] = set()  # what the first test of the group ran
    for number, test in enumerate(tests):
        first = number == 0 or groups[number] != groups[number - 1]
        for cached in caches() if first else ():
            cached.cache_clear()
        begin = time.process_time()
        hits = _traced(test, adapter)
        seconds[number] = time.process_time() - begin
        if first:
            made = hits
        own = {code for code, _ in hits}
        for code, line in hits | {(code, line) for code, line in made if code not in own}:
            file = code.co_filename.removeprefix(PREFIX)
            reach.lines.setdefault(file, {}).setdefault(line, set()).add(number)
    return reach


def _traced(test: Test, adapter: Adapter) -> set[tuple[CodeType, int]]:
    """(code, line) of all that ran, refquant's only."""
    hits: set[tuple[CodeType, int]] = set()

    def line(frame: FrameType, event: str, argument: object) -> Callable:
        hits.add((frame.f_code, frame.f_lineno))
        return line

    def call(frame: FrameType, event: str, argument: object) -> Callable | None:
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        hits.add((frame.f_code, frame.f_lineno))
        return line

    before = sys.gettrace()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sys.settrace(call)
        try:
            (outcome,) = run([test], adapter)
        finally:
            sys.settrace(before)
    if outcome.status != PASS:
        raise QuantError(f"conformance.mutation: {test.id} = {outcome.status}, expected a pass: {outcome.reason}")
    return hits


def _early() -> frozenset[tuple[str, str]]:
    """Functions that a fresh import of refquant calls, watched in a forked process."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            found: set[tuple[str, str]] = set()

            def call(frame: FrameType, event: str, argument: object) -> None:
                code = frame.f_code
                if code.co_filename.startswith(WATCHED) and code.co_flags & inspect.CO_OPTIMIZED:  # no body of a class
                    found.add((code.co_filename.removeprefix(PREFIX), code.co_qualname.replace(".<locals>", "")))

            names = [name for name in sys.modules if name.partition(".")[0] == "refquant"]
            for name in names:
                del sys.modules[name]
            sys.settrace(call)
            for name in sorted(names):
                importlib.import_module(name)
            sys.settrace(None)
            with os.fdopen(writing, "w") as stream:
                json.dump(sorted(found), stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        raise QuantError("conformance.mutation: a second import of refquant = failed, expected it to work")
    return frozenset((file, name) for file, name in json.loads(text))
