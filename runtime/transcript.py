"""A conversation as a file: {"refquant_chat": 1, "system": text or null, "turns": [{"role", "content"}, ...]}.

Turns alternate, user first, and come in pairs. UTF-8 JSON, so that a person can read and edit it.
"""

import json
from pathlib import Path

from refquant.errors import QuantError
from runtime import plain_text

VERSION = 1
MAX_BYTES = 64 << 20


def write(path: Path, system: str | None, turns: list[dict[str, str]]) -> None:
    """Save a conversation. A file that holds anything but a conversation is left alone: QuantError; or OSError."""
    if path.exists():
        try:
            read(path)
        except QuantError as error:
            raise QuantError(f"{path}: exists and holds no conversation, expected a new name") from error
    document = {"refquant_chat": VERSION, "system": system, "turns": turns}
    path.write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> tuple[str | None, list[dict[str, str]]]:
    """(system, turns) of a saved conversation. Raises QuantError for anything else, OSError for an unreadable file."""
    data = plain_text.read(path, MAX_BYTES)
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or brackets without end
        raise QuantError(f"{path}: not a saved conversation ({type(error).__name__})") from error
    if not isinstance(document, dict) or document.get("refquant_chat") != VERSION:
        raise QuantError(f"{path}: refquant_chat is missing or unknown, expected a conversation saved by /save")
    system, turns = document.get("system"), document.get("turns")
    if not (system is None or isinstance(system, str)):
        raise QuantError(f"{path}: system = {type(system).__name__}, expected text or null")
    if not isinstance(turns, list) or len(turns) % 2:
        raise QuantError(f"{path}: turns, expected pairs of a question and an answer")
    for i, turn in enumerate(turns):
        role = ("user", "assistant")[i % 2]
        if not isinstance(turn, dict) or turn.get("role") != role or not isinstance(turn.get("content"), str):
            raise QuantError(f'{path}: turns[{i}], expected {{"role": "{role}", "content": text}}')
    return system, [{"role": turn["role"], "content": turn["content"]} for turn in turns]
