"""llama.cpp's quantizer: what it makes of small models, recorded.

    python tests/llama_quantize.py SNAPSHOTS > tests/refquant/gguf/llama_quantize.json

SNAPSHOTS is the folder tests/snapshots of llama.cpp's sources. Run it from the root of the project under a Python that
has llama-cpp-python, with the root and tests/ on PYTHONPATH. The models are made of seeded bytes, so that the digests
can be compared anywhere.
"""

import ctypes
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ggml_cases
import numpy as np
from model_inventories import inventories

from refquant import gguf
from refquant.gguf.file_types import FILE_TYPES, file_order
from refquant.gguf.formats import FORMATS

ROWS = 4
EVERYWHERE = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
IMATRIX = {"file": "some imatrix.gguf", "dataset": "some text.txt", "chunks": 7}
BYTES_OF = ("dense", "experts", "weighed")  # models whose whole files are compared, not the types alone


def models() -> Iterator[tuple[str, str, dict, int, int, dict]]:
    """(name, architecture, metadata, layers, columns, what else): one for each rule that a published model lacks."""
    grouped = {"attention.head_count": 8, "attention.head_count_kv": 2}
    equal = {"attention.head_count": 8, "attention.head_count_kv": 8}
    yield "dense", "llama", grouped, 16, 256, {}
    yield "weighed", "llama", equal, 8, 256, {"imatrix": True}
    yield "weighed groups", "qwen2", grouped, 16, 256, {"imatrix": True, "tied": True}
    yield "experts", "llama", equal | {"expert_count": 8}, 8, 256, {"experts": 8}
    yield "four experts", "qwen2moe", equal | {"expert_count": 4}, 8, 256, {"experts": 4}
    yield "falcon", "falcon", equal, 16, 256, {}
    yield "70B", "llama", grouped, 80, 256, {}
    yield "narrow", "qwen2", grouped, 8, 96, {"tied": True}
    yield "odd", "llama", equal, 8, 80, {}


def write_model(path: Path, name: str) -> dict[str, np.ndarray] | None:
    """Make a model; returns its importance matrix if it has one."""
    _, arch, facts, layers, n, options = next(model for model in models() if model[0] == name)
    metadata = {"general.architecture": arch, "general.name": name, f"{arch}.block_count": layers}
    metadata |= {f"{arch}.context_length": 64, f"{arch}.embedding_length": n, f"{arch}.feed_forward_length": n}
    metadata |= {f"{arch}.{key}": value for key, value in facts.items()}
    for key in ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon"):
        metadata[f"{arch}.{key}"] = 1e-5
    experts = options.get("experts", 0)
    if experts:
        metadata |= {f"{arch}.expert_used_count": 2, f"{arch}.expert_feed_forward_length": n}
        metadata[f"{arch}.expert_shared_feed_forward_length"] = n
    shapes = {"token_embd.weight": (ROWS, n), "output_norm.weight": (n,), "rope_freqs.weight": (n // 2,)}
    if not options.get("tied"):
        shapes["output.weight"] = (ROWS, n)
    for i in range(layers):
        shapes[f"blk.{i}.attn_norm.weight"] = (n,)
        shapes[f"blk.{i}.attn_q.bias"] = (ROWS,)
        for role in EVERYWHERE:
            stacked = experts and role.startswith("ffn_")
            shapes[f"blk.{i}.{role}{'_exps' if stacked else ''}.weight"] = (*((experts,) if stacked else ()), ROWS, n)
        if experts:
            shapes[f"blk.{i}.ffn_gate_inp.weight"] = (experts, n)
    values = ggml_cases.weights()["bell"].reshape(-1)
    tensors = {}
    for i, (tensor, shape) in enumerate(shapes.items()):
        size = int(np.prod(shape))
        start = i * 977 % (len(values) - size)
        tensors[tensor] = values[start : start + size].reshape(shape), "F32"
    gguf.write(path, metadata, tensors)
    return importances(shapes) if options.get("imatrix") else None


def importances(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """(1, n) for each matrix of a block."""
    squares = ggml_cases.importances()["squares"]
    names = [name for name, shape in shapes.items() if name.startswith("blk.") and len(shape) > 1]
    return {name: squares[None, i : i + shapes[name][-1]] for i, name in enumerate(names)}


def types_digest(types: dict[str, str]) -> str:
    """SHA-256 of {name: type}."""
    return hashlib.sha256(json.dumps(dict(sorted(types.items()))).encode()).hexdigest()


def quantize(source: Path, target: Path, number: int, imatrix: dict[str, np.ndarray] | None = None) -> bool:
    """Run llama_model_quantize; whether it succeeded."""
    import llama_cpp as lib

    params = lib.llama_model_quantize_default_params()
    params.ftype, params.nthread = number, 1
    if imatrix:
        data = (lib.llama_model_imatrix_data * (len(imatrix) + 1))()
        kept = [np.ascontiguousarray(values, np.float32) for values in imatrix.values()]
        for slot, name, values in zip(data, imatrix, kept):
            slot.name, slot.size = name.encode(), values.size
            slot.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = data
        added = [("file", IMATRIX["file"]), ("dataset", IMATRIX["dataset"]), ("entries_count", len(imatrix))]
        added.append(("chunks_count", IMATRIX["chunks"]))
        overrides = (lib.llama_model_kv_override * (len(added) + 1))()
        for slot, (key, value) in zip(overrides, added):
            slot.key = f"quantize.imatrix.{key}".encode()
            if isinstance(value, str):
                slot.tag, slot.value.val_str = lib.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
            else:
                slot.tag, slot.value.val_i64 = lib.LLAMA_KV_OVERRIDE_TYPE_INT, value
        params.kv_overrides = overrides
    return lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) == 0


def record_models() -> dict:
    """{model: {file type: {"types": digest, "file": digest} or None where llama.cpp refuses}}."""
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.gguf"), Path(folder, "out.gguf")
        for name, *_ in models():
            imatrix, found[name] = write_model(source, name), {}
            for file_type in FILE_TYPES.values():
                if not quantize(source, target, file_type.number, imatrix):
                    found[name][file_type.name] = None
                    continue
                with gguf.open(target) as file:
                    entry = {"types": types_digest({t.name: t.type for t in file.tensors.values()})}
                if name in BYTES_OF:
                    entry["file"] = hashlib.sha256(target.read_bytes()).hexdigest()
                found[name][file_type.name] = entry
    return found


def record_snapshots(folder: Path) -> dict:
    """{model: {file type: digest of the types}} from llama.cpp's snapshots."""
    spelled = {name.lower(): name for name in FORMATS}
    found: dict[str, dict] = {}
    for name, _, matrices in inventories():
        found[name], types, file_type = {}, {}, ""
        for line in (*(folder / f"{name}.schema").read_text().splitlines(), "[end] end"):
            if header := re.fullmatch(r"\[(\w+)\] (\w+)", line):
                if types:
                    assert types.keys() == matrices.keys(), (name, file_type)
                    found[name][file_type] = types_digest(types)
                file_type = header[1]
                types = dict.fromkeys(sorted(matrices, key=file_order), spelled.get(header[2].lower()))
            elif line and not line.startswith("#"):
                tensor, _, type = line.rpartition(" ")
                types[tensor] = spelled[type.lower()]
    return found


if __name__ == "__main__":
    json.dump({"models": record_models(), "snapshots": record_snapshots(Path(sys.argv[1]))}, sys.stdout, indent=1)
    sys.stdout.write("\n")
