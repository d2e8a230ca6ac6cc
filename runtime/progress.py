"""What the program is busy with, while nothing else can be seen: one line on stderr that erases itself.

    reading the prompt ━━━━━━━━━━──────────  1024 of 2048 tokens  3 s

The line appears only when a stage takes longer than DELAY, and is drawn by a thread of its own, so that seconds go on
counting while a kernel is compiled. On a stderr that is no terminal one sentence announces a compilation that takes
longer than that, because a minute of silence on the first start looks like a hang.
"""

import shutil
import threading
import time
from typing import TextIO

DELAY = 0.3
INTERVAL = 0.1
ANNOUNCE_AFTER = 1.0
WIDTH = 20
STAGES = {
    "load": ("loading the model", "tensors"),
    "compile": ("compiling for this CPU (first start only)", "kernels"),
    "prompt": ("reading the prompt", "tokens"),
}


class ProgressLine:
    """Callable as progress(stage, done, total); a context manager that leaves no line and no thread behind."""

    def __init__(self, stream: TextIO, enabled: bool = True):
        self._stream, self._enabled = stream, enabled
        self._live = stream.isatty()
        self._bar = "━─" if (stream.encoding or "").lower().startswith("utf") else "#."
        self._stage: str | None = None
        self._done = self._total = 0
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._done, self._total = done, total
        if done >= total:
            self.clear()
        elif self._enabled and stage != self._stage:
            self.clear()
            self._stage, self._finished = stage, threading.Event()
            self._thread = threading.Thread(target=self._draw, args=(stage, self._finished), daemon=True)
            self._thread.start()

    def clear(self) -> None:
        """End the stage and erase its line."""
        self._finished.set()
        if self._thread is not None:
            self._thread.join()
        self._stage = self._thread = None

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(self, *exception) -> None:
        self.clear()

    def _draw(self, stage: str, finished: threading.Event) -> None:
        began = time.monotonic()
        if not self._live:
            if stage == "compile" and not finished.wait(ANNOUNCE_AFTER):
                self._put("compiling kernels for this CPU; later starts find them on disk\n")
            return
        width = 0
        pause = DELAY
        while not finished.wait(pause):
            line = self._line(stage, time.monotonic() - began)
            self._put("\r" + line.ljust(width))
            width, pause = len(line), INTERVAL
        if width:
            self._put("\r" + " " * width + "\r")

    def _line(self, stage: str, seconds: float) -> str:
        label, unit = STAGES.get(stage, (stage, ""))
        done, total = self._done, max(self._total, 1)
        filled = WIDTH * min(done, total) // total
        bar = self._bar[0] * filled + self._bar[1] * (WIDTH - filled)
        line = f"{label} {bar} {done} of {total} {unit}  {seconds:.0f} s"
        return line[: shutil.get_terminal_size().columns - 1]

    def _put(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # nobody reads stderr any more: progress is no reason to stop
            self._enabled = False
