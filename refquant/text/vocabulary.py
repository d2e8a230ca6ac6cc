"""The vocabulary of a GGUF file: the keys `tokenizer.ggml.*`, read and checked before anything is built from them.

    tokens[i]  its text: as pieces with U+2581 for a space (model "llama"), or in the byte-level alphabet ("gpt2")
    types[i]   what it is for, a TokenType;  scores[i]  which pairs merge first ("llama");  merges  the same ("gpt2")

Wrong types, lengths or numbers are GGUFErrors that name the key. What has a sound default is a line in `warnings`
instead: an id outside the vocabulary, a missing pre-tokenizer.

Defaults  model "llama": bos 1, eos 2, unknown 0, add_space_prefix and add_bos true. Model "gpt2": no space prefix,
          add_bos as the pre-tokenizer says. llama.cpp takes bos = eos = 11 there when the file names none; here there
          is none then: 11 is a comma in most vocabularies, and would end every answer.
Limits    4,194,304 tokens of at most 65,536 characters.
Source    llama_vocab::impl::load, src/llama-vocab.cpp of llama.cpp.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from refquant.gguf.container import GGUFFile
from refquant.gguf.strings import Strings
from refquant.text import end_of_generation, pretokenizers
from refquant.text.fields import Fields
from refquant.text.string_table import StringTable
from refquant.text.token_type import TokenType

MAX_TOKENS = 1 << 22
MAX_TOKEN_LENGTH = 1 << 16
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")
UNSUPPORTED_MODELS = {"t5": "unigram", "bert": "WordPiece", "rwkv": "RWKV", "plamo2": "PLaMo-2", "gemma4": "Gemma 4"}


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """What one file says of its tokens, checked."""

    path: str | Path  # for messages
    model: str  # "llama" or "gpt2"
    pre: str  # a name of pretokenizers.PRETOKENIZERS; "default" and without meaning for "llama"
    tokens: Strings  # unique, not empty
    types: list[int]
    scores: np.ndarray  # (n,) float32, zeros if the file has none
    merges: Strings  # "left right", the first merges first
    ids: dict[str, int | None]  # the keys of end_of_generation.ROLES
    eog: frozenset[int]  # tokens that end an answer
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    name: str  # general.name
    index: StringTable = field(repr=False)  # text -> id
    warnings: tuple[str, ...] = ()


def read(gguf: GGUFFile) -> Vocabulary:
    """The vocabulary of an open file. Raises GGUFError."""
    fields = Fields(gguf.path, gguf.metadata)
    model = fields.text("model")
    if model not in ("llama", "gpt2"):
        kind = UNSUPPORTED_MODELS.get(model, "unknown")
        raise fields.error("model", f"{model[:64]!r} ({kind})", '"llama" (SentencePiece) or "gpt2" (byte-level BPE)')
    warnings: list[str] = []
    tokens, index = _tokens(fields)
    types = _types(fields, tokens)
    pre, add_bos = _pre_tokenizer(fields, model, warnings)
    ids, types, eog = end_of_generation.resolve(_special_ids(fields, model, len(tokens), warnings), index, types)
    add_bos = fields.flag("add_bos_token", add_bos)
    add_eos = fields.flag("add_eos_token", False)
    for role, wanted in (("bos", add_bos), ("eos", add_eos)):
        if wanted and ids[role] is None:
            warnings.append(f"tokenizer.ggml.{role}_token_id is missing, so that no {role} token is added")
    return Vocabulary(
        path=gguf.path,
        model=model,
        pre=pre,
        tokens=tokens,
        types=types,
        scores=_scores(fields, model, len(tokens), warnings),
        merges=_merges(fields, model),
        ids=ids,
        eog=eog,
        add_bos=add_bos and ids["bos"] is not None,
        add_eos=add_eos and ids["eos"] is not None,
        add_space_prefix=fields.flag("add_space_prefix", model == "llama"),
        name=str(gguf.metadata.get("general.name", "")),
        index=index,
        warnings=tuple(warnings),
    )


def _tokens(fields: Fields) -> tuple[Strings, StringTable]:
    """(texts, text -> id). An empty text becomes `[EMPTY_i]`, as llama.cpp spells it."""
    tokens = fields.texts("tokens")
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise fields.error("tokens", f"{len(tokens)} tokens", f"1..{MAX_TOKENS}")
    lengths = np.diff(tokens.cuts.astype(np.int64))
    if not lengths.all():
        tokens = Strings.of(text or f"[EMPTY_{i}]" for i, text in enumerate(tokens))
    if lengths.max() <= MAX_TOKEN_LENGTH:
        index = StringTable(tokens)
        if len(index) == len(tokens):
            return tokens, index
    seen: dict[str, int] = {}  # something is wrong: find the first
    for i, text in enumerate(tokens):
        if len(text) > MAX_TOKEN_LENGTH:
            raise fields.error(f"tokens[{i}]", f"{len(text)} characters", f"at most {MAX_TOKEN_LENGTH}")
        if seen.setdefault(text, i) != i:
            raise fields.error(f"tokens[{i}]", f"{text[:64]!r}, which token {seen[text]} is too", "distinct tokens")
    return tokens, StringTable(tokens)


def _types(fields: Fields, tokens: Strings) -> list[int]:
    """One TokenType a token, all NORMAL where the file has none; BYTE only for `<0x00>` .. `<0xFF>`."""
    values = fields.numbers("token_type", ("int32",), len(tokens))
    if values is None:
        return [TokenType.NORMAL] * len(tokens)
    values = values[: len(tokens)]
    for i in np.flatnonzero((values < 0) | (values >= TokenType.BYTE)).tolist():
        if values[i] != TokenType.BYTE:
            raise fields.error(f"token_type[{i}]", values[i], "0..6")
        if not BYTE_TOKEN.fullmatch(tokens[i]):
            raise fields.error(f"tokens[{i}]", repr(tokens[i][:64]), "<0x00> .. <0xFF> for a token of type byte")
    return values.tolist()


def _scores(fields: Fields, model: str, count: int, warnings: list[str]) -> np.ndarray:
    """float32 (count,). NaN is refused: it has no place in an order."""
    values = fields.numbers("scores", ("float32", "int32"), count)
    if values is None:
        if model == "llama":
            warnings.append("tokenizer.ggml.scores is missing, so that every pair of pieces merges from the left")
        return np.zeros(count, np.float32)
    scores = values[:count].astype(np.float32)
    if np.isnan(scores).any():
        raise fields.error(f"scores[{int(np.isnan(scores).argmax())}]", "nan", "a number")
    return scores


def _merges(fields: Fields, model: str) -> Strings:
    return fields.texts("merges") if model == "gpt2" else Strings.of([])


def _pre_tokenizer(fields: Fields, model: str, warnings: list[str]) -> tuple[str, bool]:
    """(name, whether a BOS is added unless the file says otherwise)."""
    if model == "llama":
        return "default", True
    pre = fields.text("pre", "")
    if not pre:
        warnings.append("tokenizer.ggml.pre is missing: text is cut as by 'default', which the model may not know")
        pre = "default"
    return pre, pretokenizers.lookup(pre, str(fields.path)).add_bos


def _special_ids(fields: Fields, model: str, count: int, warnings: list[str]) -> dict[str, int | None]:
    """Role -> id or None. An id outside the vocabulary counts as absent and leaves a warning."""
    defaults = {"bos": 1, "eos": 2, "unknown": 0} if model == "llama" else {}
    ids: dict[str, int | None] = {}
    for role, keys in end_of_generation.ROLES.items():
        default = defaults.get(role)
        ids[role] = default if default is not None and default < count else None
        for key in keys:
            value = fields.whole(key)
            if value is not None and 0 <= value < count:
                ids[role] = value
            elif value is not None:
                warnings.append(f"tokenizer.ggml.{key} = {value} is ignored: the vocabulary has {count} tokens")
    return ids
