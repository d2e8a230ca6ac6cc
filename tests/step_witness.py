"""Plain Python as a witness of the steps of calibrated methods: nothing is said about refusals.

PYTHONPATH=tests python -m conformance run --backend tests/step_witness.py --only 'step.*' --json
"""

import math

import naive
import naive_methods
import naive_steps
import naive_vectors
import numpy as np
from naive_caches import rounded

from conformance.protocol import Unsupported

NAME = "naive steps (plain Python)"
SEARCHES = {"": (1e-4, 1e-4, math.inf), "autoawq": (1e-4, 1e-4, math.inf), "modelopt": (2.0**-126, 1e-4, 1e4)}
GRIDS = {"int4-g4": ((4, True, True), 4), "int4-g8": ((4, True, True), 8), "int8-token": ((8, True, True), 0),
         "int4-token": ((4, True, True), 0), "uint4-channel": ((4, False, False), 0), "int3-g4": ((3, True, True), 4),
         "int8-token-restricted": ((8, True, True, "restricted"), 0)}  # fmt: skip


def version():
    """Of the tree."""
    return "of this tree"


def run(algorithm, op, params, inputs):
    """result0, result1 ... of a function."""
    family, _, member = algorithm.partition(".")
    function = FUNCTIONS.get((member, params.get("function")))
    if family != "step" or function is None:
        raise Unsupported(f"{algorithm} {params.get('function')}")
    if any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in inputs.values()):
        raise Unsupported("refusals")
    try:
        found = function(params, inputs, {name: array.tolist() for name, array in inputs.items()})
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError, OverflowError) as why:
        raise Unsupported(f"refusals: {why}") from why
    return {f"result{i}": np.asarray(each) for i, each in enumerate(found)}


def _batches(inputs):
    found = [inputs[f"batch{i}"] for i in range(len(inputs))]
    if not found or any(x.ndim not in (2, 3) or x.shape[-1] != found[0].shape[-1] for x in found):
        raise Unsupported("refusals")
    return found


def _hessian(params, inputs, lists):
    rule = params.get("rule", "sum")
    if params.get("other") or rule not in ("sum", "sequences", "running"):
        raise Unsupported("refusals")
    batches = [x[None].tolist() if x.ndim == 2 else x.tolist() for x in _batches(inputs)]
    H, count = naive_steps.hessian(batches, rule)
    return np.array(H, np.float64 if params.get("exact") else np.float32), count


def _damped(params, inputs, lists):
    H, dtype = lists["H"], inputs["H"].dtype
    added = dtype.type(params["damp"] * (math.fsum(H[j][j] for j in range(len(H))) / len(H)))
    return (np.array([[v + float(added) * (i == j) for j, v in enumerate(row)] for i, row in enumerate(H)], dtype),)


def _revived(params, inputs, lists):
    H = lists["H"]
    dead = [H[j][j] == 0 for j in range(len(H))]
    filled = [[1.0 if i == j and dead[j] else v for j, v in enumerate(row)] for i, row in enumerate(H)]
    return np.array(filled, inputs["H"].dtype), np.array(dead)


def _norms(params, inputs, lists):
    tokens = [x for batch in _batches(inputs) for x in batch.reshape(-1, batch.shape[-1]).tolist()]
    return (np.array([math.sqrt(math.fsum(v * v for v in column) / len(tokens)) for column in zip(*tokens)]),)


def _least(params, inputs, lists):
    scores, share = lists["scores"], params.get("sparsity")
    if params["function"] == "least_of_pattern":
        n, m = params["pattern"]
        if not 0 < n < m or len(scores[0]) % m:
            raise Unsupported("refusals")
        gone = naive_methods.least_of(n, m)
    elif not 0 <= share <= 1:
        raise Unsupported("refusals")
    else:
        gone = naive_methods.least(share)
    if params["function"] == "least_of_layer":
        flat = gone([v for row in scores for v in row])
        return (np.array([i in flat for i in range(inputs["scores"].size)]).reshape(inputs["scores"].shape),)
    return (np.array([[j in gone(row) for j in range(len(row))] for row in scores]),)


def _factors(params, inputs, lists):
    every, H = params.get("every", 1), inputs["H"]
    if H.ndim != 2 or H.shape[0] != H.shape[1]:
        raise Unsupported("refusals")
    dtype = np.float64 if params.get("exact") else H.dtype
    R, U = (np.array(each)[::every, ::every].astype(dtype) for each in naive_steps.factors(lists["H"]))
    return {"factors": (R, U), "upper_factor": (R,), "inverse_factor": (U,)}[params["function"]]


