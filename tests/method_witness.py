"""naive_methods as a witness of observers and calibrated methods."""

import gptq_witness
import layer_witness
import naive_methods
import numpy as np
import observer_witness

from conformance.protocol import Unsupported


def quantize(member, params, inputs):
    """GPTQ, LDLQ and OBQ: the latter two find every scale before the first weight is rounded."""
    name, _, dialect = member.partition("@")
    if name == "gptq":
        return gptq_witness.run(dialect, params, inputs)
    if name == "ldlq" or params.get("order", "greedy") != "greedy":
        said = {key: value for key, value in params.items() if key != "outliers_first"}
        return gptq_witness.run("", {"static_groups": True, **said}, inputs)
    said = {key: params[key] for key in ("scheme", "damp") if key in params}
    layer = gptq_witness.Sweep("", {**said, "static_groups": True}, inputs)
    grids = {g: layer.grid(layer.W[:, layer.group == g]) for g in set(layer.group.tolist())}
    codes = np.zeros(layer.W.shape, np.int64)
    for i, row in enumerate(layer.W.tolist()):
        each = [grids[g][i] for g in layer.group]
        codes[i] = _greedy(layer, row, each, params.get("outliers_first", True))
    return layer.stored(codes, grids)


def _greedy(layer, row, grids, outliers_first):
    """Codes of a row: the cheapest weight next; those that clip before all others, where that is said."""
    left, free, codes = naive_methods.inverse(layer.H.tolist()), set(range(len(row))), [0] * len(row)
    rounded = lambda j: layer.coded(np.array([row[j]]), *(np.array([part]) for part in grids[j]))[0]
    while free:
        now = {j: rounded(j) for j in free}
        errors = {j: row[j] - (now[j] - grids[j][1]) * grids[j][0] for j in free}
        beyond = {j for j in free if outliers_first and abs(errors[j]) > abs(grids[j][0]) * 0.5000001}
        j = min(beyond or free, key=lambda j: (errors[j] ** 2 / left[j][j], j))
        codes[j], error = now[j], errors[j] / left[j][j]
        row = [w - error * a for w, a in zip(row, left[j])]
        free.remove(j)
        left = naive_methods.eliminated(left, j)
    return codes


def least_of_layer(W, sparsity):
    """The smallest weights of all become zero."""
    out = W.copy()
    order = sorted(range(W.size), key=lambda place: (abs(W.reshape(-1)[place]), place))
    out.reshape(-1)[order[: int(W.size * sparsity)]] = 0
    return out


def prune(member, params, inputs):
    """SparseGPT, Wanda, magnitude."""
    W, X = (inputs.get(name, inputs["W"]).astype(np.float64).tolist() for name in "WX")  # magnitude has no X
    if len(W[0]) != len(X[0]) or not np.isfinite(inputs["W"]).all():
        raise Unsupported("refusals")
    if params.get("scope") == "layer" and "pattern" not in params:
        return {"values": least_of_layer(inputs["W"], params.get("sparsity", 0.5))}
    pattern, share = params.get("pattern"), params.get("sparsity", 0.5)
    if not set(params) <= {"pattern", "sparsity", "precision", "block", "scope"} or params.get("block", 128) < len(
        W[0]
    ):
        raise Unsupported(f"{sorted(params)}")
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
        return observer_witness.run(member, params, inputs)
    if member.startswith("llm_int8"):
        return int8(member, op, params, inputs)
    if op in ("weight", "transform") or (op == "quantize" and member.partition("@")[0] in layer_witness.METHODS):
        try:
            return layer_witness.run(member, op, params, inputs)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, np.linalg.LinAlgError) as why:
            raise Unsupported(f"refusals: {why}") from why
    operations = {"quantize": quantize, "prune": prune, "channel_scale": channel_scale}
    if op not in operations or member in ("obd", "obs"):
        raise Unsupported(f"method.{member} {op}")
    return operations[op](member, params, inputs)
