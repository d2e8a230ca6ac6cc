"""Byte-level byte-pair vocabularies (`tokenizer.ggml.model` "gpt2"): text -> ids through the package `tokenizers`.

    text -> words (pretokenizers.py) -> UTF-8 bytes -> characters (byte_level.py) -> merges, lowest rank first -> ids

The package gets words and merges only: no normalizer, no special tokens (special_tokens.py has cut those out), nothing
added around the text. Control and unknown tokens are kept from it altogether, and so are the merges that would form
one, so that no text somebody typed becomes a control token.

Merges   "left right", split at the first space after the first character; of two equal ones the first counts. A merge
         that names a token the vocabulary has not got, or that would make one, is a GGUFError.
Missing  A byte that is no token of the vocabulary disappears from the text, as in llama.cpp; `warnings` says so.
Source   llm_tokenizer_bpe in src/llama-vocab.cpp of llama.cpp.
"""

from typing import TYPE_CHECKING

from refquant.errors import GGUFError, UnsupportedError
from refquant.text.byte_level import ALPHABET
from refquant.text.pretokenizers import PreTokenizer, lookup
from refquant.text.token_type import MARKERS
from refquant.text.unicode_text import is_unicode
from refquant.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import Sequence as PreTokenizerSequence


class BytePairs:
    """`encode` for one vocabulary. Raises UnsupportedError without the package, GGUFError for wrong merges."""

    def __init__(self, vocabulary: Vocabulary):
        try:
            from tokenizers import Tokenizer
            from tokenizers.models import BPE
        except ImportError as error:
            raise UnsupportedError(
                "text.bpe: tokenizers is not installed, expected `pip install 'refquant[chat]'`"
            ) from error
        pre = lookup(vocabulary.pre, str(vocabulary.path))
        ids = visible_tokens(vocabulary)
        merges = checked_merges(vocabulary, ids)
        # Bytes that are no tokens get ids behind the vocabulary, to be dropped after merging: their neighbours must not
        # merge across the gap.
        absent = [character for character in ALPHABET if character not in ids]
        ids |= {character: len(vocabulary.tokens) + i for i, character in enumerate(absent)}
        self._end = len(vocabulary.tokens) if absent else None
        self.warnings: tuple[str, ...] = ()
        if absent:
            self.warnings = (f"{len(absent)} of 256 bytes have no token: they are left out of text",)
        self._tokenizer = Tokenizer(BPE(ids, merges, ignore_merges=pre.ignore_merges))
        self._tokenizer.pre_tokenizer = _splitter(pre)

    def encode(self, text: str) -> list[int]:
        """Ids of one run of plain text."""
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids if self._end is None else [i for i in ids if i < self._end]


def visible_tokens(vocabulary: Vocabulary) -> dict[str, int]:
    """text -> id of the tokens that text can become."""
    return {
        text: i
        for i, (text, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind not in MARKERS and is_unicode(text)
    }


def checked_merges(vocabulary: Vocabulary, visible: dict[str, int]) -> list[tuple[str, str]]:
    """The merges between visible tokens, in order, each once. Raises GGUFError for one that names no token."""
    merges: list[tuple[str, str]] = []
    for rank, merge in enumerate(vocabulary.merges):
        space = merge.find(" ", 1)
        left, right = merge[:space], merge[space + 1 :]
        if left in visible and right in visible and left + right in visible:
            merges.append((left, right))
        elif space < 0 or not {left, right, left + right} <= vocabulary.index.keys():
            raise GGUFError(
                f"{vocabulary.path}: tokenizer.ggml.merges[{rank}] = {merge[:64]!r}, expected two tokens of the "
                f"vocabulary with a space between them, which make a third"
            )
    return list(dict.fromkeys(merges))


def _splitter(pre: PreTokenizer) -> "PreTokenizerSequence":
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Sequence, Split

    splits = [Split(Regex(pattern), "isolated") for pattern in pre.patterns]
    return Sequence([*splits, ByteLevel(add_prefix_space=False, use_regex=False)])
