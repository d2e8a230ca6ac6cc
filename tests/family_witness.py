"""Plain Python as a witness of vector codes, caches, rotations, collectives, training and pruning by Hessians.

PYTHONPATH=tests python -m conformance run --backend tests/family_witness.py --only 'vector.*' --json
"""

import math

import naive_caches
import naive_levels
import naive_methods
import naive_rotations
import naive_training
import naive_vectors
import numpy as np
from naive_gguf import f32

from conformance.protocol import Unsupported

NAME = "naive families (plain Python)"
SCHEMES = {  # rule of naive.linear, size of a group (0: the row)
    "int8-b256": ((8, True, True), 256), "int4-b256": ((4, True, True), 256), "int4-b4": ((4, True, True), 4),
    "int4-b2": ((4, True, True), 2), "int8-b4": ((8, True, True), 4), "int3-b4": ((3, True, True), 4),
    "uint3-g4": ((3, False, False), 4), "uint4-token": ((4, False, False), 0), "int8-token": ((8, True, True), 0),
    "uint3-token": ((3, False, False), 0), "int4-g4": ((4, True, True), 4),
}  # fmt: skip
DTYPES = {"hadamard": np.int8}


def version():
    """Of the tree."""
    return "of this tree"


def run(algorithm, op, params, inputs):
    """Outputs; where the plain code finds no sense in the input it says nothing."""
    family, _, member = algorithm.partition(".")
    table = {"vector": vector, "cache": cache, "rotation": rotation, "collective": collective, "training": training}
    if family == "method" and member in ("obd", "obs"):
        return surgery(member, op, params, inputs)
    if family not in table:
        raise Unsupported(f"{algorithm} {op}")
    try:
        return table[family](member, op, params, inputs)
    except (KeyError, IndexError, OverflowError, TypeError, ValueError, StopIteration) as why:
        raise Unsupported(f"refusals: {why}") from why


def vector(member, op, params, inputs):
    """AQLM, E8P, QTIP, EXL3, VPTQ."""
    lists = {name: array.tolist() for name, array in inputs.items()}
    if member == "aqlm":
        values = naive_vectors.aqlm(lists["codes"], lists["codebooks"], [f32(s[0][0][0]) for s in lists["scales"]])
    elif member == "e8p" and op == "unpack":
        words = inputs["packed"].view(np.uint64).ravel().tolist()
        codes = naive_vectors.e8p_codes(words, *inputs["packed"].shape)
        return {"codes": np.array(codes, np.uint16)}
    elif member == "e8p":
        values = [[x for code in row for x in naive_vectors.e8p(code)] for row in lists["codes"]]
    elif member == "qtip" and op == "states":
        return {"states": np.array([naive_vectors.states(row, params["step"]) for row in lists["words"]], np.int64)}
    elif member == "qtip":
        function = params.get("function", "3inst")
        values = naive_vectors.qtip(lists["words"], params["shape"][1], params["bits"], function, lists.get("table"))
    elif member == "exl3":
        return exl3(op, params, inputs)
    else:
        values = vptq(params, inputs)
    return {"values": np.array(values, np.float32)}


def exl3(op, params, inputs):
    """Tiles, or every so many weights of a layer."""
    packed = inputs["trellis"].view(np.uint16)
    function = params.get("function") or next((name for name in ("mcg", "mul1") if name in inputs), "3inst")
    known, inner = {}, {}
    for a in range(packed.shape[0]):
        for b in range(packed.shape[1]):
            words = tuple(packed[a, b].tolist())
            if words not in known:
                known[words] = naive_vectors.exl3_tile(words, function)
            inner |= {(16 * a + i, 16 * b + j): x for (i, j), x in known[words].items()}
    ins, outs = 16 * packed.shape[0], 16 * packed.shape[1]
    if op == "tiles":
        return {"values": np.array([[inner[i, j] for j in range(outs)] for i in range(ins)], np.float32)}
    left, right = (scale(inputs, *names) for names in (("suh", "su"), ("svh", "sv")))
    every = params["every"]
    rows = range(0, outs, every)
    values = [[naive_vectors.exl3_weight(inner, left, right, i, j) for j in range(0, ins, every)] for i in rows]
    return {"values": np.array(values, np.float32)}


