"""The loop and its commands on a scripted screen: what is typed, what is seen, and that nothing ends the chat."""

import json
from contextlib import nullcontext

import pytest
from fake_model import FakeModel, Template

from refquant.errors import ContextFullError
from runtime import commands
from runtime.conversation import Conversation
from runtime.dialogue import Dialogue


class Script:
    """A screen that types `lines` (an exception among them is raised) and remembers what it was shown."""

    def __init__(self, lines, interactive=True):
        self.interactive = interactive
        self._lines = iter(lines)
        self.answers, self.notes, self.errors = [], [], []
        self._answer = ""

    def read(self):
        line = next(self._lines, EOFError)
        if isinstance(line, type):
            raise line
        return line

    def begin(self, thinking):
        self.thinking = thinking

    def write(self, piece):
        self._answer += piece

    def end(self):
        self.answers.append(self._answer)
        self._answer = ""

    def note(self, text):
        self.notes.append(text)

    def error(self, text):
        self.errors.append(str(text))

    def progress(self):
        return nullcontext(lambda stage, done, total: None)


def echo(prompt):
    return prompt.rpartition("user:")[2].partition("<|im_end|>")[0].upper()


def chat(*lines, model=None, interactive=True, statistics=False, **options):
    screen = Script(lines, interactive)
    conversation = Conversation(model or FakeModel(echo), {"temperature": 0, "seed": 1}, **options)
    Dialogue(conversation, screen, statistics).run()
    return screen, conversation


def test_questions_are_answered_until_the_input_ends():
    screen, conversation = chat("one", "", "two\nlines")
    assert screen.answers == ["ONE", "TWO\nLINES"]
    assert len(conversation.turns) == 4
    assert (screen.notes, screen.errors) == ([], [])


@pytest.mark.parametrize("opening, thinking", [("<think>\n", True), ("", False)])
def test_the_screen_is_told_when_the_template_began_a_thought(opening, thinking):
    class Thinking(Template):
        def encode(self, messages):
            return super().encode(messages) + list(opening.encode())

    model = FakeModel(lambda _: opening + "hm</think>yes")  # the fake counts the opening as written
    screen, _ = chat("q", model=model, template=Thinking())
    assert screen.thinking is thinking


def test_exit_leaves():
    screen, _ = chat("/exit", "never asked")
    assert screen.answers == []


def test_statistics_follow_an_answer_when_wanted():
    screen, conversation = chat("one", statistics=True)
    assert screen.notes == [str(conversation.statistics)]


def test_two_interrupts_in_a_row_at_the_prompt_leave_and_one_does_not():
    screen, _ = chat(KeyboardInterrupt, "one", KeyboardInterrupt, KeyboardInterrupt, "never asked")
    assert screen.answers == ["ONE"]
    assert screen.notes == ["Ctrl-C again, Ctrl-D or /exit leaves."] * 2


def interrupting(step, answer=echo):
    model = FakeModel(answer)

    def interrupt(count):
        if count == step:
            raise KeyboardInterrupt

    model.before_step = interrupt
    return model


def test_an_interrupt_stops_the_answer_and_not_the_program():
    screen, conversation = chat("hello", "again", model=interrupting(4), statistics=True)
    assert screen.answers[0] == "HELLO"[: len(screen.answers[0])] != "HELLO"
    assert screen.answers[1] == "AGAIN"
    assert screen.notes[0].endswith("stopped")
    assert conversation.turns[1]["content"] == screen.answers[0]


def test_an_interrupt_while_the_question_is_read_takes_it_back():
    screen, conversation = chat("hello", "again", model=interrupting(0))
    assert screen.notes == ["Stopped before the answer began: the question is taken back."]
    assert [turn["content"] for turn in conversation.turns] == ["again", "AGAIN"]


def test_an_interrupt_while_one_is_being_obeyed_does_not_end_the_program():
    class Nervous(Script):
        def end(self):
            super().end()
            if len(self.answers) == 1:
                raise KeyboardInterrupt

    screen = Nervous(["one", "two"])
    Dialogue(Conversation(FakeModel(echo), {"temperature": 0}), screen, False).run()
    assert screen.answers == ["ONE", "TWO"]


def test_a_full_context_is_refused_with_what_to_do_and_the_chat_goes_on():
    screen, _ = chat("x" * 99, "/clear", "ok", model=FakeModel(echo, n_ctx=64))
    assert "the context is full: 118 tokens to read, expected at most 64" in screen.errors[0]
    assert screen.errors[0].endswith("; /clear starts anew")
    assert screen.answers == ["OK"]


def test_an_answer_that_fills_the_context_is_shown_and_explained():
    screen, _ = chat("q", model=FakeModel(lambda _: "a" * 99, n_ctx=64), statistics=True)
    assert set(screen.answers[0]) == {"a"}
    assert screen.notes[0].endswith("context 64 of 64 · stopped: the context is full")


