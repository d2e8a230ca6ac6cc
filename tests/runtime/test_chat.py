"""The command line with a model that needs no file: what goes to which stream, exit statuses, refusals in one line."""

import io
import json
import sys
from types import SimpleNamespace

import pytest
from fake_model import FakeModel

from refquant.errors import GGUFError, UnsupportedError
from refquant.gguf import FORMATS
from runtime import arguments, bundled, chat, loading
from runtime.kernels import PRODUCTS


def echo(prompt):
    return prompt.rpartition("user:")[2].partition("<|im_end|>")[0].upper()


class Stdin(io.TextIOWrapper):
    """Standard input that is no terminal, or says it is one."""

    def __init__(self, data=b"", terminal=False):
        super().__init__(io.BytesIO(data))
        self.terminal = terminal

    def isatty(self):
        return self.terminal


def fake(monkeypatch, model):
    """Put `model` where the program would load one."""
    monkeypatch.setattr(loading, "open_file", lambda path: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(loading, "memory_needed", lambda file, arguments: "memory 1 B")
    monkeypatch.setattr(loading, "load_model", lambda file, arguments, progress: model)
    monkeypatch.setattr(loading, "template_process", lambda: SimpleNamespace(close=lambda: None))
    monkeypatch.setattr(loading, "template_for", lambda model, source, process: model.template)


@pytest.fixture
def command(monkeypatch, capsys):
    """`command(*argv, stdin=b"", model=...)` runs the program and returns its status and what it wrote."""

    def run(*argv, stdin=b"", model=None):
        model = model or FakeModel(echo)
        monkeypatch.setattr(sys, "stdin", Stdin(stdin))
        fake(monkeypatch, model)
        try:
            status = chat.main(["fake.gguf", *argv])
        except SystemExit as refused:
            status = refused.code
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, out=captured.out, err=captured.err, model=model)

    return run


# One answer


def test_one_answer_goes_to_stdout_and_its_cost_to_stderr(command):
    got = command("-p", "why?", "--temp", "0")
    assert (got.status, got.out) == (0, "WHY?\n")
    assert got.err.startswith("4 tokens")
    assert got.model.closed


@pytest.mark.parametrize("flag", ["-q", "--quiet", "--no-stats"])
def test_quiet_leaves_the_answer_only(command, flag):
    got = command("-p", "why?", "--temp", "0", flag, model=FakeModel(echo, notices=["slow"]))
    assert (got.status, got.out, got.err) == (0, "WHY?\n", "")


def test_statistics_can_be_json(command):
    got = command("-p", "why?", "--temp", "0", "--seed", "5", "--json")
    record = json.loads(got.err)
    assert got.out == "WHY?\n"
    assert (record["generated_tokens"], record["stop"], record["seed"], record["model"]) == (4, "end", 5, "fake.gguf")
    assert record["load_seconds"] >= 0


def test_n_bounds_the_answer(command):
    assert command("-p", "a long question", "-n", "6", "--temp", "0").out == "A LONG\n"
    assert command("-p", "a long question", "-n", "-1", "--temp", "0").out == "A LONG QUESTION\n"


def test_raw_continues_the_text_as_it_is(command):
    model = FakeModel(
        lambda prompt: " a time" if prompt == "<s>Once upon" else "?", raw="Once upon", has_template=False
    )
    assert command("--raw", "-p", "Once upon", "--temp", "0", model=model).out == " a time\n"


def test_a_prompt_may_come_from_a_file_or_stdin(command, tmp_path):
    path = tmp_path / "question.txt"
    path.write_text("grüße\nzwei", encoding="utf-8")
    assert command("-f", str(path), "--temp", "0").out == "GRÜSSE\nZWEI\n"
    assert command("-f", "-", "--temp", "0", stdin=b"zwei\nzeilen").out == "ZWEI\nZEILEN\n"


def test_the_system_message_reaches_the_model(command):
    model = FakeModel(lambda prompt: "yes" if "system:be brief" in prompt else "no")
    assert command("-p", "q", "--system", "be brief", "--temp", "0", model=model).out == "yes\n"


def test_a_prompt_with_bytes_that_are_no_text_is_read_all_the_same(command):
    assert command("-p", "caf\udce9", "--temp", "0").out == "CAF�\n"


def test_sampling_comes_from_the_command_line_then_the_file_then_the_defaults(command, monkeypatch):
    seen = {}
    model = FakeModel(echo, metadata={"general.sampling.temp": 0.25, "general.sampling.top_k": 5})
    generate = model.generate
    monkeypatch.setattr(
        model, "generate", lambda ids, n, **options: seen.update(options) or generate(ids, n, **options)
    )
    command("-p", "q", "--top-k", "7", "--min-p", "0", "--seed", "9", model=model)
    del seen["session"], seen["progress"]
    assert seen == {"temperature": 0.25, "top_k": 7, "min_p": 0.0, "seed": 9}


