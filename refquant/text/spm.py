"""SentencePiece vocabularies (`tokenizer.ggml.model` "llama"): text -> ids through the package `sentencepiece`.

The model that package wants is a protobuf message. It is written here by hand, field by field, from the vocabulary:

    ModelProto       1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
    SentencePiece    1 piece (bytes)       2 score (float)  3 type (1 normal 2 unknown 3 control 6 byte)
    TrainerSpec      3 model_type = 2 (BPE)   35 byte_fallback
    NormalizerSpec   1 name "identity"   3 add_dummy_prefix   4 remove_extra_whitespaces = 0   5 escape_whitespaces = 1

    on the wire      varint of field << 3 | kind, then the value; kind 0 varint, 2 varint length + bytes, 5 four bytes

Spaces become U+2581, one is put in front of every run where the file says add_space_prefix, and pairs merge by the
score of what they make, ties from the left. A character without a piece falls back to its bytes, and to the unknown
token in a vocabulary without byte pieces.

Pieces   User-defined tokens are cut out of the text before it comes here (special_tokens.py); here they are ordinary,
         and so are unused ones, as in llama.cpp.
         sentencepiece wants exactly one unknown piece: one is added behind the vocabulary, and those of the file count
         as control pieces, which no text ever becomes. llama.cpp lets merges form control tokens.
Source   sentencepiece_model.proto; llm_tokenizer_spm in src/llama-vocab.cpp of llama.cpp.
"""

import struct

from refquant.errors import GGUFError, UnsupportedError
from refquant.text.token_type import TokenType
from refquant.text.unicode_text import is_unicode
from refquant.text.vocabulary import BYTE_TOKEN, Vocabulary

VARINT, BYTES, FLOAT = 0, 2, 5  # kinds of field on the wire
BPE = 2


class SentencePiece:
    """`encode` for one vocabulary. Raises UnsupportedError without the package, GGUFError for what it refuses."""

    def __init__(self, vocabulary: Vocabulary):
        try:
            from sentencepiece import SentencePieceProcessor
        except ImportError as error:
            raise UnsupportedError(
                "text.spm: sentencepiece is not installed, expected `pip install 'refquant[chat]'`"
            ) from error
        try:
            self._processor = SentencePieceProcessor(model_proto=model_proto(vocabulary))
        except RuntimeError as error:
            raise GGUFError(f"{vocabulary.path}: tokenizer.ggml.tokens is refused by sentencepiece: {error}") from error
        self.warnings: tuple[str, ...] = ()
        self._added = len(vocabulary.tokens)  # the id of the unknown piece that is not in the vocabulary
        self._unknown = vocabulary.ids["unknown"]

    def encode(self, text: str) -> list[int]:
        """Ids of one run of plain text."""
        ids = self._processor.encode(text)
        if self._added in ids:
            ids = [self._unknown if i == self._added else i for i in ids]
        return [i for i in ids if i is not None]


def model_proto(vocabulary: Vocabulary) -> bytes:
    """The vocabulary as a serialized ModelProto."""
    bytes_present = sum(BYTE_TOKEN.fullmatch(text) is not None for text in vocabulary.tokens)
    if bytes_present not in (0, 256):
        raise GGUFError(
            f"{vocabulary.path}: tokenizer.ggml.tokens has {bytes_present} tokens <0x00> .. <0xFF>, expected 0 or 256"
        )
    pieces = [
        _piece(text, score, _piece_type(text, kind))
        for text, score, kind in zip(vocabulary.tokens, vocabulary.scores.tolist(), vocabulary.types, strict=True)
    ]
    unknown = "<unk>"
    while unknown in vocabulary.index:
        unknown += "_"
    pieces.append(_piece(unknown, 0.0, TokenType.UNKNOWN))
    trainer = _number(3, BPE) + _number(35, bytes_present == 256)
    normalizer = _bytes(1, b"identity") + _number(3, vocabulary.add_space_prefix) + _number(4, False) + _number(5, True)
    return b"".join(pieces) + _bytes(2, trainer) + _bytes(3, normalizer)


def _piece_type(text: str, kind: int) -> int:
    """The type of a piece. Text that is not UTF-8 can match nothing, so it is kept out of the way as control."""
    if kind in (TokenType.UNKNOWN, TokenType.CONTROL) or not is_unicode(text):
        return TokenType.CONTROL
    return TokenType.BYTE if BYTE_TOKEN.fullmatch(text) else TokenType.NORMAL


def _piece(text: str, score: float, kind: int) -> bytes:
    body = _bytes(1, text.encode("utf-8", "surrogateescape")) + _varint(2 << 3 | FLOAT) + struct.pack("<f", score)
    return _bytes(1, body + _number(3, kind))


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | BYTES) + _varint(len(data)) + data


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the high bit says that more follow."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
