"""AWQ: multiply the input channels that matter before rounding, and divide the inputs by as much.

    W x = (W s) (x / s)        W (out, in), s (in,): column j of W times s_j; only Q(W s) is rounded

    x_j = mean over tokens of |x_j|                        w_j = mean over rows of |W_ij| / (group max + epsilon)
    s   = clip(x^r, low, high)                             or, "duo":  clip(x^r / (w^(1-r) + added), low, high)
    s  /= sqrt(max s * min s)                              inf and NaN become 1
    loss(r) = mean (f(X, W) - f(X, Q(W s) / s))^2          the r with the least loss wins, the first of equals

    clip: for each group, the factor p = 1, .95, ... .55 with the least  mean (X_g (W_g - Q(clip(W_g, -+p max|W_g|))))^2

    dialect          r                    duo    epsilon  added  low, high    clip    source
    (none)           0, .05 ... 1         no     -        1e-4   1e-4, -      yes     the paper; r = 0 is plain rounding
    llm-awq          0, .05 ... .95       no     -        -      1e-4, -      yes     mit-han-lab auto_scale.py
    autoawq          0, .05 ... .95       yes    1e-6     1e-4   1e-4, -      yes     AutoAWQ 0.2.9 quantizer.py
    llm-compressor   0 without duo, then  yes    1e-6     1e-4   1e-4, -      no      llm-compressor 0.14 awq/base.py
                     i/18, i = 0 ... 18
    modelopt         0, .1 ... 1          yes    2^-126   2^-126 1e-4, 1e4    no      modelopt awq_lite

Duo       at r = 0 it divides by w and is not plain rounding: such a search can lose against none. llm-compressor tries
          r = 0 without it, too.
f         X W^T of all the layers that share the input; or what the caller hands in, a whole attention or MLP.
Clip      the tokens are thinned to every (tokens // 512)-th. Each group is judged by its own part of the output. The
          authors leave queries and keys unclipped: their product is too sensitive.
Shapes    W (out, in), X (tokens, in), s (in,), bound: (out, in), the limit that each weight is clipped to.
Arithmetic means and losses sum in float64, the rest is float32. The authors' float16 sums may choose a neighbouring r.
Result    quantize: the codes of W s and extras["channel_scale"] = s (compensated.py).
Source    Lin et al. 2023, arXiv:2306.00978, sec. 3.2 and eq. 5; the files named.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from refquant import groups
from refquant.compensated import CompensatedTensor, compensate
from refquant.errors import SchemeError, ShapeError
from refquant.gptq import weights
from refquant.inputs import as_float32
from refquant.layer_inputs import Inputs, tokens
from refquant.nearest import quantize as nearest
from refquant.schemes import Scheme, parse

SAMPLED = 512  # tokens that the clip search looks at
TINY = float(np.finfo(np.float32).tiny)
Output = Callable[[np.ndarray, Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True, slots=True)
class Search:
    """What is tried: (r, duo) in order, the constants, and whether weights are clipped afterwards."""

    points: tuple[tuple[float, bool], ...]
    epsilon: float = 1e-6
    added: float = 1e-4
    low: float = 1e-4
    high: float = np.inf
    clip: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The winner, and the losses of all points in their order."""

    scale: np.ndarray
    ratio: float
    losses: tuple[float, ...]


DIALECTS = {
    "": Search(tuple((i / 20, False) for i in range(21))),
    "llm-awq": Search(tuple((i / 20, False) for i in range(20))),
    "autoawq": Search(tuple((i / 20, True) for i in range(20))),
    "llm-compressor": Search(((0.0, False), *((i / 18, True) for i in range(19))), clip=False),
    "modelopt": Search(tuple((i / 10, True) for i in range(11)), epsilon=TINY, added=TINY, high=1e4, clip=False),
}


def quantize(
    W: np.ndarray, scheme: Scheme | str, calibration: Inputs, *, dialect: str = "", clip: bool | None = None
) -> CompensatedTensor:
    """Search s, then clip where the dialect (or `clip`) says so, then round to nearest.

    Raises ShapeError, NonFiniteError, RangeError, SchemeError, QuantError.
    """
    W, scheme, search = weights("awq.quantize", W), parse(scheme), _dialect(dialect)
    X = tokens("awq.quantize", calibration, W.shape[1])
    s = search_scale([W], X, scheme, search).scale
    scaled = W * s
    if search.clip if clip is None else clip:
        bound = clip_bound(scaled, X / s, scheme)
        scaled = np.clip(scaled, -bound, bound)
    return compensate(nearest(scaled, scheme), channel_scale=s)


def search_scale(
    layers: Sequence[np.ndarray],
    X: np.ndarray,
    scheme: Scheme | str,
    search: Search | str = "",
    output: Output | None = None,
) -> Found:
    """The best s for matrices (out_k, in) that share the input X (tokens, in).

    output(X, matrices) is what the loss compares, any shape: by default X W^T of each, side by side.
    """
    search, scheme = _dialect(search) if isinstance(search, str) else search, parse(scheme)
    layers = [weights("awq.search_scale", W) for W in layers]
    if not layers or len({W.shape[1] for W in layers}) > 1:
        raise ShapeError(f"awq.search_scale: layers = {[W.shape for W in layers]}, expected matrices (out_k, in)")
    X = tokens("awq.search_scale", X, layers[0].shape[1])
    output = _side_by_side if output is None else output
    x, w = input_mean(X), weight_mean(layers, scheme, search.epsilon)
    wanted, losses, best = output(X, layers), [], None
    for ratio, duo in search.points:
        s = channel_scale(x, w, ratio, duo, search)
        rounded = [nearest(W * s, scheme).dequantize() / s for W in layers]
        losses.append(float(np.mean(np.square((wanted - output(X, rounded)).astype(np.float64)))))
        if best is None or losses[-1] < min(losses[:-1]):
            best = s, ratio
    return Found(*best, tuple(losses))


