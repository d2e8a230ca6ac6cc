"""What a model writes cannot steer a terminal, and thoughts are told apart however the tags are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.printable import Thoughts, one_line, printable


@pytest.mark.parametrize(
    "text, ref",
    [
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07", "]0;title"),
        ("\x9b2J\x90payload\x9c", "2Jpayload"),
        ("a\tb\nc", "a\tb\nc"),
        ("line\r\nline\rover", "line\nlineover"),
        ("\x00\x08\x7f", ""),
        ("héllo 日本 🙂", "héllo 日本 🙂"),
    ],
)
def test_control_characters_go_and_text_stays(text, ref):
    assert printable(text) == ref


@given(st.text())
def test_nothing_printable_is_a_control_character_but_newline_and_tab(text):
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in printable(text))


def test_a_message_is_one_line():
    assert one_line(" a\nb\tc\x1b[2J\r\n") == "a b c[2J"


def joined(pieces, thinking=False):
    thoughts, parts = Thoughts(thinking), []
    for piece in pieces:
        parts += thoughts.push(piece)
    parts += thoughts.flush()
    merged = [("".join(t for t, _ in group), key) for key, group in itertools.groupby(parts, key=lambda part: part[1])]
    assert "".join(t for t, _ in merged) == "".join(pieces)
    return merged


TEXT = "a <b <think>why < not\n</thin</think>so <thin"
REF = [("a <b ", False), ("<think>why < not\n</thin</think>", True), ("so <thin", False)]


def test_thoughts_are_told_apart_when_the_tags_come_whole():
    assert joined([TEXT]) == REF


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_thoughts_are_told_apart_wherever_the_pieces_are_cut(cuts):
    bounds = [0, *sorted(cuts), len(TEXT)]
    assert joined([TEXT[a:b] for a, b in itertools.pairwise(bounds)]) == REF


def test_a_thought_may_have_begun_in_the_prompt_and_need_not_end():
    assert joined(["hm", "</think>", "yes"], thinking=True) == [("hm</think>", True), ("yes", False)]
    assert joined(["<think>", "for ever"]) == [("<think>for ever", True)]


def test_text_that_cannot_begin_a_tag_is_shown_at_once():
    assert Thoughts().push("x < y") == [("x < y", False)]
    assert Thoughts().push("x <") == [("x ", False)]
