"""The progress line: silent when all is quick, alive while it is slow, gone without a trace."""

import io
import threading
import time

import pytest

from runtime import progress
from runtime.progress import ProgressLine


class Console(io.StringIO):
    """A text stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 0.02)
    monkeypatch.setattr(progress, "INTERVAL", 0.01)
    monkeypatch.setattr(progress, "ANNOUNCE_AFTER", 0.02)
    monkeypatch.setenv("COLUMNS", "200")
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def wait_for(condition):
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.005)


def last_line(text):
    """What stands on the line in the end, by the rules of a terminal: \\r goes back, later text overwrites."""
    line = ""
    for part in text.split("\r"):
        line = part + line[len(part) :]
    return line.rstrip()


def test_a_slow_stage_is_shown_and_erased():
    out = Console()
    with ProgressLine(out) as line:
        line("prompt", 512, 2048)
        wait_for(lambda: "512" in out.getvalue())
        assert "reading the prompt ━━━━━─────────────── 512 of 2048 tokens" in out.getvalue()
        line("prompt", 1024, 2048)
        wait_for(lambda: "1024 of 2048" in out.getvalue())
        line("prompt", 2048, 2048)
        assert last_line(out.getvalue()) == ""


def test_a_quick_stage_shows_nothing(monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 60)
    out = Console()
    with ProgressLine(out) as line:
        for done in range(5):
            line("load", done, 5)
        line("load", 5, 5)
    assert out.getvalue() == ""


def test_an_error_leaves_no_line_behind():
    out = Console()
    with pytest.raises(KeyboardInterrupt), ProgressLine(out) as line:
        line("compile", 1, 9)
        wait_for(lambda: "compiling" in out.getvalue())
        raise KeyboardInterrupt
    assert last_line(out.getvalue()) == ""


def test_stages_follow_each_other():
    out = Console()
    with ProgressLine(out) as line:
        line("load", 1, 2)
        line("compile", 0, 3)
        wait_for(lambda: "0 of 3 kernels" in out.getvalue())
        line("an unknown stage", 0, 3)
        wait_for(lambda: "an unknown stage" in out.getvalue())
    assert last_line(out.getvalue()) == ""


def test_a_narrow_terminal_gets_a_line_that_fits(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    out = Console()
    with ProgressLine(out) as line:
        line("compile", 1, 9)
        wait_for(lambda: "compiling" in out.getvalue())
    assert max(map(len, out.getvalue().split("\r"))) == 29


def test_a_log_file_is_told_once_about_a_long_compilation_and_of_nothing_else():
    out = io.StringIO()
    with ProgressLine(out) as line:
        line("prompt", 1, 9)
        line("compile", 1, 9)
        wait_for(lambda: out.getvalue())
        line("compile", 2, 9)
    assert out.getvalue() == "compiling kernels for this CPU; later starts find them on disk\n"


def test_a_disabled_line_and_a_closed_stream_are_silent():
    out = Console()
    with ProgressLine(out, enabled=False) as line:
        line("prompt", 1, 9)
    assert out.getvalue() == ""
    line = ProgressLine(out)
    out.close()
    with line:
        line("prompt", 1, 9)
        time.sleep(0.05)
