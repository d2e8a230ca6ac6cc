"""The tokenizer of a GGUF file: text <-> ids.

    encode   text -> spans at special tokens -> words and merges within each run -> ids, BOS and EOS around them
    decode   ids -> bytes -> text

add_special    adds BOS in front where `add_bos` and EOS behind where `add_eos`, unless the text spells it there already
parse_special  whether the spellings of control and unknown tokens become these tokens. Text that somebody typed goes in
               without: then no control token comes out, whatever it spells.
"""

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import SupportsIndex

from refquant.gguf.container import GGUFFile
from refquant.text import vocabulary as vocabularies
from refquant.text.bpe import BytePairs
from refquant.text.detokenizer import Detokenizer, StreamDecoder
from refquant.text.special_tokens import Span, SpecialTokens
from refquant.text.spm import SentencePiece
from refquant.text.token_type import MARKERS, TokenType
from refquant.text.unicode_text import require_text
from refquant.text.vocabulary import Vocabulary


class Tokenizer:
    """One vocabulary, ready for use. Calls do not change it."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.special = SpecialTokens(vocabulary)
        self._encoder = SentencePiece(vocabulary) if vocabulary.model == "llama" else BytePairs(vocabulary)
        self._detokenizer = Detokenizer(vocabulary)
        self.warnings: tuple[str, ...] = vocabulary.warnings + self._encoder.warnings

    @classmethod
    def from_gguf(cls, gguf: GGUFFile) -> "Tokenizer":
        """The tokenizer of an open file. Raises GGUFError, or UnsupportedError where a package is missing."""
        return cls(vocabularies.read(gguf))

    @property
    def bos(self) -> int | None:
        return self.vocabulary.ids["bos"]

    @property
    def eos(self) -> int | None:
        return self.vocabulary.ids["eos"]

    @property
    def eot(self) -> int | None:
        """The token that ends a turn, named by the file or found by its spelling."""
        return self.vocabulary.ids["eot"]

    @property
    def eog(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return self.vocabulary.eog

    @property
    def vocab_size(self) -> int:
        return len(self.vocabulary.tokens)

    @property
    def add_bos(self) -> bool:
        return self.vocabulary.add_bos

    @property
    def add_eos(self) -> bool:
        return self.vocabulary.add_eos

    def encode(self, text: str, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Ids of `text`. Raises RangeError for lone surrogates and for too many characters (unicode_text.py)."""
        require_text("tokenizer.encode", "text", text)
        ids: list[int] = []
        for span in self.special.partition(text, parse_special):
            ids += self._encoder.encode(text[span.start : span.end]) if span.id is None else [span.id]
        if add_special and self.add_bos and not (parse_special and ids[:1] == [self.bos]):
            ids.insert(0, self.bos)
        if add_special and self.add_eos and not (parse_special and ids[-1:] == [self.eos]):
            ids.append(self.eos)
        return ids

    def encode_restored(self, text: str, restore: Callable[[str], str]) -> list[int]:
        """Ids of `text` with its control tokens parsed, where `restore` changes what lies between them beforehand.

        So what `restore` brings back never counts as a control token. A run reaches from one control token to the next,
        across user-defined tokens, and is encoded as a whole.
        """
        require_text("tokenizer.encode_restored", "text", text)
        ids: list[int] = []
        for marks, group in groupby(self.special.partition(text, parse_special=True), key=self._is_mark):
            spans = list(group)
            if marks:
                ids += [span.id for span in spans]
            else:
                ids += self.encode(restore(text[spans[0].start : spans[-1].end]), add_special=False)
        return ids

    def decode(self, ids: Iterable[SupportsIndex], skip_special: bool = False) -> str:
        """The text of `ids`, U+FFFD for bytes that are not UTF-8. Raises RangeError for ids outside the vocabulary."""
        return self.decode_bytes(ids, skip_special).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[SupportsIndex], skip_special: bool = False) -> bytes:
        """The bytes of `ids`, which need not be UTF-8. Raises RangeError for ids outside the vocabulary."""
        return self._detokenizer.decode(ids, skip_special)

    def stream(self, skip_special: bool = True, strip_space: bool = False) -> StreamDecoder:
        """A decoder for tokens that come one by one: `push(id)`, and `flush()` at the end.

        They count as continuing other text, so that a leading space is kept, unless `strip_space`.
        """
        return StreamDecoder(self._detokenizer, skip_special, strip_space)

    def piece(self, i: SupportsIndex) -> bytes:
        """What token i prints, its leading space included. Raises RangeError for an id outside the vocabulary."""
        return self._detokenizer.piece(i)

    def token_text(self, i: SupportsIndex) -> str:
        """Token i as the vocabulary spells it. Raises RangeError for an id outside the vocabulary."""
        return self.vocabulary.tokens[self._detokenizer.checked(i)]

    def is_control(self, i: SupportsIndex) -> bool:
        """Whether token i is a control token. Raises RangeError for an id outside the vocabulary."""
        return self.vocabulary.types[self._detokenizer.checked(i)] == TokenType.CONTROL

    def _is_mark(self, span: Span) -> bool:
        return span.id is not None and self.vocabulary.types[span.id] in MARKERS
