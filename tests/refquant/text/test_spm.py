"""SentencePiece vocabularies: the message for the package, and its merges against merging by the book."""

import naive_text
import numpy as np
import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import GGUFError
from refquant.text import Tokenizer, spm, vocabulary

SCORES = dict.fromkeys("▁abcé", -10.0) | {
    "ab": -1.0,
    "bc": -2.0,
    "abc": -3.0,
    "▁a": -4.0,
    "▁▁": -5.0,
    "aa": -2.0,
    "▁ab": -0.5,
}
TOKENIZER = Tokenizer.from_gguf(small.pieces(SCORES))


def test_the_message_is_spelled_as_protobuf_spells_it():
    tokens = {"tokens": ["a", "<s>"], "token_type": np.array([1, 3], np.int32), "scores": np.array([-1, 0], np.float32)}
    got = spm.model_proto(vocabulary.read(small.pieces({}, **tokens)))
    piece_a = b"\x0a\x0a" + b"\x0a\x01a" + b"\x15\x00\x00\x80\xbf" + b"\x18\x01"
    piece_s = b"\x0a\x0c" + b"\x0a\x03<s>" + b"\x15\x00\x00\x00\x00" + b"\x18\x03"
    unknown = b"\x0a\x0e" + b"\x0a\x05<unk>" + b"\x15\x00\x00\x00\x00" + b"\x18\x02"
    trainer = b"\x12\x05" + b"\x18\x02" + b"\x98\x02\x00"  # BPE, no byte fallback
    normalizer = b"\x1a\x10" + b"\x0a\x08identity" + b"\x18\x01" + b"\x20\x00" + b"\x28\x01"
    assert got == piece_a + piece_s + unknown + trainer + normalizer


@given(st.text(alphabet="abcéx \u2581☃", min_size=1, max_size=24))
def test_merges_are_those_by_the_book(text):
    index = TOKENIZER.vocabulary.index
    word = naive_text.sentence_piece_merge(list("▁" + text.replace(" ", "▁")), SCORES)
    ref = []
    for piece in word:
        ref += [index[piece]] if piece in index else [index[f"<0x{byte:02X}>"] for byte in piece.encode()]
    assert TOKENIZER.encode(text, add_special=False) == ref


@pytest.mark.parametrize(("prefix", "ref"), [(True, ["▁a"]), (False, ["a"])])
def test_a_space_goes_in_front_of_every_run_where_the_file_says_so(prefix, ref):
    tokenizer = Tokenizer.from_gguf(small.pieces(SCORES, add_space_prefix=prefix))
    texts = [tokenizer.token_text(i) for i in tokenizer.encode("a</s>a", parse_special=True)]
    assert texts == ["<s>", *ref, "</s>", *ref]


def test_no_text_merges_into_a_control_token():
    scores = dict.fromkeys("<s>/", -1.0) | {"<s": -2.0, "s>": -2.0, "</": -2.0, "</s": -2.0}
    tokenizer = Tokenizer.from_gguf(small.pieces(scores, add_space_prefix=False))
    assert [tokenizer.token_text(i) for i in tokenizer.encode("<s></s>", add_special=False)] == ["<s", ">", "</s", ">"]


def test_text_that_looks_like_a_byte_token_is_text():
    assert TOKENIZER.vocabulary.index["<0x0A>"] not in TOKENIZER.encode("<0x0A>")
    assert TOKENIZER.decode(TOKENIZER.encode("<0x0A>", add_special=False)) == "<0x0A>"


def test_without_byte_tokens_what_has_no_piece_is_the_unknown_token():
    tokens = ["<unk>", "<s>", "</s>", "a", "b"]
    types = np.array([2, 3, 3, 1, 1], np.int32)
    file = small.pieces({}, tokens=tokens, token_type=types, scores=np.zeros(5, np.float32), add_space_prefix=False)
    assert Tokenizer.from_gguf(file).encode("axb", add_special=False) == [3, 0, 4]
    file.metadata["tokenizer.ggml.unknown_token_id"] = 4
    assert Tokenizer.from_gguf(file).encode("axb", add_special=False) == [3, 4, 4]


def test_some_byte_tokens_are_refused():
    file = small.pieces({}, tokens=["<unk>", "<s>", "</s>", "<0x00>"], token_type=None, scores=np.zeros(4, np.float32))
    with pytest.raises(GGUFError, match=r"1 tokens <0x00> \.\. <0xFF>, expected 0 or 256"):
        Tokenizer.from_gguf(file)


def test_a_token_that_is_not_utf_8_matches_nothing_and_prints_its_bytes():
    tokenizer = Tokenizer.from_gguf(small.pieces({"a": -1.0, "\udcff\udcfe": -1.0}))
    i = tokenizer.vocabulary.index["\udcff\udcfe"]
    assert tokenizer.decode_bytes([i]) == b"\xff\xfe"
    assert tokenizer.decode([i]) == "\ufffd\ufffd"
    assert i not in tokenizer.encode("\u00ff\u00fe\ufffd")


def test_a_vocabulary_may_use_the_name_of_the_added_unknown_piece():
    tokenizer = Tokenizer.from_gguf(small.pieces({"▁": -1.0, "a": -1.0, "<unk>_": -1.0}))
    assert tokenizer.decode(tokenizer.encode("a<unk>", add_special=False)) == "a<unk>"
