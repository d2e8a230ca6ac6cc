"""Breaking the spellings of control tokens, and the way back."""

import json

import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import RangeError
from refquant.text import protection, vocabulary
from refquant.text.messages import texts_of
from refquant.text.protection import protect
from refquant.text.special_tokens import SpecialTokens
from refquant.text.token_type import TokenType

TOKENS = ["<s>", "</s>", "<<s>", "[x]", "ss", " \n", "\n|y|", "<unk>"]
KINDS = dict.fromkeys(TOKENS, TokenType.CONTROL) | {"<unk>": TokenType.UNKNOWN, "<think>": TokenType.USER_DEFINED}
SPECIAL = SpecialTokens(vocabulary.read(small.byte_pairs([], KINDS)))
TEXT = st.text(alphabet="<s>/[x] \n|yunk\ue000\ue001☃", max_size=30)


@given(
    st.recursive(
        TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=5
    )
)
def test_no_spelling_survives_and_everything_comes_back(value):
    guarded, back = protect(value, SPECIAL, "")
    for text in texts_of(guarded):
        assert not any(token in text for token in TOKENS)
    assert [back.restore(text) for text in texts_of(guarded)] == list(texts_of(value))
    assert [len(text) for text in texts_of(guarded)] == [len(text) for text in texts_of(value)]


@given(TEXT)
def test_what_json_escapes_comes_back_too(text):
    guarded, back = protect(text, SPECIAL, "")
    assert back.restore(json.dumps(guarded)) == json.dumps(text)


def test_only_the_first_character_gives_way_and_to_a_character_of_its_own():
    guarded, back = protect(["<s>[x]", "<<s>", "sss"], SPECIAL, "")
    assert back.originals == {"\ue000": "<", "\ue001": "[", "\ue002": "s"}
    assert guarded == ["\ue000s>\ue001x]", "\ue000\ue000s>", "\ue002\ue002s"]


def test_white_space_stays_for_templates_to_strip():
    assert protect("\n|y|", SPECIAL, "")[0] == "\n\ue000y|"


def test_text_without_spellings_and_user_defined_tokens_are_left_alone():
    assert protect({"a": ["<think>", 1, None, True]}, SPECIAL, "") == (
        {"a": ["<think>", 1, None, True]},
        protection.Protection({}),
    )


def test_characters_that_anybody_uses_are_not_taken():
    guarded, _ = protect(["<s>\ue000", "\\uE001"], SPECIAL, "{{ '\ue002' }}")
    assert guarded[0] == "\ue003s>\ue000"


def test_a_message_that_uses_every_private_character_is_refused(monkeypatch):
    monkeypatch.setattr(protection, "PRIVATE_USE", (range(0xE000, 0xE001),))
    assert protect("<s>", SPECIAL, "")[0] == "\ue000s>"
    with pytest.raises(RangeError, match="messages use up the private-use characters"):
        protect("<s>[x]", SPECIAL, "")
