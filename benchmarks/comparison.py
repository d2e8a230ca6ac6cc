"""Two engines measured in turn, and what the numbers say: medians, spread, ratios of neighbouring runs.

A B A B A B ...     samples a_i and b_i lie next to each other in time, so that a machine that slows down slows both
ratio               median of a_i / b_i; its spread is the least and the largest of them
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks.worker import Worker
from refquant.errors import RangeError

SETTLE = 0.1  # seconds before the other engine's turn: threads that wait for more work go to sleep meanwhile


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and largest of some samples."""

    median: float
    least: float
    largest: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        """Raises RangeError for no samples."""
        if not samples:
            raise RangeError("Spread.of: no samples, expected at least one")
        return cls(statistics.median(samples), min(samples), max(samples))

    def text(self, digits: int) -> str:
        """12.3 (11.9-12.8)"""
        return f"{self.median:.{digits}f} ({self.least:.{digits}f}-{self.largest:.{digits}f})"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Tokens per second of both engines in one test, run by run."""

    model: str
    model_bytes: int
    threads: int
    test: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    traffic_bytes: int  # what writing one token reads; 0 for prompts
    read_bytes_per_second: float
    idle_percent: float | None  # the most processor time a paused engine took, of one core

    @property
    def ratio(self) -> Spread:
        """Ours to theirs."""
        return ratio(self.ours, self.theirs)

    @property
    def of_read(self) -> tuple[float, float] | None:
        """Percent of the read bandwidth that ours and theirs reached, by their medians."""
        if not self.traffic_bytes:
            return None
        scale = 100 * self.traffic_bytes / self.read_bytes_per_second
        return scale * statistics.median(self.ours), scale * statistics.median(self.theirs)

    def as_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self) | {
            "ours_spread": asdict(Spread.of(self.ours)),
            "theirs_spread": asdict(Spread.of(self.theirs)),
            "ratio": asdict(self.ratio),
            "percent_of_read": self.of_read,
        }


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Median and extremes of the ratios of runs that were made one after the other. Raises RangeError."""
    if len(ours) != len(theirs):
        raise RangeError(f"comparison.ratio: {len(ours)} and {len(theirs)} samples, expected pairs")
    return Spread.of([a / b for a, b in zip(ours, theirs)])


def alternate(
    ours: Worker, theirs: Worker, rounds: int, note: Callable[[int], None]
) -> tuple[list, list, float | None]:
    """Seconds of `rounds` runs of each prepared worker in turn, and the idle percent of Comparison."""
    seconds: tuple[list[float], list[float]] = ([], [])
    idle: list[float] = []
    for done in range(rounds):
        note(done)
        for mine, running, paused in ((seconds[0], ours, theirs), (seconds[1], theirs, ours)):
            time.sleep(SETTLE)
            before = paused.cpu_seconds()
            mine.append(running.ask("run")["seconds"])
            after = paused.cpu_seconds()
            if before is not None and after is not None:
                idle.append(100 * (after - before) / mine[-1])
    return *seconds, max(idle, default=None)
