"""What a caller hands to a chat template: `[{"role": "user", "content": "Hi"}, ..]`, checked and copied."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from refquant.errors import RangeError
from refquant.text.unicode_text import MAX_CHARACTERS, require_text

MAX_DEPTH = 32
Json = str | int | float | bool | None | list["Json"] | dict[str, "Json"]


def checked(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Json]]:
    """A copy made of dicts, lists, text, numbers and None. Raises RangeError for anything else, or without a role."""
    if not isinstance(messages, list | tuple) or not messages:
        raise RangeError(f"chat: messages = {messages!r:.60}, expected a list of at least one message")
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RangeError(f'chat: messages[{i}] = {message!r:.60}, expected {{"role": "user", "content": "…"}}')
    copy = plain(messages, "messages")
    total = sum(map(len, texts_of(copy)))
    if total > MAX_CHARACTERS:
        raise RangeError(f"chat: messages hold {total} characters, expected at most {MAX_CHARACTERS}")
    return copy


def plain(value: Any, what: str, depth: int = 0) -> Json:
    """A copy of `value` as JSON has it: tuples are lists. Raises RangeError, naming the place as `what`."""
    if depth > MAX_DEPTH:
        raise RangeError(f"chat: {what} is nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        require_text("chat", what, value)
        return str(value)
    if value is None or isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 1 << 63):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{what}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {plain(key, what): plain(item, f"{what}[{key!r:.40}]", depth + 1) for key, item in value.items()}
    raise RangeError(f"chat: {what} = {type(value).__name__}, expected text, 64-bit numbers, lists or dicts")


def texts_of(value: Json) -> Iterator[str]:
    """Every text in `value`, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in chain(value, value.values()) if isinstance(value, dict) else value:
            yield from texts_of(item)


def map_text(value: Json, change: Callable[[str], str]) -> Json:
    """A copy of `value` with every text in it, keys too, passed through `change`."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_text(item, change) for item in value]
    if isinstance(value, dict):
        return {change(key): map_text(item, change) for key, item in value.items()}
    return value
