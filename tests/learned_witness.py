"""Methods that learn or search, once more from their papers: AdaRound, AutoRound, ZeroQuant, EasyQuant, AWQ's searches.

    PYTHONPATH=tests python -m conformance run --backend tests/learned_witness.py --only 'method.*' --json

NumPy in float32, sums in float64, no code of refquant. Formats are linear, in groups within a row. Refusals are passed
over.
"""

import re

import numpy as np

from conformance.protocol import Unsupported

NAME = "learned rounding (NumPy)"
f32 = np.float32


def version():
    """Of the tree."""
    return "of this tree"


class Format:
    """int3-g8 and its like: ends of the codes, and scales and zero points of groups (n, members)."""

    def __init__(self, name):
        found = re.fullmatch(r"(u?)int(\d)-(g\d+|channel|token)((?:-\w+)*)", name)
        if not found:
            raise Unsupported(f"{name}: linear formats only")
        self.signed, self.bits, self.words = not found[1], int(found[2]), found[4].split("-")[1:]
        if set(self.words) - {"sym", "asym", "f16", "full", "restricted", "signedmax"}:
            raise Unsupported(name)
        self.size = int(found[3][1:]) if found[3][0] == "g" else 0
        self.symmetric = "sym" in self.words or (self.signed and "asym" not in self.words)
        self.half = 2 ** (self.bits - 1)
        self.low = -self.half if self.signed else 0
        self.high = self.low + 2**self.bits - 1
        self.middle = 0 if self.signed else self.half
        if "restricted" in self.words:
            self.low += 1

    def groups(self, W):
        return W.reshape(-1, self.size or W.shape[-1])

    def stored(self, scale):
        return scale.astype(np.float16).astype(f32) if "f16" in self.words else scale.astype(f32)

    def fit(self, w):
        lo, hi = (np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0))
        top = np.maximum(-lo, hi)
        if "signedmax" in self.words:
            scale = self.stored(np.where(hi < -lo, top, -top) / f32(self.half))
        elif self.symmetric:
            ends = {"full": self.half, "restricted": self.half - 1}
            scale = self.stored(top / f32(ends.get((self.words or [""])[0], (2**self.bits - 1) / 2)))
        else:
            scale = self.stored((hi - lo) / f32(2**self.bits - 1))
        return scale, self.zero(lo, scale)

    def zero(self, lo, scale):
        if self.symmetric:
            return np.full_like(scale, self.middle)
        return np.clip(self.low + np.rint(-lo / np.where(scale == 0, 1, scale)), self.low, self.high).astype(f32)

    def codes(self, w, scale, zero):
        return np.clip(np.rint(w / np.where(scale == 0, f32(np.inf), scale)) + zero, self.low, self.high)

    def rounded(self, W):
        w = self.groups(W)
        scale, zero = self.fit(w)
        codes = self.codes(w, scale, zero)
        return (scale * (codes - zero)).reshape(W.shape), codes, scale, zero

    def answer(self, shape, codes, scale, zero):
        dtype = np.int8 if self.signed else np.uint8
        parts = (shape[0], -1)
        kept = np.array(self.middle, dtype) if self.symmetric else zero.reshape(parts).astype(dtype)
        return {"codes": codes.reshape(shape).astype(dtype), "scale": scale.reshape(parts), "zero_point": kept}


class Descent:
    """Adam."""

    def __init__(self, lr):
        self.lr, self.t, self.m, self.v = lr, 0, 0.0, 0.0

    def __call__(self, p, g):
        self.t += 1
        self.m, self.v = 0.9 * self.m + (1 - 0.9) * g, 0.999 * self.v + (1 - 0.999) * g * g
        root = np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8
        return (p - self.lr * (self.m / (1 - 0.9**self.t)) / root).astype(f32)


def loss_of(E, G):
    """(L, dL / dE)."""
    product = E @ G
    return float((product * E).sum(dtype=np.float64)) / len(E), product * f32(2 / len(E))


