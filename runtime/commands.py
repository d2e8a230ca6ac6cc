"""The commands of a chat on a terminal: a table of names, what they take, what they do."""

import difflib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from refquant.errors import QuantError, RangeError
from refquant.memory import human
from runtime import plain_text, transcript
from runtime.sampling import Sampler

if TYPE_CHECKING:
    from runtime.dialogue import Dialogue

SETTINGS = {
    "temp": ("temperature", float),
    "top-k": ("top_k", int),
    "top-p": ("top_p", float),
    "min-p": ("min_p", float),
    "repeat-penalty": ("repeat_penalty", float),
}


@dataclass(frozen=True, slots=True)
class Command:
    """`run(dialogue, argument)` returns False to leave the chat."""

    argument: str
    about: str
    run: Callable[["Dialogue", str], bool | None]


def is_command(text: str) -> bool:
    """A slash and a word alone, or followed by something on the same line: not "/usr/bin is ...", not a pasted page."""
    return re.fullmatch(r"/[a-z?]+( .*)?", text, re.IGNORECASE) is not None


def obey(dialogue: "Dialogue", text: str) -> bool:
    """Run the command in `text`. Raises QuantError for an unknown one, naming the nearest; False to leave."""
    name, _, argument = text.partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        near = difflib.get_close_matches(name.lower(), COMMANDS, n=1)
        hint = f"did you mean {near[0]}?" if near else "/help lists the commands"
        raise QuantError(f"{name} is no command; {hint}")
    if argument.strip() and not command.argument:
        raise QuantError(f"{name} takes nothing after it, got {argument.strip()!r}")
    return command.run(dialogue, argument.strip()) is not False


def show_help(dialogue: "Dialogue", _: str) -> None:
    width = max(len(f"{name} {command.argument}") for name, command in COMMANDS.items())
    lines = [f"{f'{name} {command.argument}':{width}}  {command.about}" for name, command in COMMANDS.items()]
    keys = "Enter sends, Alt-Enter starts a new line, Up recalls, Ctrl-C stops an answer, Ctrl-D leaves."
    dialogue.screen.note("\n".join([*lines, keys]))


def clear(dialogue: "Dialogue", _: str) -> None:
    dialogue.conversation.clear()
    dialogue.attached = ""
    dialogue.screen.note("The conversation is forgotten.")


def regenerate(dialogue: "Dialogue", _: str) -> None:
    conversation = dialogue.conversation
    if Sampler(**conversation.sampling).greedy:
        dialogue.screen.note("The temperature is 0: the answer will be the same. (/set temp 0.8 makes it vary.)")
    dialogue.show(conversation.regenerate)


def system(dialogue: "Dialogue", text: str) -> None:
    conversation = dialogue.conversation
    if text:
        conversation.system = None if text == "-" else text
    dialogue.screen.note(
        f"System message: {conversation.system}" if conversation.system else "There is no system message."
    )


def statistics(dialogue: "Dialogue", _: str) -> None:
    conversation = dialogue.conversation
    model, session, last = conversation.model, conversation.session, conversation.statistics
    settings = {name: getattr(Sampler(**conversation.sampling), field) for name, (field, _) in SETTINGS.items()}
    lines = [
        f"model    {model.gguf.path}",
        f"context  {session.position} of {session.n_ctx} tokens, KV cache {human(session.cache.nbytes)}",
        f"threads  {model.threads}",
        "sampling "
        + ", ".join(f"{name} {value:g}" for name, value in settings.items())
        + f", seed {conversation.seed}",
        f"turns    {len(conversation.turns) // 2}",
        f"last     {last}" if last else "last     no answer yet",
    ]
    dialogue.screen.note("\n".join(lines))


def change(dialogue: "Dialogue", text: str) -> None:
    name, _, value = text.partition(" ")
    if name not in SETTINGS:
        raise QuantError(f"/set: {name or 'nothing'} cannot be set, expected one of {', '.join(SETTINGS)}")
    field, kind = SETTINGS[name]
    try:
        number = kind(value)
    except ValueError:
        raise RangeError(f"/set: {name} = {value!r}, expected a number") from None
    changed = dialogue.conversation.sampling | {field: number}
    Sampler(**changed)  # refuses what means nothing before anything changes
    dialogue.conversation.sampling = changed
    dialogue.screen.note(f"{name} is {number:g} from now on.")


def save(dialogue: "Dialogue", name: str) -> None:
    path = _path(name, "/save")
    transcript.write(path, dialogue.conversation.system, dialogue.conversation.turns)
    dialogue.screen.note(f"{len(dialogue.conversation.turns) // 2} questions and answers are in {path}.")


def load(dialogue: "Dialogue", name: str) -> None:
    path = _path(name, "/load")
    dialogue.conversation.system, dialogue.conversation.turns = transcript.read(path)
    dialogue.screen.note(f"{len(dialogue.conversation.turns) // 2} questions and answers from {path}; go on.")


def read(dialogue: "Dialogue", name: str) -> None:
    path = _path(name, "/read")
    dialogue.attached = plain_text.decoded(plain_text.read(path))
    dialogue.screen.note(f"{len(dialogue.attached)} characters of {path} go before your next question.")


def leave(dialogue: "Dialogue", _: str) -> bool:
    return False


def _path(name: str, command: str) -> Path:
    if not name:
        raise QuantError(f"{command}: no file, expected {command} FILE")
    return Path(os.path.expanduser(name))


COMMANDS = {
    "/help": Command("", "show this list", show_help),
    "/clear": Command("", "forget the conversation; the system message stays", clear),
    "/regen": Command("", "answer the last question anew", regenerate),
    "/system": Command("[TEXT | -]", "show, set or (-) remove the system message", system),
    "/set": Command("NAME VALUE", f"change a setting: {', '.join(SETTINGS)}", change),
    "/stats": Command("", "show model, context, settings and the last answer's cost", statistics),
    "/read": Command("FILE", "put a text before the next question", read),
    "/save": Command("FILE", "write the conversation to a file", save),
    "/load": Command("FILE", "go on with a saved conversation", load),
    "/exit": Command("", "leave", leave),
}
