"""Calibration text: sequences of token ids of one length, by the model's own tokenizer.

    .txt     the whole text, cut into sequences one after the other
    .jsonl   a line each: {"text": ...}, or {"messages": [{"role", "content"}, ...]} through the chat template; all
             texts follow each other, as in a .txt
    ids      arrays or lists of token ids as they are, longer ones cut

`samples` sequences of `seq_len` tokens are taken, evenly spread over the text; a shorter text gives fewer, and one that
is shorter than a sequence gives one short sequence. No sequence is longer than the context of the model. The
tokenizer's special tokens (BOS) come before each text once.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from refquant.errors import QuantError, RangeError, UnsupportedError
from refquant.pipeline.checkpoint import Checkpoint

MAX_TEXT = 64 << 20


def sequences(
    checkpoint: Checkpoint, source: "str | os.PathLike | Sequence[Sequence[int]]", samples: int, seq_len: int
) -> list[np.ndarray]:
    """At most `samples` arrays of at most `seq_len` ids. Raises RangeError, QuantError (no text, broken lines)."""
    if samples < 1 or seq_len < 1:
        raise RangeError(f"calibration: samples, seq_len = {samples}, {seq_len}, expected at least 1")
    seq_len = min(seq_len, checkpoint.model.n_ctx_train)
    if isinstance(source, str | os.PathLike):
        ids = np.concatenate([np.zeros(0, np.int64), *_encoded(checkpoint, Path(source))])
        if not ids.size:
            raise QuantError(f"{source}: no tokens, expected a text to calibrate with")
        count = max(1, ids.size // seq_len)
        starts = np.linspace(0, count - 1, min(samples, count)).astype(np.int64) * seq_len
        found = [ids[start : start + seq_len] for start in starts]
    else:
        found = [np.asarray(one, np.int64)[:seq_len] for one in source][:samples]
    for one in found:
        if one.ndim != 1 or not one.size or one.min() < 0 or one.max() >= checkpoint.model.n_vocab:
            raise RangeError(f"calibration: ids of shape {one.shape}, expected 0..{checkpoint.model.n_vocab - 1}")
    if not found:
        raise QuantError("calibration: sequences = 0, expected at least one")
    return found


def _encoded(checkpoint: Checkpoint, path: Path) -> Iterator[np.ndarray]:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UnsupportedError("calibration: tokenizers is not installed, expected the extra `chat`") from error
    file = checkpoint.path / "tokenizer.json"
    if "tokenizer.json" in checkpoint.texts:
        tokenizer = Tokenizer.from_str(checkpoint.texts["tokenizer.json"])
    elif file.is_file():
        tokenizer = Tokenizer.from_file(str(file))
    else:
        raise QuantError(f"{checkpoint.path}: tokenizer.json is missing, expected it to read the calibration text with")
    for text, special in _texts(checkpoint, path):
        yield np.array(tokenizer.encode(text, add_special_tokens=special).ids, np.int64)


def _texts(checkpoint: Checkpoint, path: Path) -> Iterator[tuple[str, bool]]:
    """(text, whether special tokens go before it)."""
    try:
        if path.stat().st_size > MAX_TEXT:
            raise QuantError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_TEXT}")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise QuantError(f"{path}: cannot be read as text: {error}") from error
    if path.suffix != ".jsonl":
        yield text, True
        return
    render = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise QuantError(f"{path}: line {number} is no JSON: {error}") from error
        if isinstance(entry, dict) and isinstance(entry.get("text"), str):
            yield entry["text"], True
        elif isinstance(entry, dict) and isinstance(entry.get("messages"), list):
            render = render or _renderer(checkpoint)
            yield render(entry["messages"]), False
        else:
            raise QuantError(f"{path}: line {number}, expected an object with text or messages")


def _renderer(checkpoint: Checkpoint):
    """messages -> text by the model's chat template."""
    from types import SimpleNamespace

    from refquant.pipeline import vocabulary
    from refquant.text.chat_template import ChatTemplate
    from refquant.text.tokenizer import Tokenizer

    entries = vocabulary.of(checkpoint)
    if "tokenizer.chat_template" not in entries:
        raise QuantError(f"{checkpoint.path}: no chat_template, expected one for calibration lines with messages")
    values = {key: value for key, (_, value) in entries.items()}
    file = SimpleNamespace(path=checkpoint.path, metadata=values)
    template = ChatTemplate.from_gguf(file, Tokenizer.from_gguf(file))
    return lambda messages: template.render(messages, add_generation_prompt=False)