def adaround(W, X, form, steps=1000, lr=0.01, strength=10.0):
    """Nagel et al. 2020."""
    w, G = form.groups(W), (X.T @ X) / f32(len(X))
    scale, zero = form.fit(w)
    s = np.where(scale == 0, f32(1), scale)
    floor = np.floor(w / s)
    rest = (w / s - floor).astype(np.float64)
    with np.errstate(divide="ignore"):
        V = np.where(rest <= 0, -6, np.where(rest >= 1, 6, -np.log(1.2 / (rest + 0.1) - 1))).astype(f32)
    first = loss_of((s * (np.clip(np.rint(w / s) + zero, form.low, form.high) - zero) - w).reshape(W.shape), G)[0]
    descent = Descent(lr)
    for step in range(steps):
        sigmoid = 1 / (1 + np.exp(-V))
        wide = f32(1.2) * sigmoid - f32(0.1)
        h = np.clip(wide, 0, 1)
        rise = np.where(h == wide, f32(1.2) * sigmoid * (1 - sigmoid), 0)
        E = s * (np.clip(floor + h + zero, form.low, form.high) - zero) - w
        g = loss_of(E.reshape(W.shape), G)[1].reshape(w.shape) * s * rise
        if step >= steps / 5:
            beta, c = 20 - 18 * (step / steps - 0.2) / 0.8, 2 * h - 1
            g = g - f32(strength * first / W.shape[1]) * 2 * beta * np.sign(c) * np.abs(c) ** (beta - 1) * rise
        V = descent(V, g)
    up = 1.2 / (1 + np.exp(-V.astype(np.float64))) - 0.1 >= 0.5 - 1e-7
    codes = np.where(scale == 0, zero, np.clip(floor + up + zero, form.low, form.high))
    return form.answer(W.shape, codes, scale, zero)


def forward(form, w, v, a, b, first):
    """AutoRound: codes, scale, zero, which are inside, and the slopes of the scale in a and b."""
    lo, hi = np.minimum(w.min(1, keepdims=True), 0), np.maximum(w.max(1, keepdims=True), 0)
    none = np.zeros_like(lo)
    if not form.symmetric:
        steps = f32(2**form.bits - 1)
        scale, by_a, by_b = (hi * b - lo * a) / steps, -lo / steps, hi / steps
    elif "signedmax" in form.words:
        below = hi * b < -(lo * a)
        scale = np.where(below, -(lo * a), -(hi * b)) / f32(form.half)
        by_a, by_b = np.where(below, -lo / f32(form.half), none), np.where(below, none, -hi / f32(form.half))
    else:
        scale, by_a, by_b = first * b, none, first
    scale = form.stored(scale)
    scale = np.where(scale < 0, np.minimum(scale, f32(-1e-5)), np.maximum(scale, f32(1e-5)))
    zero = form.zero(lo * a, scale)
    wanted = np.rint(w / scale + v) + zero
    codes = np.clip(wanted, form.low, form.high)
    return codes, scale, zero, codes == wanted, by_a, by_b


def backward(form, w, now, a, up):
    """Gradients in v, a and b of what has the gradient `up` in the weights."""
    codes, scale, zero, inside, by_a, by_b = now
    by_s, by_zero = codes - zero - np.where(inside, w / scale, 0), 0
    if not form.symmetric:
        lo = np.minimum(w.min(1, keepdims=True), 0)
        by_s = by_s - np.where(inside, 0, a * lo / scale)
        by_zero = (up * ~inside).sum(1, keepdims=True) * lo
    whole = (up * by_s).sum(1, keepdims=True)
    return up * scale * inside, whole * by_a + by_zero, whole * by_b


def autoround(W, X, form, iterations=200, lr=None):
    """Cheng et al. 2023, on all tokens at once."""
    w, G = form.groups(W), (X.T @ X) / f32(len(X))
    first = form.fit(w)[0]
    lr = (2 if form.bits < 4 and iterations > 999 else 1) / iterations if lr is None else lr
    v, a, b, least = np.zeros_like(w), np.ones_like(first), np.ones_like(first), np.inf
    for t in range(iterations + 1):
        now = forward(form, w, v, a, b, first)
        loss, up = loss_of((now[1] * (now[0] - now[2]) - w).reshape(W.shape), G)
        if loss < least:
            best, least = now, loss
        rate = f32(lr * (1 - t / iterations))
        moved = [np.sign(g) * rate for g in backward(form, w, now, a, up.reshape(w.shape))]
        v = np.clip(v - moved[0], f32(-0.5), f32(0.5))
        a, b = np.clip(a - moved[1], f32(0), f32(1)), np.clip(b - moved[2], f32(0), f32(1))
    return form.answer(W.shape, *best[:3])


def zeroquant(W, X, form, inputs="int8-token-restricted", steps=100, lr=1e-3):
    """Yao et al. 2022: a layer taught by its original."""
    seen = X if inputs is None else Format(inputs).rounded(X)[0]
    wanted, now, least = X @ W.T, W, np.inf
    descent = Descent(lr * float(np.sqrt((W.astype(np.float64) ** 2).mean())))
    for _ in range(steps + 1):
        values, *parts = form.rounded(now)
        error = seen @ values.T - wanted
        loss = (error.astype(np.float64) ** 2).mean()
        if loss < least:
            best, least = parts, loss
        now = descent(now, (error.T @ seen) * f32(2 / error.size))
    return form.answer(W.shape, *best)


