"""GPTQ and AWQ folders written here load in gptqmodel on the processor and compute what we compute from them.

gptqmodel needs a compiler and minutes to build its kernels when it is first loaded, and its torch kernels multiply in
float16: continuous integration does not install it, and these tests run where it is.
"""

import pytest
from folder_logits import logits, perplexity, read_folder, text_sequences

from refquant.pipeline import oneshot

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPES = {
    "gptq": {"scheme": "int4-g128", "layout": "gptq"},
    "awq-gemm": {"scheme": "uint4-g128", "layout": "awq-gemm"},
}


@pytest.mark.parametrize("layout", RECIPES)
def test_trained_models_have_our_perplexity(peer, shared, tmp_path, layout):
    gptqmodel, torch, source = peer("gptqmodel"), peer("torch"), shared("models/tiny-qwen2")
    tokenizer = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    sequences = text_sequences(tokenizer, shared("text/docs.txt").read_text(encoding="utf-8")[:4000], 2, 96)
    oneshot(source, RECIPES[layout], None, tmp_path / "q")
    options = {"backend": gptqmodel.BACKEND.TORCH, "device": "cpu", "dtype": torch.float16}
    theirs = gptqmodel.GPTQModel.load(str(tmp_path / "q"), **options)
    with torch.no_grad():
        got = perplexity(theirs.model(torch.tensor(sequences)).logits.float().numpy(), sequences)
    layers = read_folder(source, tmp_path / "q", layout)
    ref = perplexity(logits(layers, sequences), sequences)
    assert got < 500 and len(layers.quantized) == 56
    assert abs(got / ref - 1) < 0.005
