"""Which tokens end an answer."""

import pytest

from refquant.text.end_of_generation import ENDS, ROLES, SPELLINGS, resolve
from refquant.text.token_type import TokenType


def resolved(*texts: str, **ids: int):
    """(ids, types, texts that end an answer) of a vocabulary of normal tokens."""
    index = {text: i for i, text in enumerate(texts)}
    ids, types, eog = resolve(dict.fromkeys(ROLES) | ids, index, [TokenType.NORMAL] * len(texts))
    return ids, types, {texts[i] for i in eog}


@pytest.mark.parametrize("text", ENDS)
def test_a_token_spelled_like_an_end_is_one_and_a_control_token(text):
    _, types, eog = resolved("a", text)
    assert eog == {text}
    assert types == [TokenType.NORMAL, TokenType.CONTROL]


def test_ids_of_the_file_end_an_answer_whatever_they_spell():
    _, types, eog = resolved("a", "b", "c", "d", eos=0, eot=1, eom=3)
    assert eog == {"a", "b", "d"}
    assert types == [TokenType.NORMAL] * 4


@pytest.mark.parametrize(("part", "text"), [(part, text) for part, texts in SPELLINGS.items() for text in texts])
def test_a_part_without_an_id_is_found_by_its_spelling(part, text):
    ids, types, eog = resolved("a", text)
    assert ids[part] == 1
    assert types[1] == TokenType.CONTROL
    assert (text in eog) == (part in ("eot", "eom", "fim_pad", "fim_rep", "fim_sep"))


def test_an_id_of_the_file_goes_before_a_spelling():
    ids, types, eog = resolved("a", "<|fim_pad|>", fim_pad=0)
    assert ids["fim_pad"] == 0
    assert eog == {"a"}
    assert types[1] == TokenType.NORMAL


def test_the_first_spelling_of_the_list_is_the_end_of_turn():
    ids, _, eog = resolved("<|endoftext|>", "<|im_end|>")
    assert ids["eot"] == 1
    assert eog == {"<|endoftext|>", "<|im_end|>"}


@pytest.mark.parametrize("others", [("<|return|>", "<|call|>"), ("<|calls|>", "<|flush|>")])
def test_end_of_message_is_no_end_of_answer_where_others_are(others):
    _, types, eog = resolved("<|end|>", *others)
    assert eog == set(others)
    assert types == [TokenType.CONTROL] * 3
    assert resolved("<|end|>", others[0])[2] == {"<|end|>", others[0]}


def test_s_is_text_where_tool_responses_end_an_answer():
    _, types, eog = resolved("</s>", "<|tool_response>")
    assert eog == {"<|tool_response>"}
    assert types == [TokenType.NORMAL, TokenType.CONTROL]
    assert resolved("</s>", "<|plamo:eos|>", eos=1)[2] == {"<|plamo:eos|>"}
    assert resolved("</s>", "<|plamo:eos|>")[2] == {"</s>"}


def test_arguments_are_left_alone():
    ids, types = dict.fromkeys(ROLES), [TokenType.NORMAL]
    resolve(ids, {"<eos>": 0}, types)
    assert set(ids.values()) == {None}
    assert types == [TokenType.NORMAL]
