"""Vocabularies for tests: those of tests/data/vocab, with any key changed, and tiny ones written out by hand."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np

import refquant.gguf as gguf
from refquant.text import byte_level
from refquant.text.token_type import TokenType
from refquant.text.tokenizer import Tokenizer

FOLDER = Path(__file__).parent / "data" / "vocab"


def opened(name: str, **changes: object) -> SimpleNamespace:
    """A committed file as far as a tokenizer looks at it; `add_bos_token=True` changes a key, None takes it away."""
    with gguf.open(FOLDER / f"{name}.gguf") as file:
        return changed(file.metadata, changes)


def tokenizer(name: str, **changes: object) -> Tokenizer:
    return Tokenizer.from_gguf(opened(name, **changes))


def byte_pairs(merges: list[str], special: dict[str, int] | None = None, **changes: object) -> SimpleNamespace:
    """The 256 bytes, what `merges` make, then special tokens (text -> type), under the pre-tokenizer gpt-2."""
    tokens = [*byte_level.ALPHABET, *("".join(merge.split(" ")) for merge in merges), *(special or {})]
    types = [TokenType.NORMAL] * (256 + len(merges)) + list((special or {}).values())
    base = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": tokens,
        "merges": merges,
        "token_type": np.array(types, np.int32),
    }
    return changed({f"tokenizer.ggml.{key}": value for key, value in base.items()}, changes)


def pieces(scored: dict[str, float], special: dict[str, int] | None = None, **changes: object) -> SimpleNamespace:
    """A SentencePiece vocabulary: <unk> <s> </s>, 256 bytes, pieces with scores, then special tokens (text -> type)."""
    start = {"<unk>": TokenType.UNKNOWN, "<s>": TokenType.CONTROL, "</s>": TokenType.CONTROL}
    start |= {f"<0x{byte:02X}>": TokenType.BYTE for byte in range(256)}
    types = start | dict.fromkeys(scored, TokenType.NORMAL) | (special or {})
    base = {
        "model": "llama",
        "tokens": list(types),
        "token_type": np.array(list(types.values()), np.int32),
        "scores": np.array([scored.get(text, 0.0) for text in types], np.float32),
    }
    return changed({f"tokenizer.ggml.{key}": value for key, value in base.items()}, changes)


def changed(metadata: dict[str, object], changes: dict[str, object]) -> SimpleNamespace:
    keys = {"general_name": "general.name", "chat_template": "tokenizer.chat_template"}
    new = metadata | {keys.get(key, f"tokenizer.ggml.{key}"): value for key, value in changes.items()}
    return SimpleNamespace(path="small.gguf", metadata={key: value for key, value in new.items() if value is not None})
