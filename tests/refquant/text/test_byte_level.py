"""The byte-level alphabet."""

from hypothesis import given
from hypothesis import strategies as st

from refquant.text import byte_level


def test_256_bytes_have_256_printable_characters():
    assert len(set(byte_level.ALPHABET)) == 256
    assert all(c.isprintable() and not c.isspace() for c in byte_level.ALPHABET)


def test_characters_that_everybody_knows():
    assert byte_level.encode(b" \n\t\r\x00a\x7f\xad\xff") == "ĠĊĉčĀaġŃÿ"


@given(st.binary(max_size=40))
def test_bytes_come_back(data):
    assert byte_level.decode(byte_level.encode(data)) == data


def test_a_character_outside_the_alphabet_stands_for_its_own_bytes():
    assert byte_level.decode("Ġ☃ \udcff") == b" \xe2\x98\x83 \xff"
