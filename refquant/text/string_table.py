"""Where a string stands among a hundred thousand: a dictionary of 8 bytes an entry, made in a few passes of NumPy.

    hash(s) = (sum_k s[k] * 256^k) mod M        the bytes as one little-endian number; M far from every power of 2

The hashes are sorted. A look-up finds its own among them by bisection and compares the bytes. Strings that share a hash
with one before them, a handful, are in an ordinary dictionary, so that no choice of strings makes look-ups slow.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping

import numpy as np

from refquant.gguf.strings import Strings, passes

M = 2_038_074_743


class StringTable(Mapping[str, int]):
    """text -> its number among `strings`, of equal ones the first."""

    def __init__(self, strings: Strings):
        self._strings = strings
        hashes = [hashes_of(*strings.part(*run)) for run in passes(strings.cuts)]
        found = np.concatenate([*hashes, np.zeros(0, np.int64)])
        order = np.argsort(found, kind="stable")
        self._sorted, self._numbers = found[order].astype(np.uint32), order.astype(np.uint32)
        self._hashes, self._order = memoryview(self._sorted), memoryview(self._numbers)
        self._others: dict[bytes, int] = {}
        self._distinct = len(strings)
        shared = np.flatnonzero(self._sorted[1:] == self._sorted[:-1]) + 1
        firsts = order[np.searchsorted(self._sorted, self._sorted[shared])]
        for i, first in zip(order[shared].tolist(), firsts.tolist()):
            raw = strings.raw(i)
            if raw == strings.raw(first) or self._others.setdefault(raw, i) != i:
                self._distinct -= 1

    def get(self, text: str, default: int | None = None) -> int | None:
        """The number of `text`."""
        try:
            return self._find_one(text.encode("utf-8", "surrogateescape"), default)
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            return default

    def find(self, data: np.ndarray, cuts: np.ndarray) -> np.ndarray:
        """The numbers of the strings that `data` (uint8) is made of, cut at `cuts`; -1 for what is absent."""
        hashes, lengths = hashes_of(data, cuts), np.diff(cuts)
        at = np.minimum(np.searchsorted(self._sorted, hashes), len(self._sorted) - 1)
        found = self._numbers[at].astype(np.int64)
        starts, ends = (self._strings.cuts[i].astype(np.int64) for i in (found, found + 1))
        same = (self._sorted[at] == hashes) & (ends - starts == lengths)
        own = np.repeat(starts - cuts[:-1], lengths) + np.arange(len(data))  # where the bytes of `data` should be
        compared = np.repeat(same, lengths)
        theirs = np.frombuffer(self._strings.data, np.uint8)[own[compared]]
        same[np.repeat(np.arange(len(lengths)), lengths)[compared][theirs != data[compared]]] = False
        for i in np.flatnonzero(~same).tolist():
            found[i] = self._find_one(data[cuts[i] : cuts[i + 1]].tobytes(), -1)
        return found

    def _find_one(self, raw: bytes, default: int | None) -> int | None:
        wanted = int.from_bytes(raw, "little") % M
        at = bisect_left(self._hashes, wanted)
        if at == len(self._hashes) or self._hashes[at] != wanted:
            return default
        i = self._order[at]
        return i if self._strings.raw(i) == raw else self._others.get(raw, default)

    def __getitem__(self, text: str) -> int:
        if (i := self.get(text)) is None:
            raise KeyError(text)
        return i

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self.get(text) is not None

    def __len__(self) -> int:
        return self._distinct

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self._strings))


def hashes_of(data: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """The hashes, int64, of the strings that follow one another in `data` (uint8), cut at `cuts`."""
    lengths = np.diff(cuts)
    place = np.arange(len(data)) - np.repeat(cuts[:-1], lengths)
    sums = np.append(0, np.cumsum(data * _powers(int(lengths.max(initial=0)))[place]))
    return np.diff(sums[cuts]) % M  # the sums may wrap, a difference below 2^63 does not


def _powers(count: int) -> np.ndarray:
    """256^k mod M for k in 0..count, int64, by doubling."""
    found = np.ones(1, np.int64)
    while len(found) <= count:
        found = np.append(found, found * (int(found[-1]) * 256 % M) % M)
    return found
