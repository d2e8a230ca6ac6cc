"""naive_gguf, naive_model and naive_text as witnesses of blocks, products, layers, samplers and whole models."""

import itertools
import math
import struct
from functools import lru_cache

import naive_gguf
import naive_model
import numpy as np

from conformance import vectors
from conformance.protocol import Unsupported
from refquant import gguf
from refquant.models import ModelConfig

SCALARS = {"F16": "<e", "F32": "<f", "F64": "<d", "I8": "<b", "I16": "<h", "I32": "<i", "I64": "<q"}


def decode_blocks(member, op, inputs):
    """Values of stored blocks, and of plain numbers as C reads them."""
    if op == "decode" and member in SCALARS:
        kind = SCALARS[member]
        rows = [[float(v) for (v,) in struct.iter_unpack(kind, row.tobytes())] for row in inputs["bytes"]]
        return {"values": np.array([[naive_gguf.f32(v) for v in row] for row in rows], np.float32)}
    if op != "decode" or member not in naive_gguf.DECODERS:
        raise Unsupported(f"gguf.{member} {op}")
    return {"values": np.array([row_of(member, row.tobytes()) for row in inputs["bytes"]], np.float32)}


def row_of(member, data):
    """A row of weights as floats."""
    size = gguf.FORMATS[member].block_bytes
    decode = naive_gguf.DECODERS[member]
    return [v for at in range(0, len(data), size) for v in decode(data[at : at + size])]


def run(member, op, params, inputs):
    """One operation."""
    return OPERATIONS[op](member, params, inputs)


def matvec(member, params, inputs):
    """Sums without a rounding until the end."""
    data, x = inputs["bytes"], inputs["x"].tolist()
    if member in ("F32", "F16"):
        W = data.view({"F32": "<f4", "F16": "<f2"}[member]).astype(np.float64).tolist()
    elif member == "BF16":
        W = (data.view("<u2").astype("<u4") << 16).view("<f4").astype(np.float64).tolist()
    elif member in naive_gguf.DECODERS:
        W = [row_of(member, row.tobytes()) for row in data]
    else:
        raise Unsupported(f"product.{member}")
    if len(W[0]) != len(x):
        raise Unsupported("refusals")
    return {"y": np.array([math.fsum(a * b for a, b in zip(row, x)) for row in W], np.float32)}


def rms_norm(member, params, inputs):
    """x / sqrt(mean x^2 + eps) * weight."""
    rows = [naive_model._norm(row, inputs["weight"].tolist(), params["eps"]) for row in inputs["x"].tolist()]
    return {"y": np.array(rows, np.float32)}


def rope(member, params, inputs):
    """Complex numbers that turn."""
    m = {"rope_dim": params["dims"], "style": params["style"], "base": params["base"], "mscale": 1.0}
    m |= {"factor": 1.0, "kind": "none", "freqs": None}
    found = [
        [naive_model.turn(m, head, pos) for head in heads]
        for heads, pos in zip(inputs["x"].astype(np.float64).tolist(), inputs["positions"].tolist())
    ]
    return {"y": np.array(found, np.float32)}


