"""ids -> bytes -> text: what each token prints, all at once or token by token.

    normal             its text: U+2581 is a space (model "llama"), the bytes of the byte-level alphabet ("gpt2")
    user-defined       its text as it is
    byte, unused       the byte it names, nothing
    control, unknown   its text, or nothing where special tokens are skipped

The tokenizer puts a space in front of a SentencePiece text (add_space_prefix). The decoder takes one off where a whole
text begins, so that decoding gives back what was encoded; text that continues other text keeps it. Nothing else is
cleaned up: the bytes of the tokens are the text, and bytes that are not UTF-8 become U+FFFD.

Source   token_to_piece and detokenize, src/llama-vocab.cpp of llama.cpp.
Differs  its detokenize also takes spaces away before punctuation, for most byte-pair vocabularies, which loses what was
         encoded; what it prints token by token is as here.
"""

import codecs
import operator
from collections.abc import Iterable
from typing import SupportsIndex

from refquant.errors import RangeError
from refquant.text import byte_level
from refquant.text.token_type import MARKERS, TokenType
from refquant.text.vocabulary import Vocabulary

SPACE = "\u2581"


class Detokenizer:
    """The pieces of one vocabulary."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        self.leading_space = vocabulary.add_space_prefix

    def decode(self, ids: Iterable[SupportsIndex], skip_special: bool) -> bytes:
        """The bytes of a whole text. Raises RangeError for an id outside the vocabulary."""
        data = b"".join(self.piece(i, skip_special) for i in ids)
        return data.removeprefix(b" ") if self.leading_space else data

    def piece(self, i: SupportsIndex, skip_special: bool = False) -> bytes:
        """What token i prints. Raises RangeError for an id outside the vocabulary."""
        i = self.checked(i)
        text, kind = self._vocabulary.tokens[i], self._vocabulary.types[i]
        if kind == TokenType.UNUSED or (skip_special and kind in MARKERS):
            return b""
        if kind == TokenType.BYTE:
            return bytes((int(text[3:5], 16),))
        if kind in (TokenType.NORMAL, TokenType.UNDEFINED):
            if self._vocabulary.model == "gpt2":
                return byte_level.decode(text)
            text = text.replace(SPACE, " ")
        return text.encode("utf-8", "surrogateescape")

    def checked(self, i: SupportsIndex) -> int:
        """`i` as an int in 0..n-1; a negative id would otherwise count from the end."""
        count = len(self._vocabulary.tokens)
        if isinstance(i, bool) or not hasattr(i, "__index__") or not 0 <= operator.index(i) < count:
            raise RangeError(f"tokenizer: id = {i!r}, expected an integer in 0..{count - 1}")
        return operator.index(i)


class StreamDecoder:
    """Text of tokens that come one by one. A character is held back until all its bytes are there.

    What all calls return, joined, is the text of all the tokens: bytes that turn out not to be UTF-8 become U+FFFD.
    """

    def __init__(self, detokenizer: Detokenizer, skip_special: bool, strip_space: bool):
        self._detokenizer = detokenizer
        self._skip_special = skip_special
        self._strip_space = strip_space and detokenizer.leading_space
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, i: SupportsIndex) -> str:
        """The characters that token i completes; often none. Raises RangeError for an id outside the vocabulary."""
        piece = self._detokenizer.piece(i, self._skip_special)
        if piece and self._strip_space:
            self._strip_space = False
            piece = piece.removeprefix(b" ")
        return self._utf8.decode(piece)

    def flush(self) -> str:
        """What is left of an unfinished character, as U+FFFD."""
        return self._utf8.decode(b"", final=True)
