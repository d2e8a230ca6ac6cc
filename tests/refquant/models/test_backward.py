"""The backward pass: every pullback and whole models against central differences in float64."""

import numpy as np
import pytest
from tiny_models import write_tiny_model

from refquant import gguf
from refquant.errors import RangeError, ShapeError, UnsupportedError
from refquant.models import Oracle, pullbacks
from refquant.models.backward import DifferentiableModel

IDS = [5, 200, 17, 17, 3, 99, 250, 0]
SMALL = {"n_layer": 2, "n_embd": 16, "n_ff": 24, "n_head": 4, "n_head_kv": 2}
MODELS = {
    "llama": {"arch": "llama"},
    "llama, linear, fused, biases": {
        "arch": "llama", "fused_qkv": True, "biases": True, "rope_scaling": {"type": "linear", "factor": 2.0},
    },
    "qwen2, tied": {"arch": "qwen2", "tied": True},
    "qwen2, half of each head rotates": {"arch": "qwen2", "extra": {"qwen2.rope.dimension_count": ("u32", 2)}},
    "qwen3, values shorter than keys, yarn": {
        "arch": "qwen3", "head_dim": 12, "head_dim_v": 8,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_context_length": 16},
    },
}  # fmt: skip


def slope(function, x: np.ndarray, direction: np.ndarray, step: float = 1e-5) -> float:
    """d function(x + t direction) / dt at 0."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


COS, SIN = (f(rng().standard_normal((5, 3))) for f in (np.cos, np.sin))


@pytest.mark.parametrize("function, shape", [
    (lambda x: pullbacks.linear(x, rng().standard_normal((7, 6))), (5, 6)),
    (lambda x: pullbacks.rms_norm(x, rng().standard_normal(6), 1e-5), (5, 4, 6)),
    (lambda x: pullbacks.silu(x), (5, 6)),
    (lambda x: pullbacks.rotate(x, 1.3 * COS, 1.3 * SIN, "neox"), (5, 2, 8)),
    (lambda x: pullbacks.rotate(x, 1.3 * COS, 1.3 * SIN, "norm"), (5, 2, 8)),
])  # fmt: skip
def test_each_pullback_is_the_derivative(function, shape):
    x, direction = rng().standard_normal((2, *shape))
    y, pull = function(x)
    dy = rng().standard_normal(y.shape)
    ref = slope(lambda x: np.sum(dy * function(x)[0]), x, direction)
    assert np.sum(pull(dy) * direction) == pytest.approx(ref, rel=1e-7)


@pytest.mark.parametrize("which", range(3))
def test_the_pullback_of_attention_is_the_derivative_in_queries_keys_and_values(which):
    r = rng()
    given = [r.standard_normal(shape) for shape in ((5, 6, 4), (5, 2, 4), (5, 2, 3))]
    dy, direction = r.standard_normal((5, 18)), r.standard_normal(given[which].shape)

    def value(x):
        return np.sum(dy * pullbacks.attend(*given[:which], x, *given[which + 1 :], 0.4)[0])

    got = pullbacks.attend(*given, 0.4)[1](dy)[which]
    assert np.sum(got * direction) == pytest.approx(slope(value, given[which], direction), rel=1e-7)


def test_cross_entropy_is_the_mean_surprise_and_its_slope():
    z, direction = rng().standard_normal((2, 4, 9)) * 3
    targets = np.array([0, 8, 3, 3])
    loss, dz = pullbacks.cross_entropy(z, targets)
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    assert loss == pytest.approx(-np.mean(np.log(p[np.arange(4), targets])))
    ref = slope(lambda z: pullbacks.cross_entropy(z, targets)[0], z, direction)
    assert np.sum(dz * direction) == pytest.approx(ref, rel=1e-7)
    assert pullbacks.cross_entropy(1e4 * z, targets)[0] < np.inf


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_of_every_matrix_is_that_of_differences(tmp_path, name):
    path = write_tiny_model(tmp_path / "m.gguf", **SMALL, **MODELS[name])
    with gguf.open(path) as file:
        model, oracle = DifferentiableModel(file, np.float64), Oracle(file, np.float64)
        np.testing.assert_allclose(model.run(IDS)[0], oracle.logits(IDS), rtol=0, atol=1e-12)
        matrices = [f"blk.{i}.{part}.weight" for i in range(2) for part in (
            "attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")]  # fmt: skip
        W = {name: model.weights[name] for name in matrices}
        found = {}

        def linears(W, kept):
            def of(name):
                def product(x):
                    y, pull = pullbacks.linear(x, W[name])
                    return y, lambda dy: (kept.__setitem__(name, dy.T @ x), pull(dy))[1]

                return product

            return {name: of(name) for name in matrices}

        def loss(W):
            return pullbacks.cross_entropy(model.run(IDS[:-1], linears(W, {}))[0], np.array(IDS[1:]))[0]

        logits, pull = model.run(IDS[:-1], linears(W, found))
        dx = pull(pullbacks.cross_entropy(logits, np.array(IDS[1:]))[1])
        assert dx.shape == (7, 16)
        r = rng()
        for matrix in matrices:
            direction = r.standard_normal(W[matrix].shape)
            ref = slope(lambda M: loss({**W, matrix: M}), W[matrix], direction)  # noqa: B023 called at once
            assert np.sum(found[matrix] * direction) == pytest.approx(ref, rel=1e-6, abs=1e-9), matrix


def test_the_gradient_reaches_the_embedded_tokens(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", arch="qwen2", **SMALL)) as file:
        model = DifferentiableModel(file, np.float64)
        dy, direction = rng().standard_normal((8, model.config.n_vocab)), rng().standard_normal((8, 16))
        embedded = model.weights.rows("token_embd.weight", np.array(IDS))
        got = model.run(IDS)[1](dy)

        def value(x):
            model.weights.rows = lambda name, ids: x
            return np.sum(dy * model.run(IDS)[0])

        assert np.sum(got * direction) == pytest.approx(slope(value, embedded, direction), rel=1e-6)


def test_refusals(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "m.gguf", arch="llama", **SMALL)) as file:
        model = DifferentiableModel(file)
        with pytest.raises(ShapeError, match="at least one"):
            model.run([])
        with pytest.raises(RangeError, match="not all integers"):
            model.run([1 << 20])
        with pytest.raises(RangeError, match="not all integers"):
            model.run([0.5])
    experts = write_tiny_model(tmp_path / "e.gguf", arch="llama", experts=4, **SMALL)
    with gguf.open(experts) as file, pytest.raises(UnsupportedError, match="experts"):
        DifferentiableModel(file)
