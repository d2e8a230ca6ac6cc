"""naive_methods as a witness of observers and calibrated methods."""

import naive
import naive_methods
import numpy as np

from conformance.protocol import Unsupported
from refquant.schemes import parse


def observe(member, params, inputs):
    """Ranges, and scale and zero point by exact fractions."""
    name, _, dialect = member.partition("@")
    scheme = parse(params["scheme"])
    batches = [inputs[f"batch{i}"] for i in range(len(inputs))]
    if not all(np.isfinite(batch).all() for batch in batches):
        raise Unsupported("refusals")
    rows = [[row] for row in batches[0]] if scheme.granularity.kind == "channel" else [[b.ravel()] for b in batches[:1]]
    for batch in batches[1:]:
        for found, row in zip(rows, batch if scheme.granularity.kind == "channel" else [batch.ravel()]):
            found.append(row)
    rows = [[batch.tolist() for batch in row] for row in rows]
    if name == "mean-squared-error":
        ranges = _searched(scheme.rule, params["search"], rows)
    else:
        ranges = [_range(name, dialect, params, row) for row in rows]
    shape = () if scheme.granularity.kind == "tensor" else (len(rows), 1)
    lo, hi = (np.array(ends, np.float32).reshape(shape) for ends in zip(*ranges))
    rule = scheme.rule
    found = [naive.linear([lo_, hi_], rule.bits, rule.signed, rule.symmetric) for lo_, hi_ in ranges]
    scale = np.array([float(s) for _, s, _ in found], np.float32).reshape(shape)
    answer = {"lo": lo, "hi": hi, "scale": scale}
    if not rule.symmetric:
        answer["zero_point"] = np.array([int(z) for _, _, z in found], np.uint8).reshape(shape)
    return answer


def _range(name, dialect, params, batches):
    negative = any(v < 0 for batch in batches for v in batch)
    largest = max(abs(v) for batch in batches for v in batch)
    if name == "min-max":
        return naive_methods.extremes(batches)
    if name == "moving-average":
        return naive_methods.moving(batches, params["constant"])
    if name in ("percentile", "entropy") and largest == 0:
        return 0.0, 0.0
    if name == "percentile":
        top = naive_methods.percentile(batches, params["percentile"], params["bins"], bool(dialect))
    elif name == "entropy":
        top = naive_methods.entropy(batches, 2 ** (params["bits"] - 1), params["bins"])
    else:
        raise Unsupported(name)
    top = float(np.float32(top))
    return (-top if negative else 0.0), top


def _searched(rule, search, rows):
    """The answers of the batches, averaged with the constant 0.01."""
    count, patience = {"llm-compressor": (20, 5), "gptq": (80, None)}[search]
    low = -(2 ** (rule.bits - 1)) if rule.signed else 0

    def scale_of(lo, hi):
        _, scale, zero = naive.linear([lo, hi], rule.bits, rule.signed, rule.symmetric)
        return float(scale), int(zero), low, low + 2**rule.bits - 1

    found = None
    for batch in zip(*rows):
        best = naive_methods.searched(batch, [1 - i / 100 for i in range(count)], patience, scale_of)
        ends = [[naive_methods.f32(v) for v in pair] for pair in best]
        found = ends if found is None else [list(map(_moved, old, new)) for old, new in zip(found, ends)]
    return found


def _moved(old, new):
    f32 = naive_methods.f32
    return f32(old + f32(f32(0.01) * f32(new - old)))


