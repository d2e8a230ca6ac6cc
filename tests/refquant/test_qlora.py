"""QLoRA: gradients against differences, losses that fall, and a file that holds what was learned for llama.cpp."""

import json

import numpy as np
import pytest
from llama_cpp_lora import CASES, FIXTURE, adapters
from tiny_models import write_tiny_model

import refquant
from refquant import gguf, qlora
from refquant.errors import RangeError, ShapeError
from refquant.models import Oracle
from refquant.models.backward import DifferentiableModel
from refquant.models.pullbacks import cross_entropy
from refquant.text.tokenizer import Tokenizer


def layer() -> tuple[np.ndarray, np.ndarray, qlora.Adapter]:
    rng = np.random.default_rng(0)
    W, x = rng.standard_normal((24, 64)).astype(np.float32), rng.standard_normal((80, 64)).astype(np.float32)
    return W, x, qlora.attach(W, rng, rank=4)


def test_training_starts_at_the_quantized_layer():
    W, x, adapter = layer()
    assert adapter.base.shape == W.shape
    base = refquant.quantize(W, "nf4-dq").dequantize()
    np.testing.assert_array_equal(adapter.base.dequantize(), base)
    np.testing.assert_array_equal(qlora.forward(adapter, x), x @ base.T)
    assert np.abs(adapter.A).max() <= 1 / 8
    assert adapter.A.std() > 0.05


def test_the_gradients_are_those_of_differences():
    _, x, adapter = layer()
    rng = np.random.default_rng(1)
    adapter = qlora.replace(adapter, B=rng.standard_normal(adapter.B.shape).astype(np.float32))
    dy = rng.standard_normal((80, 24)).astype(np.float32)
    dx, dA, dB = qlora.backward(adapter, x, dy)
    base = adapter.base.dequantize().astype(np.float64)

    def loss(x, A, B):
        return np.sum(dy * (x @ base.T + 4.0 * (x @ A.T) @ B.T))

    at = {"x": x, "A": adapter.A, "B": adapter.B}
    at = {name: value.astype(np.float64) for name, value in at.items()}
    for name, gradient, index in (("x", dx, (3, 5)), ("A", dA, (2, 7)), ("B", dB, (20, 1))):
        ends = []
        for sign in (1, -1):
            moved = {key: value.copy() for key, value in at.items()}
            moved[name][index] += sign * 1e-4
            ends.append(loss(**moved))
        assert gradient[index] == pytest.approx((ends[0] - ends[1]) / 2e-4, rel=1e-4), name


def test_the_loss_falls_and_undoes_part_of_the_rounding():
    W, x, adapter = layer()
    trained, losses = qlora.fit(adapter, x, x @ W.T, steps=60)
    assert losses[-1] < 0.75 * losses[0]
    assert len(losses) == 61
    assert np.mean(np.square(x @ (W - trained.merged()).T)) == pytest.approx(losses[-1], rel=1e-3)
    np.testing.assert_array_equal(trained.base.codes, adapter.base.codes)
    assert not adapter.B.any()


def test_a_layer_of_a_model_learns_a_task_and_the_model_changes_with_it(tmp_path):
    path = write_tiny_model(tmp_path / "m.gguf", arch="qwen2")
    ids, seen = [5, 9, 200, 31, 77, 5, 9, 120], {}
    with gguf.open(path) as file:
        oracle = Oracle(file)
        first = oracle.logits(ids, tap=lambda name, x: seen.update({name: x}) or None)
        X, W = seen["output.weight"], file.tensors["output.weight"].data
    assert first.shape == (8, len(W))
    wanted = np.full_like(first, -1)
    wanted[np.arange(7), ids[1:]] = 5  # the next token of the text
    trained, losses = qlora.fit(qlora.attach(W, np.random.default_rng(2), rank=4), X[:7], wanted[:7], steps=150)
    assert losses[-1] < 0.5 * losses[0]
    scores = qlora.forward(trained, X[:7])
    before, after = (s[np.arange(7), ids[1:]].mean() - s.mean() for s in (first[:7], scores))
    assert after > before + 1


