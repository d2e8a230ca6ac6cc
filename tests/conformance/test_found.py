"""The page of what was found: every line replays, and prints what the page says."""

import re
import shlex
from pathlib import Path

import pytest

from conformance import adapters, known, vectors
from conformance.__main__ import main
from conformance.adapters._device import VARIABLE
from conformance.protocol import Unsupported

PAGE = Path(__file__).parents[2] / "docs" / "found-in-other-peoples-code.md"
REPLAY = re.compile(r"^    python -m conformance (run .+)\n((?:    > .+\n)+)", re.MULTILINE)
ENTRIES = [
    (command, [line.removeprefix("    > ") for line in printed.splitlines()])
    for command, printed in REPLAY.findall(PAGE.read_text("utf-8"))
]


def options(command):
    """(backend, device, glob) of a replay line."""
    words = shlex.split(command)
    device = words[words.index("--device") + 1] if "--device" in words else ""
    return words[words.index("--backend") + 1], device, words[words.index("--only") + 1]


def test_every_entry_has_a_replay_line_and_what_it_prints():
    text = PAGE.read_text("utf-8")
    assert len(ENTRIES) == text.count("python -m conformance run") >= 15
    assert all(printed for _, printed in ENTRIES)


@pytest.mark.parametrize("command, printed", ENTRIES)
def test_replay_lines_name_a_backend_tests_and_a_rule(command, printed):
    backend, device, pattern = options(command)
    assert backend in adapters.NAMES
    tests = [test.id for test in vectors.select(pattern)]
    assert tests, pattern
    rules = known.read(adapters.label(backend, device))
    for line in printed:
        assert line.partition(": ")[0].removeprefix("KNOWN ") in tests or any(rule.reason in line for rule in rules), (
            line
        )


@pytest.mark.parametrize("command, printed", ENTRIES)
def test_the_page_says_what_is_printed(command, printed, capsys, monkeypatch):
    backend, device, _ = options(command)
    monkeypatch.setenv(VARIABLE, device or "cpu")  # put back what the command sets
    try:
        adapters.load(backend, device).version()
    except Unsupported as why:
        pytest.skip(str(why))
    assert main(shlex.split(command)) == 0
    shown = capsys.readouterr().out
    for line in printed:
        assert line in shown