def channel_scale(x: np.ndarray, w: np.ndarray, ratio: float, duo: bool, search: Search) -> np.ndarray:
    """s of one point: x and w float32 (in,)."""
    with np.errstate(all="ignore"):
        s = x ** np.float32(ratio)
        if duo:
            s = s / (w ** np.float32(1 - ratio) + np.float32(search.added))
        s = np.clip(s, np.float32(search.low), np.float32(search.high))
        s = s / np.sqrt(s.max() * s.min())
    return np.where(np.isfinite(s), s, np.float32(1))


def input_mean(X: np.ndarray) -> np.ndarray:
    """mean over tokens of |x_j|, float32 (in,)."""
    return np.abs(X).mean(axis=0, dtype=np.float64).astype(np.float32)


def weight_mean(layers: Sequence[np.ndarray], scheme: Scheme, epsilon: float) -> np.ndarray:
    """mean over the rows of all layers of |W_ij| / (max of its group + epsilon), float32 (in,); 0 / 0 is 0."""
    shares = []
    for W in layers:
        magnitude = np.abs(groups.split("awq.weight_mean", W, scheme.granularity))
        share = magnitude / (magnitude.max(axis=1, keepdims=True) + np.float32(epsilon))
        shares.append(groups.join(share, W.shape, scheme.granularity))
    return np.concatenate(shares).mean(axis=0, dtype=np.float64).astype(np.float32)


def clip_bound(W: np.ndarray, X: np.ndarray, scheme: Scheme | str) -> np.ndarray:
    """The limit of each weight, float32 (out, in), the same within a group: clip(W, -bound, bound) is what to round.

    Groups must lie within a row and divide it (kinds group, channel, token), else SchemeError.
    """
    W, scheme = weights("awq.clip_bound", W), parse(scheme)
    X = tokens("awq.clip_bound", X, W.shape[1])
    kind = scheme.granularity.kind
    if kind not in ("group", "channel", "token") or scheme.granularity.axis:
        raise SchemeError(
            f"awq.clip_bound: granularity = {scheme.granularity}, expected groups within a row, or clip=False"
        )
    size = scheme.granularity.size if kind == "group" else W.shape[1]
    groups.scale_shape("awq.clip_bound", W.shape, scheme.granularity)
    X = X[:: max(1, len(X) // SAMPLED)]
    parts = X.reshape(len(X), -1, size).transpose(1, 2, 0)  # (groups, size, tokens)
    gram = parts @ parts.transpose(0, 2, 1)  # (groups, size, size): the loss of a group is e G e^T
    grouped = W.reshape(len(W), -1, size)
    top = np.abs(grouped).max(axis=2, keepdims=True)  # (out, groups, 1)
    best, least = top, np.full(top.shape, np.inf)
    for step in range(10):
        limit = top * np.float32(1 - step / 20)
        clipped = np.clip(grouped, -limit, limit).reshape(W.shape)
        e = grouped - nearest(clipped, scheme).dequantize().reshape(grouped.shape)
        loss = ((e.transpose(1, 0, 2) @ gram).transpose(1, 0, 2) * e).sum(axis=2, keepdims=True, dtype=np.float64)
        best, least = np.where(loss < least, limit, best), np.minimum(loss, least)
    return np.repeat(best, size, axis=2).reshape(W.shape)


def fold_norm(gain: np.ndarray, s: np.ndarray, bias: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray | None]:
    """(gain / s, bias / s) of the norm before: its outputs are then x / s. All (in,)."""
    gain, s = _divisor("awq.fold_norm", gain, s)
    return gain / s, None if bias is None else _divisor("awq.fold_norm", bias, s)[0] / s


def fold_rows(
    previous: np.ndarray, s: np.ndarray, bias: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(W, bias) of the matrix before, whose last len(s) outputs feed the layer, divided by s.

    Right where nothing but a product with numbers that do not depend on these outputs lies between: v before o (as many
    value heads as heads), up before down. Of a fused qkv the values are last.
    """
    W, s = weights("awq.fold_rows", previous), as_float32("awq.fold_rows", s, "s")
    if s.ndim != 1 or len(s) > len(W) or not (s > 0).all():
        raise ShapeError(f"awq.fold_rows: s.shape = {s.shape}, expected positive (in,), at most the {len(W)} rows")
    divisor = np.concatenate([np.ones(len(W) - len(s), np.float32), s])
    return W / divisor[:, None], None if bias is None else _divisor("awq.fold_rows", bias, divisor)[0] / divisor


def _divisor(where: str, x: np.ndarray, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, s = as_float32(where, x, "x"), as_float32(where, s, "s")
    if x.ndim != 1 or x.shape != s.shape or not (s > 0).all():
        raise ShapeError(f"{where}: x.shape, s.shape = {x.shape}, {s.shape}, expected (in,) twice, s positive")
    return x, s


def _dialect(name: str) -> Search:
    if name not in DIALECTS:
        raise SchemeError(f"awq: dialect = {name!r}, expected one of {[d for d in DIALECTS if d]} or ''")
    return DIALECTS[name]


def _side_by_side(X: np.ndarray, layers: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([X @ W.T for W in layers], axis=1)
