"""The tokenizer of a Hugging Face folder as the metadata `tokenizer.*` of GGUF.

    tokenizer.model     SentencePiece, which wins                          tokenizer.ggml.model = "llama"
    tokenizer.json      byte-level BPE                                     tokenizer.ggml.model = "gpt2"
                        BPE with byte fallback, as of Llama 2 without its tokenizer.model: "llama"

Tokens    ids without one are [PADid], UNUSED. An added token is CONTROL if it is special or looks it (<|...|>), else
          USER_DEFINED, with a space for each U+2581. In SentencePiece an added token has score -1000.
Scores    of tokenizer.json, which has none: minus the rank, by the merge that makes the token; see `_scores`.
Pre       the name of the pre-tokenizer is found by its regular expression, not by the hash of a text as llama.cpp does;
          the known ones are in PRE. Another one is refused: guessing would change the ids silently.
Special   bos, eos, unk, sep, pad, cls, mask: `X_token` of tokenizer_config.json, else `X_token_id` of config.json;
          add_X_token by the post-processor (ByteLevel adds none), else by tokenizer_config.json.
Template  tokenizer_config.json's chat_template, else chat_template.jinja, chat_template.json; of a list, each by name.
Source    llama.cpp, convert_hf_to_gguf.py (get_vocab_base, _create_vocab_sentencepiece); gguf-py 0.19 vocab.py.
Differs   byte-level BPE: added tokens are not encoded and decoded again, which changes those with odd normalizers only.
          Scores of a Llama 2 tokenizer.json: llama.cpp gives -1000 to all tokens, so that it merges in another order.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import QuantError, UnsupportedError
from refquant.pipeline import work
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.json_file import read_json
from refquant.text.token_type import TokenType

SPECIAL = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}  # "seperator" is how GGUF spells it
ADDED_SCORE, PAD_SCORE = -1000.0, -10000.0
Entries = dict[str, tuple[str, Any]]

_SPACES = r"\s+(?!\S)|\s+"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|" + _SPACES
_WORD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|" + _SPACES
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|" + _SPACES
)
PRE = {
    f"{_WORD}|\\p{{N}}|{_TAIL}": "qwen2",
    f"{_WORD}|\\p{{N}}{{1,3}}|{_TAIL}": "llama-bpe",
    _TEKKEN: "tekken",
    _GPT2: "gpt-2",
}


COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def copy_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Put the files of the tokenizer into another folder."""
    for name in COPIED:
        if checkpoint.path.is_dir() and (checkpoint.path / name).is_file():
            shutil.copyfile(checkpoint.path / name, folder / name)
    for name, text in checkpoint.texts.items():
        work.put(folder / name, text)


def of(checkpoint: Checkpoint) -> Entries:
    """Of an open model: what the folder gives, or a GGUF file has. Raises as `metadata` does."""
    if checkpoint.vocabulary is not None:
        return dict(checkpoint.vocabulary)
    return metadata(checkpoint.path, checkpoint.config, checkpoint.model.n_vocab)


def metadata(path: Path, config: Mapping[str, Any], n_vocab: int) -> Entries:
    """{key: (type, value)}. Raises QuantError (files missing or broken), UnsupportedError (another tokenizer)."""
    tokenizer = read_json(path / "tokenizer.json") if (path / "tokenizer.json").is_file() else None
    settings = read_json(path / "tokenizer_config.json") if (path / "tokenizer_config.json").is_file() else {}
    if (path / "tokenizer.model").is_file():
        entries = _sentencepiece(path, settings, n_vocab)
    elif tokenizer is not None:
        entries = _byte_pairs(path / "tokenizer.json", tokenizer, n_vocab)
    else:
        raise QuantError(f"{path}: neither tokenizer.json nor tokenizer.model, expected one of them, or --no-vocab")
    entries |= _special(tokenizer or {}, settings, config, n_vocab)
    return entries | _template(path, settings)


def looks_special(text: str) -> bool:
    """Whether a token is one of control by its looks, whatever the file says: <|x|>, <pad>, <mask> and their like."""
    return text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]") or bool(re.fullmatch(r"<\|.*\|>|<｜.*｜>", text))