def test_the_gradients_through_a_whole_model_are_those_of_differences(tmp_path):
    rng, ids = np.random.default_rng(5), np.array([5, 9, 200, 31, 77, 5, 9, 120])
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", arch="qwen2", n_layer=2)) as file:
        model = DifferentiableModel(file, np.float64)
        found = {
            name: qlora.replace(a, A=a.A.astype(np.float64), B=a.B.astype(np.float64))
            for name, a in adapters(file).items()
        }

        def loss(found):
            return cross_entropy(model.run(ids[:-1], qlora.linears(found))[0], ids[1:])[0]

        gradients = {}
        logits, pull = model.run(ids[:-1], qlora.linears(found, gradients))
        pull(cross_entropy(logits, ids[1:])[1])
        assert gradients.keys() == found.keys()
        for name, adapter in found.items():
            for part, gradient in zip("AB", gradients[name]):
                direction = rng.standard_normal(gradient.shape)
                ends = [
                    loss({**found, name: qlora.replace(adapter, **{part: getattr(adapter, part) + t * direction})})
                    for t in (1e-5, -1e-5)
                ]
                ref = (ends[0] - ends[1]) / 2e-5
                assert np.sum(gradient * direction) == pytest.approx(ref, rel=1e-5, abs=1e-8), (name, part)


def test_fine_tuning_a_model_teaches_it_the_text(shared):
    text = shared("text/wikitext2-valid.txt").read_text(encoding="utf-8")[:4000]
    with gguf.open(shared("models/tiny-qwen2-Q4_K_M.gguf")) as file:
        ids = Tokenizer.from_gguf(file).encode(text)
        sequences = [np.array(ids[start : start + 81]) for start in (0, 80, 160)]
        model, rng = DifferentiableModel(file), np.random.default_rng(0)
        names = [f"blk.{i}.attn_{part}.weight" for i in range(model.config.n_layer) for part in "qv"]
        fresh = {name: qlora.attach(model.weights[name], rng, rank=8) for name in names}
        trained, losses = qlora.fine_tune(model, fresh, sequences * 3, lr=3e-3)
    assert np.mean(losses[6:]) < np.mean(losses[:3]) - 0.3
    for name, adapter in trained.items():
        np.testing.assert_array_equal(adapter.base.codes, fresh[name].base.codes)
        assert str(adapter.base.scheme) == "nf4-dq"
        assert adapter.B.any() and not fresh[name].B.any()


@pytest.mark.parametrize("name", CASES)
def test_a_model_with_adapters_has_the_logits_of_llama_cpp(tmp_path, name):
    fixture = json.loads(FIXTURE.read_text())
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", **CASES[name])) as file:
        found = adapters(file)
        logits, _ = DifferentiableModel(file).run(fixture["ids"], qlora.linears(found))
        bases = {name: qlora.replace(adapter, alpha=0.0) for name, adapter in found.items()}
        without, _ = DifferentiableModel(file).run(fixture["ids"], qlora.linears(bases))
    got = logits[fixture["rows"], :: fixture["every"]]
    np.testing.assert_allclose(got, fixture["logits"][name], rtol=0, atol=2e-4)
    assert np.abs(logits - without).max() > 1


def test_the_adapter_file_reads_back(tmp_path):
    W, x, adapter = layer()
    trained, _ = qlora.fit(adapter, x, x @ W.T, steps=3)
    metadata, types = qlora.adapter_metadata("qwen2", trained.alpha)
    gguf.write(tmp_path / "a.gguf", metadata, qlora.adapter_tensors({"blk.0.attn_q.weight": trained}), types=types)
    with gguf.open(tmp_path / "a.gguf") as file:
        assert file.metadata["adapter.lora.alpha"] == 16
        assert file.types["adapter.lora.alpha"] == "f32"
        A, B = (file.tensors[f"blk.0.attn_q.weight.lora_{part}"] for part in "ab")
        assert (A.shape, B.shape) == ((4, 64), (24, 4))
        np.testing.assert_array_equal(B.data, trained.B)


def test_refusals():
    W, x, adapter = layer()
    with pytest.raises(RangeError, match="rank = 25"):
        qlora.attach(W, np.random.default_rng(0), rank=25)
    with pytest.raises(ShapeError, match="tokens, 64"):
        qlora.forward(adapter, x[:, 1:])
    with pytest.raises(ShapeError, match="tokens, 24"):
        qlora.backward(adapter, x, x)
    with pytest.raises(ShapeError, match="token_embd"):
        qlora.adapter_tensors({"token_embd.weight": adapter})
    with pytest.raises(RangeError, match="lr"):
        qlora.fit(adapter, x, x @ W.T, lr=0)
    with pytest.raises(RangeError, match="fine_tune: lr"):
        qlora.fine_tune(None, {}, [], lr=0)
