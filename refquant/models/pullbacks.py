"""The functions of a layer with their derivatives: each returns its value and a pullback.

    y, pull = f(x)          dx = pull(dy),  dx_i = sum_j dy_j dy_j/dx_i          the chain rule from behind

    linear          y = x W^T                            dx = dy W
    rms_norm        y = r x g,  r = (mean x^2 + eps)^-1/2      dx = r u - x r^3 mean(u x),  u = dy g
    silu            y = x s,  s = sigmoid(x)             dx = dy s (1 + x (1 - s))
    rotate          a rotation times mscale              its transpose: the same by the negative angle
    attend          y = P v,  P = softmax(c q k^T)       dv = P^T dy,  dP = dy v^T,  dS = P (dP - sum(dP P)),
                                                         dq = c dS k,  dk = c dS^T q
    cross_entropy   L = -mean log softmax(z)[target]     dz = (softmax(z) - onehot(target)) / tokens

Shapes     as in norm.py, rope.py and attention.py; of grouped heads, dk and dv add up over the query heads of a group.
Arithmetic in the dtype of x; the loss is summed in float64. Weights g, W are constants: no gradient of theirs is made.
"""

from collections.abc import Callable

import numpy as np

from refquant.models import rope
from refquant.models.attention import softmax
from refquant.models.experts import sigmoid

Pullback = Callable[[np.ndarray], np.ndarray]


def linear(x: np.ndarray, W: np.ndarray) -> tuple[np.ndarray, Pullback]:
    """x W^T of x (tokens, in) and a constant W (out, in)."""
    return x @ W.T, lambda dy: dy @ W


def rms_norm(x: np.ndarray, weight: np.ndarray, eps: float) -> tuple[np.ndarray, Pullback]:
    """norm.rms_norm, over the last axis."""
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)

    def pull(dy: np.ndarray) -> np.ndarray:
        u = dy * weight
        return r * u - x * r**3 * np.mean(u * x, axis=-1, keepdims=True)

    return x * r * weight, pull


def silu(x: np.ndarray) -> tuple[np.ndarray, Pullback]:
    """x sigmoid(x)."""
    s = sigmoid(x)
    return x * s, lambda dy: dy * s * (1 + x * (1 - s))


def rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray, style: str) -> tuple[np.ndarray, Pullback]:
    """rope.rotate, mscale within cos and sin. What is beyond rope_dim passes unchanged both ways."""
    return rope.rotate(x, cos, sin, style), lambda dy: rope.rotate(dy, cos, -sin, style)


def attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """attention.attend of a whole sequence; the pullback of (tokens, n_head * head_dim_v) gives (dq, dk, dv)."""
    (tokens, n_head, head_dim), n_head_kv = q.shape, k.shape[1]
    Q = q.reshape(tokens, n_head_kv, -1, head_dim).transpose(1, 2, 0, 3)  # (n_head_kv, n_group, tokens, head_dim)
    K, V = (a.transpose(1, 0, 2)[:, None] for a in (k, v))  # (n_head_kv, 1, tokens, ...)
    future = np.triu(np.ones((tokens, tokens), bool), 1)
    P = softmax(np.where(future, -np.inf, Q @ K.swapaxes(-1, -2) * scale))
    y = (P @ V).transpose(2, 0, 1, 3).reshape(tokens, -1)

    def pull(dy: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        dY = dy.reshape(tokens, n_head_kv, n_head // n_head_kv, -1).transpose(1, 2, 0, 3)
        dP = dY @ V.swapaxes(-1, -2)
        dS = P * (dP - np.sum(dP * P, axis=-1, keepdims=True)) * scale
        dq = (dS @ K).transpose(2, 0, 1, 3).reshape(q.shape)
        dk, dv = (np.sum(M.swapaxes(-1, -2) @ N, axis=1).swapaxes(0, 1) for M, N in ((dS, Q), (P, dY)))
        return dq, dk, dv

    return y, pull


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """(L, dL/dlogits) of logits (tokens, n_vocab) and the ids (tokens,) that should have come."""
    p = softmax(logits)
    rows = np.arange(len(targets))
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted[rows, targets] - np.log(np.sum(np.exp(shifted), axis=-1))
    p[rows, targets] -= 1
    return -float(np.mean(log_p, dtype=np.float64)), p / logits.dtype.type(len(targets))