def test_ctrl_c_ends_one_answer_with_130(command):
    model = FakeModel(echo)

    def interrupt(count):
        if count == 4:
            raise KeyboardInterrupt

    model.before_step = interrupt
    got = command("-p", "question", "--temp", "0", model=model)
    assert got.status == 130
    assert "QUESTION".startswith(got.out.strip()) and got.out.strip() != "QUESTION"
    assert "Traceback" not in got.err


# Questions from a pipe


def test_every_line_of_stdin_is_a_question_in_one_conversation(command):
    prompts = []
    model = FakeModel(lambda prompt: prompts.append(prompt) or echo(prompt))
    got = command("--temp", "0", "-q", stdin=b"one\n\n  two  \nthree", model=model)
    assert (got.status, got.out, got.err) == (0, "ONE\nTWO\nTHREE\n", "")
    assert "user:one" in prompts[-1] and "assistant:TWO" in prompts[-1]


def test_an_empty_stdin_is_the_end(command):
    got = command()
    assert (got.status, got.out, got.err) == (0, "", "")


def test_stdin_need_not_be_text(command):
    got = command("--temp", "0", stdin=b"\xef\xbb\xbfcaf\xe9 \xff\x00\r\n")
    assert (got.status, got.out) == (0, "CAF� �\0\n")


def test_a_full_context_ends_the_pipe_with_advice(command):
    got = command("--temp", "0", stdin=b"x" * 200 + b"\nnext\n", model=FakeModel(echo, n_ctx=64, n_ctx_train=500))
    assert got.status == 2
    assert "the context is full" in got.err and "--ctx makes room for up to 500" in got.err
    assert got.err.count("\n") == 1


def test_a_line_without_end_is_refused(command, monkeypatch):
    monkeypatch.setattr("runtime.plain_text.MAX_BYTES", 99)
    got = command(stdin=b"x" * 1000)
    assert (got.status, got.err) == (
        2,
        "refquant-chat: standard input: more than 99 bytes of text, expected at most that\n",
    )


def test_a_pipe_needs_neither_rich_nor_prompt_toolkit(command, monkeypatch):
    for name in ("rich", "prompt_toolkit"):
        monkeypatch.setitem(sys.modules, name, None)
    assert command("--temp", "0", stdin=b"one\n").out == "ONE\n"


# A terminal


def test_a_terminal_gets_a_dialogue(command, monkeypatch):
    shown = []

    class Screen:
        interactive = True
        lines = iter(["one", "/exit"])

        def __init__(self, words, quiet):
            assert "/help" in words

        def read(self):
            return next(self.lines)

        begin = lambda self, thinking: None
        write = note = error = lambda self, text: shown.append(text)
        end = lambda self: shown.append("\n")
        progress = chat.Pipe(quiet=True).progress

    monkeypatch.setattr("runtime.terminal.Terminal", Screen)
    monkeypatch.setattr(sys, "stdin", Stdin(terminal=True))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    fake(monkeypatch, FakeModel(echo, notices=["Q5_0 is slow"]))
    assert chat.main(["fake.gguf", "--temp", "0"]) == 0
    text = "\n".join(shown)
    assert "fake.gguf: memory 1 B" in text
    assert "Note: Q5_0 is slow" in text
    assert "/help lists the commands" in text
    assert "O\nN\nE\n" in text


