"""A Llama, Qwen2 or Qwen3, also with experts, in plain Python: one number at a time, nothing shared with the
package it is a witness of.

`m` is a dict of sizes and constants, `w` a dict of nested lists by tensor name; every number is a Python float.
Attention walks over all tokens before one, element by element, so the models must be toys.
"""

import math


def logits(m: dict, w: dict, ids: list[int]) -> list[list[float]]:
    """One row of n_vocab scores for every token."""
    xs = [list(w["token_embd.weight"][i]) for i in ids]
    for layer in range(m["n_layer"]):
        t = {name.removeprefix(f"blk.{layer}."): x for name, x in w.items() if name.startswith(f"blk.{layer}.")}
        hs = [_norm(x, t["attn_norm.weight"], m["eps"]) for x in xs]
        qs = [_heads(m, t, "q", h, pos, m["n_head"]) for pos, h in enumerate(hs)]
        ks = [_heads(m, t, "k", h, pos, m["n_head_kv"]) for pos, h in enumerate(hs)]
        vs = [_cut(_linear(t, "attn_v", h), m["n_head_kv"]) for h in hs]
        for pos, x in enumerate(xs):
            out = []
            for head in range(m["n_head"]):
                shared = head * m["n_head_kv"] // m["n_head"]
                scores = [m["scale"] * _dot(qs[pos][head], ks[past][shared]) for past in range(pos + 1)]
                weights = [math.exp(s - max(scores)) for s in scores]
                for j in range(len(vs[0][0])):
                    out.append(sum(p * vs[past][shared][j] for past, p in enumerate(weights)) / sum(weights))
            xs[pos] = [a + b for a, b in zip(x, _linear(t, "attn_output", out))]
        for pos, x in enumerate(xs):
            h = _norm(x, t["ffn_norm.weight"], m["eps"])
            xs[pos] = [a + b for a, b in zip(x, _experts(m, t, h) if m["n_used"] else _gated(t, "ffn", "", h))]
    out = w.get("output.weight", w["token_embd.weight"])
    return [[_dot(row, h) for row in out] for h in (_norm(x, w["output_norm.weight"], m["eps"]) for x in xs)]


def turn(m: dict, head: list[float], pos: int) -> list[float]:
    """Rotary position: pair i of the head, as a complex number, times mscale * e^(i angle)."""
    d = m["rope_dim"]
    y = list(head)
    for i in range(d // 2):
        a, b = (2 * i, 2 * i + 1) if m["style"] == "norm" else (i, i + d // 2)
        angle = pos * speed(m, i)
        z = complex(head[a], head[b]) * complex(math.cos(angle), math.sin(angle)) * m["mscale"]
        y[a], y[b] = z.real, z.imag
    return y


def speed(m: dict, i: int) -> float:
    """Radians per token of pair i. YaRN in its own words: how often does the pair turn within the old context?"""
    d, factor = m["rope_dim"], m["factor"]
    speed = m["base"] ** (-2 * i / d) / (m["freqs"][i] if m["freqs"] else 1)
    if m["kind"] != "yarn":
        return speed / factor
    first = math.floor(_pair_with_turns(m, 32))  # pairs up to here turn 32 times and more: left alone
    last = math.ceil(_pair_with_turns(m, 1))  # pairs from here on do not turn once: slowed down by the factor
    mix = (i - max(first, 0)) / max(min(last, d - 1) - max(first, 0), 0.001)
    mix = min(max(mix, 0), 1)
    return speed * (1 - mix) + speed / factor * mix


def _pair_with_turns(m: dict, turns: float) -> float:
    """Solve original_context * base^(-2 i / d) = 2 pi turns for i."""
    return m["rope_dim"] / 2 * math.log(m["original_context"] / (2 * math.pi * turns), m["base"])


def _gated(t: dict, name: str, end: str, h: list[float]) -> list[float]:
    gate, up = _linear(t, f"{name}_gate{end}", h), _linear(t, f"{name}_up{end}", h)
    return _linear(t, f"{name}_down{end}", [g / (1 + math.exp(-g)) * u for g, u in zip(gate, up)])


def _experts(m: dict, t: dict, h: list[float]) -> list[float]:
    """The weighed sum over the experts with the largest scores, and the shared expert behind its gate."""
    likely = [math.exp(s) for s in _linear(t, "ffn_gate_inp", h)]
    best = sorted(range(len(likely)), key=lambda e: -likely[e])[: m["n_used"]]
    whole = sum(likely[e] for e in best) if m["normalized"] else sum(likely)
    y = [0.0] * len(h)
    for e in best:
        own = {f"expert_{part}.weight": t[f"ffn_{part}_exps.weight"][e] for part in ("gate", "up", "down")}
        y = [a + likely[e] / whole * b for a, b in zip(y, _gated(own, "expert", "", h))]
    if "ffn_gate_inp_shexp.weight" in t:
        gate = 1 / (1 + math.exp(-_dot(t["ffn_gate_inp_shexp.weight"], h)))
        y = [a + gate * b for a, b in zip(y, _gated(t, "ffn", "_shexp", h))]
    return y


def _heads(m: dict, t: dict, part: str, h: list[float], pos: int, n: int) -> list[list[float]]:
    heads = _cut(_linear(t, f"attn_{part}", h), n)
    if f"attn_{part}_norm.weight" in t:
        heads = [_norm(head, t[f"attn_{part}_norm.weight"], m["eps"]) for head in heads]
    return [turn(m, head, pos) for head in heads]


def _linear(t: dict, name: str, x: list[float]) -> list[float]:
    scale = t.get(f"{name}.scale", [1])[0]
    bias = t.get(f"{name}.bias", [0] * len(t[f"{name}.weight"]))
    return [scale * _dot(row, x) + b for row, b in zip(t[f"{name}.weight"], bias)]


def _norm(x: list[float], weight: list[float], eps: float) -> list[float]:
    size = math.sqrt(sum(a * a for a in x) / len(x) + eps)
    return [a / size * b for a, b in zip(x, weight)]


def _dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b))


def _cut(x: list[float], n: int) -> list[list[float]]:
    size = len(x) // n
    return [x[i * size : (i + 1) * size] for i in range(n)]