def easyquant(W, X, form, deviations=3.0, steps=100, lr=0.01):
    """Tang et al. 2024, with the sign of the slope."""
    wide = W.astype(np.float64)
    out = np.abs(wide - wide.mean(1, keepdims=True)) > deviations * wide.std(1, keepdims=True)
    w, kept = form.groups(np.where(out, f32(0), W)), form.groups(~out)
    first, zero = form.fit(w)
    scale, best, least = first, first, np.full(first.shape, np.inf)
    for t in range(steps + 1):
        now = form.stored(scale)
        levels = form.codes(w, now, zero) - zero
        E = np.where(kept, now * levels - w, 0)
        loss = (E * E).sum(1, keepdims=True, dtype=np.float64)
        best, least = np.where(loss < least, now, best), np.minimum(loss, least)
        scale = scale - f32(lr * (1 - t / max(steps, 1))) * first * np.sign((E * levels).sum(1, keepdims=True))
    counts = np.concatenate([[0], np.cumsum(out.sum(1))])
    sparse = {"sparse_start": counts, "sparse_columns": np.nonzero(out)[1]}
    answer = form.answer(W.shape, form.codes(w, best, zero), best, zero)
    return answer | {k: v.astype(np.int32) for k, v in sparse.items()} | {"sparse_values": W[out]}


def qdq(params, given):
    """autoround: one pass, and gradients."""
    form = Format(params["scheme"])
    w, v, a, b = form.groups(given["W"]), form.groups(given["v"]), given["a"], given["b"]
    now = forward(form, w, v, a, b, form.fit(w)[0])
    return [*now, *(backward(form, w, now, a, form.groups(given["to_weight"])) if "to_weight" in given else ())]