def _feedback(params, inputs, lists):
    R = naive_steps.upper(lists["H"])
    n, dtype = len(R), np.float64 if params.get("exact") else inputs["H"].dtype
    return (np.array([[R[i][j] / R[j][j] if j > i else 0.0 for j in range(n)] for i in range(n)], dtype),)


def _subtracted(params, inputs, lists):
    columns = list(zip(*lists["B"])) or [()] * len(lists["C"][0])
    rows = zip(lists["C"], lists["A"])
    found = [
        [c - math.fsum(a * b for a, b in zip(row, column)) for c, column in zip(line, columns)] for line, row in rows
    ]
    return (np.array(found, inputs["C"].dtype),)


def _gram(params, inputs, lists):
    return (np.array(naive_steps.outer_sum(lists["X"]), np.float64 if params.get("exact") else inputs["X"].dtype),)


def _tokens(params, inputs, lists):
    if params["as"] not in ("array", "list") or any(x.shape[-1] != params["width"] for x in _batches(inputs)):
        raise Unsupported("refusals")
    return (np.array([row for x in _batches(inputs) for row in x.reshape(-1, params["width"]).tolist()], np.float32),)


def _adam(params, inputs, lists):
    first, second = params.get("betas", (0.9, 0.999))
    settings = params.get("lr", 1e-3), first, second, params.get("epsilon", 1e-8)
    gradients = zip(*(lists[f"g{i}"] for i in range(len(lists) - 1)))
    return (np.array([naive_steps.adam(p, g, *settings) for p, g in zip(lists["p"], gradients)], inputs["p"].dtype),)


def _soft(params, inputs, lists):
    return [np.array(each, np.float32) for each in zip(*map(naive_steps.stretched_sigmoid, lists["V"]))]


def _inverse(params, inputs, lists):
    return (np.array([naive_steps.unstretched(h) for h in lists["h"]], np.float32),)


def _slope(params, inputs, lists):
    return (np.array([naive_steps.pull(h, params["beta"]) for h in lists["h"]], np.float32),)


def _layers(lists):
    layers = [lists[f"layers{i}"] for i in range(len(lists)) if f"layers{i}" in lists]
    if len({len(W[0]) for W in layers} | ({len(lists["X"][0])} if "X" in lists else set())) != 1:
        raise Unsupported("refusals")
    return layers


def _smooth(params, inputs, lists):
    alpha, dialect = params.get("alpha", 0.5), params.get("dialect", "")
    if not 0 <= alpha <= 1 or dialect not in ("", "llm-compressor"):
        raise Unsupported("refusals")
    return (np.array(naive_steps.smooth(_layers(lists), lists["X"], alpha, bool(dialect)), np.float32),)


def _log(params, inputs, lists):
    return (np.array([max(a / math.log2(2 + a), naive_methods.f32(1e-5)) for a in lists["a"]], np.float32),)


