"""The terminal: keys and pastes through prompt_toolkit's own pipe input, output through rich into a string."""

import io
import os
import threading

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput
from rich.console import Console

from runtime import terminal
from runtime.terminal import Terminal

ENTER, ALT_ENTER, CTRL_C, CTRL_D, UP, TAB = "\r", "\x1b\r", "\x03", "\x04", "\x1b[A", "\t"


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "state"))


@pytest.fixture
def typed():
    """`typed(keys)` is a Terminal in front of which somebody types `keys`, and more after half a second."""
    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):

        def make(keys, *later):
            keyboard.send_text(keys)
            for text in later:
                timer = threading.Timer(0.5, keyboard.send_text, [text])
                timer.start()
                timers.append(timer)
            return Terminal(["/help", "/clear"])

        timers = []
        yield make
        for timer in timers:
            timer.join()


def test_enter_sends_a_line(typed):
    screen = typed("hello" + ENTER + "you" + ENTER)
    assert [screen.read(), screen.read()] == ["hello", "you"]


def test_a_line_can_be_broken(typed):
    assert typed("a" + ALT_ENTER + "b" + ENTER).read() == "a\nb"


def test_an_enter_typed_ahead_sends_too(typed):
    """While nobody reads, the terminal itself turns the \\r of the Enter key into \\n."""
    assert typed("hello\n").read() == "hello"


@pytest.mark.parametrize("newline", ["\n", "\r", "\r\n"])
def test_a_paste_of_many_lines_is_one_question(typed, newline):
    pasted = newline.join(["def f():", "    return 1", "", "f()"])
    screen = typed(f"\x1b[200~{pasted}\x1b[201~ ?" + ENTER)
    assert screen.read() == "def f():\n    return 1\n\nf() ?"


def test_ctrl_c_and_ctrl_d_reach_the_program(typed):
    screen = typed("half" + CTRL_C)
    with pytest.raises(KeyboardInterrupt):
        screen.read()
    screen = typed(CTRL_D)
    with pytest.raises(EOFError):
        screen.read()


def test_tab_completes_commands(typed):
    assert typed("/cl" + TAB, ENTER).read() == "/clear"  # the completion comes a moment after the key


def test_questions_are_remembered_for_the_next_chat_in_a_file_of_this_user_only(typed):
    typed("first" + ENTER).read()
    assert typed(UP + ENTER).read() == "first"
    assert terminal.history_path().is_file()
    if os.name == "posix":
        assert terminal.history_path().stat().st_mode & 0o777 == 0o600


def test_a_home_that_cannot_be_written_is_no_obstacle(typed, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "file"))
    assert typed("hello" + ENTER).read() == "hello"


@pytest.fixture
def shown(typed):
    """A Terminal whose output, colours included, goes to `.text()`."""
    screen, out = typed(""), io.StringIO()
    screen._console = Console(
        file=out,
        force_terminal=True,
        color_system="standard",
        width=20,
        highlight=False,
        legacy_windows=False,
        _environ={},
    )
    screen.text = out.getvalue
    return screen


def test_pieces_are_shown_as_they_come_and_the_line_is_ended_once(shown):
    shown.write("one ")
    shown.write("[bold]two[/bold] :smile: and more than twenty columns")
    assert shown.text() == "one [bold]two[/bold] :smile: and more than twenty columns"
    shown.end()
    shown.write("text\n")
    shown.end()
    assert shown.text().endswith("columns\ntext\n")


def test_escape_sequences_of_a_model_stay_harmless(shown):
    shown.write("\x1b]0;owned\x07\x1b[2J\x9b31m")
    shown.end()
    shown.error("bad \x1b[2J\nname")
    assert "\x1b]" not in shown.text() and "\x1b[2J" not in shown.text() and "\x9b" not in shown.text()
    assert "bad [2J name\n" in shown.text().replace("\x1b[31m", "").replace("\x1b[0m", "")


def test_thoughts_are_dim_and_the_answer_is_not(shown):
    shown.begin(False)
    for piece in ("<thi", "nk>hm", "</think>", "yes"):
        shown.write(piece)
    shown.end()
    assert shown.text() == "\x1b[2m<think>\x1b[0m\x1b[2mhm\x1b[0m\x1b[2m</think>\x1b[0myes\n"


def test_a_thought_that_the_template_began_is_dim_from_the_start(shown):
    shown.begin(True)
    shown.write("hm</think>yes")
    shown.end()
    assert shown.text() == "\x1b[2mhm</think>\x1b[0myes\n"
