"""Rotations: orthogonal matrices put between the layers of a model, which change its outliers and not its function.

QuaRot     Q (n_embd, n_embd) turns the residual stream, P (head, head) the values of every head:

               embedding        E Q                          gains g of the norms move into the matrices that read them
               reads  q k gate  W diag(g) Q                  rms_norm(x Q) = rms_norm(x) Q without a gain
                      up
               v                per head  P^T (W diag(g) Q)  bias per head P^T b
               attn_output      Q^T (W P per head)           bias Q^T b
               ffn_down         Q^T W
               output           W diag(g) Q                  of its own from then on, also where it was the embedding

           A model after it is an ordinary file that runs anywhere. Two more rotations act while the model runs, on
           what no weight can absorb: H on the input of ffn_down (weights: ffn_down_online) and on q and k after rope.

Cayley     a step of gradient descent that stays orthogonal (SpinQuant); G = dL/dR:
               A = G R^T - R G^T                        skew;  -A R is the steepest descent in the tangent space
               R' = (I + lr/2 A)^-1 (I - lr/2 A) R

QuIP       incoherence: W' = U W V^T with random U (out, out) and V (in, in); H' = V H V^T; W = U^T W' V
               mu = max|W'| sqrt(out in) / |W'|_F       1 at best, the largest entry no larger than all others
           U and V are randomized Hadamard matrices and are stored as their signs.

Arithmetic float64 for matrices of a model, rounded where they are stored; incoherence in the dtype of W.
Shapes     matrices (out, in); names of weights as in models/tensors.py.
Source     Ashkboos et al. 2024, arXiv:2404.00456, sec. 4; Liu et al. 2024, arXiv:2405.16406, sec. 3.2;
           Chee et al. 2023, arXiv:2307.13304, sec. 4; Tseng et al. 2024, arXiv:2402.04396, sec. 3.
"""

from collections.abc import Mapping

import numpy as np

from refquant import hadamard
from refquant.errors import RangeError, ShapeError, UnsupportedError
from refquant.models.config import ModelConfig

READS = {"attn_norm": ("attn_q", "attn_k", "attn_v"), "ffn_norm": ("ffn_gate", "ffn_up")}


def rotate_model(
    weights: Mapping[str, np.ndarray], config: ModelConfig, Q: np.ndarray, P: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """QuaRot's placement in a dense Llama or Qwen: tensors by name in, the rotated ones out, all float64.

    P, for the values of all heads, may be left out. Raises UnsupportedError for a model with experts, ShapeError,
    RangeError where Q or P is not orthogonal to 1e-9.
    """
    if config.mixture is not None:
        raise UnsupportedError("rotations.rotate_model: config has experts, expected a dense model")
    Q = _orthogonal("Q", Q, config.n_embd)
    P = np.eye(config.head_dim_v) if P is None else _orthogonal("P", P, config.head_dim_v)
    W = {name: np.asarray(w, np.float64) for name, w in weights.items()}
    head = W["token_embd.weight" if config.tied_output else "output.weight"]
    W["output.weight"] = (head * W["output_norm.weight"]) @ Q
    W["token_embd.weight"] = W["token_embd.weight"] @ Q
    W["output_norm.weight"] = np.ones(config.n_embd)
    for blk in (f"blk.{layer}" for layer in range(config.n_layer)):
        for norm, readers in READS.items():
            gain = W[f"{blk}.{norm}.weight"]
            for name in readers:
                W[f"{blk}.{name}.weight"] = (W[f"{blk}.{name}.weight"] * gain) @ Q
            W[f"{blk}.{norm}.weight"] = np.ones(config.n_embd)
        values, out = f"{blk}.attn_v", f"{blk}.attn_output"
        W[f"{values}.weight"] = turn_rows(W[f"{values}.weight"], P)
        W[f"{out}.weight"] = turn_columns(W[f"{out}.weight"], P)
        if f"{values}.bias" in W:
            W[f"{values}.bias"] = turn_rows(W[f"{values}.bias"][:, None], P)[:, 0]
        for name in (out, f"{blk}.ffn_down"):
            W[f"{name}.weight"] = Q.T @ W[f"{name}.weight"]
            if f"{name}.bias" in W:
                W[f"{name}.bias"] = Q.T @ W[f"{name}.bias"]
    return W


def turn_rows(W: np.ndarray, P: np.ndarray) -> np.ndarray:
    """P^T times each block of len(P) rows: what W computes comes out multiplied by P, block by block."""
    return np.einsum("ij,bik->bjk", P, W.reshape(-1, len(P), W.shape[1])).reshape(W.shape)


def turn_columns(W: np.ndarray, P: np.ndarray) -> np.ndarray:
    """Each block of len(P) columns times P: W for inputs that come multiplied by P, block by block."""
    return (W.reshape(len(W), -1, len(P)) @ P).reshape(W.shape)


def ffn_down_online(W: np.ndarray) -> np.ndarray:
    """W Q^T for an input x that is replaced by hadamard.transform(x) = x Q^T: the product stays what it was."""
    return hadamard.transform(np.ascontiguousarray(W))


def cayley_step(R: np.ndarray, gradient: np.ndarray, lr: float) -> np.ndarray:
    """R' (n, n): orthogonal again, the loss lower by lr |A|^2 / 2 to first order. All float64."""
    R = _orthogonal("R", R, len(R))
    if gradient.shape != R.shape or lr < 0:
        raise ShapeError(
            f"rotations.cayley_step: gradient.shape, lr = {gradient.shape}, {lr}, expected {R.shape}, >= 0"
        )
    A = gradient @ R.T - R @ gradient.T
    eye = np.eye(len(R))
    return np.linalg.solve(eye + lr / 2 * A, (eye - lr / 2 * A) @ R)


def incoherent(W: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(W', signs of U (out,), signs of V (in,)) for W (out, in) float32 or float64."""
    if W.ndim != 2:
        raise ShapeError(f"rotations.incoherent: W.shape = {W.shape}, expected (out, in)")
    left, right = (hadamard.signs(n, rng).astype(W.dtype) for n in W.shape)
    turned = hadamard.transform(W * right)
    return np.ascontiguousarray(hadamard.transform(np.ascontiguousarray((turned * left[:, None]).T)).T), left, right


def coherent(W: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The inverse: W from W' and the signs."""
    Q, P = (hadamard.orthogonal(n).astype(W.dtype) for n in W.shape)
    return (Q.T @ W @ P) * left[:, None] * right


def incoherence(W: np.ndarray) -> float:
    """mu of the formula, float64; 1 .. sqrt(out in). A matrix of zeros has 1."""
    norm = float(np.sqrt(np.sum(np.square(W, dtype=np.float64))))
    return float(np.abs(W).max()) * W.size**0.5 / norm if norm else 1.0


def _orthogonal(name: str, Q: np.ndarray, n: int) -> np.ndarray:
    Q = np.asarray(Q, np.float64)
    if Q.shape != (n, n):
        raise ShapeError(f"rotations: {name}.shape = {Q.shape}, expected ({n}, {n})")
    if not np.allclose(Q @ Q.T, np.eye(n), rtol=0, atol=1e-9):
        raise RangeError(f"rotations: {name} {name}^T is not I, expected an orthogonal matrix")
    return Q