def _sentencepiece(path: Path, settings: Mapping[str, Any], n_vocab: int) -> Entries:
    """tokens, scores and types of tokenizer.model, changed by the added tokens."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise UnsupportedError("tokenizer.model: sentencepiece is not installed, expected the extra `chat`") from error
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto((path / "tokenizer.model").read_bytes())
    except (OSError, RuntimeError) as error:
        raise QuantError(f"{path / 'tokenizer.model'}: is no SentencePiece model: {str(error)[:120]}") from error
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    scores = np.full(n_vocab, PAD_SCORE, np.float32)
    types = np.full(n_vocab, TokenType.UNUSED, np.int32)
    for i in range(min(n_vocab, model.GetPieceSize())):
        tokens[i], scores[i], types[i] = model.IdToPiece(i), model.GetScore(i), TokenType.NORMAL
        for is_one, kind in (
            (model.IsByte, TokenType.BYTE), (model.IsUnused, TokenType.UNUSED),
            (model.IsControl, TokenType.CONTROL), (model.IsUnknown, TokenType.UNKNOWN),
        ):  # fmt: skip
            if is_one(i):
                types[i] = kind
    old = read_json(path / "added_tokens.json") if (path / "added_tokens.json").is_file() else {}
    for text, i in old.items():
        if type(i) is int and 0 <= i < n_vocab:
            tokens[i], scores[i], types[i] = text, ADDED_SCORE, TokenType.USER_DEFINED
    for i, text, special in _added(settings):
        if 0 <= i < n_vocab:
            tokens[i], types[i] = _typed(text, special)
            scores[i] = ADDED_SCORE
    return _entries("llama", "default", tokens, types) | {"tokenizer.ggml.scores": ("arr[f32]", scores)}


def _byte_pairs(path: Path, tokenizer: Mapping[str, Any], n_vocab: int) -> Entries:
    """tokens, types and merges of tokenizer.json."""
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocab, dict) or model.get("type", "BPE") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedError(f"{path}: model.type = {str(kind)[:40]!r}, expected BPE")
    tokens = [f"[PAD{i}]" for i in range(n_vocab)]
    types = np.full(n_vocab, TokenType.UNUSED, np.int32)
    for text, i in vocab.items():
        if type(i) is not int or not 0 <= i < n_vocab:
            raise QuantError(f"{path}: id of {text[:40]!r} = {str(i)[:40]}, expected 0..{n_vocab - 1}")
        tokens[i], types[i] = text, TokenType.NORMAL
    merges = [merge if isinstance(merge, str) else _merge(path, merge) for merge in model.get("merges", [])]
    for entry in tokenizer.get("added_tokens") or []:
        i = entry.get("id")
        if type(i) is int and 0 <= i < n_vocab:
            tokens[i], types[i] = _typed(str(entry.get("content")), entry.get("special") is True)
    if model.get("byte_fallback"):
        for i, text in enumerate(tokens):
            if re.fullmatch("<0x[0-9A-F]{2}>", text):
                types[i] = TokenType.BYTE
            elif text == model.get("unk_token"):
                types[i] = TokenType.CONTROL
        scores = _scores(tokens, merges, types)
        return _entries("llama", "default", tokens, types) | {"tokenizer.ggml.scores": ("arr[f32]", scores)}
    if not merges:
        raise QuantError(f"{path}: model.merges is empty, expected the merges of a byte-level BPE")
    return _entries("gpt2", _pre(path, tokenizer), tokens, types) | {"tokenizer.ggml.merges": ("arr[str]", merges)}


def _entries(model: str, pre: str, tokens: list[str], types: np.ndarray) -> Entries:
    return {
        "tokenizer.ggml.model": ("str", model),
        "tokenizer.ggml.pre": ("str", pre),
        "tokenizer.ggml.tokens": ("arr[str]", tokens),
        "tokenizer.ggml.token_type": ("arr[i32]", types),
    }


def _scores(tokens: list[str], merges: list[str], types: np.ndarray) -> np.ndarray:
    """SentencePiece merges the pair whose result has the highest score: minus the rank of the first merge to it."""
    rank: dict[str, int] = {}
    for i, merge in enumerate(merges):
        rank.setdefault(merge.replace(" ", "", 1), i)
    scores = [-float(rank.get(text, len(merges) + i)) for i, text in enumerate(tokens)]
    return np.where(types == TokenType.NORMAL, np.array(scores, np.float32), np.float32(0))


def _merge(path: Path, merge: object) -> str:
    """The pair of newer files as "left right"; a space inside is U+0120, as in the byte-level alphabet."""
    if not isinstance(merge, list) or len(merge) != 2 or not all(isinstance(part, str) for part in merge):
        raise QuantError(f"{path}: a merge is {str(merge)[:60]}, expected two strings")
    return " ".join(part.replace(" ", "\u0120") for part in merge)


def _added(settings: Mapping[str, Any]) -> list[tuple[int, str, bool]]:
    """(id, text, special) of added_tokens_decoder."""
    found = []
    table = settings.get("added_tokens_decoder")
    for key, entry in (table if isinstance(table, dict) else {}).items():
        if str(key).isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str):
            found.append((int(key), entry["content"], entry.get("special") is True))
    return found


def _typed(text: str, special: bool) -> tuple[str, int]:
    if special or looks_special(text):
        return text, TokenType.CONTROL
    return text.replace("\u2581", " "), TokenType.USER_DEFINED


def _pre(path: Path, tokenizer: Mapping[str, Any]) -> str:
    """The name of the pre-tokenizer by its regular expression."""
    pre = tokenizer.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre])
    patterns = [(p.get("pattern") or {}).get("Regex") for p in parts if p.get("type") == "Split"]
    if not patterns and any(p.get("type") == "ByteLevel" and p.get("use_regex", True) for p in parts):
        patterns = [_GPT2]
    if len(patterns) == 1 and patterns[0] in PRE:
        return PRE[patterns[0]]
    shown = str(patterns[0] if patterns else pre)[:120]
    known = ", ".join(PRE.values())
    raise UnsupportedError(f"{path}: pre_tokenizer = {shown!r}, expected that of {known}")


def _special(tokenizer: Mapping[str, Any], settings: Mapping[str, Any], config: Mapping[str, Any], n: int) -> Entries:
    """Ids of special tokens, and whether they are added to every text."""
    ids_by_text: dict[str, int] = {}
    for entry in tokenizer.get("added_tokens") or []:
        ids_by_text.setdefault(str(entry.get("content")), entry.get("id"))
    ids, added = {}, _template_adds(tokenizer, settings)
    for name in SPECIAL:
        text = _content(settings, name)
        candidates = [ids_by_text.get(text) if isinstance(text, str) else None, config.get(f"{name}_token_id")]
        found = next((i for i in candidates if type(i) is int and 0 <= i < n), None)
        if found is not None:
            ids[f"tokenizer.ggml.{KEYS.get(name, name)}_token_id"] = "u32", found
        if isinstance(settings.get(f"add_{name}_token"), bool):
            added.setdefault(name, settings[f"add_{name}_token"])
    kept = {f"tokenizer.ggml.add_{n}_token": ("bool", v) for n, v in added.items() if n in ("bos", "eos", "sep")}
    return ids | kept


def _template_adds(tokenizer: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, bool]:
    """What the post-processor's template puts before and after a text."""
    added: dict[str, bool] = {}
    processor = tokenizer.get("post_processor") or {}
    for part in processor.get("processors", [processor]):
        single = part.get("single") or []
        if part.get("type") == "ByteLevel":
            added = {"bos": False, "eos": False} | added
        if part.get("type") != "TemplateProcessing":
            continue
        for name, item in (("bos", single[0]), ("eos", single[-1])) if len(single) > 1 else ():
            text = (item.get("SpecialToken") or {}).get("id")
            if text:
                added[name] = text == _content(settings, name)
        between = _between(part.get("pair") or [])
        if between:
            ends = (_content(settings, "sep"), _content(settings, "eos"))
            added["sep"] = (between[0] in ends and not added.get("eos")) or (len(between) == 2 and between[1] in ends)
    return added


