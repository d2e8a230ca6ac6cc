"""Counting: by file, how many mutants there were, and how many of those that differ from the original were killed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256

from conformance.mutation.equivalents import Equivalent
from conformance.mutation.mutants import Mutant
from conformance.mutation.trial import KILLED, Verdict

LEAST = 0.95
EQUIVALENT, SURVIVED = "equivalent", "survived"


@dataclass(frozen=True)
class Score:
    """Every mutant that was tried, what became of it, and the list it was held against."""

    outcomes: Sequence[tuple[Mutant, Verdict]]
    equivalents: Sequence[Equivalent]

    def status(self, mutant: Mutant, verdict: Verdict) -> str:
        """killed, equivalent or survived."""
        if verdict.status == KILLED:
            return KILLED
        return EQUIVALENT if any(line.covers(mutant.id) for line in self.equivalents) else SURVIVED

    def survivors(self) -> list[Mutant]:
        """Those that ask for a vector."""
        return [mutant for mutant, verdict in self.outcomes if self.status(mutant, verdict) == SURVIVED]

    def by_file(self) -> dict[str, dict[str, int]]:
        """File -> {"killed", "equivalent", "survived"}."""
        counts: dict[str, dict[str, int]] = {}
        for mutant, verdict in self.outcomes:
            of_file = counts.setdefault(mutant.file, {KILLED: 0, EQUIVALENT: 0, SURVIVED: 0})
            of_file[self.status(mutant, verdict)] += 1
        return counts

    def idle(self) -> list[Equivalent]:
        """Lines of the list that cover no mutant that was left alive."""
        alive = [mutant.id for mutant, verdict in self.outcomes if verdict.status != KILLED]
        return [line for line in self.equivalents if not any(line.covers(mutant) for mutant in alive)]

    @property
    def share(self) -> float:
        """Killed of those that are not equivalent; 1 where there is none."""
        return share(*(sum(counts[word] for counts in self.by_file().values()) for word in (KILLED, SURVIVED)))

    def to_json(self) -> dict[str, object]:
        """Every mutant: its id, line, status, and the test that killed it."""
        rows = [
            {"mutant": m.id, "line": m.line, "status": self.status(m, v), "by": v.by, "reason": v.reason}
            for m, v in self.outcomes
        ]
        return {"score": self.share, "files": self.by_file(), "mutants": sorted(rows, key=lambda row: row["mutant"])}


def share(killed: int, survived: int) -> float:
    """killed / (killed + survived), 1 where there is neither."""
    return killed / (killed + survived) if killed + survived else 1.0


def lines(score: Score, whole: bool) -> Iterator[str]:
    """The survivors and the table. `whole`: all mutants were tried, so that idle lines of the list can be told."""
    for mutant in score.survivors():
        yield f"SURVIVED {mutant.file}:{mutant.line}  {mutant.id}"
    for line in score.idle() if whole else ():
        yield f"IDLE {line.pattern}: every mutant that it covers was killed, or there is none"
    yield f"{'':44}{'mutants':>8}{'killed':>8}{'equivalent':>12}{'survived':>10}{'score':>9}"
    counts = score.by_file()
    for file in sorted(counts):
        yield _row(file, counts[file])
    total = {word: sum(each[word] for each in counts.values()) for word in (KILLED, EQUIVALENT, SURVIVED)}
    yield _row("total", total)


def _row(label: str, counts: dict[str, int]) -> str:
    part = share(counts[KILLED], counts[SURVIVED])
    words = f"{counts[KILLED]:8}{counts[EQUIVALENT]:12}{counts[SURVIVED]:10}{part:9.1%}"
    return f"{label:44}{sum(counts.values()):8}{words}"


def sample(mutants: Sequence[Mutant], count: int, seed: int) -> list[Mutant]:
    """`count` of them. Each is ranked by its own id, so that a change of one file leaves the choice in others alone."""
    rank = lambda mutant: sha256(f"{seed} {mutant.id}".encode()).digest()
    return sorted(sorted(mutants, key=rank)[:count], key=lambda mutant: mutant.id)