def quantize(member, params, inputs):
    """GPTQ, LDLQ and OBQ as optimal brain quantization, an inverse for every step."""
    name, _, dialect = member.partition("@")
    W, X, scheme = inputs["W"], inputs["X"], parse(params["scheme"])
    if W.shape[1] != X.shape[1] or not np.isfinite(W).all():
        raise Unsupported("refusals")
    size = scheme.granularity.size if scheme.granularity.kind == "group" else W.shape[1]
    rule, wide = scheme.rule, X.astype(np.float64).tolist()
    H, dead = naive_methods.damped(naive_methods.hessian(wide))
    order = list(range(W.shape[1]))
    by_activation = params.get("order") == "activation" or dialect == "llm-compressor"
    if by_activation:
        order.sort(key=lambda j: -(H[j][j]))
    static = dialect in ("ist", "llm-compressor") or name in ("ldlq", "obq")
    place = {column: i for i, column in enumerate(order)}
    member_of = {j: (j if dialect == "llm-compressor" or not by_activation else place[j]) // size for j in order}
    original = [[0.0 if j in dead else w for j, w in enumerate(row)] for row in W.tolist()]
    grids, codes = {}, np.zeros(W.shape, np.int64)

    def grid(i, j, now):
        group = member_of[j]
        if (i, group) not in grids:
            members = [k for k in order if member_of[k] == group]
            source = original[i] if static else now[i]
            grids[i, group] = _scale(rule, [float(np.float32(source[k])) for k in members], dialect == "ist")
        return grids[i, group]

    def rounded(i, j, now):
        scale, zero = grid(i, j, now)
        low = -(2 ** (rule.bits - 1)) if rule.signed else 0
        codes[i, j] = min(max(round(now[i][j] / scale) + zero, low), low + 2**rule.bits - 1) if scale else zero
        return (codes[i, j] - zero) * scale

    if name == "obq":
        _greedy(original, H, grid, rounded)
    else:
        naive_methods.sweep(W.astype(np.float64).tolist(), wide, order, rounded)
    groups = W.shape[1] // size
    shape = (len(W), groups)
    scale = np.array([[grids[i, g][0] for g in range(groups)] for i in range(len(W))], np.float32).reshape(shape)
    dtype = np.int8 if rule.signed else np.uint8
    zero = np.array([[grids[i, g][1] for g in range(groups)] for i in range(len(W))], dtype)
    answer = {"codes": codes.astype(dtype), "scale": scale, "zero_point": zero[0, 0] if rule.symmetric else zero}
    if by_activation and not static and size < W.shape[1]:
        answer["g_idx"] = np.array([member_of[j] for j in range(W.shape[1])], np.int32)
    return answer


def _scale(rule, row, ist):
    if ist:
        lo, hi = min(*row, 0.0), max(*row, 0.0)
        if lo == hi == 0:
            row = [-1.0, 1.0]
        elif rule.symmetric and lo == 0:
            row = [-hi / 2, hi / 2]
    _, scale, zero = naive.linear(row, rule.bits, rule.signed, rule.symmetric)
    return float(scale), int(zero)


def _greedy(W, H, grid, rounded):
    """OBQ: in each row the cheapest weight next; those that clip before all others."""
    for i, row in enumerate(W):
        now, left, free = [None] * len(W), naive_methods.inverse(H), set(range(len(row)))
        now[i] = row[:]
        while free:
            errors = {j: now[i][j] - rounded(i, j, now) for j in free}
            beyond = {j for j in free if abs(errors[j]) > abs(grid(i, j, now)[0]) * 0.5000001}
            j = min(beyond or free, key=lambda j: (errors[j] ** 2 / left[j][j], j))
            rounded(i, j, now)
            now[i] = [w - errors[j] / left[j][j] * a for w, a in zip(now[i], left[j])]
            free.remove(j)
            left = naive_methods.eliminated(left, j)


def prune(member, params, inputs):
    """SparseGPT, Wanda, magnitude."""
    W, X = inputs["W"].astype(np.float64).tolist(), inputs["X"].astype(np.float64).tolist()
    if len(W[0]) != len(X[0]) or not np.isfinite(inputs["W"]).all():
        raise Unsupported("refusals")
    pattern, share = params.get("pattern"), params.get("sparsity")
    gone = naive_methods.least(share) if pattern is None else naive_methods.least_of(*pattern)
    if member == "sparsegpt":
        values = naive_methods.sparsegpt(W, X, share, pattern)
    elif member == "wanda":
        values = naive_methods.wanda(W, X, gone)
    else:
        values = [naive_methods.cut(row, gone([abs(w) for w in row])) for row in W]
    return {"values": np.array(values, np.float32)}


AWQ = {
    "": ([(i / 20, False) for i in range(21)], 0.0),
    "llm-awq": ([(i / 20, False) for i in range(20)], 0.0),
    "autoawq": ([(i / 20, True) for i in range(20)], 1e-6),
    "llm-compressor": ([(0.0, False), *((i / 18, True) for i in range(19))], 1e-6),
}


def channel_scale(member, params, inputs):
    """SmoothQuant's scale and AWQ's."""
    name, _, dialect = member.partition("@")
    W, X = inputs["W"].astype(np.float64).tolist(), inputs["X"].astype(np.float64).tolist()
    if len(W[0]) != len(X[0]) or not np.isfinite(inputs["W"]).all():
        raise Unsupported("refusals")
    if name == "smoothquant":
        scale = naive_methods.smooth_scale(W, X, params["alpha"], dialect == "llm-compressor")
    else:
        points, epsilon = AWQ[dialect]
        scale = naive_methods.awq_scale(W, X, points, 16, 4, epsilon)
    return {"channel_scale": np.array(scale, np.float32)}


def int8(member, op, params, inputs):
    """LLM.int8(): codes, and the product."""
    default = member.endswith("bitsandbytes-default")
    x, threshold = inputs["x"].tolist(), params["threshold"]
    if not np.isfinite(inputs["x"]).all():
        raise Unsupported("refusals")
    if op == "encode":
        codes, largest, outliers = naive_methods.int8_rows(x, threshold, default, default)
        scale = np.array(largest, np.float32)
        return {"codes": np.array(codes, np.int8), "scale": scale, "outliers": np.array(outliers, np.int64)}
    constant = 6.200124e-05 if default else 1 / 16129
    values = naive_methods.int8_product(x, inputs["W"].tolist(), threshold, default, default, constant)
    return {"values": np.array(values, np.float32)}


def run(family, member, op, params, inputs):
    """observer and method."""
    if family == "observer":
        return observe(member, params, inputs)
    if member.startswith("llm_int8"):
        return int8(member, op, params, inputs)
    return {"quantize": quantize, "prune": prune, "channel_scale": channel_scale}[op](member, params, inputs)
