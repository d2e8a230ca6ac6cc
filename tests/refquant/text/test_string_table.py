"""The table of strings: a dictionary, whatever the strings are and however their hashes fall together."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from refquant.gguf.strings import Strings
from refquant.text import string_table
from refquant.text.string_table import M, StringTable, hashes_of

TEXTS = st.lists(st.binary(max_size=5).map(lambda raw: raw.decode("utf-8", "surrogateescape")), max_size=40)


@pytest.fixture(params=[M, 7, 1])
def modulus(request, monkeypatch) -> int:
    """With a small one most strings share a hash."""
    monkeypatch.setattr(string_table, "M", request.param)
    return request.param


def test_it_is_a_dictionary_of_first_places(modulus):
    rng = np.random.default_rng(modulus)
    texts = ["".join(map(chr, rng.integers(97, 101, rng.integers(0, 5)))) for _ in range(300)]
    ref = {text: i for i, text in reversed([*enumerate(texts)])}
    got = StringTable(Strings.of(texts))
    assert len(got) == len(ref) < len(texts)
    assert {text: got[text] for text in ref} == ref == dict(got)
    for other in ("q", "abcde", "a" * 100, "\ud800"):
        assert other not in got
        assert got.get(other) is None
    with pytest.raises(KeyError):
        got["q"]


@given(TEXTS, TEXTS)
def test_many_are_found_at_once(texts, wanted):
    table, parts = StringTable(Strings.of([*texts, "é"])), Strings.of(wanted)
    data, cuts = parts.part(0, len(parts))
    assert table.find(data, cuts).tolist() == [table.get(text, -1) for text in wanted]


def test_hashes_are_those_of_the_bytes_as_a_number():
    texts = ["", "a", "ab" * 400, "\udcff", "日本"]
    data, cuts = Strings.of(texts).part(0, len(texts))
    raw = [text.encode("utf-8", "surrogateescape") for text in texts]
    assert hashes_of(data, cuts).tolist() == [int.from_bytes(r, "little") % M for r in raw]
