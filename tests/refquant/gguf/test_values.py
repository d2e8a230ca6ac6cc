"""Arrays of strings: whatever their lengths and bytes, they are those that reading one by one gives."""

import struct
from pathlib import Path

import numpy as np
import pytest

from refquant.gguf import values
from refquant.gguf.cursor import Cursor


def read(strings: list[bytes]) -> list[str]:
    data = b"".join(struct.pack("<Q", len(s)) + s for s in strings)
    cursor = Cursor(data + b"what follows", Path("model.gguf"))
    cursor.name = "tokenizer.ggml.tokens"
    walked = values._walk_strings(cursor, len(strings))
    assert cursor.at == len(data)
    return list(walked.read(cursor.buffer))


RARE = {
    "plain": lambda rng: b"plain",
    "two to four bytes a character": lambda rng: "é☃\U0001f600".encode(),
    "not UTF-8": lambda rng: rng.bytes(5),
    "empty": lambda rng: b"",
    "zeros": lambda rng: bytes(int(rng.integers(1, 20))),
    "long": lambda rng: b"x" * int(rng.integers(200, 400)),
}


@pytest.mark.parametrize("count", [0, 1, values.MANY - 1, values.MANY, 5000])
@pytest.mark.parametrize("rare", RARE)
def test_strings_are_those_read_one_by_one(count, rare):
    rng = np.random.default_rng(count)
    strings = [b"%d" % i for i in rng.integers(0, 10**6, count)]
    for i in rng.integers(0, count, 3) if count else ():
        strings[i] = RARE[rare](rng)
    assert read(strings) == [str(s, "utf-8", "surrogateescape") for s in strings]


def test_a_character_cut_in_two_strings_is_not_put_together():
    first, second = "é".encode()[:1], "é".encode()[1:]
    assert read([b"a"] * values.MANY + [first, second])[-2:] == ["\udcc3", "\udca9"]
