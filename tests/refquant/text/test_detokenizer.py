"""ids -> text, all at once and token by token."""

import numpy as np
import pytest
import small_vocabularies as small
from hypothesis import given
from hypothesis import strategies as st

from refquant.errors import RangeError
from refquant.text import Tokenizer
from refquant.text.token_type import TokenType

SPM, BPE = small.tokenizer("spm"), small.tokenizer("qwen2")
BOTH = pytest.mark.parametrize("tokenizer", [SPM, BPE], ids=["spm", "qwen2"])
IDS = st.lists(st.integers(0, 1023), max_size=30)


def streamed(tokenizer: Tokenizer, ids: list[int], **options: bool) -> list[str]:
    stream = tokenizer.stream(**options)
    return [*(stream.push(i) for i in ids), stream.flush()]


@BOTH
@given(text=st.text(max_size=40))
def test_what_was_encoded_comes_back(tokenizer, text):
    text = text.replace("\u2581", " ")
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text
    assert tokenizer.decode(tokenizer.encode(text), skip_special=True) == text
    assert tokenizer.decode_bytes(tokenizer.encode(text, add_special=False)) == text.encode()


@BOTH
@given(ids=IDS, skip=st.booleans())
def test_a_stream_says_what_decoding_all_says(tokenizer, ids, skip):
    ref = tokenizer.decode(ids, skip_special=skip)
    assert "".join(streamed(tokenizer, ids, skip_special=skip, strip_space=True)) == ref
    assert "".join(streamed(tokenizer, ids, skip_special=skip)).removeprefix(" " * (tokenizer is SPM)) == ref


@BOTH
@given(text=st.text(alphabet="aé☃👩\u200d💻 ", max_size=20))
def test_a_stream_never_says_half_a_character(tokenizer, text):
    said = streamed(tokenizer, tokenizer.encode(text, add_special=False))
    assert "\ufffd" not in "".join(said)
    assert said[-1] == ""


@BOTH
def test_every_character_of_the_first_plane_comes_back(tokenizer):
    for start in [*range(0, 0x10000, 1 << 14), 0x1F000, 0x20000, 0xE0000, 0x10C000]:
        text = "".join(chr(c) for c in range(start, start + (1 << 14)) if not 0xD800 <= c < 0xE000).replace(
            "\u2581", ""
        )
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


@BOTH
def test_what_a_token_prints_prints_the_same_after_another_round(tokenizer):
    for i in range(tokenizer.vocab_size):
        text = tokenizer.decode([i])
        assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


def test_a_character_is_held_back_until_it_is_whole():
    snowman = [SPM.vocabulary.index[f"<0x{byte:02X}>"] for byte in "☃".encode()]
    assert streamed(SPM, snowman) == ["", "", "☃", ""]
    assert streamed(SPM, snowman[:2]) == ["", "", "\ufffd"]
    assert streamed(SPM, [*snowman[:2], SPM.vocabulary.index["a"]]) == ["", "", "\ufffda", ""]
    assert streamed(SPM, snowman[1:2]) == ["\ufffd", ""]


def test_the_leading_space_goes_where_a_text_begins_and_nowhere_else():
    ids = SPM.encode("Hello world")
    assert SPM.decode(ids) == "<s> Hello world"
    assert SPM.decode(ids, skip_special=True) == "Hello world"
    assert "".join(streamed(SPM, ids)) == " Hello world"
    assert "".join(streamed(SPM, ids, strip_space=True)) == "Hello world"
    plain = small.tokenizer("spm", add_space_prefix=False)
    assert plain.decode(plain.encode(" Hello", add_special=False)) == " Hello"


def test_what_each_kind_of_token_prints():
    kinds = {"<|x|>": TokenType.CONTROL, "Ġ☃": TokenType.USER_DEFINED, "u": TokenType.UNUSED, "n": TokenType.UNDEFINED}
    tokenizer = Tokenizer.from_gguf(small.pieces({"▁a": -1.0}, kinds, add_space_prefix=False))
    index = tokenizer.vocabulary.index
    printed = {text: tokenizer.decode([index[text]]) for text in ("<unk>", "<0x41>", "▁a", *kinds)}
    assert printed == {"<unk>": "<unk>", "<0x41>": "A", "▁a": " a", "<|x|>": "<|x|>", "Ġ☃": "Ġ☃", "u": "", "n": "n"}
    assert [tokenizer.decode([index[text]], skip_special=True) for text in ("<unk>", "<|x|>", "Ġ☃")] == ["", "", "Ġ☃"]
    assert tokenizer.piece(index["▁a"]) == b" a"


@BOTH
@pytest.mark.parametrize("bad", [-1, 1024, 1 << 40, True, 1.0, "1", None])
def test_an_id_outside_the_vocabulary_is_refused(tokenizer, bad):
    for call in (
        tokenizer.token_text,
        tokenizer.is_control,
        tokenizer.piece,
        tokenizer.stream().push,
        lambda i: tokenizer.decode([i]),
    ):
        with pytest.raises(RangeError, match=r"id = .*, expected an integer in 0\.\.1023"):
            call(bad)


@BOTH
def test_ids_may_be_numpy_integers(tokenizer):
    assert tokenizer.decode(np.array([40, 41], np.int32)) == tokenizer.decode([40, 41])
