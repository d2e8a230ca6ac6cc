"""The owner of the process that renders chat templates (template_worker.py): asks, waits so long and no longer, kills.

The process starts with the object, so that it is ready by the time a model is loaded, and serves any number of
templates. When one fails to come back in time it is killed, and the next call starts another. `close`, the end of the
object's life or the end of the program end it; nothing is left behind.
"""

import json
import math
import re
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from refquant.errors import RangeError, UnsupportedError
from refquant.text.unicode_text import MAX_CHARACTERS, require_text

SECONDS = 5.0  # for one rendering; those of real chats take milliseconds
START_SECONDS = 60.0  # for Python to start and import jinja2 on a busy machine
MAX_LINE = 6 * MAX_CHARACTERS + 100  # an answer in JSON: at most \uXXXX for each character
JINJA2 = (3, 1, 6)
WORKER = Path(__file__).with_name("template_worker.py")


class TemplateProcess:
    """One process; calls from several threads take turns. Raises UnsupportedError where jinja2 is missing."""

    def __init__(self, seconds: float = SECONDS):
        require_jinja2()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._start()

    def render(self, where: str, source: str, variables: Mapping[str, object]) -> str:
        """The text that a template makes of `variables`, which must be JSON.

        Raises RangeError with the message of a template that calls raise_exception, UnsupportedError for one that is
        wrong, does what the sandbox forbids, or takes too long, too much memory or too much text.
        """
        request = {
            "source": source,
            "variables": variables,
            "characters": MAX_CHARACTERS,
            "seconds": math.ceil(self._seconds) + 1,
        }
        with self._lock:
            answer = self._ask(where, json.dumps(request).encode("ascii") + b"\n")
        if "raised" in answer:
            raise RangeError(f"{where}: {printable(answer['raised'])}")
        if "text" not in answer:
            raise UnsupportedError(f"{where}: {printable(answer['error'])}")
        require_text(where, "result", answer["text"])
        return answer["text"]

    def close(self) -> None:
        """End the process. A later `render` starts another."""
        self._stop()

    def _start(self) -> None:
        posix = sys.platform != "win32"
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],  # -P: what lies beside the script is not importable
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=posix,  # Ctrl-C in the terminal is for the chat, not for this process
                creationflags=0 if posix else subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP,
            )
        except OSError as error:
            raise UnsupportedError(f"text.template_process: {sys.executable} does not start: {error}") from error
        self._ready = False
        self._stop = weakref.finalize(self, end, self._process)

    def _ask(self, where: str, request: bytes) -> dict[str, str]:
        if not self._stop.alive or self._process.poll() is not None:
            self._stop()
            self._start()
        try:
            if not self._ready:
                self._exchange(where, b"", START_SECONDS, "the template process did not start")
                self._ready = True
            return self._exchange(where, request, self._seconds, "still rendering")
        except BaseException:  # a late answer must not be taken for the next one's, Ctrl-C included
            self._stop()
            raise

    def _exchange(self, where: str, request: bytes, seconds: float, late: str) -> dict[str, str]:
        """Write `request`, read one line; in a thread, because pipes have no timeout that every system knows."""
        lines: list[bytes] = []

        def talk() -> None:
            with suppress(OSError, ValueError):  # the process ended; no line says so
                self._process.stdin.write(request)
                self._process.stdin.flush()
                lines.append(self._process.stdout.readline(MAX_LINE))

        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        try:
            thread.join(seconds)
            timed_out = thread.is_alive()
        finally:
            if thread.is_alive():
                self._process.kill()
                thread.join()
        if timed_out:
            raise UnsupportedError(f"{where}: {late} after {seconds:g} s, expected an answer by then")
        if not lines or not lines[0].endswith(b"\n"):
            raise UnsupportedError(f"{where}: the template process ended with status {self._process.wait()}")
        return json.loads(lines[0])


def require_jinja2() -> None:
    """Raise UnsupportedError unless jinja2 is there, and without the leaks CVE-2024-56326 and CVE-2025-27516."""
    from importlib.metadata import PackageNotFoundError, version  # takes as long to import as all of this package

    try:
        installed = version("jinja2")
    except PackageNotFoundError as error:
        raise UnsupportedError(
            "text.chat_template: jinja2 is not installed, expected `pip install 'refquant[chat]'`"
        ) from error
    if tuple(int(n) for n in re.findall(r"\d+", installed)[:3]) < JINJA2:
        raise UnsupportedError(
            f"text.chat_template: jinja2 = {installed}, expected {'.'.join(map(str, JINJA2))} or later"
        )


def end(process: subprocess.Popen) -> None:
    """Kill a process, wait for it and close its pipes."""
    process.kill()
    with suppress(OSError):  # what was not yet written is lost
        process.stdin.close()
    process.wait()
    process.stdout.close()


def printable(message: str) -> str:
    """A message fit for a terminal: what a template says must not move its cursor."""
    return "".join(c if c.isprintable() else " " for c in message)
