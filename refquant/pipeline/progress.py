"""How far a job is: a bar on a terminal with the time that is left, by the pace of the last steps; nothing elsewhere.

    quantize  [######--------------]  30 %, 2:10 left

Pace      of the last STEPS calls: parts that an earlier run had finished go by in no time and tell nothing of the rest.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

WIDTH = 20
STEPS = 12
PAUSE = 0.1  # seconds between two drawings


class Bar:
    """Callable as progress(what, done, total)."""

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic):
        self._stream, self._clock = stream or sys.stderr, clock
        self._visible = self._stream.isatty()
        self._what, self._drawn = "", -PAUSE
        self._steps: deque[tuple[float, int]] = deque(maxlen=STEPS)

    def __call__(self, what: str, done: int, total: int) -> None:
        now = self._clock()
        if what != self._what:
            self._what = what
            self._steps.clear()
        self._steps.append((now, done))
        if not self._visible or (now - self._drawn < PAUSE and done < total):
            return
        self._drawn = now
        full = WIDTH * done // max(1, total)
        line = (
            f"{what}  [{'#' * full}{'-' * (WIDTH - full)}] {100 * done // max(1, total):3d} %{self._left(done, total)}"
        )
        self._stream.write(f"\r{line}\x1b[K")
        self._stream.flush()

    def end(self) -> None:
        """Take the line away."""
        if self._visible:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _left(self, done: int, total: int) -> str:
        (began, first), (now, _) = self._steps[0], self._steps[-1]
        if done <= first:
            return ""
        return f", {clock((now - began) * (total - done) / (done - first))} left"


def clock(seconds: float) -> str:
    """42 s, 3:07, 1:02:30."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
