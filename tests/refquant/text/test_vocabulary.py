"""What a file may say of its vocabulary, what is refused, and what is taken in silence or with a warning."""

import numpy as np
import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import GGUFError
from refquant.text import Tokenizer, vocabulary
from refquant.text.token_type import TokenType

SPM = {"scored": {"a": -1.0, "b": -2.0, "ab": -3.0}}


def int32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "tokenizer.ggml.model = nothing, expected a string"),
        ({"model": 3}, "tokenizer.ggml.model = 3, expected a string"),
        ({"model": "t5"}, r"'t5' \(unigram\), expected \"llama\""),
        ({"model": "bert"}, "WordPiece"),
        ({"model": "mine"}, r"'mine' \(unknown\)"),
        ({"tokens": None}, "tokenizer.ggml.tokens = nothing, expected an array of strings"),
        ({"tokens": int32(1, 2)}, "expected an array of strings"),
        ({"tokens": []}, "0 tokens, expected 1.."),
        ({"tokens": ["a", "b", "a"], "token_type": None, "scores": None}, r"tokens\[2\] = 'a', which token 0 is too"),
        (
            {"tokens": ["a", "x" * 65537], "token_type": None, "scores": None},
            "65537 characters, expected at most 65536",
        ),
        ({"token_type": int32(1, 1)}, "2 values, expected 262, one a token"),
        ({"token_type": np.ones(262, np.uint32)}, "expected an array of int32"),
        ({"token_type": np.full(262, 7, np.int32)}, r"token_type\[0\] = 7, expected 0..6"),
        ({"token_type": np.full(262, -1, np.int32)}, r"token_type\[0\] = -1, expected 0..6"),
        ({"token_type": np.full(262, 6, np.int32)}, r"'<unk>', expected <0x00> \.\. <0xFF>"),
        ({"scores": np.ones(261, np.float32)}, "261 values, expected 262"),
        ({"scores": np.ones(262, np.uint8)}, "expected an array of float32 or int32"),
        ({"scores": np.full(262, np.nan, np.float32)}, r"scores\[0\] = nan, expected a number"),
        ({"bos_token_id": True}, "bos_token_id = True, expected an integer"),
        ({"bos_token_id": "1"}, "expected an integer"),
        ({"add_bos_token": 1}, "add_bos_token = 1, expected true or false"),
        ({"add_space_prefix": "yes"}, "expected true or false"),
    ],
)
def test_refusals_name_the_key(changes, message):
    with pytest.raises(GGUFError, match=r"small\.gguf: tokenizer\.ggml") as caught:
        Tokenizer.from_gguf(small.pieces(**SPM, **changes))
    assert caught.match(message)


@pytest.mark.parametrize("text", ["<0x0a>", "<0x-1>", "<0x100>", "<0x0A>\n", "0x0A", "<0xGG>", "< 0x0A>"])
def test_a_byte_token_is_spelled_in_one_way_only(text):
    file = small.pieces({}, {text: TokenType.BYTE})
    with pytest.raises(GGUFError, match=r"expected <0x00> \.\. <0xFF> for a token of type byte"):
        vocabulary.read(file)


def test_defaults_of_a_sentencepiece_vocabulary():
    got = vocabulary.read(small.pieces({"a": -1.0}))
    assert (got.ids["bos"], got.ids["eos"], got.ids["unknown"]) == (1, 2, 0)
    assert (got.add_bos, got.add_eos, got.add_space_prefix) == (True, False, True)
    assert got.warnings == ()


def test_defaults_of_a_byte_pair_vocabulary():
    got = vocabulary.read(small.byte_pairs(["a b"]))
    assert (got.ids["bos"], got.ids["eos"], got.eog) == (None, None, frozenset())
    assert (got.add_bos, got.add_eos, got.add_space_prefix) == (False, False, False)


def test_bos_is_added_as_the_pre_tokenizer_says_unless_the_file_says_otherwise():
    marked = {"<s>": TokenType.CONTROL}
    for pre, flag, ref in [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("gpt-2", None, False),
        ("gpt-2", True, True),
    ]:
        got = vocabulary.read(small.byte_pairs([], marked, pre=pre, bos_token_id=256, add_bos_token=flag))
        assert got.add_bos is ref


