"""Mixture of experts: many feed-forward blocks in a layer, of which every token passes through a few.

    p    = softmax(Wr h)                      Wr (n_expert, n_embd), the router
    S    = the n_used experts of largest p    of equal ones the lower number first
    w_e  = p_e / sum of p over S              llama (Mixtral) and qwen3moe; qwen2moe takes w_e = p_e
    y    = sum over S of w_e * expert_e(h)    in order of falling p
    expert_e(h) = Wdown_e (silu(Wgate_e h) * Wup_e h)

qwen2moe adds a shared expert that every token passes through, weighed by a gate of its own:

    y    = y + sigmoid(g . h) * Wdown (silu(Wgate h) * Wup h)

Shapes   scores Wr h (tokens, n_expert); h (tokens, n_embd).
Source   Jiang et al. 2024, Mixtral of Experts, arXiv:2401.04088, sec. 2.1; llama.cpp, src/llama-graph.cpp
         build_moe_ffn and src/models/qwen2moe.cpp.
Differs  llama.cpp keeps the sum over S above 6.1e-5, as it is anyway: at least 1 / n_expert, of at most 1024 experts.
         It does not say which of equal experts comes first.
"""

from collections.abc import Callable

import numpy as np

from refquant.models.attention import softmax


def route(scores: np.ndarray, n_used: int, normalized: bool) -> tuple[np.ndarray, np.ndarray]:
    """The experts of every token and their weights, by falling weight: both (tokens, n_used), integers and floats."""
    p = softmax(scores)
    chosen = np.argsort(-p, axis=-1, kind="stable")[:, :n_used]
    weights = np.take_along_axis(p, chosen, axis=-1)
    return chosen, weights / weights.sum(axis=-1, keepdims=True) if normalized else weights


def mixture(
    h: np.ndarray,
    scores: np.ndarray,
    n_used: int,
    normalized: bool,
    expert: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """The weighed sum y (tokens, n_embd). `expert(e, x)` is expert e on the rows of h that chose it, and called for
    those experts only that some token chose."""
    chosen, weights = route(scores, n_used, normalized)
    results = np.empty((*chosen.shape, h.shape[-1]), h.dtype)  # (tokens, n_used, n_embd)
    for e in np.unique(chosen):
        tokens, places = np.nonzero(chosen == e)
        results[tokens, places] = expert(int(e), h[tokens])
    y = weights[:, 0, None] * results[:, 0]
    for place in range(1, n_used):
        y = y + weights[:, place, None] * results[:, place]
    return y


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)); where exp(-x) overflows it is 0, its limit."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
