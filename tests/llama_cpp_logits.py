"""Logits of llama.cpp for tiny random models, kept in golden/llama_cpp_logits.json: tests need no llama.cpp.

    python tests/llama_cpp_logits.py        with llama-cpp-python installed, from the root of the project

Every case is a model that `write_tiny_model(**case)` writes. The models read the same ids at once, with float32 keys
and values and without flash attention; some rows and every fifth column of the scores are kept, to 6 decimals.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent
FIXTURE = TESTS / "golden" / "llama_cpp_logits.json"
IDS = [int(i) for i in np.random.default_rng(0).integers(0, 256, 60)]
ROWS, EVERY = [0, 1, 25, 59], 5
YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 64}
CASES = {
    "llama": {"arch": "llama"},
    "llama, tied, with biases": {"arch": "llama", "tied": True, "biases": True},
    "llama with rope_freqs": {"arch": "llama", "rope_freqs": True, "rope_base": 500000.0},
    "llama with wide heads": {"arch": "llama", "head_dim": 32},
    "llama, linear": {"arch": "llama", "rope_scaling": {"type": "linear", "factor": 4.0}},
    "llama, yarn with attn_factor": {"arch": "llama", "rope_scaling": YARN | {"attn_factor": 0.8}},
    "llama, fused": {"arch": "llama", "fused_qkv": True, "biases": True},
    "qwen2": {"arch": "qwen2", "tied": True},
    "qwen2, yarn": {"arch": "qwen2", "rope_scaling": YARN | {"factor": 8.0, "original_context_length": 32}},
    "qwen3": {"arch": "qwen3", "head_dim": 32, "n_head_kv": 1, "tied": True},
    "llama, experts": {"arch": "llama", "experts": 8, "n_ff": 64},
    "qwen2moe": {"arch": "qwen2moe", "experts": 6, "experts_used": 3},
    "qwen3moe": {"arch": "qwen3moe", "experts": 12, "experts_used": 4, "n_ff": 32, "head_dim": 32, "tied": True},
    "qwen3, yarn": {"arch": "qwen3", "head_dim": 32, "rope_scaling": YARN, "rope_base": 1000000.0},
}


def scores(path: Path) -> list[list[float]]:
    from llama_cpp import Llama

    f32 = 0  # GGML_TYPE_F32
    model = Llama(str(path), n_ctx=256, logits_all=True, type_k=f32, type_v=f32, flash_attn=False, verbose=False)
    model.eval(IDS)
    kept = np.array(model.scores[: len(IDS)], np.float64)[ROWS, ::EVERY]
    return [[round(float(x), 6) for x in row] for row in kept]


def main() -> None:
    sys.path[:0] = [str(TESTS.parent), str(TESTS)]
    from llama_cpp import __version__
    from tiny_models import write_tiny_model

    made = f"tests/llama_cpp_logits.py, llama-cpp-python {__version__}: float32 files and KV cache, no flash attention"
    fixture = {"made_by": made, "ids": IDS, "rows": ROWS, "every": EVERY, "logits": {}}
    with tempfile.TemporaryDirectory() as folder:
        for name, case in CASES.items():
            fixture["logits"][name] = scores(write_tiny_model(Path(folder) / "m.gguf", **case))
    text = json.dumps(fixture).replace('"logits": {', '"logits": {\n').replace("]], ", "]],\n")
    FIXTURE.write_text(text + "\n")


if __name__ == "__main__":
    main()
