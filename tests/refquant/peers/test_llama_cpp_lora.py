"""Adapters in llama.cpp: it loads the file that we write, and its logits are those of our forward pass."""

import llama_cpp_lora as lora
import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf, qlora
from refquant.models.backward import DifferentiableModel
from refquant.text.tokenizer import Tokenizer


@pytest.mark.parametrize("name", lora.CASES)
def test_a_random_adapter_of_every_matrix_gives_the_same_logits(peer, tmp_path, name):
    peer("llama_cpp")
    case = lora.CASES[name]
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", **case)) as file:
        found = lora.adapters(file)
        base = lora.write_base(tmp_path / "base.gguf", file, found)
        got, _ = DifferentiableModel(file).run(lora.IDS, qlora.linears(found))
    ref = lora.scores(base, lora.write_adapter(tmp_path / "lora.gguf", case["arch"], found), lora.IDS)
    plain = lora.scores(base, None, lora.IDS)
    np.testing.assert_allclose(got, ref, rtol=0, atol=2e-4)
    assert np.abs(ref - plain).max() > 1


def test_what_tiny_qwen2_learned_is_what_llama_cpp_runs(peer, shared, tmp_path):
    peer("llama_cpp")
    text = shared("text/wikitext2-valid.txt").read_text(encoding="utf-8")[:2000]
    with gguf.open(shared("models/tiny-qwen2-Q4_K_M.gguf")) as file:
        ids = Tokenizer.from_gguf(file).encode(text)[:65]
        model, rng = DifferentiableModel(file), np.random.default_rng(0)
        names = [f"blk.{i}.{part}.weight" for i in range(model.config.n_layer) for part in ("attn_v", "ffn_down")]
        found = {name: qlora.attach(model.weights[name], rng, rank=4) for name in names}
        found, losses = qlora.fine_tune(model, found, [np.array(ids)] * 4, lr=3e-3)
        base = lora.write_base(tmp_path / "base.gguf", file, found)
        got, _ = model.run(ids, qlora.linears(found))
    ref = lora.scores(base, lora.write_adapter(tmp_path / "lora.gguf", "qwen2", found), ids)
    plain = lora.scores(base, None, ids)
    assert losses[-1] < losses[0] - 0.5
    np.testing.assert_allclose(got, ref, rtol=0, atol=5e-3)
    assert np.abs(ref - plain).max() > 1