def test_bos_without_an_id_is_not_added_and_leaves_a_warning():
    tokenizer = Tokenizer.from_gguf(small.byte_pairs([], pre="llama-bpe", add_eos_token=True))
    assert not tokenizer.add_bos
    assert not tokenizer.add_eos
    assert [w.split()[0] for w in tokenizer.warnings] == ["tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"]
    assert tokenizer.encode("a") == [tokenizer.vocabulary.index["a"]]


@pytest.mark.parametrize("bad", [262, 1 << 40, -1])
def test_a_special_id_outside_the_vocabulary_leaves_the_default_and_a_warning(bad):
    got = vocabulary.read(small.pieces(**SPM, bos_token_id=bad, eot_token_id=bad))
    assert (got.ids["bos"], got.ids["eot"]) == (1, None)
    assert [f"= {bad} is ignored" in warning for warning in got.warnings] == [True, True]


def test_a_missing_pre_tokenizer_is_the_default_one_with_a_warning():
    got = vocabulary.read(small.byte_pairs([], pre=None))
    assert got.pre == "default"
    assert "tokenizer.ggml.pre is missing" in got.warnings[0]


def test_an_unknown_pre_tokenizer_is_refused_by_name():
    with pytest.raises(GGUFError, match=r"tokenizer.ggml.pre = 'qwen3', expected one of .* \(nearest: qwen35, qwen2"):
        vocabulary.read(small.byte_pairs([], pre="qwen3"))


def test_missing_scores_leave_a_warning():
    got = vocabulary.read(small.pieces(**SPM, scores=None))
    assert not got.scores.any()
    assert "scores is missing" in got.warnings[0]


def test_integer_scores_are_scores():
    got = vocabulary.read(small.pieces(**SPM, scores=np.arange(262, dtype=np.int32)))
    assert got.scores.dtype == np.float32
    assert got.scores[261] == 261


def test_an_empty_token_gets_a_name():
    got = vocabulary.read(small.byte_pairs([], {"": TokenType.CONTROL}))
    assert got.tokens[256] == "[EMPTY_256]"


def test_missing_types_are_normal():
    got = vocabulary.read(small.byte_pairs(["a b"], token_type=None))
    assert set(got.types) == {TokenType.NORMAL}


def test_the_metadata_of_the_file_is_left_as_it_was():
    file = small.byte_pairs(["a b"], {"<|im_end|>": TokenType.NORMAL})
    before = file.metadata["tokenizer.ggml.token_type"].copy()
    assert vocabulary.read(file).types[257] == TokenType.CONTROL
    np.testing.assert_array_equal(file.metadata["tokenizer.ggml.token_type"], before)


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), 1 << 63),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.text(max_size=5), max_size=3),
    st.sampled_from(
        [int32(), int32(1, 2), np.ones(262, np.float64), np.zeros(3, bool), np.full(300, np.inf, np.float32)]
    ),
)
KEYS = ["model", "pre", "tokens", "token_type", "scores", "merges", "bos_token_id", "eos_token_id", "eot_token_id"]
KEYS += ["add_bos_token", "add_eos_token", "add_space_prefix", "unknown_token_id"]


@given(changes=st.dictionaries(st.sampled_from(KEYS), JUNK, min_size=1, max_size=3), spm=st.booleans())
def test_whatever_a_file_says_it_is_a_tokenizer_or_an_error(changes, spm):
    file = small.pieces(**SPM) if spm else small.byte_pairs(["a b"])
    file.metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    try:
        tokenizer = Tokenizer.from_gguf(file)
    except GGUFError:
        return
    assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.encode("Hi ab ☃", parse_special=True))


CHARACTER = st.characters(exclude_categories=["Cs"], min_codepoint=1) | st.sampled_from(["\udc80", "\udcff"])
PIECE = st.text(CHARACTER, min_size=1, max_size=6)
MADE = st.dictionaries(
    PIECE, st.tuples(st.integers(0, 5), st.floats(width=32, allow_nan=False)), min_size=1, max_size=12
)


@given(made=MADE, text=st.text(max_size=20))
def test_any_pieces_make_a_tokenizer(made, text):
    tokens, types, scores = list(made), [kind for kind, _ in made.values()], [score for _, score in made.values()]
    arrays = {"tokens": tokens, "token_type": int32(*types), "scores": np.array(scores, np.float32)}
    tokenizer = Tokenizer.from_gguf(small.pieces({}, **arrays))
    joined = text + "".join(token for token in tokens if token.isascii())
    ids = tokenizer.encode(joined, parse_special=True)
    assert all(0 <= i < len(tokens) for i in ids)
    assert isinstance(tokenizer.decode(ids), str)
