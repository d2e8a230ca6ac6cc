"""Whole models: ids to logits, of small random ones and of the bundled one."""

from collections.abc import Iterator

import numpy as np

from conformance.cases import Case

NOTES = {
    "Logits": {
        "kind": "ordinary",
        "description": (
            "Scores after each of some tokens, against float64 with exact weights. Engines that round activations to"
            " 8 bits before each matrix are 1 to 3 % away. After several tokens, pairs that turn the other way and"
            " attention scores of twice the size are 20 to 100 % away, frequencies that are a tenth too high 3 to 44 %."
        ),
        "effect": "The model says something else.",
    },
    "BadId": {
        "kind": "refusal",
        "description": "An id outside of the vocabulary.",
        "effect": "A row past the end of the embedding is read.",
    },
}
FILES = {"llama": "models/llama.gguf", "qwen2": "models/qwen2.gguf", "qwen3": "models/qwen3.gguf"}
BUNDLED = "../../../runtime/bundled/tiny-chat-Q8_0.gguf"
PROMPT = [8190, 872, 198, 3838, 374, 1350, 30, 8191]


def cases() -> Iterator[Case]:
    """Logits at every position, for every fourth id of the small vocabularies and every 128th of the bundled one."""
    ids = np.random.default_rng(0).integers(0, 256, 24).astype(np.int32)
    words = {"logits": ("relative", 0.03)}
    for member, file in FILES.items():
        for count in (1, 24):
            name, params, given = f"{count}-tokens", {"model": file, "every": 4}, {"ids": ids[:count]}
            yield Case(f"model.{member}", "logits", name, "logits", given, params, ("Logits",), words=words)
        bad = {"ids": np.array([1, 1 << 20], np.int32)}
        yield Case(f"model.{member}", "refuse", "beyond", "logits", bad, params, ("BadId",), "invalid")
    given, params = {"ids": np.array(PROMPT, np.int32)}, {"model": BUNDLED, "every": 128}
    yield Case("model.bundled", "logits", "prompt", "logits", given, params, ("Logits",), words=words)
