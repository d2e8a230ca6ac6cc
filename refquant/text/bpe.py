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

import operator
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, count
from typing import TYPE_CHECKING

from refquant.errors import GGUFError, UnsupportedError
from refquant.text.byte_level import ALPHABET
from refquant.text.pretokenizers import PreTokenizer, lookup
from refquant.text.token_type import MARKERS
from refquant.text.unicode_text import is_unicode
from refquant.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence

REMEMBERED, SHORT = 1 << 15, 64  # words whose ids are kept, most of a text being seen before; characters of one


class BytePairs:
    """`encode` for one vocabulary. Raises UnsupportedError without the package, GGUFError for wrong merges."""

    def __init__(self, vocabulary: Vocabulary):
        pre = lookup(vocabulary.pre, str(vocabulary.path))
        self._splitter = _splitter(pre)
        self._ids = visible_tokens(vocabulary)
        self._ranks = checked_merges(vocabulary, self._ids)
        self._whole = pre.ignore_merges
        self._words: dict[str, list[int]] = {}
        absent = sum(character not in self._ids for character in ALPHABET)
        self.warnings: tuple[str, ...] = ()
        if absent:
            self.warnings = (f"{absent} of 256 bytes have no token: they are left out of text",)

    def encode(self, text: str) -> list[int]:
        """Ids of one run of plain text."""
        return [i for word, _ in self._splitter.pre_tokenize_str(text) for i in self._encode_word(word)]

    def _encode_word(self, word: str) -> list[int]:
        ids = self._words.get(word)
        if ids is None:
            parts = [word] if self._whole and word in self._ids else merged(word, self._ranks)
            # A byte without a token merges with nothing, so that it still stands alone and its neighbours apart.
            ids = [self._ids[part] for part in parts if part in self._ids]
            if len(self._words) >= REMEMBERED:
                self._words.clear()
            if len(word) <= SHORT:
                self._words[word] = ids
        return ids


def merged(symbols: Sequence[str], ranks: dict[str, int]) -> list[str]:
    """`symbols` after all merges: of all neighbours the pair of the lowest rank merges, the leftmost of equal ones.

    ranks: "left right" -> rank, a number of its own for each pair; no symbol holds a space. O(n log n).
    """
    parts = list(symbols)
    end = len(parts)
    before, after = list(range(-1, end - 1)), list(range(1, end + 1))
    rank = lambda i: ranks.get(f"{parts[i]} {parts[after[i]]}") if i >= 0 and after[i] < end else None
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


def visible_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """text -> id of the tokens that text can become."""
    visible, markers = dict(vocabulary.index), {*MARKERS}
    for i in (i for i, kind in enumerate(vocabulary.types) if kind in markers):
        del visible[vocabulary.tokens[i]]
    if not is_unicode("".join(visible)):
        visible = {text: i for text, i in visible.items() if is_unicode(text)}
    return visible


def checked_merges(vocabulary: Vocabulary, visible: dict[str, int]) -> dict[str, int]:
    """ "left right" -> rank of the merges between visible tokens. Raises GGUFError for one that names no token."""
    merges = vocabulary.merges
    if all(merge.count(" ") == 1 for merge in merges):
        parts = " ".join(merges).split(" ") if merges else []
        made = map(operator.add, parts[::2], parts[1::2])
        if all(map(visible.__contains__, chain(parts, made))):  # nearly always: no loop of ours over all of them
            ranks = dict(zip(merges, count()))
            return ranks if len(ranks) == len(merges) else _first_ranks(merges)
    kept = []
    for rank, merge in enumerate(merges):
        space = merge.find(" ", 1)
        left, right = merge[:space], merge[space + 1 :]
        if left in visible and right in visible and left + right in visible:
            kept.append(merge)
        elif space < 0 or not {left, right, left + right} <= vocabulary.index.keys():
            raise GGUFError(
                f"{vocabulary.path}: tokenizer.ggml.merges[{rank}] = {merge[:64]!r}, expected two tokens of the "
                f"vocabulary with a space between them, which make a third"
            )
    return _first_ranks(kept)


def _first_ranks(merges: list[str]) -> dict[str, int]:
    return {merge: rank for rank, merge in reversed([*enumerate(merges)])}


def _splitter(pre: PreTokenizer) -> "PreTokenizerSequence":
    try:
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split
    except ImportError as error:
        message = "text.bpe: tokenizers is not installed, expected `pip install 'refquant[chat]'`"
        raise UnsupportedError(message) from error
    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
