"""Methods that search or learn how to round, on one small layer, from the definitions of their papers, in NumPy.

Every function takes W (out, in) and X (tokens, in) and `nearest(W) -> values`, plain rounding in the format. Arithmetic
is float64 but where a paper's result hangs on float32. refquant takes no part; its pages name the papers.
"""

import numpy as np

f32 = np.float32
TINY = float(np.finfo(np.float32).tiny)
AWQ = {  # points (r, whether weights take part), epsilon, added, the largest s, whether weights are clipped
    "": ([(i / 20, False) for i in range(21)], 0.0, 0.0, np.inf, True),
    "llm-awq": ([(i / 20, False) for i in range(20)], 0.0, 0.0, np.inf, True),
    "autoawq": ([(i / 20, True) for i in range(20)], 1e-6, 1e-4, np.inf, True),
    "llm-compressor": ([(0.0, False), *((i / 18, True) for i in range(19))], 1e-6, 1e-4, np.inf, False),
    "modelopt": ([(i / 10, True) for i in range(11)], TINY, TINY, 1e4, False),
}


def wide(*arrays):
    """float64."""
    return [np.asarray(a, np.float64) for a in arrays]


def awq(W, X, nearest, groups, dialect, clip):
    """Values of the layer after the search for s, and the clipping; `groups` are the columns of each group."""
    scales, losses, _ = awq_points(W, X, nearest, groups, dialect)
    best = scales[losses.index(min(losses))]
    scaled = f32(W) * best
    if AWQ[dialect][-1] if clip is None else clip:
        scaled = clipped(scaled, np.float64(X) / best, nearest, groups)
    return nearest(scaled) / best


def awq_points(W, X, nearest, groups, dialect):
    """s and the loss of every point, and the points."""
    points, epsilon, added, high, _ = AWQ[dialect]
    W, X = wide(W, X)
    x = f32(np.abs(X).mean(axis=0))
    share = np.zeros_like(W)
    for columns in groups:
        top = np.abs(W[:, columns]).max(axis=1, keepdims=True) + epsilon
        share[:, columns] = np.divide(np.abs(W[:, columns]), top, out=np.zeros_like(W[:, columns]), where=top > 0)
    w, scales, losses = f32(share.mean(axis=0)), [], []
    for ratio, weighs in points:
        with np.errstate(all="ignore"):  # in float32: the last bit of s may decide which way a tie goes
            s = x ** f32(ratio) / (w ** f32(1 - ratio) + f32(added) if weighs else f32(1))
            s = np.clip(s, f32(1e-4), f32(high))
            s = s / np.sqrt(s.max() * s.min())
        s = np.where(np.isfinite(s), s, f32(1))
        again = nearest(f32(W) * s) / s
        scales.append(s)
        losses.append(float(np.mean((X @ (W - again).T) ** 2)))
    return scales, losses, points


def clipped(W, X, nearest, groups):
    """Each group held at the share of its largest weight that hurts its own outputs least."""
    best, least = W.copy(), np.full((len(W), len(groups)), np.inf)
    for step in range(10):
        tried = W.copy()
        for columns in groups:
            limit = np.abs(W[:, columns]).max(axis=1, keepdims=True) * f32(1 - step / 20)
            tried[:, columns] = np.clip(W[:, columns], -limit, limit)
        error = W - nearest(tried)
        for g, columns in enumerate(groups):
            loss = np.sum((X[:, columns] @ np.float64(error[:, columns]).T) ** 2, axis=0)
            for row in np.flatnonzero(loss < least[:, g]):
                best[row, columns], least[row, g] = tried[row, columns], loss[row]
    return best


def smoothed(W, X, alpha, dialect):
    """s of SmoothQuant, float32 (in,)."""
    w, alpha, rest = np.abs(W).max(axis=0), f32(alpha), f32(1 - alpha)
    if dialect == "llm-compressor":
        a = X.max(axis=0) - X.min(axis=0)
        s = np.where(w > 0, a**alpha / np.where(w > 0, 2 * w, f32(1)) ** rest, a)
    else:
        s = np.abs(X).max(axis=0) ** alpha / np.maximum(w, f32(1e-5)) ** rest
    return np.maximum(s, f32(1e-5))


def shifts(dialect, bits):
    """What is taken off the half range, in the order of trial: ggml's 19, or auto-round's."""
    if not dialect:
        return [0.0, *(-0.1 * k for k in range(-9, 10) if k)]
    step, count = (0.01, 90) if bits == 2 else (2 ** (bits - 1) * 0.75 / 100, 100)
    return [0.0, *(step * k for k in range(-count, count + 1) if k)]


