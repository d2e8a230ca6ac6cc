"""Arrays of strings that are bytes until somebody looks: they behave as the list of the same strings."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refquant.gguf.strings import Strings

TEXTS = st.lists(st.binary(max_size=6).map(lambda raw: raw.decode("utf-8", "surrogateescape")), max_size=30)


@given(TEXTS, st.slices(30), st.integers(-40, 40))
def test_they_behave_as_the_list_of_them(texts, part, i):
    got = Strings.of(texts)
    assert isinstance(got, Sequence)
    assert len(got) == len(texts)
    assert got == texts and texts == got and got == Strings.of(texts)
    assert list(got) == texts
    assert got[part] == texts[part]
    assert got != [*texts, "more"] and got != Strings.of([*texts, "more"])
    assert got.are_utf8 == all(text.encode("utf-8", "ignore").decode() == text for text in texts)
    if -len(texts) <= i < len(texts):
        assert got[i] == texts[i]
        assert got.index(texts[i]) == texts.index(texts[i])
    else:
        with pytest.raises(IndexError):
            got[i]


def test_many_are_decoded_in_passes_and_a_message_shows_the_first():
    texts = [f"{i}é" * (i % 50) for i in range(9000)]
    got = Strings.of(texts)
    assert len(got.data) > 1 << 17
    assert list(got) == texts
    assert repr(got) == "['', '1é', '2é2é', '3é3é3é', '4é4é4é4é', '5é5é5é5é5é', ...]"
    assert repr(Strings.of(["a"])) == "['a']"


def test_a_copy_is_made_of_what_the_file_holds():
    texts = [bytes([i % 7 + 97]) * (i % 9) for i in range(5000)]
    file = bytearray(b"head" + b"".join(len(t).to_bytes(8, "little") + t for t in texts))
    got = Strings.read(bytes(file), 4, np.array([len(t) for t in texts]))
    file[:] = bytes(len(file))
    assert list(got) == [t.decode() for t in texts]


def test_a_character_cut_in_two_strings_is_not_utf_8():
    first, second = (b.decode("utf-8", "surrogateescape") for b in ("é".encode()[:1], "é".encode()[1:]))
    assert Strings.of(["é", "a", ""]).are_utf8
    assert not Strings.of(["a", first, second]).are_utf8
