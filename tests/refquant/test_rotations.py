"""Rotations: a turned model computes what it computed before, and what is turned is easier to round."""

import numpy as np
import pytest
from tiny_models import write_tiny_model

import refquant
from refquant import gguf, hadamard, rotations
from refquant.errors import RangeError, ShapeError, UnsupportedError
from refquant.models import Oracle

IDS = [5, 17, 300, 42, 8, 271]


def rotated_copy(source, target, Q, P, online=False):
    """The model of `source` with QuaRot's rotations, in float32."""
    with gguf.open(source) as file:
        oracle = Oracle(file)
        weights = {name: gguf.dequantize(t.data, t.type).reshape(t.shape) for name, t in file.tensors.items()}
        turned = rotations.rotate_model(weights, oracle.config, Q, P)
        if online:
            for name in [n for n in turned if n.endswith("ffn_down.weight")]:
                turned[name] = rotations.ffn_down_online(turned[name])
        tensors = {name: (w.astype(np.float32), "F32") for name, w in turned.items()}
        gguf.write(target, file.metadata, tensors, types=file.types)
    return target


@pytest.mark.parametrize("arch, tied", [("llama", False), ("qwen2", True), ("qwen3", False)])
def test_a_rotated_model_gives_the_same_logits(tmp_path, arch, tied):
    source = write_tiny_model(tmp_path / "a.gguf", arch=arch, tied=tied)
    rng = np.random.default_rng(0)
    Q, P = hadamard.orthogonal(64, rng), hadamard.orthogonal(16, rng)
    target = rotated_copy(source, tmp_path / "b.gguf", Q, P)
    with gguf.open(source) as one, gguf.open(target) as two:
        ref, got = (Oracle(f, np.float64).logits(IDS) for f in (one, two))
        np.testing.assert_allclose(got, ref, atol=2e-5 * np.abs(ref).max())
        before, after = (f.tensors["blk.1.attn_v.weight"].data for f in (one, two))
        assert np.abs(before - after).max() > 0.1


def test_the_rotation_of_ffn_down_while_the_model_runs_cancels(tmp_path):
    source = write_tiny_model(tmp_path / "a.gguf", arch="llama", n_ff=96)
    target = rotated_copy(source, tmp_path / "b.gguf", np.eye(64), None, online=True)
    with gguf.open(source) as one, gguf.open(target) as two:
        ref = Oracle(one, np.float64).logits(IDS)
        turn = lambda name, x: hadamard.transform(x) if "ffn_down" in name else None
        got = Oracle(two, np.float64).logits(IDS, tap=turn)
        np.testing.assert_allclose(got, ref, atol=2e-5 * np.abs(ref).max())
        assert np.abs(Oracle(two, np.float64).logits(IDS) - ref).max() > 0.1


def test_rotated_queries_and_keys_give_the_same_scores():
    q, k = np.random.default_rng(1).standard_normal((2, 7, 32))
    np.testing.assert_allclose(hadamard.transform(q) @ hadamard.transform(k).T, q @ k.T, atol=1e-12)


def test_rotating_outliers_away_divides_the_error_of_int4_activations_by_five():
    rng = np.random.default_rng(2)
    X = rng.standard_normal((64, 128)).astype(np.float32)
    X[:, 9] *= 50
    X[:, 77] *= 30

    def error(x):
        return np.mean(np.square(x - refquant.quantize(x, "int4-token").dequantize()))

    assert error(hadamard.transform(X)) < 0.2 * error(X)


def test_cayley_steps_stay_orthogonal_and_descend_on_a_real_objective():
    """The fourth powers of rotated outliers: least where all coordinates are alike."""
    X = np.random.default_rng(3).standard_normal((200, 16))
    X[:, 3] *= 8
    loss = lambda R: np.mean((X @ R) ** 4)
    gradient = lambda R: 4 * X.T @ (X @ R) ** 3 / X.size
    R = np.eye(16)
    first = loss(R)
    for _ in range(200):
        R = rotations.cayley_step(R, gradient(R), 0.002)
    np.testing.assert_allclose(R @ R.T, np.eye(16), atol=1e-10)
    assert loss(R) < 0.3 * first


def test_a_small_cayley_step_falls_as_fast_as_promised():
    rng = np.random.default_rng(4)
    X, target = rng.standard_normal((50, 8)), rng.standard_normal((50, 8))
    loss = lambda R: np.sum((X @ R - target) ** 2)
    R = hadamard.orthogonal(8, rng)
    G = 2 * X.T @ (X @ R - target)
    A = G @ R.T - R @ G.T
    fall = loss(R) - loss(rotations.cayley_step(R, G, 1e-8))
    assert fall == pytest.approx(1e-8 * np.sum(A * A) / 2, rel=1e-3)
    np.testing.assert_array_equal(rotations.cayley_step(R, G, 0.0), R)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_incoherence_is_undone_and_evens_out(dtype):
    rng = np.random.default_rng(5)
    W = rng.standard_normal((24, 64)).astype(dtype)
    W[3, 5] = 40
    turned, left, right = rotations.incoherent(W, rng)
    assert turned.dtype == dtype
    U, V = left * hadamard.orthogonal(24), right * hadamard.orthogonal(64)  # H diag(s), the signs on the columns
    np.testing.assert_allclose(turned, U @ W @ V.T, atol=1e-4)
    tolerance = 1e-4 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(rotations.coherent(turned, left, right), W, atol=tolerance)
    X = rng.standard_normal((100, 64))
    H = X.T @ X
    e = rng.standard_normal((24, 64))
    proxy = np.trace((U @ e @ V.T) @ (V @ H @ V.T) @ (U @ e @ V.T).T)
    assert proxy == pytest.approx(np.trace(e @ H @ e.T))
    assert rotations.incoherence(turned) < 0.3 * rotations.incoherence(W)
    assert rotations.incoherence(hadamard.matrix(8)) == pytest.approx(1)
    assert rotations.incoherence(np.zeros((2, 2))) == 1


def test_refusals(tmp_path):
    with gguf.open(write_tiny_model(tmp_path / "a.gguf")) as file:
        config = Oracle(file).config
        with pytest.raises(RangeError, match="orthogonal"):
            rotations.rotate_model({}, config, np.ones((64, 64)))
        with pytest.raises(ShapeError, match=r"Q\.shape"):
            rotations.rotate_model({}, config, np.eye(32))
    with gguf.open(write_tiny_model(tmp_path / "e.gguf", arch="qwen3moe", experts=4)) as file:
        config = Oracle(file).config
    with pytest.raises(UnsupportedError, match="experts"):
        rotations.rotate_model({}, config, np.eye(64))
    with pytest.raises(ShapeError, match="gradient"):
        rotations.cayley_step(np.eye(3), np.eye(4), 0.1)
    with pytest.raises(ShapeError, match="out, in"):
        rotations.incoherent(np.ones(4), np.random.default_rng(0))
