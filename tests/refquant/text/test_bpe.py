"""Byte-level byte pairs: merges against merging by the book, and what is refused or kept out."""

import naive_text
import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import GGUFError
from refquant.text import Tokenizer, byte_level
from refquant.text.token_type import TokenType

MERGES = ["a b", "b c", "ab c", "Ġ a", "a a", "Ġa ab", "b b", "Ã ©", "aa aa", "Ġ Ġ", "c a"]
TOKENIZER = Tokenizer.from_gguf(small.byte_pairs(MERGES, pre="bloom"))  # words end at spaces, nowhere else


@given(st.text(alphabet="abcé☃ ", max_size=40))
def test_merges_are_those_by_the_book(text):
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(MERGES)}
    words = [" " + word for word in text.split()]
    ref = [t for word in words for t in naive_text.byte_pair_merge(list(byte_level.encode(word.encode())), ranks)]
    assert [TOKENIZER.token_text(i) for i in TOKENIZER.encode("".join(words))] == ref


@pytest.mark.parametrize(("pre", "ref"), [("gpt-2", ["a", "bc"]), ("llama-bpe", ["abc"])])
def test_a_word_that_is_a_token_stays_whole_where_merges_are_ignored(pre, ref):
    tokenizer = Tokenizer.from_gguf(small.byte_pairs(["b c", "a b", "ab c"], pre=pre))
    assert [tokenizer.token_text(i) for i in tokenizer.encode("abc")] == ref


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        (None, "tokenizer.ggml.merges = nothing, expected an array of strings"),
        (3, "expected an array of strings"),
        (["a b", "a ☃"], r"merges\[1\] = 'a ☃', expected two tokens"),
        (["☃ a"], r"merges\[0\] = '☃ a'"),
        (["a c"], r"merges\[0\] = 'a c', .* which make a third"),
        (["ab"], r"merges\[0\] = 'ab'"),
        ([""], r"merges\[0\] = ''"),
        ([" b"], r"merges\[0\] = ' b'"),
        (["a "], r"merges\[0\] = 'a '"),
    ],
)
def test_merges_that_name_no_token_are_refused(merges, message):
    file = small.byte_pairs(["a b"])
    file.metadata["tokenizer.ggml.merges"] = merges
    if merges is None:
        del file.metadata["tokenizer.ggml.merges"]
    with pytest.raises(GGUFError, match=message):
        Tokenizer.from_gguf(file)


def test_of_two_equal_merges_the_first_counts():
    file = small.byte_pairs(["a b", "b c"])
    file.metadata["tokenizer.ggml.merges"] = ["a b", "b c", "a b"]
    tokenizer = Tokenizer.from_gguf(file)
    assert [tokenizer.token_text(i) for i in tokenizer.encode("abc")] == ["ab", "c"]


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe"])
def test_no_text_becomes_a_control_token(pre):
    file = small.byte_pairs(["a b", "ab c"], {"stop": TokenType.CONTROL}, pre=pre)
    file.metadata["tokenizer.ggml.token_type"][257] = TokenType.CONTROL  # "abc", which a merge makes
    tokenizer = Tokenizer.from_gguf(file)
    assert [tokenizer.token_text(i) for i in tokenizer.encode("abc")] == ["ab", "c"]
    assert [tokenizer.token_text(i) for i in tokenizer.encode("stop")] == list("stop")
    assert [tokenizer.token_text(i) for i in tokenizer.encode("stopabc", parse_special=True)] == ["stop", "abc"]


def test_a_byte_without_a_token_disappears_and_its_neighbours_do_not_merge():
    file = small.byte_pairs(["a b"])
    tokens = file.metadata["tokenizer.ggml.tokens"]
    tokens[tokens.index("x")] = "gone"
    tokenizer = Tokenizer.from_gguf(file)
    assert [tokenizer.token_text(i) for i in tokenizer.encode("axb ab")] == ["a", "b", "Ġ", "ab"]
    assert "1 of 256 bytes have no token" in tokenizer.warnings[0]


def test_a_token_that_is_not_utf_8_is_kept_out_and_prints_its_bytes():
    tokenizer = Tokenizer.from_gguf(small.byte_pairs(["a b"], {"\udcff": TokenType.NORMAL}))
    assert tokenizer.decode_bytes([257]) == b"\xff"
    assert tokenizer.decode(tokenizer.encode("aÿ")) == "aÿ"
