"""The byte-level alphabet of GPT-2: a printable character for each of the 256 bytes, so that any text can be merged.

    0x21..0x7E, 0xA1..0xAC, 0xAE..0xFF   themselves: "a" is byte 0x61
    the other 68 bytes, ascending        U+0100, U+0101, ..: a space (0x20) is U+0120, a newline U+010A

Source   Radford et al. 2019, bytes_to_unicode of the GPT-2 code; unicode_byte_to_utf8_map in llama.cpp.
"""

PRINTABLE = frozenset((*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)))


def _alphabet() -> list[str]:
    others = iter(range(0x100, 0x200))
    return [chr(b if b in PRINTABLE else next(others)) for b in range(256)]


ALPHABET = _alphabet()  # byte -> character
BYTES = {character: byte for byte, character in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Bytes as characters of the alphabet."""
    return "".join(ALPHABET[byte] for byte in data)


def decode(text: str) -> bytes:
    """The bytes that `text` spells; a character outside the alphabet stands for its own UTF-8 bytes."""
    return b"".join(bytes((BYTES[c],)) if c in BYTES else c.encode("utf-8", "surrogateescape") for c in text)
