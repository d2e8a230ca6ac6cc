"""How far a long job over a file is: a bar with the time that is left, on a terminal; nothing elsewhere."""

from typing import TextIO

from runtime.progress import STAGES, ProgressLine

LABELS = {"quantize": "quantizing", "imatrix": "collecting", "convert": "converting"}


class Bar:
    """Callable as progress(stage, done, total); a context manager that leaves no line behind.

    Stages of `runtime.progress` (compiling, loading) keep their line; a stage of LABELS gets the bar.
    """

    def __init__(self, stream: TextIO, enabled: bool = True, in_bytes: bool = True):
        self._line = ProgressLine(stream, enabled)
        self._live = enabled and stream.isatty()
        self._stream, self._in_bytes = stream, in_bytes
        self._progress = self._task = self._stage = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage in STAGES:
            self._line(stage, done, total)
        elif self._live:
            if self._progress is None:
                self._begin()
            if self._stage != stage:  # the next of several steps begins a bar of its own
                if self._task is not None:
                    self._progress.remove_task(self._task)
                self._task, self._stage = self._progress.add_task(LABELS[stage], total=total), stage
            self._progress.update(self._task, completed=done)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *exception) -> None:
        self._line.clear()
        if self._progress is not None:
            self._progress.stop()

    def _begin(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        amount = (DownloadColumn(), TransferSpeedColumn()) if self._in_bytes else (MofNCompleteColumn(),)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            *amount,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(file=self._stream),
            transient=True,
        )
        self._progress.start()