def weighted_scale(w, q, half, tries, refit=True):
    """s of one group: of the tries the one of least weighted error, with `refit` each with its own best s."""
    if not q.any():
        q = np.ones_like(q)
    peak = w[np.abs(w).argmax()]
    best, least = f32(0), np.inf
    for t in tries:
        inverse = f32(-(f32(half) - f32(t)) * (f32(1) / peak if peak else f32(0)))
        codes = np.clip(np.rint(inverse * w), -half, half - 1)
        power = np.sum(np.float64(q * codes * codes))
        if refit:
            s = f32(np.sum(np.float64(q * w * codes)) / power) if power > 0 else f32(0)
        else:
            s = f32(1) / inverse if inverse else f32(0)
        loss = np.sum(np.float64(q * (s * codes - w) ** 2))
        if loss < least:
            best, least = s, loss
    return best


def easyquant(W, groups, start, low, high, deviations, steps, lr, stored):
    """Values: outliers of a row as they are, the scales of the others learned by signs of gradients.

    start(row of a group) -> its scale; groups are (row, columns)
    """
    spread = np.float64(W).std(axis=1, keepdims=True)
    outlier = np.abs(W - np.float64(W).mean(axis=1, keepdims=True)) > deviations * spread
    out = W.copy()
    for row, columns in groups:
        kept = ~outlier[row, columns]
        w = np.where(kept, W[row, columns], f32(0))
        first = scale = f32(start(w))
        best, least = None, np.inf
        for t in range(steps + 1):
            s = stored(scale)
            codes = np.clip(np.rint(w / s), low, high) if s else np.zeros_like(w)
            error = np.where(kept, s * codes - w, 0)
            loss = np.sum(np.float64(error) ** 2)
            if loss < least:
                best, least = s * codes, loss
            slope = np.sum(np.float64(error * codes))
            scale = f32(scale - f32(lr * (1 - t / max(steps, 1))) * first * f32(np.sign(slope)))
        out[row, columns] = np.where(kept, best, W[row, columns])
    return out


class Adam:
    """Kingma & Ba 2015, algorithm 1."""

    def __init__(self, lr):
        self.lr, self.m, self.v, self.t = lr, 0.0, 0.0, 0

    def step(self, p, g):
        """The next p."""
        self.t += 1
        self.m, self.v = 0.9 * self.m + 0.1 * g, 0.999 * self.v + 0.001 * g * g
        return p - self.lr * (self.m / (1 - 0.9**self.t)) / (np.sqrt(self.v / (1 - 0.999**self.t)) + 1e-8)


def zeroquant(W, X, nearest, inputs, steps, lr):
    """Values of the weights of least loss while they learn through the rounding."""
    original, X = wide(W, X)
    Xq, learned, best, least = np.float64(inputs(X)), original.copy(), None, np.inf
    adam = Adam(lr * np.sqrt(np.mean(original**2)))
    for _ in range(steps + 1):
        values = np.float64(nearest(learned))
        error = Xq @ values.T - X @ original.T
        if np.mean(error**2) < least:
            best, least = values, np.mean(error**2)
        learned = adam.step(learned, 2 * error.T @ Xq / error.size)
    return best


def low_rank(W, nearest, rank, sweeps):
    """Q(W - A) + A with A the nearest matrix of this rank to W, then to W - Q, while that helps."""
    W = np.float64(W)

    def pair(of):
        sizes, vectors = np.linalg.eigh(of @ of.T)
        top = vectors[:, np.argsort(sizes)[::-1][:rank]]
        near = top @ (top.T @ of)
        rounded = np.float64(nearest(f32(W - near)))
        return rounded, rounded + near

    rounded, best = pair(W)
    for _ in range(sweeps):
        again, tried = pair(W - rounded)
        if np.linalg.norm(W - tried) >= np.linalg.norm(W - best):
            break
        rounded, best = again, tried
    return best


