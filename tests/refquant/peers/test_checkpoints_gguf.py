"""GGUF files made of Hugging Face folders load in llama.cpp and in the runtime, and all three have one perplexity.

llama.cpp has to be compiled, and continuous integration does without. There transformers reads the files by way of
gguf-py, weights, sizes and the tokenizer.
"""

import numpy as np
import pytest
from folder_logits import perplexity, text_sequences

from refquant import gguf
from refquant.models import Oracle
from refquant.pipeline import oneshot
from runtime.model import Model


@pytest.mark.parametrize("model, recipe", [("tiny-llama", "Q8_0"), ("tiny-qwen2", "Q4_K_M")])
def test_trained_models_have_our_perplexity_in_llama_cpp_and_the_runtime(peer, shared, tmp_path, model, recipe):
    llama_cpp, source, path = peer("llama_cpp"), shared(f"models/{model}"), tmp_path / "q.gguf"
    tokenizer = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    sequences = text_sequences(tokenizer, shared("text/docs.txt").read_text(encoding="utf-8")[:4000], 1, 192)
    ids = [int(i) for i in sequences[0]]
    oneshot(source, recipe, None, path)
    with gguf.open(path) as file:
        ref = perplexity(Oracle(file).logits(ids)[None], sequences)
    theirs = llama_cpp.Llama(str(path), n_ctx=256, logits_all=True, verbose=False, n_threads=1)
    theirs.eval(ids)
    peer_ppl = perplexity(np.array(theirs.scores[: len(ids)])[None], sequences)
    theirs.close()
    with Model.load(path, n_ctx=256, threads=1) as ours:
        runtime_ppl = perplexity(ours.logits(ids)[None], sequences)
    assert peer_ppl < 500
    assert abs(runtime_ppl / peer_ppl - 1) < 0.005
    assert abs(ref / peer_ppl - 1) < 0.02  # both round activations to 8 bits, the oracle none


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model, recipe", [("tiny-llama", "Q8_0"), ("tiny-qwen2", "Q4_K_M")])
def test_trained_models_have_our_perplexity_and_tokens_in_transformers(peer, shared, tmp_path, model, recipe):
    torch, transformers, source = peer("torch"), peer("transformers"), shared(f"models/{model}")
    peer("gguf"), peer("accelerate")
    oneshot(source, recipe, None, tmp_path / "q.gguf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="q.gguf", dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="q.gguf")
    text = shared("text/docs.txt").read_text(encoding="utf-8")[:4000]
    known = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    sequences = text_sequences(known, text, 1, 192)
    assert tokenizer(text)["input_ids"][:192] == sequences[0].tolist()
    with torch.no_grad():
        got = perplexity(theirs(torch.tensor(sequences)).logits.numpy(), sequences)
    with gguf.open(tmp_path / "q.gguf") as file:
        ref = perplexity(Oracle(file).logits([int(i) for i in sequences[0]])[None], sequences)
    assert got < 500 and abs(got / ref - 1) < 1e-4
