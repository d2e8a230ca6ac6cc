"""Arrays of strings as a file holds them: their bytes and where each one ends. They are decoded when looked at.

A vocabulary and its merges are 300,000 strings: 6 MB of bytes, and 35 MB as Python objects. Bytes that are not UTF-8
are lone surrogates ("surrogateescape") in what is decoded.
"""

import mmap
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np

LENGTH = 8  # bytes of the length in front of a string in a file
AT_ONCE = 1 << 17  # bytes that one pass works on


class Strings(Sequence[str]):
    """A sequence of str, equal to a list of the same ones. String i is the bytes cuts[i] .. cuts[i + 1] of `data`."""

    __slots__ = ("_places", "cuts", "data")
    __hash__ = None

    def __init__(self, data: bytes, cuts: np.ndarray):
        self.data = data
        self.cuts = cuts.astype(np.uint32 if len(data) < 1 << 32 else np.int64)
        self._places = memoryview(self.cuts)  # of which an element is a Python int at once

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Strings":
        """Those of any iterable. Raises UnicodeEncodeError for surrogates that stand for no byte."""
        parts = [text.encode("utf-8", "surrogateescape") for text in texts]
        return cls(b"".join(parts), np.cumsum([0, *map(len, parts)]))

    @classmethod
    def read(cls, buffer: mmap.mmap | bytes, start: int, lengths: np.ndarray) -> "Strings":
        """A copy of those whose first length is at byte `start` of a file; `lengths` int64 have been found sound."""
        cuts = np.append(0, np.cumsum(lengths))
        at = cuts + LENGTH * np.arange(len(cuts)) + start  # of the lengths in the file
        parts = []
        for first, end in passes(cuts):
            data = np.frombuffer(buffer, np.uint8, int(at[end] - at[first]), int(at[first]))
            text = np.ones(len(data), bool)
            text[(at[first:end] - at[first])[:, None] + np.arange(LENGTH)] = False
            parts.append(data[text].tobytes())
        return cls(b"".join(parts), cuts)

    def part(self, first: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Strings first .. end: their bytes (uint8), and where in these each begins and the last one ends (int64)."""
        cuts = self.cuts[first : end + 1].astype(np.int64)
        data = np.frombuffer(self.data, np.uint8)[cuts[0] : cuts[-1]]
        return data, cuts - cuts[0]

    def raw(self, i: int) -> bytes:
        """The bytes of string i, counted from 0."""
        return self.data[self._places[i] : self._places[i + 1]]

    @property
    def are_utf8(self) -> bool:
        """Whether each is UTF-8 by itself."""
        try:
            self.data.decode("utf-8")
        except UnicodeDecodeError:
            return False
        firsts = self.cuts[:-1][self.cuts[:-1] < len(self.data)]
        return not ((np.frombuffer(self.data, np.uint8)[firsts] & 0xC0) == 0x80).any()  # the rest of a character

    def __len__(self) -> int:
        return len(self._places) - 1

    def __getitem__(self, i: int | slice) -> str | list[str]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        return self.raw(range(len(self))[i]).decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        for first, end in passes(self.cuts):
            yield from self._decoded(first, end)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Strings):
            return self.data == other.data and np.array_equal(self.cuts, other.cuts)
        return len(other) == len(self) and list(self) == other if isinstance(other, list) else NotImplemented

    def __repr__(self) -> str:
        return repr(self[:6])[:-1] + (", ...]" if len(self) > 6 else "]")

    def _decoded(self, first: int, end: int) -> list[str]:
        """Strings first .. end at once, cut at characters; one by one where that is not UTF-8 or cuts a character."""
        begin = self._places[first]
        raw = self.data[begin : self._places[end]]
        starts = np.append((np.frombuffer(raw, np.uint8) & 0xC0) != 0x80, True)  # of characters; the last ends them
        cuts = self.cuts[first : end + 1] - begin
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            return [self[i] for i in range(first, end)]
        if not starts[cuts].all():
            return [self[i] for i in range(first, end)]
        at = (np.cumsum(starts) - 1)[cuts].tolist()
        return [text[a:b] for a, b in pairwise(at)]


def passes(cuts: np.ndarray) -> Iterator[tuple[int, int]]:
    """(first, end) of runs of strings of about AT_ONCE bytes, lengths included, or one string that is longer."""
    first, count = 0, len(cuts) - 1
    weights = cuts + LENGTH * np.arange(len(cuts))
    while first < count:
        end = int(np.searchsorted(weights, weights[first] + AT_ONCE, side="right")) - 1
        end = max(first + 1, min(end, count))
        yield first, end
        first = end
