"""The orderings that papers promise, on real weights and the inputs that they really get.

Layers of the bundled model, calibrated on the project's own pages. `make quality` measures the same on layers of both
test models, and `python -m benchmarks.quality --check` asserts the orderings of whole models on its results.
"""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import layer_claims
from benchmarks.quality.layer_claims import CLAIMS, Layer
from refquant import gguf
from refquant.models import Oracle
from refquant.text import Tokenizer

ROOT = Path(__file__).parents[2]
BUNDLED = ROOT / "runtime" / "bundled" / "tiny-chat-Q8_0.gguf"
BLOCK, TOKENS, WINDOW = 2, 1536, 256
ROWS = 96  # of each matrix: what is compared does not depend on how many there are
SMALL = {"attn_k.weight": "qkv", "attn_output.weight": "o", "ffn_up.weight": "up"}


class Captured(Exception):
    """The inputs that were wanted have been seen."""


@pytest.fixture(scope="module")
def bundled() -> list[Layer]:
    """Layers of one block of the bundled model."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in SMALL}
    with gguf.open(BUNDLED) as file:
        text = (ROOT / "README.md").read_text(encoding="utf-8") + (ROOT / "docs" / "divergences.md").read_text("utf-8")
        ids = Tokenizer.from_gguf(file).encode(text, add_special=False)[:TOKENS]
        oracle = Oracle(file)

        def tap(name: str, X: np.ndarray) -> None:
            block, _, matrix = name.removeprefix("blk.").partition(".")
            if block == str(BLOCK) and matrix in seen:
                seen[matrix].append(X.copy())
            if block == str(BLOCK + 1):
                raise Captured

        for start in range(0, len(ids), WINDOW):
            with pytest.raises(Captured):
                oracle.logits(ids[start : start + WINDOW], tap=tap)
        layers = []
        for matrix, parts in seen.items():
            tensor = file.tensors[f"blk.{BLOCK}.{matrix}"]
            W, X = gguf.dequantize(tensor.data[:ROWS], tensor.type), np.concatenate(parts)
            layers.append(Layer(matrix, W, X, (X @ W.T).reshape(len(X), -1, 32)))
    return layers


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: f"{claim.less} < {claim.more}")
def test_less_is_less_on_layers_of_the_bundled_model(claim, bundled):
    ratios = layer_claims.ratios(claim, bundled)
    assert ratios.size
    assert np.exp(np.log(ratios).mean()) < 1, ratios
