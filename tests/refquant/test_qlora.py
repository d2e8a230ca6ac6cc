"""QLoRA: gradients against differences, a loss that falls, and a file that holds what was learned."""

import numpy as np
import pytest
from tiny_models import write_tiny_model

import refquant
from refquant import gguf, qlora
from refquant.errors import RangeError, ShapeError
from refquant.models import Oracle


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