def scale(inputs, name, packed):
    """Scales, or signs of words."""
    if name in inputs:
        return inputs[name].tolist()
    return [-1.0 if word >> i & 1 else 1.0 for word in inputs[packed].view(np.uint16).tolist() for i in range(16)]


def vptq(params, inputs):
    """The indices of the words, then the weights."""
    unsigned = lambda name: inputs[name].view(np.uint16).tolist()
    tensors = {name: array.tolist() for name, array in inputs.items() if "weight" in name}
    if "perm" in inputs:
        tensors["perm"] = inputs["perm"].tolist()
    count, residual = params["num_centroids"][1], params["num_res_centroids"][1]
    if params.get("is_indice_packed"):
        low, high = (count - 1).bit_length(), (residual - 1).bit_length() if residual > 0 else 0
        words = inputs["indices"].view(np.uint32).tolist()
        both = [[naive_vectors.vptq_indices(row, params["group_size"], low, high) for row in book] for book in words]
        k, r = ([[pair[i] for pair in book] for book in both] for i in (0, 1))
    else:
        k, r = unsigned("indices"), unsigned("res_indices") if residual > 0 else None
    outliers = unsigned("outlier_indices")[0] if "outlier_indices" in inputs else None
    return naive_vectors.vptq(params, tensors, k, r if residual > 0 else None, outliers)


def cache(member, op, params, inputs):
    """KIVI, KVQuant, token by token; the fit of KVQuant."""
    if op == "fit":
        return fit(params, inputs)
    calls = [(inputs[f"k{i}"], inputs[f"v{i}"]) for i in range(len(inputs)) if f"k{i}" in inputs]
    if not calls and op == "size":
        return {"bytes": np.int64(0), "tokens": np.int64(0)}
    k, v = (np.concatenate(parts) for parts in zip(*calls))
    if member == "kivi":
        usual = {"bits": 2, "group": 32, "residual": 128} | params
        keys, values, count = naive_caches.kivi(k.tolist(), v.tolist(), **usual)
    elif member == "kvquant":
        tables = [inputs[name].tolist() for name in ("key_levels", "key_lower", "key_upper", "value_levels")]
        share, first = params.get("outliers", 0.0), params.get("first", 1)
        keys, values = naive_caches.kvquant(k.tolist(), v.tolist(), *tables, share, first)
        count = kvquant_bytes(k, v, tables, share, first)
    else:
        found = [[tokens(x, name, params) for x, name in zip(call, ("keys", "values"))] for call in calls]
        keys, values = (np.concatenate([pair[i][0] for pair in found]) for i in (0, 1))
        count = sum(size for pair in found for _, size in pair)
    sizes = {"bytes": np.asarray(count, np.int64), "tokens": np.asarray(len(k), np.int64)}
    return (
        sizes if op == "size" else {"keys": np.array(keys, np.float32), "values": np.array(values, np.float32), **sizes}
    )


