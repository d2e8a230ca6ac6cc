"""The loop of a chat: read a question or a command, show the answer, never let one mishap end it.

On a terminal Ctrl-C stops an answer, and at the prompt the second one in a row leaves. Without a terminal every line is
a question, never a command (a piped text must not save or read files), and the first error ends the loop.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Protocol

from refquant.errors import ContextFullError, QuantError
from runtime import commands
from runtime.conversation import Conversation
from runtime.progress import ProgressLine


class Screen(Protocol):
    """Where a dialogue takes place: runtime.terminal.Terminal or runtime.pipe.Pipe."""

    interactive: bool

    def read(self) -> str: ...
    def begin(self, thinking: bool) -> None: ...
    def write(self, piece: str) -> None: ...
    def end(self) -> None: ...
    def note(self, text: str) -> None: ...
    def error(self, text: object) -> None: ...
    def progress(self) -> ProgressLine: ...


class Dialogue:
    """A conversation on a screen. `attached` is text that goes before the next question (/read)."""

    def __init__(self, conversation: Conversation, screen: Screen, statistics: bool = True):
        self.conversation, self.screen, self.statistics = conversation, screen, statistics
        self.attached = ""

    def run(self) -> None:
        """Until the input ends, /exit, or two Ctrl-C in a row at the prompt."""
        leaving = False
        while True:
            try:
                text = self.screen.read()
            except EOFError:
                return
            except KeyboardInterrupt:
                if leaving or not self.screen.interactive:
                    return
                leaving = True
                self.screen.note("Ctrl-C again, Ctrl-D or /exit leaves.")
                continue
            leaving = False
            try:
                if text and not self.handle(text):
                    return
            except KeyboardInterrupt:  # one more Ctrl-C while the one before was being obeyed
                if not self.screen.interactive:
                    raise
            except BrokenPipeError:
                raise
            except (QuantError, OSError) as error:
                if not self.screen.interactive:
                    raise
                advice = "; /clear starts anew" if isinstance(error, ContextFullError) else ""
                self.screen.error(f"{error}{advice}")

    def handle(self, text: str) -> bool:
        """Obey a command or answer a question; False to leave."""
        if self.screen.interactive and commands.is_command(text):
            return commands.obey(self, text)
        question = f"{self.attached}\n\n{text}" if self.attached else text
        self.show(lambda progress: self.conversation.ask(question, progress))
        self.attached = ""
        return True

    def show(self, answer: Callable[[ProgressLine], Iterator[str]]) -> None:
        """Write an answer piece by piece, and what it cost. Ctrl-C ends it on a terminal, and elsewhere the program."""
        begun = False
        try:
            with self.screen.progress() as progress, closing(answer(progress)) as pieces:
                for piece in pieces:
                    if not begun:
                        begun = True
                        self.screen.begin(self.conversation.thinking)
                    self.screen.write(piece)
        except KeyboardInterrupt:
            if not self.screen.interactive:
                raise
            if not begun:
                self.screen.note("Stopped before the answer began: the question is taken back.")
                return
        finally:
            if begun:
                self.screen.end()
        if not begun:
            self.screen.end()
        if self.statistics:
            self.screen.note(str(self.conversation.statistics))
