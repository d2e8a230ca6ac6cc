"""bitsandbytes folders written here load in transformers on the processor and compute what we compute from them."""

import numpy as np
import pytest
from folder_logits import logits, perplexity, read_folder, text_sequences

from refquant import quantize
from refquant.pipeline import oneshot

pytestmark = pytest.mark.filterwarnings("ignore")
LAYOUTS = {"nf4": "bitsandbytes-nf4", "nf4-dq": "bitsandbytes-nf4", "load_in_8bit": "bitsandbytes-int8"}


@pytest.mark.parametrize(
    "model, recipe", [("tiny-llama", "nf4"), ("tiny-qwen2", "nf4-dq"), ("tiny-qwen2", "load_in_8bit")]
)
def test_trained_models_have_our_perplexity(peer, shared, tmp_path, model, recipe):
    torch, transformers = peer("torch"), peer("transformers")
    peer("bitsandbytes"), peer("accelerate")
    source = shared(f"models/{model}")
    tokenizer = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    sequences = text_sequences(tokenizer, shared("text/docs.txt").read_text(encoding="utf-8")[:4000], 2, 96)
    oneshot(source, recipe, None, tmp_path / "q")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "q", dtype=torch.float32).eval()
    for module in theirs.modules():
        if hasattr(module, "compute_dtype"):  # the folder says bfloat16, the model's own, for the products
            module.compute_dtype, module.support_avx512bf16_for_cpu = torch.float32, False
    with torch.no_grad():
        got = perplexity(theirs(torch.tensor(sequences)).logits.float().numpy(), sequences)

    def rounded(layer: str, i: int, X: np.ndarray) -> np.ndarray:
        """LLM.int8 without outliers: a scale for every token, columns with a value of 6 or more apart."""
        outliers = np.abs(X).max(axis=0) >= 6
        inner = quantize(np.where(outliers, 0, X).astype(np.float32), "int8-token@bitsandbytes").dequantize()
        return np.where(outliers, X, inner)

    layers = read_folder(source, tmp_path / "q", LAYOUTS[recipe])
    ref = perplexity(logits(layers, sequences, rounded if recipe == "load_in_8bit" else None), sequences)
    assert got < 500 and len(layers.quantized) == 56
    assert abs(got / ref - 1) < 0.005
