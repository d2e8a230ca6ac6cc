"""Hugging Face tokenizers: byte pairs, made from the tokens and merges that a GGUF file holds.

The regular expression that cuts words apart is that of the model's own tokenizer.json, by the file's name of it.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from conformance import vectors
from conformance.adapters._package import installed
from conformance.protocol import Arrays, Unsupported

NAME = "tokenizers"
NUMBERS = {"qwen2": r"\p{N}", "llama-bpe": r"\p{N}{1,3}"}
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CONTROL, UNKNOWN = 3, 2  # tokenizer.ggml.token_type


def version() -> str:
    """Of the package."""
    return installed("tokenizers")


def run(algorithm: str, op: str, params: Mapping[str, object], inputs: Arrays) -> dict[str, np.ndarray]:
    """encode and decode of byte-pair vocabularies; control tokens are found where they are asked for."""
    if not algorithm.startswith("tokenizer."):
        raise Unsupported(f"{algorithm} {op}")
    version()
    tokenizer, bos = _opened(params["vocabulary"], bool(params.get("parse_special", True)))
    if op == "decode":
        ids = inputs["ids"].tolist()
        if any(not 0 <= i < tokenizer.get_vocab_size() for i in ids):
            raise Unsupported("an id outside of the vocabulary is passed over")
        return {"text": np.frombuffer(tokenizer.decode(ids, skip_special_tokens=False).encode("utf-8"), np.uint8)}
    ids = tokenizer.encode(inputs["text"].tobytes().decode("utf-8"), add_special_tokens=False).ids
    return {"ids": np.array([*([bos] if params["add_special"] and bos is not None else []), *ids], np.int32)}


@lru_cache(maxsize=4)
def _opened(file: str, special: bool):
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

    from refquant import gguf

    with gguf.open(vectors.ROOT / file) as opened:
        facts = {key.removeprefix("tokenizer.ggml."): value for key, value in opened.metadata.items()}
    if facts["model"] != "gpt2":
        raise Unsupported("not byte pairs")
    tokens, merges = facts["tokens"], [tuple(merge.split(" ")) for merge in facts["merges"]]
    tokenizer = Tokenizer(models.BPE(dict(zip(tokens, range(len(tokens)))), merges))
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=facts["pre"] == "gpt-2")
    if facts["pre"] in NUMBERS:
        pattern = Regex(WORDS.replace("NUMBERS", NUMBERS[facts["pre"]]))
        cut = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), cut])
    elif facts["pre"] != "gpt-2":
        raise Unsupported(f"pre-tokenizer {facts['pre']}")
    tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
    if special:
        marks = [t for t, kind in zip(tokens, facts["token_type"]) if kind in (CONTROL, UNKNOWN)]
        tokenizer.add_special_tokens([AddedToken(mark, normalized=False, special=True) for mark in marks])
    return tokenizer, facts["bos_token_id"] if facts.get("add_bos_token", facts["pre"] == "llama-bpe") else None
