"""Logits of llama.cpp for tiny random models with a random adapter, kept in golden/llama_cpp_lora.json.

    python tests/llama_cpp_lora.py        with llama-cpp-python installed, from the root of the project

As llama_cpp_logits.py; `adapters(file, seed)` makes the adapters of a case anew, so that the golden file holds scores
only. `write_base` and `scores` serve the comparison with an installed llama.cpp, too.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent
FIXTURE = TESTS / "golden" / "llama_cpp_lora.json"
IDS = [int(i) for i in np.random.default_rng(1).integers(0, 256, 24)]
ROWS, EVERY = [0, 9, 23], 7
CASES = {
    "llama": {"arch": "llama"},
    "qwen2, tied": {"arch": "qwen2", "tied": True},
    "qwen3": {"arch": "qwen3", "head_dim": 32},
}


def adapters(file, seed: int = 0) -> dict:
    """One of rank 4 for every matrix of the layers, A and B random and far from nothing."""
    from refquant import qlora
    from refquant.models import ModelConfig, model_tensors
    from refquant.models.tensors import linears

    config, rng = ModelConfig.from_metadata(file), np.random.default_rng(seed)
    tensors, found = model_tensors(file, config), {}
    for name in (f"{name}.weight" for layer in range(config.n_layer) for name in linears(config, layer)):
        adapter = qlora.attach(np.array(tensors[name].data), rng, rank=4, alpha=6.0, scheme="nf4-b32-dq")
        B = (rng.standard_normal(adapter.B.shape) * 0.2).astype(np.float32)
        found[name] = qlora.replace(adapter, B=B)
    return found


def write_base(path: Path, file, found: dict) -> Path:
    """The model in float32, its adapted matrices as the adapters' bases decode."""
    from refquant import gguf

    tensors = {name: (gguf.dequantize(t.data, t.type).reshape(t.shape), "F32") for name, t in file.tensors.items()}
    tensors |= {name: (adapter.base.dequantize(), "F32") for name, adapter in found.items()}
    gguf.write(path, file.metadata, tensors, types=file.types)
    return path


def write_adapter(path: Path, arch: str, found: dict) -> Path:
    """The adapters as a file for llama.cpp."""
    from refquant import gguf, qlora

    metadata, types = qlora.adapter_metadata(arch, next(iter(found.values())).alpha)
    gguf.write(path, metadata, qlora.adapter_tensors(found), types=types)
    return path


def scores(base: Path, adapter: Path | None, ids: list[int]) -> np.ndarray:
    """Logits of llama.cpp, float32 (tokens, n_vocab): float32 keys and values, no flash attention."""
    from llama_cpp import Llama

    model = Llama(
        str(base),
        lora_path=None if adapter is None else str(adapter),
        n_ctx=256,
        logits_all=True,
        type_k=0,
        type_v=0,
        flash_attn=False,
        verbose=False,
    )
    model.eval(ids)
    return np.array(model.scores[: len(ids)], np.float32)


def main() -> None:
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    from llama_cpp import __version__
    from tiny_models import write_tiny_model

    from refquant import gguf

    made = f"tests/llama_cpp_lora.py, llama-cpp-python {__version__}: float32 base and KV cache, no flash attention"
    fixture = {"made_by": made, "ids": IDS, "rows": ROWS, "every": EVERY, "logits": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            with gguf.open(write_tiny_model(Path(folder) / "m.gguf", **case)) as file:
                found = adapters(file)
                base = write_base(Path(folder) / "base.gguf", file, found)
            got = scores(base, write_adapter(Path(folder) / "lora.gguf", case["arch"], found), IDS)[ROWS, ::EVERY]
            fixture["logits"][name] = [[round(float(x), 6) for x in row] for row in got]
    FIXTURE.write_text(json.dumps(fixture).replace('"logits": {', '"logits": {\n').replace("]], ", "]],\n") + "\n")


if __name__ == "__main__":
    main()
