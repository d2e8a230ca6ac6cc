"""The table of pre-tokenizers: where each draws its borders. Ids, which show the rest, are in test_ids.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex
from tokenizers.pre_tokenizers import Sequence, Split

from refquant.errors import GGUFError
from refquant.text.pretokenizers import PRETOKENIZERS, lookup


def words(pre: str, text: str) -> list[str]:
    splits = [Split(Regex(pattern), "isolated") for pattern in PRETOKENIZERS[pre].patterns]
    return [word for word, _ in Sequence(splits).pre_tokenize_str(text)]


@pytest.mark.parametrize(
    ("pre", "ref"),
    [
        ("llama-bpe", ["I", "'LL", " pay", " ", "123", "45", "!\n\n", " ", " x"]),
        ("qwen2", ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "!\n\n", " ", " x"]),
        ("gpt-2", ["I", "'", "LL", " pay", " 12345", "!", "\n\n ", " x"]),
        ("smollm", ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", "!", "\n\n ", " x"]),
        ("tekken", ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", "!\n\n", " ", " x"]),
        ("gpt-4o", ["I'LL", " pay", " ", "123", "45", "!\n\n", " ", " x"]),
        ("deepseek-llm", ["I", "'", "LL", " pay", " ", "12345", "!", "\n", "\n", " ", " x"]),
        ("deepseek-v3", ["I", "'LL", " pay", " ", "123", "45", "!\n\n", " ", " x"]),
        ("default", ["I", "'", "LL", " pay", " ", "123", "45", "!", "\n\n ", " x"]),
    ],
)
def test_borders_in_one_sentence(pre, ref):
    assert words(pre, "I'LL pay 12345!\n\n  x") == ref


@pytest.mark.parametrize(
    ("pre", "text", "ref"),
    [
        ("tekken", "camelCaseHTTPServer", ["camel", "Case", "HTTPServer"]),
        ("qwen2", "camelCaseHTTPServer", ["camelCaseHTTPServer"]),
        ("qwen2", "e\u0301a", ["e", "\u0301a"]),
        ("qwen35", "e\u0301a", ["e\u0301a"]),
        ("deepseek-v3", "日本語abc", ["日本語", "abc"]),
        ("deepseek-llm", "a\u3000。", ["a", "\u3000", "。"]),
        ("bloom", "a,b c", ["a", ",", "b", " c"]),
        ("falcon", "12345`x", ["123", "45", "`", "x"]),
        ("ufakzeka", "Ali'si", ["Ali", "'si"]),
        ("qwen2", "Ali'si", ["Ali", "'s", "i"]),
    ],
)
def test_what_sets_a_family_apart(pre, text, ref):
    assert words(pre, text) == ref


@pytest.mark.parametrize("pre", sorted({entry: name for name, entry in PRETOKENIZERS.items()}.values()))
@given(text=st.text(max_size=40))
def test_words_joined_are_the_text(pre, text):
    assert "".join(words(pre, text)) == text


def test_groups_share_what_they_imply():
    keeps_words = {name for name, entry in PRETOKENIZERS.items() if entry.ignore_merges}
    assert {"llama3", "llama-bpe", "tekken", "glm4", "youtu"} <= keeps_words
    assert not keeps_words & {"qwen2", "gpt-2", "gpt-4o", "chatglm-bpe", "deepseek-v3", "default"}
    assert {name for name, entry in PRETOKENIZERS.items() if entry.add_bos} == {
        *("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
        "tekken",
    }


def test_an_unknown_name_is_refused_with_the_nearest_ones():
    with pytest.raises(GGUFError, match=r"x\.gguf: tokenizer\.ggml\.pre = 'lama-bpe', expected .*nearest: llama-bpe"):
        lookup("lama-bpe", "x.gguf")
    with pytest.raises(GGUFError, match="= 'zzzz', expected"):
        lookup("zzzz", "x.gguf")