def _awq(params, inputs, lists):
    if "ratio" in params:
        point = naive_steps.awq_point(
            lists["x"], lists["w"], params["ratio"], params["duo"], *SEARCHES[params["search"]]
        )
        return (np.array(point, np.float32),)
    if "epsilon" not in params:
        raise Unsupported("whole searches")
    shares, size = [], int(params["scheme"].rpartition("-g")[2])
    for W in _layers(lists):
        for row in W:
            tops = [max(map(abs, row[j // size * size : j // size * size + size])) for j in range(len(row))]
            shares.append([abs(w) / (top + params["epsilon"]) for w, top in zip(row, tops)])
    return (np.array([math.fsum(column) / len(shares) for column in zip(*shares)], np.float32),)


def _mean(params, inputs, lists):
    return (np.array([math.fsum(map(abs, column)) / len(lists["X"]) for column in zip(*lists["X"])], np.float32),)


def _importance(params, inputs, lists):
    return (np.array([math.fsum(v * v for v in c) / len(lists["X"]) for c in zip(*lists["X"])], np.float32),)


def _outliers(params, inputs, lists):
    return (np.array([naive_steps.beyond(row, params["deviations"]) for row in lists["W"]]),)


def _corrected(params, inputs, lists):
    size = lists["scale"]
    plain = [
        [naive_methods.f32(q * size[i][j // 4]) for j, q in enumerate(row)] for i, row in enumerate(lists["codes"])
    ]
    extras = {name: x for name, x in lists.items() if name not in ("codes", "scale", "zero_point")}
    count = inputs["codes"].size // 2 + inputs["scale"].nbytes + sum(inputs[name].nbytes for name in extras)
    rank = inputs["up"].shape[1] if "up" in inputs else 0
    if inputs.get("down", np.zeros((rank, 0))).shape[0] != rank or set(extras) - set(KNOWN):
        raise Unsupported("refusals")
    return np.array(naive_steps.corrected(plain, extras), np.float32), count


KNOWN = ("channel_scale", "up", "down", "sparse_start", "sparse_columns", "sparse_values")


def _sparse(params, inputs, lists):
    places = [(i, j) for i, row in enumerate(lists["mask"]) for j, kept in enumerate(row) if kept]
    start = [sum(i < row for i, _ in places) for row in range(len(lists["mask"]) + 1)]
    columns, values = [j for _, j in places], [lists["W"][i][j] for i, j in places]
    return np.array(columns, np.int32), np.array(start, np.int32), np.array(values, np.float32)


def _int8(params, inputs, lists):
    dialect = params.get("dialect", "")
    if dialect == "bitsandbytes-cuda" or ("x" in inputs and "wide" not in inputs and not dialect):
        raise Unsupported("statistics in float16; a published product without the wide matrix")
    default = bool(dialect)
    if "x" not in inputs:
        codes, largest, _ = naive_methods.int8_rows(lists["W"], 0, default, default)
        decoded = [[naive_methods.f32(naive_methods.f32(q * a) * naive_methods.f32(1 / 127)) for q in row]
                   for row, a in zip(codes, largest)]  # fmt: skip
        count = inputs["W"].size + 4 * len(codes)
        return np.array(decoded, np.float32), count, np.array(codes, np.int8), np.array(largest, np.float32)
    constant = 6.200124e-05 if default else 1 / 16129
    if default and "wide" in inputs:
        raise Unsupported("a wide matrix in a dialect")
    threshold = params.get("threshold", 6.0)
    return (
        np.array(naive_methods.int8_product(lists["x"], lists["W"], threshold, default, default, constant), np.float32),
    )


def _product(params, inputs, lists):
    """X times the decoded matrix."""
    decode = lambda rows, name: [rounded(row, GRIDS[name][0], GRIDS[name][1] or len(row)) for row in rows]
    inputs_scheme = params.get("inputs", "int8-token-restricted")
    X = lists["X"] if inputs_scheme is None else decode(lists["X"], inputs_scheme)
    W = decode(lists["W"], params["scheme"])
    if len(X[0]) != len(W[0]):
        raise Unsupported("refusals")
    return (np.array([[math.fsum(a * b for a, b in zip(x, w)) for w in W] for x in X], np.float32),)


def _scores(params, inputs, lists):
    W, score = lists["W"], params["score"]
    if score == "magnitude":
        return (np.array([[abs(w) for w in row] for row in W]),)
    H = naive_methods.hessian(lists["X"])
    if score == "sensitivity":
        return (np.array([[w * w * H[j][j] for j, w in enumerate(row)] for row in W]),)
    diagonal = naive_methods.inverse(naive_methods.damped(H)[0])
    decoded = [rounded(row, *GRIDS[params["scheme"]]) for row in W]
    return (
        np.array(
            [[(w - q) ** 2 / (2 * diagonal[j][j]) for j, (w, q) in enumerate(zip(*rows))] for rows in zip(W, decoded)]
        ),
    )


def _grid(params, inputs, lists):
    """Linear grids of rows or of ranges by exact fractions."""
    kinds = {"int3-channel": (3, True, True), "uint3-channel": (3, False, False), "int4-signedmax": (4, True, True,
        "signedmax"),
             "int4-restricted": (4, True, True, "restricted"), "int4-full": (4, True, True, "full"),
             "int8-channel": (8, True, True)}  # fmt: skip
    kind = kinds[params["scheme"]]
    rows = lists["rows"] if "rows" in lists else [list(ends) for ends in zip(lists["lo"], lists["hi"])]
    bits, signed = kind[:2]
    low = -(2 ** (bits - 1)) if signed else 0
    dtype = inputs["w"].dtype
    scales, zeros, codes, values = [], [], [], []
    for row, w in zip(rows, lists["w"]):
        _, scale, zero = naive.linear(row, *kind)
        least = low + (len(kind) > 3 and kind[3] == "restricted")
        nearest = [round(float(dtype.type(v) / dtype.type(scale))) if scale else 0 for v in w]
        held = [min(max(q + int(zero), least), low + 2**bits - 1) for q in nearest]
        scales.append(float(scale))
        zeros.append(float(zero))
        codes.append(held)
        values.append([(q - int(zero)) * float(scale) for q in held])
    return np.array(scales, np.float32), np.array(zeros, np.float32), np.array(codes, dtype), np.array(values, dtype)


def _shrunk(params, inputs, lists):
    """AutoRound, a group at a time."""
    head, *words = params["scheme"].split("-")
    bits, signed = int(head.lstrip("uint")), head.startswith("int")
    asymmetric = not signed or "asym" in words
    how = "asymmetric" if asymmetric else "signedmax" if "signedmax" in words else "symmetric"
    narrow = naive_vectors.f16 if "f16" in words else lambda s: s
    groups = inputs["W"].reshape(len(lists["v"]), -1).tolist()
    kind = (bits, signed, not asymmetric) + (("signedmax",) if how == "signedmax" else ())
    passes, slopes = [], []
    for i, x in enumerate(groups):
        a, b = lists["a"][i][0], lists["b"][i][0]
        plain = narrow(float(naive.linear(x, *kind)[1])) if how == "symmetric" else 0.0
        passes.append(naive_steps.shrunk(x, lists["v"][i], a, b, (bits, signed, how), plain, narrow))
        if "to_weight" in lists:
            slopes.append(naive_steps.shrinking(x, a, passes[-1], lists["to_weight"][i], asymmetric))
    column = lambda values: np.array(values, np.float32).reshape(-1, 1)
    codes, scale, zero, inside, by_a, by_b = zip(*passes)
    found = [np.array(codes, np.float32), column(scale), column(zero), np.array(inside), column(by_a), column(by_b)]
    if slopes:
        by_v, in_a, in_b = zip(*slopes)
        found += [np.array(by_v, np.float32), column(in_a), column(in_b)]
    return found


def _raised(params, inputs, lists):
    """The factor of the inverse, with more damping until there is one, or that of no compensation."""
    H, damp, step = lists["H"], params.get("damp", 0.01), params.get("damp_step", 0.0)
    dtype = np.float64 if params.get("precision") == "exact" else np.float32
    mean = math.fsum(H[j][j] for j in range(len(H))) / len(H)
    while True:
        try:
            raised = [[v + damp * mean * (i == j) for j, v in enumerate(row)] for i, row in enumerate(H)]
            return (np.array(naive_steps.factors(raised)[1], dtype),)
        except ValueError:
            damp += step
            if not step or damp >= 1:
                break
    if params.get("fallback") != "nearest":
        raise Unsupported("refusals")
    return (np.eye(len(H), dtype=dtype),)


def _shifts(params, inputs, lists):
    """What the peak's code is moved by: 0 first, then tenths, or hundredths of three quarters of the half range."""
    if params["dialect"]:
        width, count = (0.01, 90) if params["bits"] == 2 else (2 ** (params["bits"] - 1) * 0.75 / 100, 100)
        return (np.array([0.0, *(width * k for k in range(-count, count + 1) if k)]),)
    return (np.array([0.0, *(-0.1 * k for k in range(-9, 10) if k)]),)


FUNCTIONS = {
    ("gptq", "damped_factor"): _raised,
    ("weighted_rounding", "shifts_of"): _shifts,
    ("autoround", "qdq"): _shrunk,
    ("hessian", "Hessian"): _hessian, ("hessian", "damped"): _damped, ("hessian", "revive_dead"): _revived,
    ("wanda", "input_norms"): _norms, ("sparsity", "least_of_rows"): _least, ("sparsity", "least_of_layer"): _least,
    ("sparsity", "least_of_pattern"): _least, ("factor", "factors"): _factors, ("factor", "upper_factor"): _factors,
    ("factor", "inverse_factor"): _factors, ("factor", "subtract_product"): _subtracted, ("factor", "gram"): _gram,
    ("ldlq", "feedback"): _feedback, ("layer_inputs", "tokens"): _tokens, ("adam", "step"): _adam,
    ("adaround", "soft"): _soft, ("adaround", "inverse"): _inverse, ("adaround", "regularizer_slope"): _slope,
    ("smoothquant", "smooth_scale"): _smooth, ("smoothquant", "log_equalization"): _log, ("awq", "search_scale"): _awq,
    ("awq", "input_mean"): _mean, ("weighted_rounding", "importance"): _importance, ("easyquant",
    "outliers"): _outliers,
    ("compensated", "dequantize"): _corrected, ("compensated", "sparse"): _sparse, ("llm_int8", "matmul"): _int8,
    ("zeroquant", "matmul"): _product, ("sparse_split", "scores"): _scores, ("grid", "fit"): _grid,
}  # fmt: skip