def hqq(groups, top, dialect="", round_zero=False, settings=None):
    """(codes, scale, zero) of groups (groups, members) float32, by half-quadratic splitting."""
    said = {"keep": "least", "kappa": 1.01, "beta": 10.0, "norm": 0.7, "iterations": 20}
    said |= settings or {"": {}, "last": {"keep": "last", "kappa": 1.0}, "best": {"keep": "best"}}[dialect]
    lo, hi = groups.min(axis=1, keepdims=True), groups.max(axis=1, keepdims=True)
    with np.errstate(all="ignore"):
        m = np.minimum(np.where(hi - lo <= f32(1e-4), f32(1), f32(1) / (hi - lo) * f32(top)), f32(2e4))
    zero = np.rint(-lo * m) if round_zero else -lo * m
    codes = lambda z: np.clip(np.rint(groups * m + z), 0, top)
    values = lambda z: (codes(z) - z) / m
    error = lambda z: np.mean(np.abs(groups - values(z)), dtype=np.float64)
    beta, best, least, found = said["beta"], zero, np.inf, None
    for _ in range(said["iterations"]):
        now = error(zero)
        worse = not now < least
        if not worse:
            best, least = zero, now
        elif said["keep"] != "last":
            found = best
            break
        left = groups - values(zero)
        with np.errstate(divide="ignore"):
            shrunk = np.maximum(np.abs(left) - f32(1 / beta) * np.abs(left) ** f32(said["norm"] - 1), f32(0))
        zero = np.mean(codes(zero) - (groups - np.sign(left) * shrunk) * m, axis=1, keepdims=True)
        beta *= said["kappa"]
        if worse:
            found = zero
            break
    if found is None:
        found = zero if said["keep"] != "least" or error(zero) < least else best
    return codes(found), f32(1) / m, found


def hessian(X, damp=0.01):
    """(2 / n X^T X with ones for columns without inputs and damping, those columns)."""
    H = 2 / len(X) * np.float64(X).T @ np.float64(X)
    dead = np.diagonal(H) == 0
    H[dead, dead] = 1
    return H + damp * np.mean(np.diagonal(H)) * np.eye(len(H)), dead


def factor(H):
    """U, upper triangular, with H^-1 = U^T U."""
    return np.linalg.cholesky(np.linalg.inv(H)).T


def gptaq(W, X, native, rounded, alpha=0.25):
    """Li et al. 2025, algorithm 1, without blocks; rounded(j, W) -> values of column j."""
    H, dead = hessian(X)
    W, U, D = np.where(dead, 0, np.float64(W)), factor(H), 2 / len(X) * np.float64(native - X).T @ np.float64(X)
    D[:, dead] = 0
    P = alpha * np.triu(D @ U.T, 1) @ U
    for j in range(len(H)):
        w = W[:, j].copy()
        error = (w - rounded(j, W)) / U[j, j]
        W[:, j + 1 :] += np.outer(w, P[j, j + 1 :]) - np.outer(error, U[j, j + 1 :])


def sparsegpt(W, X, rounded, share=None, pattern=None, block=128):
    """Frantar & Alistarh 2023, algorithm 1; weights of a block compete; rounded(j, column) after the zeros were put."""
    H, dead = hessian(X)
    W, U = np.where(dead, 0, np.float64(W)), factor(H)
    gone = np.zeros(W.shape, bool)
    for j in range(len(H)):
        if pattern is None and j % block == 0:
            part = slice(j, j + block)
            cost = W[:, part] ** 2 / np.diagonal(U)[part] ** 2
            rank = int(cost.size * share)
            gone[:, part] = cost <= (np.sort(cost, axis=None)[rank] if rank < cost.size else np.inf)
        if pattern is not None and j % pattern[1] == 0:
            part = slice(j, j + pattern[1])
            order = np.argsort(W[:, part] ** 2 / np.diagonal(U)[part] ** 2, axis=1, kind="stable")
            np.put_along_axis(gone[:, part], order[:, : pattern[0]], True, axis=1)
        error = (W[:, j] - rounded(j, np.where(gone[:, j], 0, W[:, j]))) / U[j, j]
        W[:, j + 1 :] -= np.outer(error, U[j, j + 1 :])


def lqer(W, X, nearest, rank, sweeps):
    """Q(W) + A with A the nearest matrix to the error, weighed by the mean size of each input."""
    W, a = np.float64(W), np.ones(W.shape[1])
    if X is not None:
        a = np.float64(f32(np.abs(np.float64(X)).mean(axis=0)))
        a = np.where(a > 0, a, a[a > 0].min() if a.any() else 1.0)
    if sweeps:
        raise ValueError("one pass, since Q(W) stays")
    rounded = np.float64(nearest(f32(W)))
    error = (W - rounded) * a
    sizes, vectors = np.linalg.eigh(error @ error.T)
    top = vectors[:, np.argsort(sizes)[::-1][:rank]]
    return rounded + top @ (top.T @ error) / a


