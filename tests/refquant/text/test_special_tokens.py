"""Cutting at special tokens, against a split by hand."""

import naive_text
import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.text import vocabulary
from refquant.text.special_tokens import Span, SpecialTokens
from refquant.text.token_type import TokenType

KINDS = {
    "<a>": TokenType.CONTROL,
    "<a><b>": TokenType.CONTROL,
    "<b>": TokenType.USER_DEFINED,
    "b>c": TokenType.USER_DEFINED,
    "☃": TokenType.USER_DEFINED,
    "ab": TokenType.UNKNOWN,
    "aba": TokenType.CONTROL,
}
FILE = small.byte_pairs([], KINDS)
SPECIAL = SpecialTokens(vocabulary.read(FILE))


def pieces(text: str, special: SpecialTokens = SPECIAL, parse_special: bool = True) -> list[tuple[str, bool]]:
    return [(text[s.start : s.end], s.id is not None) for s in special.partition(text, parse_special)]


@given(st.text(alphabet="<a>bc☃ ", max_size=30), st.booleans())
def test_partition_is_the_naive_one(text, parse_special):
    marks = (TokenType.CONTROL, TokenType.UNKNOWN)
    order = sorted(KINDS, key=lambda token: -len(token.encode()))
    tokens = [token for token in order if parse_special or KINDS[token] not in marks]
    assert pieces(text, parse_special=parse_special) == naive_text.partition(text, tokens)


@given(st.text(alphabet="<a>bc☃ ", max_size=30))
def test_spans_cover_the_text_and_name_their_tokens(text):
    spans = SPECIAL.partition(text, parse_special=True)
    assert [s.start for s in spans] == [0, *(s.end for s in spans)][: len(spans)]
    assert all(text[s.start : s.end] == FILE.metadata["tokenizer.ggml.tokens"][s.id] for s in spans if s.id is not None)


def test_the_longer_token_wins_even_where_a_shorter_one_begins_earlier():
    special = SpecialTokens(vocabulary.read(small.byte_pairs([], dict.fromkeys(["ab", "bcd"], TokenType.CONTROL))))
    assert pieces("abcd", special) == [("a", False), ("bcd", True)]


def test_control_tokens_are_text_where_special_tokens_are_not_parsed():
    assert pieces("<a>☃", parse_special=False) == [("<a>", False), ("☃", True)]
    assert SPECIAL.partition("", parse_special=True) == []


def test_phi_3_drops_white_space_to_the_right_of_most_special_tokens():
    kinds = dict.fromkeys(["<unk>", "<s>", "</s>", "<|end|>", "<|endoftext|>"], TokenType.CONTROL)
    special = SpecialTokens(vocabulary.read(small.byte_pairs([], kinds, general_name="Phi-3 Mini")))
    got = pieces("<|end|> \n\tx</s>  <s>  <|endoftext|> \u00a0<|end|>\u00a0 ", special)
    ref = ["<|end|>", "x", "</s>", "<s>", "  ", "<|endoftext|>", " \u00a0", "<|end|>", "\u00a0 "]
    assert [text for text, _ in got] == ref


def test_jina_drops_white_space_to_the_left_of_its_mask():
    special = SpecialTokens(vocabulary.read(small.byte_pairs([], {"<mask>": TokenType.CONTROL}, pre="jina-v2-de")))
    assert [text for text, _ in pieces(" x \n<mask> y", special)] == [" x", "<mask>", " y"]
    assert special.partition(" \t<mask>", True) == [Span(2, 8, 256)]


@pytest.mark.parametrize("count", [20_000])
def test_many_special_tokens_in_a_row_take_no_time(count):
    assert len(SPECIAL.partition("<a> " * count, parse_special=True)) == 2 * count
