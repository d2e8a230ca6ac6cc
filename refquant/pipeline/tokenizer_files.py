"""The tokenizer of a GGUF file as the files of a Hugging Face folder: vocabulary.py backwards.

    tokenizer.ggml.model = "gpt2"      byte-level BPE: vocabulary, merges, the pre-tokenizer's regular expression
                         = "llama"     BPE with byte fallback; its merges follow from the scores of the pieces: two
                                       pieces whose concatenation is a piece may merge, those of higher score first

tokenizer.json and tokenizer_config.json are what `tokenizers` and transformers read. Of a vocabulary of another kind
there is none: an empty dict, and whoever needs a text tokenized is told so.
Source    transformers, convert_slow_tokenizer.py (generate_merges) and integrations/ggml.py.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from refquant.gguf import GGUFFile
from refquant.gguf.strings import Strings
from refquant.pipeline.vocabulary import PRE, SPECIAL
from refquant.text.token_type import TokenType

_NFC = ("qwen2",)
_IGNORE_MERGES = ("llama-bpe", "tekken")
_KEYS = {"unk": "unknown", "sep": "seperator", "pad": "padding"}


def files(file: GGUFFile) -> dict[str, str]:
    """{name of a file: its text}."""
    metadata = file.metadata
    tokens, types = metadata.get("tokenizer.ggml.tokens"), metadata.get("tokenizer.ggml.token_type")
    model = {"gpt2": _byte_level, "llama": _sentences}.get(str(metadata.get("tokenizer.ggml.model")))
    if model is None or not isinstance(tokens, list | Strings) or types is None or len(types) != len(tokens):
        return {}
    made = model(metadata, tokens, np.asarray(types))
    if made is None:
        return {}
    added = [_added(i, tokens[i], types[i] in (TokenType.CONTROL, TokenType.UNKNOWN)) for i in _added_ids(types)]
    settings = _settings(metadata, tokens, added)
    text = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    text |= {"post_processor": _processor(metadata, tokens)} | made
    return {
        "tokenizer.json": json.dumps(text, ensure_ascii=False),
        "tokenizer_config.json": json.dumps(settings, ensure_ascii=False, indent=1),
    }


def _byte_level(metadata: Mapping[str, Any], tokens: list[str], types: np.ndarray) -> dict[str, Any] | None:
    pre = str(metadata.get("tokenizer.ggml.pre"))
    regex = {name: expression for expression, name in PRE.items()}.get(pre)
    merges = metadata.get("tokenizer.ggml.merges")
    if regex is None or not isinstance(merges, list | Strings):
        return None
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    vocabulary = {tokens[i]: i for i in range(len(tokens)) if types[i] == TokenType.NORMAL}
    model = {"type": "BPE", "unk_token": None, "byte_fallback": False, "ignore_merges": pre in _IGNORE_MERGES}
    return {
        "normalizer": {"type": "NFC"} if pre in _NFC else None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": level | {"use_regex": True},
        "model": model | {"vocab": vocabulary, "merges": [merge.split(" ", 1) for merge in merges]},
    }


def _sentences(metadata: Mapping[str, Any], tokens: list[str], types: np.ndarray) -> dict[str, Any] | None:
    scores = metadata.get("tokenizer.ggml.scores")
    if scores is None or len(scores) != len(tokens):
        return None
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    before = [{"type": "Prepend", "prepend": "\u2581"}] if prefix else []
    after = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    back = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    unknown = [tokens[i] for i in np.flatnonzero(types == TokenType.UNKNOWN)]
    model = {"type": "BPE", "unk_token": unknown[0] if unknown else None, "byte_fallback": True, "fuse_unk": True}
    kept = [i for i in range(len(tokens)) if types[i] != TokenType.UNUSED]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*before, replace]},
        "pre_tokenizer": None,
        "decoder": {"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *after]},
        "model": model | {"vocab": {tokens[i]: i for i in kept}, "merges": _merges(tokens, types, np.asarray(scores))},
    }


def _merges(tokens: list[str], types: np.ndarray, scores: np.ndarray) -> list[list[str]]:
    """Pairs of pieces that make a piece, by falling score of what they make, then by their ids."""
    ids = {tokens[i]: i for i in np.flatnonzero(types == TokenType.NORMAL)}
    found = []
    for text, i in ids.items():
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                found.append((-float(scores[i]), i, left, right))
    return [[tokens[left], tokens[right]] for _, _, left, right in sorted(found)]


def _added_ids(types: np.ndarray) -> list[int]:
    wanted = (TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)
    return [int(i) for i in np.flatnonzero(np.isin(types, wanted))]


def _added(i: int, text: str, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": i, "content": text, "special": special, **flags}


def _settings(metadata: Mapping[str, Any], tokens: list[str], added: list[dict[str, Any]]) -> dict[str, Any]:
    """tokenizer_config.json."""
    table = {str(entry["id"]): {key: value for key, value in entry.items() if key != "id"} for entry in added}
    found: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": table}
    for name in SPECIAL:
        i = metadata.get(f"tokenizer.ggml.{_KEYS.get(name, name)}_token_id")
        if i is not None and 0 <= int(i) < len(tokens):
            found[f"{name}_token"] = tokens[int(i)]
    for name in ("bos", "eos"):
        if f"tokenizer.ggml.add_{name}_token" in metadata:
            found[f"add_{name}_token"] = bool(metadata[f"tokenizer.ggml.add_{name}_token"])
    if "tokenizer.chat_template" in metadata:
        found["chat_template"] = metadata["tokenizer.chat_template"]
    return found


def _processor(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    """The template that puts BOS and EOS around a text."""
    llama = metadata.get("tokenizer.ggml.model") == "llama"  # whose BOS is added unless the file says no
    ids = {}
    for name, default in (("bos", llama), ("eos", False)):
        i = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if i is not None and metadata.get(f"tokenizer.ggml.add_{name}_token", default):
            ids[name] = int(i)
    if not ids:
        return None
    special = {name: {"SpecialToken": {"id": tokens[i], "type_id": 0}} for name, i in ids.items()}

    def around(sequence: str) -> list[dict[str, Any]]:
        middle = {"Sequence": {"id": sequence, "type_id": 0}}
        return [*([special["bos"]] if "bos" in ids else []), middle, *([special["eos"]] if "eos" in ids else [])]

    table = {tokens[i]: {"id": tokens[i], "ids": [i], "tokens": [tokens[i]]} for i in ids.values()}
    single = around("A")
    return {"type": "TemplateProcessing", "single": single, "pair": single + around("B"), "special_tokens": table}
