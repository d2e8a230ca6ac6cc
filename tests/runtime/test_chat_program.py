"""The program itself, as a process: on a pseudo-terminal, in a pipe, with the bundled model and real signals."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest

PATIENCE = 120  # seconds; a first start compiles kernels
COMMAND = [sys.executable, "-m", "runtime.chat"]
ENDLESS = ["--temp", "9", "--top-k", "0", "--top-p", "1", "--min-p", "0"]  # the end is one token among thousands


@pytest.fixture
def environment(tmp_path):
    return os.environ | {"XDG_STATE_HOME": str(tmp_path), "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}


class Person:
    """Somebody at a terminal in front of the program: types, and reads until something is seen."""

    def __init__(self, arguments, environment):
        self.keys, screen = pty.openpty()
        # The first terminal that the leader of a session opens becomes the one whose Ctrl-C it gets.
        adopt = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", adopt, *COMMAND, *arguments],
            stdin=screen,
            stdout=screen,
            stderr=screen,
            env=environment,
            start_new_session=True,
        )
        os.close(screen)
        self.seen = ""
        self.pastes_are_marked = False

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.keys)

    def type(self, text):
        os.write(self.keys, text.encode())

    def sees(self, pattern):
        """Wait until `pattern` appears in what is shown from here on; what was seen up to its end is taken."""
        limit = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < limit, f"no {pattern!r} in {self.seen!r}"
            assert self._look(), f"ended before {pattern!r} in {self.seen!r}"
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def sees_the_end(self):
        """Watch until the program has gone; its exit status."""
        status = self.process.wait(PATIENCE)
        while self._look():
            pass
        return status

    def _look(self):
        """Take what is shown within a second; False when nothing more can come."""
        if not select.select([self.keys], [], [], 1)[0]:
            return self.process.poll() is None
        try:
            text = os.read(self.keys, 65536).decode("utf-8", "replace")
        except OSError:  # the program has closed its side
            return False
        if "\x1b[6n" in text:  # where is the cursor? the line editor asks, a terminal answers
            self.type("\x1b[1;1R")
        for switch in re.findall("\x1b\\[\\?2004([hl])", text):
            self.pastes_are_marked = switch == "h"
        self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x1b[=>]", "", text)
        return bool(text)

    def waits_for_the_answer(self):
        """Until the line editor has let the keyboard go: from then on Ctrl-C is a signal and no key."""
        limit = time.monotonic() + PATIENCE
        while not self.mode(termios.ICANON):
            assert time.monotonic() < limit
            time.sleep(0.01)

    def mode(self, flag):
        return bool(termios.tcgetattr(self.keys)[3] & flag)


def test_a_person_asks_pastes_and_leaves(environment):
    with Person(["--temp", "0"], environment) as person:
        assert "KV cache" in person.sees("> ")
        person.type("What is malloc?\r")
        assert "malloc" in person.sees(r"tokens at .*context \d+ of \d+").partition("What is malloc?")[2]
        person.sees("> ")
        person.type("\x1b[200~What is\nfree?\x1b[201~\r")
        person.sees(r"\d+ reused.*context \d+ of \d+")  # one answer to both lines, on top of the first turn
        person.type("/stats\r")
        person.sees("turns    2")
        person.type("/exit\r")
        assert person.sees_the_end() == 0
        assert person.mode(termios.ECHO)


def test_a_paste_while_an_answer_is_written_is_the_next_question(environment):
    with Person([*ENDLESS, "-n", "40", "--seed", "1"], environment) as person:
        person.sees("> ")
        person.type("Talk.\r")
        person.waits_for_the_answer()
        person.sees(r"\n[^\r\n]{30}")
        assert person.pastes_are_marked
        person.type("\x1b[200~two\nlines\x1b[201~\r")
        person.sees("context")
        person.sees(r"\d+ reused.*context \d+ of \d+")
        person.type("/stats\r")
        person.sees("turns    2")
        person.type("/exit\r")
        assert person.sees_the_end() == 0
        assert not person.pastes_are_marked


def test_ctrl_c_stops_the_answer_and_twice_at_the_prompt_the_program(environment):
    with Person([*ENDLESS, "--seed", "1"], environment) as person:
        person.sees("> ")
        person.type("Talk for ever.\r")
        person.waits_for_the_answer()
        person.sees(r"\n[^\r\n]{30}")
        assert not person.mode(termios.ECHO)
        person.type("\x03")
        person.sees(r"· stopped\s")
        person.sees("> ")
        person.type("\x03")
        person.sees("Ctrl-C again")
        person.sees("> ")
        person.type("\x03")
        assert person.sees_the_end() == 0
        assert person.mode(termios.ECHO)


def run(*arguments, stdin="", environment=None):
    return subprocess.run(
        [*COMMAND, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=PATIENCE,
        env=environment,
    )


def test_questions_in_a_pipe_are_answered_on_stdout_alone():
    got = run("--temp", "0", "-n", "8", stdin="What is malloc?\nWhat is free?\n")
    assert got.returncode == 0
    assert got.stdout.count("\n") >= 2 and "context" not in got.stdout
    assert len(re.findall(r"context \d+ of", got.stderr)) == 2


def test_the_same_seed_writes_the_same_text_and_threads_change_nothing():
    one, two = (run("-p", "What is a pipe?", "-n", "24", "--seed", "7", "--threads", n, "--json") for n in "12")
    assert one.stdout == two.stdout != "\n"
    assert json.loads(one.stderr.splitlines()[-1])["seed"] == 7


def test_a_reader_that_leaves_ends_the_program_quietly():
    writer = subprocess.Popen([*COMMAND, *ENDLESS, "-p", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout.read(1)
    writer.stdout.close()
    errors = writer.stderr.read().decode()
    writer.stderr.close()
    assert writer.wait(PATIENCE) == 0
    assert "Error" not in errors and "Exception" not in errors


def test_a_full_disk_is_told_in_one_line():
    with open("/dev/full", "w") as full:
        got = subprocess.run([*COMMAND, "-p", "x", "-n", "1", "-q"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert got.returncode == 2
    assert got.stderr == "refquant-chat: [Errno 28] No space left on device\n"


@pytest.mark.parametrize("closed, arguments", [("<&-", []), (">&-", ["-p", "x"]), ("2>&-", ["-p", "x"])])
def test_a_closed_stream_is_an_empty_stream(closed, arguments):
    shell = ["sh", "-c", f'exec "$@" {closed}', "sh"]
    got = subprocess.run([*shell, *COMMAND, *arguments, "-n", "1"], capture_output=True, timeout=PATIENCE)
    assert got.returncode == 0


def test_a_missing_model_is_told_in_one_line_and_quickly():
    began = time.monotonic()
    got = run("no/such/model.gguf")
    assert (got.returncode, got.stdout, got.stderr.count("\n")) == (2, "", 1)
    assert "no/such/model.gguf" in got.stderr
    assert time.monotonic() - began < PATIENCE / 4


def test_a_pipe_loads_neither_rich_nor_prompt_toolkit():
    code = (
        "import sys; from runtime.chat import main; status = main(['-p', 'x', '-n', '1', '-q']);"
        "sys.exit(status or any(name in sys.modules for name in ('rich', 'prompt_toolkit')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE).returncode == 0


def test_the_estimate_of_memory_is_near_what_a_full_context_takes():
    code = """
import re, tokenizers
from refquant import gguf, memory
from runtime import Model, Session, bundled
from runtime.kernels import PRODUCTS
with gguf.open(bundled.path()) as file:
    estimate = memory.to_run(file, 512, kernels=PRODUCTS).total
model = Model.load(bundled.path(), n_ctx=512)
Session(model).prefill([1] * 512)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())  # ru_maxrss would count the parent's
print(estimate, 1024 * int(peak[1]))
"""
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    estimate, taken = map(int, got.stdout.split())
    assert 0.6 < estimate / taken < 1.6
