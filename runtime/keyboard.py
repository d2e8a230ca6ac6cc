"""Keys that arrive while nobody reads them: not shown amid an answer, and a paste among them still one paste.

A terminal marks a paste (ESC [200~ text ESC [201~) once it is asked to, and the line editor asks only while it runs. So
`held_back` asks for the time in between, and `mark_pastes` again after every prompt.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

MARK_PASTES, LEAVE_PASTES = "\x1b[?2004h", "\x1b[?2004l"


@contextmanager
def held_back(keys: TextIO, screen: TextIO) -> Iterator[None]:
    """While it lasts, what is typed into `keys` is not shown on `screen`; it still arrives, and Ctrl-C interrupts.

    Does nothing where `keys` is no terminal, or there is no termios (Windows).
    """
    try:
        import termios
    except ImportError:
        yield
        return
    try:
        before = termios.tcgetattr(keys)
    except (termios.error, OSError, ValueError):  # no terminal; or no file at all behind the stream
        yield
        return
    silent = [*before]
    silent[3] &= ~termios.ECHO
    termios.tcsetattr(keys, termios.TCSADRAIN, silent)
    mark_pastes(screen)
    try:
        yield
    finally:
        mark_pastes(screen, LEAVE_PASTES)
        termios.tcsetattr(keys, termios.TCSADRAIN, before)


def mark_pastes(screen: TextIO, request: str = MARK_PASTES) -> None:
    """Ask the terminal behind `screen` to mark pastes, or not to; nothing happens where it would show the request."""
    if screen.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        screen.write(request)
        screen.flush()
