"""What llama.cpp's converter makes of tiny random folders, kept in golden/llama_cpp_converter.json.

    python tests/llama_cpp_converter.py LLAMA_CPP      with torch, transformers, sentencepiece; LLAMA_CPP: its sources

Every case is a folder that `write_folder(path, name)` writes: the same bytes each time. The converter knows a
pre-tokenizer by the hash of the ids of a text, which a vocabulary of 300 tokens cannot have; it is told the name. Kept
are type, shape and SHA-256 of each tensor, and every value of the metadata, of arrays length and SHA-256.
"""

import contextlib
import hashlib
import importlib
import json
import runpy
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import numpy as np

TESTS = Path(__file__).resolve().parent
FIXTURE = TESTS / "golden" / "llama_cpp_converter.json"
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CASES = {  # name of the folder: (kind, tokenizer, file type, changes of config.json)
    "tiny-llama-pieces": ("llama", "SentencePiece", "F16", {"shards": 2}),
    "tiny-llama-bytes": ("llama", "llama-bpe", "BF16", {"rope_scaling": LLAMA3, "head_dim": 16}),
    "tiny-mistral": ("mistral", "byte fallback", "F32", {"dtype": "BF16"}),
    "tiny-mixtral": ("mixtral", "SentencePiece", "BF16", {}),
    "tiny-qwen2": ("qwen2", "qwen2", "Q8_0", {"tied": True, "rope_scaling": YARN}),
    "tiny-qwen3": ("qwen3", "qwen2", "BF16", {"dtype": "BF16", "tied": True}),
    "tiny-qwen2-moe": ("qwen2_moe", "qwen2", "F16", {"dtype": "F16"}),
    "tiny-qwen3-moe": ("qwen3_moe", "qwen2", "BF16", {}),
}
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1}


def write_folder(path: Path, name: str) -> Path:
    """The folder path/name."""
    from tiny_checkpoints import write_tiny_checkpoint, write_tokenizer

    kind, tokenizer, _, changes = CASES[name]
    folder = path / name
    folder.mkdir()
    changes = dict(changes)
    if tokenizer == "llama-bpe":
        changes["vocab_size"] = write_tokenizer(folder, "qwen2")
    write_tiny_checkpoint(folder, kind, **changes)
    if tokenizer == "llama-bpe":
        write_tokenizer(folder, "qwen2")
        _llama_3(folder)
    elif tokenizer == "SentencePiece":
        _sentence_piece(folder)
    elif kind == "qwen3":
        (folder / "generation_config.json").write_text(json.dumps(SAMPLING))
    return folder


def _llama_3(folder: Path) -> None:
    """Digits by three, and a first token before every text."""
    path = folder / "tokenizer.json"
    tokenizer, settings = json.loads(path.read_text()), json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
        r"|\s+(?!\S)|\s+"
    )
    first = "<|endoftext|>"
    number = next(a["id"] for a in tokenizer["added_tokens"] if a["content"] == first)
    begin, a, b = {"SpecialToken": {"id": first, "type_id": 0}}, *({"Sequence": {"id": n, "type_id": 0}} for n in "AB")
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, a],
        "pair": [begin, a, begin, b],
        "special_tokens": {first: {"id": first, "ids": [number], "tokens": [first]}},
    }
    path.write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"bos_token": first}))


def _sentence_piece(folder: Path) -> None:
    """tokenizer.model with the pieces of tokenizer.json in its place: protobuf, fields 1 of ModelProto."""
    import tiny_models

    made = tiny_models.spm_tokenizer()
    keys = ("tokens", "scores", "token_type")
    pieces = b""
    for text, score, kind in zip(*(made[f"tokenizer.ggml.{key}"][1] for key in keys)):
        numbers = struct.pack("<BfBB", 0x15, score, 0x18, kind)
        piece = b"\x0a" + bytes([len(text.encode())]) + text.encode() + numbers
        pieces += b"\x0a" + bytes([len(piece)]) + piece
    trainer = b"\x18\x02\x98\x02\x01"  # model_type BPE, byte_fallback
    (folder / "tokenizer.model").write_bytes(pieces + b"\x12" + bytes([len(trainer)]) + trainer)
    (folder / "tokenizer.json").unlink()


def described(path: Path) -> dict[str, dict]:
    """Tensors and metadata of a GGUF file, large ones by their digests."""
    from refquant import gguf

    with gguf.open(path) as file:
        tensors = {n: [t.type, list(t.shape), _digest(t.data)] for n, t in file.tensors.items()}
        metadata = {key: [file.types[key], _shown(value)] for key, value in file.metadata.items()}
    return {"tensors": tensors, "metadata": metadata}


def _shown(value: object) -> object:
    value = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
    if isinstance(value, list | np.ndarray):
        return {"length": len(value), "sha256": _digest(value)}
    return value


def _digest(value: list[str] | np.ndarray) -> str:
    data = json.dumps(value).encode() if isinstance(value, list) else np.ascontiguousarray(value).tobytes()
    return hashlib.sha256(data).hexdigest()


def converted(sources: Path, folder: Path, path: Path, file_type: str, pre: str) -> None:
    """Run the converter in this process."""
    base = importlib.import_module("conversion.base")
    arguments = ["convert", str(folder), "--outfile", str(path), "--outtype", file_type.lower()]
    known = mock.patch.object(base.TextModel, "get_vocab_base_pre", lambda self, tokenizer: pre)
    with mock.patch.object(sys, "argv", arguments), known, contextlib.suppress(SystemExit):
        runpy.run_path(str(sources / "convert_hf_to_gguf.py"), run_name="__main__")


def main() -> None:
    sources = Path(sys.argv[1]).resolve()
    sys.path[:0] = [str(sources / "gguf-py"), str(sources), str(TESTS.parent), str(TESTS)]
    fixture = {"made_by": "tests/llama_cpp_converter.py, convert_hf_to_gguf.py of llama-cpp-python 0.3.36", "cases": {}}
    with tempfile.TemporaryDirectory() as made:
        for name, (_, tokenizer, file_type, _) in CASES.items():
            path = Path(made) / f"{name}.gguf"
            converted(sources, write_folder(Path(made), name), path, file_type, tokenizer)
            fixture["cases"][name] = described(path)
    text = json.dumps(fixture, ensure_ascii=False)
    FIXTURE.write_text(text.replace('"tiny-', '\n"tiny-').replace("], ", "],\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
