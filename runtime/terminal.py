"""The chat on a terminal: editing, history and pasting by prompt_toolkit, colours by rich.

Both are imported when a Terminal is made, so that scripts do not wait for them.
"""

import os
import sys
from pathlib import Path

from refquant.errors import UnsupportedError
from runtime.keyboard import mark_pastes
from runtime.printable import Thoughts, one_line, printable
from runtime.progress import ProgressLine

HISTORY = "chat-history"


class Terminal:
    """Enter sends, Alt-Enter starts a new line, a paste of many lines is one question."""

    interactive = True

    def __init__(self, words: list[str], quiet: bool = False):
        try:
            from prompt_toolkit import PromptSession
            from prompt_toolkit.completion import WordCompleter
            from rich.console import Console
            from rich.text import Text
        except ModuleNotFoundError as error:
            message = (
                f"{error.name} is not installed, expected it for a chat on a terminal: pip install 'refquant[chat]'"
            )
            raise UnsupportedError(message) from error
        self._console = Console(highlight=False, emoji=False, markup=False)
        self._quiet = quiet
        self._session = PromptSession(
            history=_history(),
            key_bindings=_keys(),
            completer=WordCompleter(words, sentence=True),
            complete_while_typing=False,
            reserve_space_for_menu=4,
            multiline=True,
            enable_suspend=True,
            prompt_continuation="  ",
        )
        self._text = Text
        self._thoughts = Thoughts()
        self._column = 0

    def read(self) -> str:
        """A question or a command. Raises KeyboardInterrupt on Ctrl-C, EOFError on Ctrl-D in an empty line."""
        try:
            return self._session.prompt([("", "\n"), ("bold ansicyan", "> ")]).strip()
        finally:
            mark_pastes(sys.stdout)

    def begin(self, thinking: bool) -> None:
        """An answer follows, and begins with a thought if `thinking`."""
        self._thoughts = Thoughts(thinking)

    def write(self, piece: str) -> None:
        """A piece of an answer, at once; thoughts are dimmed."""
        self._show(self._thoughts.push(piece))

    def end(self) -> None:
        """The answer is over: end its line."""
        self._show(self._thoughts.flush())
        if self._column:
            self._console.out("")
        self._column = 0

    def note(self, text: str) -> None:
        """Something about the program."""
        self._console.print(self._text(printable(text)), style="dim")

    def error(self, text: object) -> None:
        """Why something was not done, in one line."""
        self._console.print(self._text(one_line(text)), style="red")

    def progress(self) -> ProgressLine:
        """A progress line to be used in a `with`."""
        return ProgressLine(sys.stderr, enabled=not self._quiet)

    def _show(self, parts: list[tuple[str, bool]]) -> None:
        for text, thought in parts:
            text = printable(text)
            if text:
                self._console.out(text, style="dim" if thought else None, end="")
                self._column = 0 if text.endswith("\n") else 1
        self._console.file.flush()


def history_path() -> Path:
    """Where questions are remembered between chats: $XDG_STATE_HOME/refquant or this system's counterpart."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "refquant" / HISTORY


def _history():
    """History in a file that only this user may read; in memory where no such file can be written."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    try:
        path = history_path()
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except (OSError, RuntimeError):  # RuntimeError: this user has no home
        return InMemoryHistory()
    return FileHistory(str(path))


def _keys():
    from prompt_toolkit.key_binding import KeyBindings

    keys = KeyBindings()
    keys.add("escape", "enter")(lambda event: event.current_buffer.insert_text("\n"))
    for key in ("enter", "c-j"):  # Ctrl-J is what Enter becomes when it was typed ahead
        keys.add(key)(lambda event: event.current_buffer.validate_and_handle())
    return keys