def kvquant_bytes(k, v, tables, share, first):
    """Whole tokens of float16 first; then codes, 6 bytes an outlier, 4 bytes a head of values."""
    bits = [max(len(levels) - 1, 0).bit_length() for levels in (tables[0], tables[3])]
    rest = max(len(k) - first, 0)
    outside = 0
    for ks, vs in zip(k[first:].tolist(), v[first:].tolist()):
        for head, lower, upper in zip(ks, tables[1], tables[2]):
            outside += sum(beyond(x, *naive_caches.middle(a, b)) for x, a, b in zip(head, lower, upper))
        for head in vs:
            ends = (naive_caches.quantile(head, share / 2), naive_caches.quantile(head, 1 - share / 2))
            mid, reach = map(naive_vectors.f16, naive_caches.middle(*ends))
            outside += sum(beyond(x, mid, reach) for x in head)
    if rest and any(rest_of * b % 8 for rest_of, b in zip((k[0].size, v[0].size), bits)):
        raise Unsupported("bytes of codes that end within a byte, which depend on the cuts")
    codes = sum(x[0].size * rest * b // 8 for x, b in zip((k, v), bits))
    kept = 2 * min(len(k), first) * (k[0].size + v[0].size)
    return codes + kept + 6 * outside + 4 * rest * v.shape[1]


def beyond(x, mid, reach):
    """Whether a number is an outlier."""
    return x != mid and (reach == 0 or abs(f32(f32(x - mid) / reach)) > 1)


def tokens(x, name, params):
    """(values, bytes): each head of a token, or all of a token, by the scheme."""
    scheme = params.get(name, params["keys"])
    (bits, signed, symmetric), size = SCHEMES[scheme]
    rows = x.reshape(len(x), -1) if params.get("shared_heads") else x.reshape(-1, x.shape[2])
    size = size or rows.shape[1]
    values = [naive_caches.rounded(row, (bits, signed, symmetric), size) for row in rows.tolist()]
    return np.array(values, np.float32).reshape(x.shape), stored(rows.size, bits, rows.size // size, symmetric)


def stored(count, bits, groups, symmetric):
    """Bytes of codes, of a float32 for each group and, packed as the codes are, a zero point for each."""
    return -(-count * bits // 8) + 4 * groups + (0 if symmetric else -(-groups * bits // 8))


def fit(params, inputs):
    """Bounds by interpolation, levels by k-means."""
    x, share = inputs["x"], params.get("outliers", 0.01)
    if params.get("q_norm") or not 0 <= share < 1:
        raise Unsupported("Q-Norm, refusals")
    axis = 0 if params["of"] == "keys" else 2
    ends = [np.apply_along_axis(lambda row, s=s: naive_caches.quantile(row.tolist(), s), axis, x.astype(np.float64))
            for s in (share / 2, 1 - share / 2)]  # fmt: skip
    lower, upper = (np.expand_dims(end, axis) for end in ends)
    weights = inputs.get("weights", np.ones_like(x))
    numbers, w = [], []
    for value, a, b, each in zip(*(np.broadcast_to(y, x.shape).ravel().tolist() for y in (x, lower, upper, weights))):
        mid, reach = naive_caches.middle(a, b)
        u = 0.0 if value == mid else math.inf if reach == 0 else f32(f32(value - mid) / reach)
        if abs(u) <= 1:
            numbers.append(u)
            w.append(each)
    levels = naive_levels.lloyd(numbers, 2 ** params["bits"], w)
    answer = {"levels": np.array(levels, np.float32), "bits": np.asarray(params["bits"])}
    if axis == 0:
        answer |= {"lower": ends[0].astype(np.float32), "upper": ends[1].astype(np.float32)}
    return answer


def rotation(member, op, params, inputs):
    """Matrices by their entries, products by lists."""
    lists = {name: array.tolist() for name, array in inputs.items()}
    dtype = next((array.dtype for array in inputs.values()), None)
    if op == "matrix":
        n = params["n"]
        rows = params.get("rows", range(n))
        return {"H": np.array([[naive_rotations.entry(n, i, j) for j in range(n)] for i in rows], np.int8)}
    if op == "orthogonal":
        n, signs = params["n"], lists.get("signs", [1.0] * params["n"])
        Q = [[s * (naive_rotations.entry(n, i, j) / math.sqrt(n)) for j in range(n)] for i, s in enumerate(signs)]
        return {"Q": np.array(Q)} | ({"drawn": inputs["signs"].astype(np.float32)} if "signs" in inputs else {})
    if op == "transform" or (set(inputs) == {"W"} and op == "turn"):
        (x,) = inputs.values()
        if dtype.name not in ("float32", "float64") or not x.ndim:
            raise Unsupported("refusals")
        root = x.dtype.type(math.sqrt(x.shape[-1]))
        exact = np.array([naive_rotations.transform(row) for row in x.reshape(-1, x.shape[-1]).tolist()])
        whole = np.rint(exact * math.sqrt(x.shape[-1])).astype(dtype)  # the sums of whole numbers
        return {"y" if op == "transform" else "values": (whole / root).reshape(x.shape)}
    if op == "turn":
        P = lists.pop("P", [[float(i == j) for j in range(params["head_dim_v"])] for i in range(params["head_dim_v"])])
        Q = lists.pop("Q")
        if params.get("mixture") or len(Q) != params["n_embd"]:
            raise Unsupported("refusals")
        found = naive_rotations.model(lists, params["n_layer"], Q, P, params["tied_output"])
        return {name: np.array(w, np.float64) for name, w in found.items()}
    if op == "step":
        return {"R": np.array(naive_rotations.cayley(lists["R"], lists["gradient"], params["lr"]))}
    if op == "incoherence":
        flat = [x for row in lists["W"] for x in row]
        norm = math.sqrt(math.fsum(x * x for x in flat))
        mu = max(map(abs, flat)) * math.sqrt(len(flat)) / norm if norm else 1.0
        return {"mu": np.asarray(mu)}
    after = f32 if dtype == np.float32 else float
    if op == "incoherent":
        values = naive_rotations.incoherent(lists["W"], lists["left"], lists["right"], after)
        signs = {name: inputs[name].astype(dtype) for name in ("left", "right")}
        return {"values": np.array(values, dtype), **signs}
    return {"values": np.array(naive_rotations.coherent(lists["W"], lists["left"], lists["right"]), dtype)}


def collective(member, op, params, inputs):
    """ZeRO++: groups one by one, sums in order."""
    ranks = [inputs[f"rank{i}"].tolist() for i in range(len(inputs))]
    if op == "all_gather":
        (bits, signed, symmetric), size = SCHEMES[params.get("scheme", "int8-b256")]
        rows = [naive_caches.rounded(row, (bits, signed, symmetric), size or len(row)) for row in ranks]
        sent = stored(len(ranks[0]), bits, len(ranks[0]) // (size or len(ranks[0])), symmetric)
        return {"values": np.array([x for row in rows for x in row], np.float32), "bytes": np.asarray(sent, np.int64)}
    (bits, signed, symmetric), size = SCHEMES[params.get("scheme", "int4-b256")]
    if not size or len(ranks) % params["local"]:
        raise Unsupported("scales of whole rows, refusals")
    rows, *sent = naive_caches.reduce_scatter(ranks, params["local"], (bits, signed, symmetric), size)
    counts = [np.asarray(count * bits // 8 + count // size * 4, np.int64) for count in sent]
    return {"values": np.array(rows, np.float32), "within_nodes": counts[0], "between_nodes": counts[1]}


def training(member, op, params, inputs):
    """A number at a time; gradients of parameters are exact sums."""
    if op == "gradient_scale":
        return {"value": np.asarray(1 / math.sqrt(params["count"] * params["qmax"]))}
    x = inputs["x"]
    dtype = x.dtype.name
    if dtype not in ("float32", "float64"):
        raise Unsupported("refusals")
    if op == "first_scale":
        if member == "lsq_plus":
            return {"scale": np.asarray(naive_training.lsq_plus_scale(x.ravel().tolist(), params["bits"]), dtype)}
        axis = params.get("axis")
        if isinstance(axis, int):
            found = np.apply_along_axis(lambda row: naive_training.lsq_scale(row.tolist(), params["qmax"]), axis, x)
            return {"scale": np.expand_dims(found, axis).astype(dtype)}
        found = np.asarray(naive_training.lsq_scale(x.ravel().tolist(), params["qmax"]), dtype)
        return {"scale": found if axis is None else found.reshape(1, 1)}
    names = {
        "fake_quantize": ("scale", "zero_point"),
        "lsq": ("scale",),
        "lsq_plus": ("scale", "offset"),
        "pact": ("alpha",),
    }
    parameters = [inputs[name] for name in names[member]]
    if not (parameters[0] > 0).all() or any(p.ndim > x.ndim for p in parameters):
        raise Unsupported("refusals")
    wide = [np.broadcast_to(p, x.shape).ravel().tolist() for p in parameters]
    flat = x.ravel().tolist()
    shaped = lambda values, like=x: np.array([float(v) for v in values], dtype).reshape(like.shape)
    if op == "forward":
        if member == "pact":
            return {"values": shaped(naive_training.pact(v, a, params["bits"], dtype) for v, a in zip(flat, *wide))}
        shifts, moved = wide[1] if len(wide) > 1 else [0.0] * len(flat), member != "fake_quantize"
        ends = params["qmin"], params["qmax"]
        steps = (naive_training.step(v, s, z, *ends, dtype, moved) for v, s, z in zip(flat, wide[0], shifts))
        return {"values": shaped(step[0] for step in steps)}
    return gradients(member, params, inputs, parameters, wide, shaped)


def gradients(member, params, inputs, parameters, wide, shaped):
    """Of the input, and of parameters summed over what they were broadcast to."""
    x, dy = inputs["x"], inputs["dy"].ravel().tolist()
    flat = x.ravel().tolist()
    if member == "pact":
        dx = [g if 0 < v < a else 0.0 for g, v, a in zip(dy, flat, *wide)]
        da = [naive_training.exact(g if v >= a else 0.0) for g, v, a in zip(dy, flat, *wide)]
        return {"dx": shaped(dx), "dalpha": summed(da, x, parameters[0], 1.0)}
    ends = params["qmin"], params["qmax"]
    if member == "fake_quantize":
        inside = (naive_training.step(v, s, z, *ends, x.dtype.name, False)[3] for v, s, z in zip(flat, *wide))
        return {"dx": shaped(g if within else 0.0 for g, within in zip(dy, inside))}
    shifts = wide[1] if len(wide) > 1 else [0.0] * len(flat)
    how = params.get("inside", "rounded")
    found = [
        naive_training.slopes(g, v, s, b, *ends, x.dtype.name, how) for g, v, s, b in zip(dy, flat, wide[0], shifts)
    ]
    dx, ds, db = zip(*found)
    factor = params.get("gradient_scale", 1.0)
    answer = {"dx": shaped(dx), "dscale": summed(ds, x, parameters[0], factor)}
    return answer if member == "lsq" else answer | {"doffset": summed(db, x, parameters[1], factor)}


def summed(terms, x, parameter, factor):
    """Exact sums over the axes of length 1 and those that are missing, rounded once, times the factor."""
    places = np.broadcast_to(np.arange(parameter.size).reshape(parameter.shape), x.shape).ravel().tolist()
    totals = [naive_training.exact(0)] * parameter.size
    for place, term in zip(places, terms):
        totals[place] += term
    return (np.array([float(t) for t in totals], x.dtype) * x.dtype.type(factor)).reshape(parameter.shape)


def surgery(member, op, params, inputs):
    """OBD and OBS with inverses by elimination."""
    W = inputs["W"].astype(np.float32).astype(np.float64).tolist()
    H = (inputs.get("H") if "H" in inputs else inputs["H_inverse"]).astype(np.float64)
    width = len(W[0]) if isinstance(W[0], list) else -1
    if H.shape not in ((width,), (width, width)) or not np.isfinite(inputs["W"]).all():
        raise Unsupported("refusals")
    diagonal = (np.diagonal(H) if H.ndim == 2 else H).tolist()
    if op == "saliency":
        cost = (lambda w, h: w * w * h / 2) if member == "obd" else (lambda w, h: w * w / (2 * h))
        return {"values": np.array([[cost(w, h) for w, h in zip(row, diagonal)] for row in W])}
    share = params.get("sparsity", 0.5)
    if not 0 <= share <= 1 or params.get("scope", "row") not in ("row", "layer"):
        raise Unsupported("refusals")
    if member == "obs":
        return {"values": np.array(removed(W, H.tolist(), share, params.get("damp", 0.01)), np.float32)}
    scores = [[w * w * h / 2 for w, h in zip(row, diagonal)] for row in W]
    if params.get("scope") == "layer":
        gone = naive_methods.least(share)([s for row in scores for s in row])
        gone = [{j for j in range(width) if i * width + j in gone} for i in range(len(W))]
    else:
        gone = [naive_methods.least(share)(row) for row in scores]
    return {"values": np.array([naive_methods.cut(row, each) for row, each in zip(W, gone)], np.float32)}


def removed(W, H, share, damp):
    """The cheapest weight of a row goes, the others make up for it, again and again."""
    raised, _ = naive_methods.damped(H, damp)
    if any(np.linalg.eigvalsh(np.array(raised)) <= 0):
        raise Unsupported("refusals")
    out = []
    for row in W:
        left, free, now = naive_methods.inverse(raised), set(range(len(row))), row[:]
        for _ in range(int(len(row) * share)):
            q = min(free, key=lambda j: (now[j] ** 2 / left[j][j], j))
            now = [w - now[q] / left[q][q] * a for w, a in zip(now, left[q])]
            free.remove(q)
            now[q] = 0.0
            left = naive_methods.eliminated(left, q)
        out.append([w if j in free else 0.0 for j, w in enumerate(now)])
    return out