def clip_bound(params, given):
    """awq: the best of ten limits for each group, by its own part of the output."""
    W, form = given["W"], Format(params["scheme"])
    X = given["X"][:: max(1, len(given["X"]) // 512)]
    size = form.size or W.shape[1]
    found = np.empty_like(W)
    for row, line in enumerate(W):
        for start in range(0, len(line), size):
            w, x = line[start : start + size], X[:, start : start + size].astype(np.float64)
            limits = [np.abs(w).max() * f32(1 - step / 20) for step in range(10)]
            errors = [w - form.rounded(np.clip(w, -limit, limit)[None])[0][0] for limit in limits]
            losses = [((x @ e) ** 2).sum() for e in errors]
            found[row, start : start + size] = limits[int(np.argmin(losses))]
    return [found]


def shifts_of(params, given):
    """weighted_rounding: what is tried, 0 first."""
    if not params["dialect"]:
        return [np.array([0, *(k / 10 for k in range(9, -10, -1) if k)])]
    step, count = (0.01, 90) if params["bits"] == 2 else (0.0075 * 2 ** (params["bits"] - 1), 100)
    return [np.array([0, *(k * step for k in range(-count, count + 1) if k)])]


def search(params, given):
    """weighted_rounding: for each group the scale of least weighted error."""
    half, found = params["half"], []
    for w, q in zip(given["w"], given["q"]):
        peak, least, best = w[np.abs(w).argmax()], np.inf, f32(0)
        inverse_peak = 1 / peak if peak else f32(0)
        for t in params["shifts"]:
            inverse = -(f32(half) - f32(t)) * inverse_peak
            codes = np.clip(np.rint(inverse * w), -half, half - 1)
            power = (q * codes * codes).sum(dtype=np.float64)
            if params["refit"]:
                s = f32((q * w * codes).sum(dtype=np.float64) / power) if power > 0 else f32(0)
            else:
                s = 1 / inverse if inverse else f32(0)
            loss = (q * (s * codes - w) ** 2).sum(dtype=np.float64)
            if loss < least:
                best, least = s, loss
        found.append([best])
    return [np.array(found, f32)]


def outlier_scale(params, given):
    """smoothquant: s = max(1, amax / t) for the best t."""
    W, X, steps = given["W"], given["X"], params.get("steps", 100)
    forms = Format(params["weight_scheme"]), Format(params["input_scheme"])
    top, least, tried = np.abs(X).max(0), np.inf, []
    best = np.ones_like(top)
    for i in range(steps, 0, -1) if top.any() else ():
        t = top.max() * f32(i / steps)
        s = np.maximum(f32(1), top / t)
        E = X @ W.T - forms[1].rounded(X / s)[0] @ forms[0].rounded(W * s)[0].T
        tried.append((float(t), float((E.astype(np.float64) ** 2).mean())))
        if tried[-1][1] < least:
            best, least = s, tried[-1][1]
    return [best, np.array([t for t, _ in tried]), np.array([loss for _, loss in tried])]


def search_scale(params, given):
    """awq: the best power of the inputs' means, with or without the weights'."""
    if not {"X", "layers0"} <= set(given):
        raise Unsupported("one point, or shares")
    layers, X, form = [given[k] for k in sorted(given) if k != "X"], given["X"], Format(params["scheme"])
    name = params.get("search", "")
    points = {"": [(i / 20, False) for i in range(21)], "autoawq": [(i / 20, True) for i in range(20)],
              "llm-compressor": [(0, False), *((i / 18, True) for i in range(19))],
              "modelopt": [(i / 10, True) for i in range(11)]}[name]  # fmt: skip
    epsilon, added = (2.0**-126, 2.0**-126) if name == "modelopt" else (1e-6, 1e-4)
    x = np.abs(X).mean(0, dtype=np.float64).astype(f32)
    shares = [np.abs(form.groups(W)) for W in layers]
    shares = [(w / (w.max(1, keepdims=True) + f32(epsilon))).reshape(W.shape) for w, W in zip(shares, layers)]
    w = np.concatenate(shares).mean(0, dtype=np.float64).astype(f32)
    found = []
    for r, duo in points:
        s = np.maximum(x ** f32(r) / (w ** f32(1 - r) + f32(added) if duo else f32(1)), f32(1e-4))
        s = s / np.sqrt(s.max() * s.min())
        E = np.concatenate([X @ W.T - X @ (form.rounded(W * s)[0] / s).T for W in layers], axis=1)
        found.append(((E.astype(np.float64) ** 2).mean(), s, r))
    best = min(found, key=lambda each: each[0])
    return [best[1], float(best[2]), np.array([each[0] for each in found])]


def matmul(params, given):
    """zeroquant: inputs and weights rounded."""
    inputs = params.get("inputs", "int8-token-restricted")
    X = given["X"] if inputs is None else Format(inputs).rounded(given["X"])[0]
    return [X @ Format(params["scheme"]).rounded(given["W"])[0].T]


def truncated(params, given):
    """low_rank: product, types and sizes of factors, from the eigenvectors of the square."""
    M = given["M"] * given["a"]
    sizes, right = np.linalg.eigh(M.T @ M)
    sizes, right = np.sqrt(sizes[::-1][: params["rank"]]), right[:, ::-1][:, : params["rank"]]
    return [(M @ right @ right.T / given["a"]).astype(f32), np.array([4, 4]), sizes.astype(f32)]


METHODS = {"adaround": adaround, "autoround": autoround, "zeroquant": zeroquant, "easyquant": easyquant}
STEPS = {("autoround", "qdq"): qdq, ("awq", "clip_bound"): clip_bound, ("awq", "search_scale"): search_scale,
         ("weighted_rounding", "shifts_of"): shifts_of, ("weighted_rounding", "search"): search,
         ("smoothquant", "outlier_scale"): outlier_scale, ("zeroquant", "matmul"): matmul,
         ("low_rank", "truncated"): truncated}  # fmt: skip


def run(algorithm, op, params, inputs):
    """step and method."""
    family, _, member = algorithm.partition(".")
    given = {name: array for name, array in inputs.items() if array.size}
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in given.values()):
        raise Unsupported("refusals")
    settings = {name: value for name, value in params.items() if name != "scheme"}
    try:
        if (member, params.get("function")) in STEPS:
            found = STEPS[member, params["function"]](params, given)
            return {f"result{i}": np.asarray(each) for i, each in enumerate(found)}
        if family != "method" or op not in ("quantize", "weight") or member not in METHODS:
            raise Unsupported(f"{algorithm} {op}")
        X = given["X"].reshape(-1, given["X"].shape[-1]) if "X" in given else None
        form = Format(params["scheme"])
        answer = METHODS[member](given["W"], X, form, **settings)
    except (KeyError, ValueError, TypeError, UnboundLocalError, ZeroDivisionError) as why:
        raise Unsupported(f"refusals: {why}") from why
    if op == "weight":
        return {"values": _decoded(answer, form)}
    return answer


def _decoded(answer, form):
    codes = form.groups(answer["codes"].astype(f32))
    zero = np.reshape(answer["zero_point"].astype(f32), (-1, 1))
    W = (answer["scale"].reshape(-1, 1) * (codes - zero)).reshape(answer["codes"].shape)
    if "sparse_values" in answer:
        rows = np.repeat(np.arange(len(W)), np.diff(answer["sparse_start"]))
        W[rows, answer["sparse_columns"]] = answer["sparse_values"]
    return W