def test_escape_sequences_do_not_reach_a_terminal_and_do_reach_a_file(command, monkeypatch):
    model = FakeModel(lambda prompt: "\x1b[2Jx")
    assert command("-p", "q", "--temp", "0", model=model).out == "\x1b[2Jx\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert command("-p", "q", "--temp", "0", model=model).out == "[2Jx\n"


# Refusals


@pytest.mark.parametrize(
    "argv, message",
    [
        (["--raw"], "--raw needs -p or -f"),
        (["--json"], "--json needs -p or -f"),
        (["-p", "x", "--special"], "--special needs --raw"),
        (["-p", "x", "--raw", "--system", "s"], "--system has no effect with --raw"),
        (["-p", "x", "--raw", "--chat-template", "t"], "--chat-template has no effect with --raw"),
        (["-p", "x", "-f", "y"], "not allowed with argument"),
        (["-n", "0"], "-n 0: expected 1 or more, or -1 for no limit"),
        (["--ctx", "0"], "--ctx 0: expected 1 or more"),
        (["--threads", "-1"], "--threads -1: expected 1 or more"),
        (["--kv", "q4"], "invalid choice: 'q4'"),
        (["--temp", "hot"], "invalid float value"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["-p", "  \n"], "the prompt is empty"),
        (["-p", "x", "--top-p", "1.5"], "top_p = 1.5, expected 0..1"),
        (["-p", "x", "--temp", "nan"], "temperature = nan"),
        (["-p", "x", "--seed", "-7"], "seed = -7"),
        (["-f", "no/such/file"], "no/such/file: No such file or directory"),
        (["-f", "."], ".: Is a directory"),
        (["-f", "/dev/zero"], "/dev/zero: more than 16777216 bytes of text"),
        (["-p", "x", "--chat-template", "no/such"], "no/such: No such file"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(command, argv, message):
    got = command(*argv)
    assert got.status == 2
    assert message in got.err and got.err.startswith("refquant-chat: ")
    assert (got.out, got.err.count("\n")) == ("", 1)


def test_a_model_without_a_template_is_refused_with_what_to_do(monkeypatch):
    def missing(*arguments, process):
        raise UnsupportedError("x.gguf: tokenizer.chat_template is missing")

    monkeypatch.setattr("refquant.text.ChatTemplate.from_gguf", missing)
    with pytest.raises(UnsupportedError, match="missing: --chat-template FILE brings one, --raw -p TEXT does without"):
        loading.template_for(FakeModel(echo), None, None)


@pytest.mark.parametrize(
    "error, message",
    [
        (GGUFError("x.gguf: magic = b'\\n', at offset 0"), "x.gguf: magic"),
        (GGUFError("x.gguf: name = 'a\nb\x1b[2J'"), "x.gguf: name = 'a b[2J'"),
        (MemoryError("Unable to allocate 9 TiB"), "out of memory (Unable to allocate 9 TiB): a smaller --ctx"),
        (ModuleNotFoundError("No module named 'numba'", name="numba"), "pip install 'refquant[chat]'"),
        (PermissionError(13, "Permission denied", "x.gguf"), "x.gguf: Permission denied"),
    ],
)
def test_what_goes_wrong_while_loading_is_told_in_one_line(command, monkeypatch, error, message):
    def fail(file, arguments, progress):
        raise error

    fake(monkeypatch, None)
    monkeypatch.setattr(sys, "stdin", Stdin())
    monkeypatch.setattr(sys, "stderr", type("Stderr", (io.StringIO,), {"reconfigure": lambda self, **options: None})())
    monkeypatch.setattr(loading, "load_model", fail)
    assert chat.main(["x.gguf"]) == 2
    text = sys.stderr.getvalue()
    assert message in text and text.count("\n") == 1


def test_a_defect_of_ours_is_not_hidden(monkeypatch):
    def fail(file, arguments, progress):
        raise ModuleNotFoundError("No module named 'runtime.kernals'", name="runtime.kernals")

    fake(monkeypatch, None)
    monkeypatch.setattr(loading, "load_model", fail)
    with pytest.raises(ModuleNotFoundError):
        chat.main(["x.gguf", "-p", "x"])


def test_a_reader_that_has_seen_enough_ends_the_program_quietly(command, monkeypatch):
    def closed(self, piece):
        raise BrokenPipeError

    monkeypatch.setattr(chat.Pipe, "write", closed)
    got = command("-p", "x")
    assert (got.status, got.err) == (0, "")


# Memory


def sizes(monkeypatch, path, free):
    monkeypatch.setattr("refquant.memory.available", lambda: free)

    def needed(*argv):
        with loading.open_file(path) as file:
            return loading.memory_needed(file, arguments.parse([str(path), *argv]))

    return needed


def test_the_types_without_kernels_are_those_that_are_counted_as_decoded():
    assert FORMATS.keys() - PRODUCTS.keys() == loading.DECODED


def test_a_refused_model_leaves_no_file_open(monkeypatch):
    opened, open_file = [], loading.open_file
    monkeypatch.setattr(loading, "open_file", lambda path: opened.append(open_file(path)) or opened[0])
    monkeypatch.setattr("refquant.memory.available", lambda: 1 << 20)
    assert chat.main([str(bundled.path()), "-p", "x"]) == 2
    with pytest.raises(ValueError, match="the file is closed"):
        _ = opened[0].tensors["token_embd.weight"].data


def test_a_model_that_fits_is_announced(monkeypatch):
    needed = sizes(monkeypatch, bundled.path(), 1 << 33)
    assert needed("--ctx", "1024").startswith("memory ")
    assert "(1024 tokens, f16)" in needed("--ctx", "1024")
    assert needed().endswith("8.00 GiB free")


def test_a_model_that_does_not_fit_is_refused_with_a_context_that_does(monkeypatch):
    path = bundled.path()
    needed = sizes(monkeypatch, path, 230 << 20)
    with pytest.raises(ValueError, match=r"needs .* are free: --ctx \d+ fits; --force tries anyway") as refused:
        needed("--ctx", "100000")
    fits = str(refused.value).partition("--ctx ")[2].split()[0]
    assert needed("--ctx", fits)
    assert needed("--ctx", "100000", "--force")


def test_a_model_too_large_for_any_context_is_refused_with_other_advice(monkeypatch):
    needed = sizes(monkeypatch, bundled.path(), 1 << 20)
    with pytest.raises(ValueError, match="a smaller quantization of the model or more memory is needed"):
        needed()


def test_the_template_of_a_file_can_be_read(capsys):
    assert chat.main([str(bundled.path()), "--show-template"]) == 0
    assert "<|im_start|>" in capsys.readouterr().out


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as ended:
        chat.main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:" in text and "--raw" in text
    assert max(map(len, text.splitlines())) <= 120
