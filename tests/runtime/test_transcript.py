"""Conversations go to files and come back; anything else in a file is refused and left alone."""

import json

import pytest

from refquant.errors import QuantError, RangeError
from runtime import transcript

TURNS = [{"role": "user", "content": "ça va?\n\x1b"}, {"role": "assistant", "content": "日本 🙂"}]


@pytest.mark.parametrize("system, turns", [(None, []), ("be brief", TURNS), ("", TURNS * 3)])
def test_a_conversation_survives_a_file(tmp_path, system, turns):
    path = tmp_path / "talk.json"
    transcript.write(path, system, turns)
    assert transcript.read(path) == (system, turns)
    transcript.write(path, "again", turns)
    assert transcript.read(path) == ("again", turns)


def test_a_file_that_holds_something_else_is_not_overwritten(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("years of work")
    with pytest.raises(QuantError, match="holds no conversation, expected a new name"):
        transcript.write(path, None, TURNS)
    assert path.read_text() == "years of work"


@pytest.mark.parametrize(
    "content, message",
    [
        (b"\xff\xfe", "not a saved conversation"),
        (b"{", "not a saved conversation"),
        (b"[" * 200_000, "not a saved conversation"),
        (b"[]", "refquant_chat is missing"),
        (b'{"refquant_chat": 2, "turns": []}', "refquant_chat is missing or unknown"),
        (b'{"refquant_chat": 1}', "turns, expected pairs"),
        (b'{"refquant_chat": 1, "system": 3, "turns": []}', "system = int, expected text or null"),
        (json.dumps({"refquant_chat": 1, "turns": TURNS[:1]}).encode(), "expected pairs"),
        (json.dumps({"refquant_chat": 1, "turns": TURNS[::-1]}).encode(), r'turns\[0\], expected {"role": "user"'),
        (b'{"refquant_chat": 1, "turns": [{"role": "user", "content": 1}, 2]}', r"turns\[0\]"),
    ],
)
def test_a_file_that_is_no_conversation_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(QuantError, match=message):
        transcript.read(path)


def test_a_huge_file_is_refused(tmp_path):
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(transcript.MAX_BYTES + 1)
    with pytest.raises(RangeError, match="more than 67108864 bytes"):
        transcript.read(path)
