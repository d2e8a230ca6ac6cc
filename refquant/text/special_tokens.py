"""Cutting text at special tokens, before any word is looked at.

    "<s>Hi<|x|>"  ->  Span(0, 3, id of <s>), Span(3, 5), Span(5, 10, id of <|x|>)

The longest spelling goes first (in UTF-8 bytes, then the lower id) and takes its places from the left; the next sees
only what is left between them. So a longer token wins even where a shorter one begins earlier. Control and unknown
tokens count only where `parse_special` says so, user-defined ones always.

White space beside a token is dropped where the tokenizer of the model strips it: to the right of all but <unk>, <s> and
<|endoftext|> in models named phi-3 or phi3, to the left of <mask> for jina-v2-*. ASCII white space only.
Source   tokenizer_st_partition and the end of load, src/llama-vocab.cpp of llama.cpp.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from refquant.text.token_type import MARKERS, TokenType
from refquant.text.vocabulary import Vocabulary

SPACE = " \t\n\v\f\r"
SPACES = re.compile(f"[{SPACE}]*")


@dataclass(frozen=True, slots=True)
class Span:
    """text[start:end]: a special token, or a run of plain text if `id` is None."""

    start: int
    end: int
    id: int | None = None


@dataclass(frozen=True, slots=True)
class SpecialToken:
    """A token that is cut out of text as a whole, and what it takes with it."""

    id: int
    text: str
    marker: bool  # control or unknown: not for text that somebody typed
    lstrip: bool
    rstrip: bool


class SpecialTokens:
    """The special tokens of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary):
        kinds = {*MARKERS, TokenType.USER_DEFINED}
        special = [i for i, kind in enumerate(vocabulary.types) if kind in kinds]
        left, right = _stripping(vocabulary, special)
        special.sort(key=lambda i: (-len(vocabulary.tokens[i].encode("utf-8", "surrogateescape")), i))
        # Keyed by their first two characters: a text that has not got those needs no search for the rest.
        self._groups: dict[str, list[tuple[int, SpecialToken]]] = {}
        for rank, i in enumerate(special):
            text = vocabulary.tokens[i]
            token = SpecialToken(i, text, vocabulary.types[i] in MARKERS, i in left, i in right)
            self._groups.setdefault(text[:2], []).append((rank, token))

    def present(self, text: str, parse_special: bool) -> list[SpecialToken]:
        """The tokens whose spelling occurs in `text`, in the order in which they claim it."""
        found = [
            (rank, token)
            for start, group in self._groups.items()
            if start in text
            for rank, token in group
            if (parse_special or not token.marker) and token.text in text
        ]
        return [token for _, token in sorted(found, key=lambda pair: pair[0])]

    def partition(self, text: str, parse_special: bool) -> list[Span]:
        """The spans of `text` in order; what lies between them is stripped white space. Runs are never empty."""
        spans = [Span(0, len(text))] if text else []
        for token in self.present(text, parse_special):
            spans = [part for span in spans for part in (_split(text, span, token) if span.id is None else (span,))]
        return spans


def _split(text: str, run: Span, token: SpecialToken) -> Iterator[Span]:
    start = run.start
    while (at := text.find(token.text, start, run.end)) >= 0:
        left_end = start + len(text[start:at].rstrip(SPACE)) if token.lstrip else at
        if left_end > start:
            yield Span(start, left_end)
        start = at + len(token.text)
        yield Span(at, start, token.id)
        if token.rstrip:
            start = SPACES.match(text, start, run.end).end()
    if start < run.end:
        yield Span(start, run.end)


def _stripping(vocabulary: Vocabulary, special: list[int]) -> tuple[set[int], set[int]]:
    """(ids that strip to their left, to their right): facts about models that no key of the file holds."""
    ids = vocabulary.index.get
    if any(name in vocabulary.pre for name in ("jina-v2-de", "jina-v2-es")):
        return {ids("<mask>", -1)}, set()
    if any(name in vocabulary.name.lower() for name in ("phi-3", "phi3")):
        return set(), {*special, ids("</s>", -1)} - {ids("<unk>"), ids("<s>"), ids("<|endoftext|>")}
    return set(), set()
