"""The chat without a terminal: questions from stdin, answers to stdout, everything else to stderr."""

import sys
from typing import BinaryIO, TextIO

from runtime.arguments import PROGRAM
from runtime.plain_text import decoded, read_line
from runtime.printable import one_line, printable
from runtime.progress import ProgressLine


class Pipe:
    """One question a line, in UTF-8; other bytes become U+FFFD. Control characters reach files, but no terminal."""

    interactive = False

    def __init__(
        self, stdin: BinaryIO | None = None, stdout: TextIO | None = None, stderr: TextIO | None = None, quiet=False
    ):
        self._stdin = sys.stdin.buffer if stdin is None else stdin
        self._stdout = sys.stdout if stdout is None else stdout
        self._stderr = sys.stderr if stderr is None else stderr
        self._quiet = quiet

    def read(self) -> str:
        """The next line that is not blank. Raises EOFError after the last one."""
        while line := read_line(self._stdin):
            if text := decoded(line).strip():
                return text
        raise EOFError

    def begin(self, thinking: bool) -> None:
        """An answer follows; nothing to prepare."""

    def write(self, piece: str) -> None:
        """A piece of an answer, at once."""
        self._stdout.write(printable(piece) if self._stdout.isatty() else piece)
        self._stdout.flush()

    def end(self) -> None:
        """The answer is over: end its line."""
        self._stdout.write("\n")
        self._stdout.flush()

    def note(self, text: str) -> None:
        """Something about the program, for people."""
        if not self._quiet:
            print(printable(text), file=self._stderr, flush=True)

    def error(self, text: object) -> None:
        """Why something was not done, in one line, and never silenced."""
        print(f"{PROGRAM}: {one_line(text)}", file=self._stderr, flush=True)

    def progress(self) -> ProgressLine:
        """A progress line to be used in a `with`."""
        return ProgressLine(self._stderr, enabled=not self._quiet)