@pytest.mark.parametrize("error", [KeyboardInterrupt, ContextFullError])
def test_without_a_terminal_the_first_failure_ends_the_loop(error):
    model = interrupting(0) if error is KeyboardInterrupt else FakeModel(echo, n_ctx=8)
    with pytest.raises(error):
        chat("hello", "again", model=model, interactive=False)


@pytest.mark.parametrize("line", ["/exit", "/save stolen", "/clear"])
def test_without_a_terminal_a_command_is_a_question(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    screen, _ = chat(line, interactive=False)
    assert screen.answers == [line.upper()]
    assert list(tmp_path.iterdir()) == []


# Commands


def test_help_names_every_command():
    screen, _ = chat("/help")
    assert all(name in screen.notes[0] for name in commands.COMMANDS)


def test_clear_forgets():
    _, conversation = chat("one", "/clear", "two")
    assert [turn["content"] for turn in conversation.turns] == ["two", "TWO"]


def test_regen_answers_anew_and_warns_where_that_changes_nothing():
    screen, conversation = chat("one", "/regen")
    assert screen.answers == ["ONE", "ONE"]
    assert "the answer will be the same" in screen.notes[0]
    assert len(conversation.turns) == 2


def test_regen_needs_an_answer():
    screen, _ = chat("/regen", "one")
    assert screen.errors == ["/regen: there is no answer yet, expected a question first"]
    assert screen.answers == ["ONE"]


def test_system_shows_sets_and_removes():
    screen, conversation = chat("/system", "/system be brief", "/system", "/system -")
    assert [note.partition(" be")[2] or note for note in screen.notes] == [
        "There is no system message.",
        " brief",
        " brief",
        "There is no system message.",
    ]
    assert conversation.system is None


def test_the_system_message_reaches_the_model():
    screen, _ = chat("/system be brief", "q", model=FakeModel(lambda p: "yes" if "system:be brief" in p else "no"))
    assert screen.answers == ["yes"]


def test_set_changes_the_sampling_and_refuses_nonsense():
    screen, conversation = chat("/set temp 0.5", "/set top-k 7", "/set top-p 2", "/set temp hot", "/set", "/set mood 3")
    assert conversation.sampling == {"temperature": 0.5, "top_k": 7}
    assert [error.partition(",")[0] for error in screen.errors] == [
        "Sampler: top_p = 2.0",
        "/set: temp = 'hot'",
        "/set: nothing cannot be set",
        "/set: mood cannot be set",
    ]


def test_stats_show_settings_and_the_last_answer():
    screen, conversation = chat("/stats", "one", "/stats")
    assert "no answer yet" in screen.notes[0]
    assert "temp 0, top-k 40, top-p 0.95, min-p 0.05, repeat-penalty 1, seed 1" in screen.notes[1]
    assert str(conversation.statistics) in screen.notes[1]
    assert "fake.gguf" in screen.notes[1]


def test_a_saved_conversation_can_be_gone_on_with(tmp_path):
    path = tmp_path / "my talk.json"
    chat("one", f"/save {path}", system="s")
    _, conversation = chat(f"/load {path}", "two")
    assert [turn["content"] for turn in conversation.turns] == ["one", "ONE", "two", "TWO"]
    assert conversation.system == "s"
    assert json.loads(path.read_text())["turns"][1]["content"] == "ONE"


def test_read_puts_a_text_before_the_next_question_only(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_bytes("grüße\xff".encode() + b"\xff")
    _, conversation = chat(f"/read {path}", "what?", "and?")
    assert conversation.turns[0]["content"] == "grüßeÿ�\n\nwhat?"
    assert conversation.turns[2]["content"] == "and?"


def test_a_text_that_does_not_fit_can_be_dropped(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("x" * 5000)
    screen, _ = chat(f"/read {path}", "what?", "/clear", "ok")
    assert "the context is full" in screen.errors[0]
    assert screen.answers == ["OK"]


@pytest.mark.parametrize("command", ["/read", "/save", "/load"])
def test_commands_on_files_report_trouble_and_go_on(command, tmp_path):
    missing = tmp_path / "no" / "such"
    screen, _ = chat(command, f"{command} {missing}", f"{command} {tmp_path}", "ok")
    assert f"no file, expected {command} FILE" in screen.errors[0]
    assert str(missing) in screen.errors[1]
    assert len(screen.errors) == 3
    assert screen.answers == ["OK"]


def test_an_unknown_command_names_the_nearest():
    screen, _ = chat("/hepl", "/frobnicate", "/clear all", "/HELP")
    assert screen.errors == [
        "/hepl is no command; did you mean /help?",
        "/frobnicate is no command; /help lists the commands",
        "/clear takes nothing after it, got 'all'",
    ]
    assert len(screen.notes) == 1


@pytest.mark.parametrize("text", ["/usr/bin/env is what?", "/", "/save x\n/clear", "// comment", "a /clear"])
def test_a_question_may_begin_with_a_slash(text):
    screen, _ = chat(text)
    assert screen.answers == [text.upper()]
