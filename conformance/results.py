"""What a run found: tallies, lines for people, a record for programs.

an unexpected outcome is a failure or an error that known/<backend>.txt does not list, or a listed one that passed
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from conformance.known import Known
from conformance.protocol import ERROR, FAIL, PASS, SKIP, Outcome

STATUSES = (PASS, FAIL, ERROR, SKIP)


@dataclass(frozen=True, slots=True)
class Results:
    """All outcomes of one backend."""

    backend: str
    name: str
    version: str
    outcomes: tuple[Outcome, ...]
    known: tuple[Known, ...]

    def explanation(self, outcome: Outcome) -> Known | None:
        """Why this outcome was expected to be a failure."""
        return next((known for known in self.known if known.covers(outcome.test)), None)

    @property
    def unexpected(self) -> list[Outcome]:
        """Failures and errors that are not known."""
        return [o for o in self.outcomes if o.status in (FAIL, ERROR) and self.explanation(o) is None]

    @property
    def unexpected_passes(self) -> list[Outcome]:
        """Tests that a line of the known failures names and that passed."""
        return [o for o in self.outcomes if o.status == PASS and self.explanation(o) is not None]

    @property
    def good(self) -> bool:
        """Nothing unexpected, and at least one test ran."""
        ran = any(o.status != SKIP for o in self.outcomes)
        return ran and not self.unexpected and not self.unexpected_passes

    def tally(self) -> dict[str, Counter]:
        """Counts of each status by algorithm, in order of appearance."""
        counts: dict[str, Counter] = {}
        for outcome in self.outcomes:
            counts.setdefault(outcome.test.partition(":")[0], Counter())[outcome.status] += 1
        return counts

    def to_json(self) -> dict[str, object]:
        """Everything, for programs."""
        return {
            "backend": self.backend,
            "name": self.name,
            "version": self.version,
            "good": self.good,
            "tally": {algorithm: dict(counts) for algorithm, counts in self.tally().items()},
            "outcomes": [
                asdict(o) | {"known": known.reason if (known := self.explanation(o)) else None} for o in self.outcomes
            ],
        }


def lines(results: Results, notes: dict[str, dict[str, str]], explain: bool = False) -> Iterable[str]:
    """A tally, then each unexpected outcome with what it breaks and a line that runs it again.

    explain   each known failure as well, with its reason
    """
    tally = results.tally()
    width = max([len(algorithm) for algorithm in tally] + [len("total")])
    yield f"{results.name} {results.version}"
    yield f"{'':{width}}" + "".join(f"{status:>8}" for status in STATUSES)
    total: Counter = Counter()
    unknown = 0
    for algorithm, counts in tally.items():
        total.update(counts)
        unknown += set(counts) == {SKIP}
        if set(counts) != {SKIP}:
            yield f"{algorithm:{width}}" + "".join(f"{counts[status]:8}" for status in STATUSES)
    yield f"{'total':{width}}" + "".join(f"{total[status]:8}" for status in STATUSES)
    if unknown:
        yield f"{unknown} algorithms that it has nothing for are not shown"
    for outcome in results.unexpected:
        effects = [f"[{flag}: {notes[flag]['effect']}]" for flag in outcome.flags if flag in notes]
        yield ""
        yield " ".join([f"{outcome.status.upper()} {outcome.test}: {outcome.reason}", *effects])
        yield f"     replay: python -m conformance run --backend {results.backend} --only '{outcome.test}'"
    for outcome in results.outcomes if explain else ():
        why = results.explanation(outcome)
        if outcome.status in (FAIL, ERROR) and why is not None:
            yield ""
            yield f"KNOWN {outcome.test}: {outcome.reason}"
            yield f"     {why.reason} [{why.link}]"
    for outcome in results.unexpected_passes:
        yield ""
        yield f"UNEXPECTED PASS {outcome.test}: known/{results.backend}.txt lists it as a failure"


def write(results: Results, path: Path) -> None:
    """The record as a JSON file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(results.to_json(), indent=1) + "\n", "utf-8")
    os.replace(partial, path)


def changes(results: Results, path: Path) -> list[str]:
    """What differs from the record at `path`: one line for each test whose status changed, appeared or went."""
    before = {o["test"]: o["status"] for o in json.loads(path.read_text("utf-8"))["outcomes"]}
    after = {o.test: o.status for o in results.outcomes}
    return [
        f"{test}: {before.get(test, 'absent')} -> {after.get(test, 'absent')}"
        for test in sorted(before.keys() | after.keys())
        if before.get(test) != after.get(test)
    ]
