"""Chat with a GGUF model: `python -m runtime.chat [MODEL]`, also installed as `refquant-chat`.

    a terminal        an interactive chat (runtime.dialogue on runtime.terminal)
    no terminal       questions from standard input, one a line (on runtime.pipe)
    -p TEXT, -f FILE  one answer, or with --raw one continuation, and the end

Standard output carries answers only. Exit status: 0, 2 for anything refused (one line on standard error says why),
130 after Ctrl-C.
"""

import json
import logging
import os
import sys
import time
from argparse import Namespace
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from refquant.errors import QuantError
from runtime import loading
from runtime.arguments import parse
from runtime.keyboard import held_back
from runtime.pipe import Pipe
from runtime.plain_text import decoded, read, read_stream
from runtime.printable import printable

if TYPE_CHECKING:
    from refquant.text import ChatTemplate
    from runtime.conversation import Conversation
    from runtime.dialogue import Screen
    from runtime.model import Model

EXTRAS = {"numba", "llvmlite", "tokenizers", "sentencepiece", "jinja2", "rich", "prompt_toolkit"}
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repeat_penalty", "seed")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    began = time.perf_counter()
    arguments = parse(argv)
    _open_streams()
    logging.getLogger("runtime").addHandler(logging.NullHandler())  # its warnings are among Model.notices, shown below
    pipe = Pipe(quiet=arguments.quiet)
    try:
        status = run(arguments, pipe, began)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has seen enough
        _finish_output()
        return 0
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in EXTRAS:
            raise
        pipe.error(f"{error.name} is not installed, expected it for a chat: pip install 'refquant[chat]'")
    except MemoryError as error:
        pipe.error(f"out of memory ({error}): a smaller --ctx or a smaller model needs less")
    except OSError as error:
        pipe.error(f"{error.filename}: {error.strerror}" if error.filename else error)
    except QuantError as error:
        pipe.error(error)
    _finish_output()
    return 2


def run(arguments: Namespace, pipe: Pipe, began: float) -> int:
    """One of the forms of the program."""
    path = loading.model_path(arguments)
    if arguments.show_template:
        return show_template(path)
    prompt = prompt_of(arguments)
    source = None if arguments.chat_template is None else decoded(read(Path(arguments.chat_template)))
    interactive = prompt is None and sys.stdin.isatty() and sys.stdout.isatty()
    with ExitStack() as stack:
        if interactive:
            stack.enter_context(held_back(sys.stdin, sys.stdout))
        screen = _terminal(arguments.quiet) if interactive else pipe
        process = None if arguments.raw else stack.enter_context(closing(loading.template_process()))
        model = stack.enter_context(prepare(path, arguments, screen))
        template = None if arguments.raw else loading.template_for(model, source, process)
        notices = [*model.notices, *model.tokenizer.warnings, *(template.warnings if template else ())]
        for notice in notices if not arguments.quiet else ():
            screen.note(f"Note: {notice}")
        conversation = converse(model, template, arguments)
        if prompt is not None:
            return answer_once(conversation, prompt, arguments, pipe, {"load_seconds": time.perf_counter() - began})
        if interactive and not arguments.quiet:
            screen.note("/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
        elif sys.stdin.isatty() and not arguments.quiet:
            screen.note("Standard output is no terminal: one question a line, Ctrl-D ends.")
        from runtime.dialogue import Dialogue

        Dialogue(conversation, screen, statistics=not arguments.quiet).run()
    return 0


def prepare(path: Path, arguments: Namespace, screen: "Screen") -> "Model":
    """The model, loaded if the memory suffices; on a terminal, what it will need."""
    file = loading.open_file(path)
    try:
        with screen.progress() as progress:
            needs = loading.memory_needed(file, arguments)
            if screen.interactive and not arguments.quiet:
                screen.note(f"{path.name}: {needs}")
            return loading.load_model(file, arguments, progress)
    except BaseException:
        file.close()
        raise


def prompt_of(arguments: Namespace) -> str | None:
    """The text of -p or -f, None for a chat. White space alone is refused, unless it is to be continued."""
    if arguments.prompt is not None:
        text = decoded(os.fsencode(arguments.prompt))
    elif arguments.file == "-":
        text = decoded(read_stream(sys.stdin.buffer))
    elif arguments.file is not None:
        text = decoded(read(Path(arguments.file)))
    else:
        return None
    if not text.strip() and not arguments.raw:
        raise QuantError("the prompt is empty, expected a question")
    return text


def converse(model: "Model", template: "ChatTemplate | None", arguments: Namespace) -> "Conversation":
    """A conversation with the settings of the command line, and of the file where the command line says nothing."""
    from runtime.conversation import Conversation
    from runtime.sampling import recommended

    given = {name: getattr(arguments, name) for name in SAMPLING if getattr(arguments, name) is not None}
    settings = recommended(model.gguf.metadata, given) | given
    return Conversation(model, settings, arguments.predict, arguments.system, template)


def answer_once(conversation: "Conversation", prompt: str, arguments: Namespace, pipe: Pipe, record: dict) -> int:
    """Write one answer or continuation, then its statistics."""
    if arguments.raw:
        answer = lambda progress: conversation.complete(prompt, arguments.special, progress)
    else:
        answer = lambda progress: conversation.ask(prompt, progress)
    from runtime.dialogue import Dialogue

    Dialogue(conversation, pipe, statistics=False).show(answer)
    statistics = conversation.statistics
    if arguments.json:
        settings = {"model": str(conversation.model.gguf.path), "threads": conversation.model.threads}
        print(json.dumps(settings | record | statistics.as_dict()), file=sys.stderr)
    elif not arguments.quiet:
        pipe.note(str(statistics))
    return 0


def show_template(path: Path) -> int:
    """Print the chat template of a file, without control characters on a terminal."""
    from refquant import gguf

    with gguf.open(path) as file:
        source = file.metadata.get("tokenizer.chat_template")
    if not isinstance(source, str):
        raise QuantError(f"{path}: tokenizer.chat_template is missing, expected a template in the file")
    source = source.encode("utf-8", "replace").decode()
    print(printable(source) if sys.stdout.isatty() else source)
    return 0


def _terminal(quiet: bool) -> "Screen":
    from runtime.commands import COMMANDS
    from runtime.terminal import Terminal

    return Terminal([*COMMANDS], quiet)


def _open_streams() -> None:
    """A pipe gets UTF-8 whatever the locale says, a terminal what it can show; a closed stream becomes an empty one."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115, open as long as the program
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace", encoding=None if stream.isatty() else "utf-8")


def _finish_output() -> None:
    """Write what is still held back; where that fails, let the interpreter's own last attempt go nowhere in silence."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
