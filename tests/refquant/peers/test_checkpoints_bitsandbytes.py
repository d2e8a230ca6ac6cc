"""bitsandbytes folders written here load in transformers on the processor and compute what we compute from them; those
that transformers saves open here with the weights that bitsandbytes decodes."""

import numpy as np
import pytest
from folder_logits import logits, perplexity, read_folder, text_sequences
from tiny_checkpoints import write_tiny_checkpoint

from refquant import quantize
from refquant.pipeline import oneshot, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
LAYOUTS = {"nf4": "bitsandbytes-nf4", "nf4-dq": "bitsandbytes-nf4", "load_in_4bit": "bitsandbytes-fp4"}
LAYOUTS |= {"load_in_8bit": "bitsandbytes-int8"}


@pytest.mark.parametrize(
    "model, recipe",
    [("tiny-llama", "nf4"), ("tiny-llama", "load_in_4bit"), ("tiny-qwen2", "nf4-dq"), ("tiny-qwen2", "load_in_8bit")],
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


@pytest.mark.parametrize("double", [False, True])
def test_folders_that_transformers_saves_open_with_the_weights_of_bitsandbytes(peer, tmp_path, double):
    torch, transformers, bnb = peer("torch"), peer("transformers"), peer("bitsandbytes")
    peer("accelerate")
    source = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256)
    said = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double
    )
    load = transformers.AutoModelForCausalLM.from_pretrained
    theirs = load(source, dtype=torch.float32, device_map="cpu", quantization_config=said)
    theirs.save_pretrained(tmp_path / "saved")
    got, seen = open_checkpoint(tmp_path / "saved"), 0
    for name, module in theirs.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            ref = bnb.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            np.testing.assert_allclose(got.weight(f"{name}.weight"), ref.numpy(), rtol=0, atol=1e-6)
            seen += 1
    assert seen == 14
