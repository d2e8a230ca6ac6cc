"""Byte-level byte-pair vocabularies (`tokenizer.ggml.model` "gpt2"): text -> ids.

    text -> words (pretokenizers.py) -> UTF-8 bytes -> characters (byte_level.py) -> merges, lowest rank first -> ids

The package `tokenizers` cuts the words: their patterns ask for classes of Unicode that `re` has not got. Merging is
done here, because that package takes long to build its own table of merges. Control and unknown tokens are kept out,
and so are the merges that would form one, so that no text somebody typed becomes a control token.

Merges   "left right", split at the first space after the first character; of two equal ones the first counts. A merge
         that names a token the vocabulary has not got, or that would make one, is a GGUFError.
Missing  A byte that is no token of the vocabulary disappears from the text, as in llama.cpp; `warnings` says so.
Source   llm_tokenizer_bpe in src/llama-vocab.cpp of llama.cpp.
"""

from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import numpy as np

from refquant.errors import GGUFError, UnsupportedError
from refquant.gguf.strings import Strings, passes
from refquant.text.byte_level import ALPHABET
from refquant.text.pretokenizers import PreTokenizer, lookup
from refquant.text.string_table import StringTable
from refquant.text.token_type import MARKERS
from refquant.text.unicode_text import is_unicode
from refquant.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence

REMEMBERED, SHORT = 1 << 15, 64  # words whose ids are kept, and pairs whose ranks; characters of one


class BytePairs:
    """`encode` for one vocabulary. Raises UnsupportedError without the package, GGUFError for wrong merges."""

    def __init__(self, vocabulary: Vocabulary):
        pre = lookup(vocabulary.pre, str(vocabulary.path))
        self._splitter = _splitter(pre)
        visible = VisibleTokens(vocabulary)
        self._ids = Remembered(visible.get)
        self._ranks = Remembered(checked_merges(vocabulary, visible).get)
        self._whole = pre.ignore_merges
        self._words: dict[str, list[int]] = {}
        absent = [visible.get(character) for character in ALPHABET].count(None)
        self.warnings: tuple[str, ...] = ()
        if absent:
            self.warnings = (f"{absent} of 256 bytes have no token: they are left out of text",)

    def encode(self, text: str) -> list[int]:
        """Ids of one run of plain text."""
        return [i for word, _ in self._splitter.pre_tokenize_str(text) for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        ids = self._words.get(word)
        if ids is None:
            parts = [word] if self._whole and self._ids[word] is not None else merged(word, self._ranks)
            # A byte without a token merges with nothing, so that it still stands alone and its neighbours apart.
            ids = [i for part in parts if (i := self._ids[part]) is not None]
            if len(self._words) >= REMEMBERED:
                self._words.clear()
            if len(word) <= SHORT:
                self._words[word] = ids
        return ids


def merged(symbols: Sequence[str], ranks: Mapping[str, int | None]) -> list[str]:
    """`symbols` after all merges: of all neighbours the pair of the lowest rank merges, the leftmost of equal ones.

    ranks["left right"] is a number of its own for each pair, None where the two do not merge; no symbol holds a space.
    O(n log n).
    """
    parts = list(symbols)
    end = len(parts)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    rank = lambda i: ranks[f"{parts[i]} {parts[after[i]]}"] if i >= 0 and after[i] < end else None
    queue = [(found, i) for i in range(end) if (found := rank(i)) is not None]
    heapify(queue)
    while queue:
        wanted, i = heappop(queue)
        if not parts[i] or rank(i) != wanted:  # it was merged away, or one of the two has grown since
            continue
        right = after[i]
        parts[i] += parts[right]
        parts[right] = ""
        after[i] = after[right]
        if after[i] < end:
            before[after[i]] = i
        for place in (before[i], i):
            if (found := rank(place)) is not None:
                heappush(queue, (found, place))
    return [part for part in parts if part]


class Remembered(dict[str, int | None]):
    """What `look` has found for short texts, looked up once while there is room: most come again and again."""

    def __init__(self, look: Callable[[str], int | None]):
        super().__init__()
        self._look = look

    def __missing__(self, text: str) -> int | None:
        found = self._look(text)
        if len(text) <= SHORT:
            if len(self) >= REMEMBERED:
                self.clear()
            self[text] = found
        return found


class VisibleTokens:
    """text -> id of the tokens that text can become: not control and unknown tokens, and none that is not UTF-8."""

    def __init__(self, vocabulary: Vocabulary):
        self.table = vocabulary.index
        kinds = np.array(vocabulary.types)
        self.hidden = np.isin(kinds, MARKERS)
        if not vocabulary.tokens.are_utf8:
            self.hidden |= [not is_unicode(text) for text in vocabulary.tokens]

    def get(self, text: str) -> int | None:
        i = self.table.get(text)
        return None if i is None or self.hidden[i] else i

    def __contains__(self, text: str) -> bool:
        return self.get(text) is not None


def are_sound(merges: Strings, visible: VisibleTokens) -> bool:
    """Whether each of `merges` is two visible tokens with a space between them, which make a third."""
    for run in passes(merges.cuts):
        data, cuts = merges.part(*run)
        spaces, count = np.flatnonzero(data == ord(" ")), len(cuts) - 1
        if len(spaces) != count or not ((cuts[:-1] < spaces) & (spaces < cuts[1:])).all():
            return False
        joined = data[data != ord(" ")]  # what the merges make, one after the other, each a byte shorter
        made, lefts = cuts - np.arange(count + 1), spaces - np.arange(count)
        parts = np.append(np.column_stack([made[:-1], lefts]).ravel(), made[-1:])
        for ids in (visible.table.find(joined, made), visible.table.find(joined, parts)):
            if (ids < 0).any() or visible.hidden[ids].any():
                return False
    return True


def checked_merges(vocabulary: Vocabulary, visible: VisibleTokens) -> StringTable:
    """ "left right" -> rank of the merges between visible tokens. Raises GGUFError for one that names no token."""
    merges = vocabulary.merges
    if are_sound(merges, visible):  # nearly always: no loop of ours over all of them
        return StringTable(merges)
    kept = []
    for rank, merge in enumerate(merges):
        space = merge.find(" ", 1)
        left, right = merge[:space], merge[space + 1 :]
        if left in visible and right in visible and left + right in visible:
            kept.append(merge)
        elif space < 0 or not all(part in vocabulary.index for part in (left, right, left + right)):
            raise GGUFError(
                f"{vocabulary.path}: tokenizer.ggml.merges[{rank}] = {merge[:64]!r}, expected two tokens of the "
                f"vocabulary with a space between them, which make a third"
            )
    return StringTable(Strings.of(kept))


def _splitter(pre: PreTokenizer) -> "PreTokenizerSequence":
    try:
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    except ImportError as error:
        message = "text.bpe: tokenizers is not installed, expected `pip install 'refquant[chat]'`"
        raise UnsupportedError(message) from error
    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