def kept(W, X, nearest, share, score):
    """The share of weights with the largest score."""
    if score == "magnitude":
        cost = np.abs(np.float64(W))
    elif score == "sensitivity":
        cost = np.float64(W) ** 2 * np.diagonal(hessian(X, 0.0)[0])
    else:
        H, _ = hessian(X)
        cost = (np.float64(W) - nearest(W)) ** 2 / (2 * np.diagonal(np.linalg.inv(H)))
    found = np.zeros(W.size, bool)
    found[np.argsort(-cost, axis=None, kind="stable")[: int(share * W.size)]] = True
    return found.reshape(W.shape)


def output_error(error, X):
    """(L, dL / d error): the mean over tokens and outputs."""
    G = X.T @ X / len(X)
    return np.sum(error @ G * error) / len(error), 2 * error @ G / len(error)


def adaround(W, X, scale, zero, low, high, steps, lr, strength):
    """Nagel et al. 2020, eq. 21 to 25; scale and zero are (out, in)."""
    W, X, zero = wide(W, X, zero)
    s = np.where(scale == 0, 1, np.float64(scale))
    floor = np.floor(f32(W) / f32(s))
    part = np.float64(f32(W) / f32(s)) - floor
    with np.errstate(divide="ignore"):
        V = np.where(part <= 0, -6, np.where(part >= 1, 6, -np.log(1 / ((part + 0.1) / 1.2) - 1)))
    plain = s * (np.clip(np.rint(f32(W) / f32(s)) + zero, low, high) - zero)
    weight = strength * output_error(plain - W, X)[0] / W.size
    adam = Adam(lr)

    def soft(V):
        sigmoid = 1 / (1 + np.exp(-V))
        open_ = 1.2 * sigmoid - 0.1
        inside = (open_ >= 0) & (open_ <= 1)
        return np.clip(open_, 0, 1), np.where(inside, 1.2 * sigmoid * (1 - sigmoid), 0)

    for t in range(steps):
        h, slope = soft(V)
        code = floor + h + zero
        free = (code >= low) & (code <= high)
        gradient = output_error(s * (np.clip(code, low, high) - zero) - W, X)[1] * s * free * slope
        progress = (t / steps - 0.2) / 0.8
        if progress >= 0:
            beta, middle = 20 - 18 * progress, 2 * h - 1
            gradient += weight * -2 * beta * np.sign(middle) * np.abs(middle) ** (beta - 1) * slope
        V = adam.step(V, gradient)
    codes = np.clip(floor + (soft(V)[0] >= 0.5) + zero, low, high)
    return np.float64(scale) * (codes - zero)


def autoround(W, X, groups, bits, low, symmetric, start, iterations, lr):
    """Cheng et al. 2023, algorithm 1; groups are (row, columns), start their scales; a symmetric zero is 0."""
    W, X = wide(W, X)
    steps, rate_of = 2**bits - 1, lambda t: lr * (1 - t / iterations)
    v, a, b = np.zeros_like(W), np.ones(len(groups)), np.ones(len(groups))
    best, least = None, np.inf
    for t in range(iterations + 1):
        values, inside, parts = np.zeros_like(W), np.zeros(W.shape, bool), []
        for g, (row, columns) in enumerate(groups):
            w = W[row, columns]
            lo, hi = min(w.min(), 0), max(w.max(), 0)
            s = max(f32(b[g] * start[g] if symmetric else (b[g] * hi - a[g] * lo) / steps), f32(1e-5))
            zero = 0.0 if symmetric else np.clip(low + np.rint(f32(-a[g] * lo) / s), low, low + steps)
            wanted = np.rint(f32(f32(w) / s) + f32(v[row, columns])) + zero
            codes = np.clip(wanted, low, low + steps)
            values[row, columns], inside[row, columns] = float(s) * (codes - zero), codes == wanted
            parts.append((float(s), zero, codes, lo, hi))
        loss, slope = output_error(values - W, X)
        if loss < least:
            best, least = values, loss
        if t == iterations:
            break
        for g, (row, columns) in enumerate(groups):
            (s, zero, codes, lo, hi), d, free = parts[g], slope[row, columns], inside[row, columns]
            by_s = np.where(free, codes - zero - W[row, columns] / s, codes - zero)
            if not symmetric:
                by_s = by_s - np.where(free, 0, a[g] * lo / s)
            to_s = np.sum(d * by_s)
            by_a = 0.0 if symmetric else to_s * -lo / steps + np.sum(d * ~free) * lo
            by_b = to_s * (start[g] if symmetric else hi / steps)
            v[row, columns] = np.clip(v[row, columns] - rate_of(t) * np.sign(d * s * free), -0.5, 0.5)
            a[g] = np.clip(a[g] - rate_of(t) * np.sign(by_a), 0, 1)
            b[g] = np.clip(b[g] - rate_of(t) * np.sign(by_b), 0, 1)
    return best