def attention(member, params, inputs):
    """Every query over what it may see."""
    q, k, v = (inputs[name].astype(np.float64).tolist() for name in ("q", "k", "v"))
    past, shared = len(k) - len(q), len(q[0]) // len(k[0])
    out = []
    for t, heads in enumerate(q):
        line = []
        for h, head in enumerate(heads):
            seen = range(past + t + 1)
            scores = [params["scale"] * math.fsum(a * b for a, b in zip(head, k[c][h // shared])) for c in seen]
            weights = [math.exp(s - max(scores)) for s in scores]
            for j in range(len(v[0][0])):
                line.append(math.fsum(w * v[c][h // shared][j] for w, c in zip(weights, seen)) / math.fsum(weights))
        out.append(line)
    return {"y": np.array(out, np.float32)}


def swiglu(member, params, inputs):
    """g / (1 + e^-g) u."""
    pairs = zip(inputs["gate"].ravel().tolist(), inputs["up"].ravel().tolist())
    values = [g / (1 + math.exp(-g)) * u for g, u in pairs]
    return {"y": np.array(values, np.float32).reshape(inputs["gate"].shape)}


def candidates(member, params, inputs):
    """Which tokens stay."""
    chances = chain(params, inputs)
    ids = sorted(chances)
    return {"ids": np.array(ids, np.int64), "probabilities": np.array([chances[i] for i in ids], np.float32)}


def draw(member, params, inputs):
    """The first at which the sum exceeds u."""
    ranked = sorted(chain(params, inputs).items(), key=lambda item: (-item[1], item[0]))
    sums = itertools.accumulate(chance for _, chance in ranked)
    reached = [i for (i, _), total in zip(ranked, sums) if total > float(inputs["uniform"])]
    return {"id": np.int64(reached[0] if reached else ranked[-1][0])}


def chain(params, inputs):
    """Token -> probability, a step of the sampler after the other on a dict."""
    scores = dict(enumerate(inputs["logits"].astype(np.float64).tolist()))
    if any(math.isnan(s) or s == math.inf for s in scores.values()) or max(scores.values()) == -math.inf:
        raise Unsupported("refusals")
    for i in set(inputs["history"].tolist()):
        scores[i] = scores[i] / params["repeat_penalty"] if scores[i] > 0 else scores[i] * params["repeat_penalty"]
    ranked = sorted(scores, key=lambda i: (-scores[i], i))
    if params["temperature"] == 0:
        return {ranked[0]: 1.0}
    ranked = ranked[: params["top_k"] or None]
    if params["top_p"] < 1:
        chances, total, kept = normalized({i: scores[i] for i in ranked}), 0.0, []
        for i in ranked:
            kept.append(i)
            total += chances[i]
            if total >= params["top_p"]:
                break
        ranked = kept
    chances = normalized({i: scores[i] for i in ranked})
    ranked = [i for i in ranked if chances[i] >= params["min_p"] * chances[ranked[0]]]
    return normalized({i: scores[i] / params["temperature"] for i in ranked})


def normalized(scores):
    """e^score over their sum."""
    top = max(scores.values())
    weights = {i: math.exp(s - top) for i, s in scores.items()}
    whole = math.fsum(weights.values())
    return {i: w / whole for i, w in weights.items()}


@lru_cache(maxsize=1)
def opened(file):
    """(sizes, weights as nested lists) of a small model."""
    with gguf.open(vectors.ROOT / file) as model:
        c = ModelConfig.from_metadata(model)
        if c.n_layer > 2:
            raise Unsupported("a model too large for lists")
        weights = {}
        for name, tensor in model.tensors.items():
            if tensor.type in naive_gguf.DECODERS:
                weights[name] = [row_of(tensor.type, row.tobytes()) for row in tensor.data]
            else:
                weights[name] = tensor.data.astype(np.float64).tolist()
    m = {
        "n_layer": c.n_layer, "n_head": c.n_head, "n_head_kv": c.n_head_kv, "eps": c.rms_eps, "scale": c.attn_scale,
        "rope_dim": c.rope_dim, "style": c.rope_style, "base": c.rope_base, "mscale": 1.0, "factor": 1.0,
        "kind": "none", "freqs": None, "n_used": 0,
    }  # fmt: skip
    return m, weights


def logits(member, params, inputs):
    """A whole model in lists."""
    m, weights = opened(params["model"])
    ids = inputs["ids"].tolist()
    if max(ids) >= len(weights["token_embd.weight"]):
        raise Unsupported("refusals")
    return {"logits": np.array(naive_model.logits(m, weights, ids), np.float32)[:, :: params["every"]]}


OPERATIONS = {
    "matvec": matvec,
    "rms_norm": rms_norm,
    "rope": rope,
    "attention": attention,
    "swiglu": swiglu,
    "candidates": candidates,
    "draw": draw,
    "logits": logits,
}