def _between(pair: list[dict[str, Any]]) -> list[str]:
    """The special tokens that a template puts between the sequences A and B."""
    names = [(item.get("Sequence") or {}).get("id") or (item.get("SpecialToken") or {}).get("id") for item in pair]
    return names[names.index("A") + 1 : names.index("B")] if "A" in names and "B" in names else []


def _content(settings: Mapping[str, Any], name: str) -> str | None:
    """The text of a special token."""
    text = settings.get(f"{name}_token")
    return text.get("content") if isinstance(text, dict) else text


def _template(path: Path, settings: Mapping[str, Any]) -> Entries:
    template = settings.get("chat_template")
    if template is None and (path / "chat_template.jinja").is_file():
        template = (path / "chat_template.jinja").read_text(encoding="utf-8")
    if template is None and (path / "chat_template.json").is_file():
        template = read_json(path / "chat_template.json").get("chat_template")
    if isinstance(template, str):
        return {"tokenizer.chat_template": ("str", template)}
    named = template if isinstance(template, list) else []
    found: Entries = {}
    for entry in named:
        if isinstance(entry, dict) and isinstance(entry.get("template"), str):
            name = re.sub(r"[^a-z0-9_]", "_", str(entry.get("name", "default")).lower())
            key = "tokenizer.chat_template" if name == "default" else f"tokenizer.chat_template.{name}"
            found[key] = "str", entry["template"]
    return found
