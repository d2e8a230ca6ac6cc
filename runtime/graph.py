"""The step: token ids and a cache in, logits out. Llama, Qwen2 and Qwen3 differ by values, not by code."""

import numpy as np
from numba import float32, int64, types

from refquant.models import ModelConfig
from runtime.cache import DTYPES, KVCache
from runtime.kernels import ActivationForm, attention, norm, rope, swiglu
from runtime.weights import Linear, Weights
from runtime.workers import Crew


class Activations:
    """x (tokens, n) float32 and, once somebody asks, its 8-bit forms."""

    def __init__(self, x: np.ndarray):
        self.x = x
        self._forms: dict[str, tuple[np.ndarray, ...]] = {}

    def operands(self, form: ActivationForm | None) -> tuple[np.ndarray, ...]:
        """What a matmul kernel that reads `form` is given."""
        if form is None:
            return (self.x,)
        if form.name not in self._forms:
            tokens, n = self.x.shape
            codes, scale = np.empty((tokens, n), np.int8), np.empty((tokens, n // form.block), np.float32)
            sums = np.empty((tokens, n // 32), np.int32)
            form.kernel(self.x, codes, scale, sums)
            self._forms[form.name] = codes, scale, sums
        return self._forms[form.name]


def multiply(linear: Linear, a: Activations, crew: Crew) -> np.ndarray:
    """(tokens, rows) float32: W x + bias."""
    y = np.empty((len(a.x), linear.rows), np.float32)
    operands = a.operands(linear.matmul.form)
    run = linear.matmul.kernel
    crew.run(lambda lo, hi: run(linear.data, *operands, y, lo, hi), linear.rows, linear.rows * linear.n * len(a.x))
    if linear.bias is not None:
        y += linear.bias
    return y


def normalize(x: np.ndarray, weight: np.ndarray, eps: np.float32) -> np.ndarray:
    """RMS norm over rows of len(weight) values: whole tokens, or the heads of tokens."""
    y = np.empty_like(x)
    norm.rms_norm(x.reshape(-1, len(weight)), weight, eps, y.reshape(-1, len(weight)))
    return y


class Graph:
    """One model's weights, its table of angles and the threads that run it."""

    def __init__(self, config: ModelConfig, weights: Weights, cos: np.ndarray, sin: np.ndarray, crew: Crew):
        self.config, self.weights, self.crew = config, weights, crew
        self.cos, self.sin = cos, sin  # (n_ctx, rope_dim / 2) float32, made in float64

    def forward(self, ids: np.ndarray, cache: KVCache, start: int, last: bool) -> np.ndarray:
        """Read tokens at positions start.. and return logits (1 or tokens, n_vocab) float32."""
        c, w, tokens = self.config, self.weights, len(ids)
        eps, scale = np.float32(c.rms_eps), np.float32(c.attn_scale)
        cos, sin = self.cos[start : start + tokens], self.sin[start : start + tokens]
        neox = c.rope_style == "neox"
        x = w.embed(ids)  # (tokens, n_embd)
        for layer, keys, values in zip(w.layers, cache.keys, cache.values):
            a = Activations(normalize(x, layer.attn_norm, eps))
            q = multiply(layer.q, a, self.crew)  # (tokens, n_head * head_dim)
            k = multiply(layer.k, a, self.crew)  # (tokens, n_head_kv * head_dim)
            v = multiply(layer.v, a, self.crew)  # (tokens, n_head_kv * head_dim_v)
            if layer.q_norm is not None:
                q = normalize(q, layer.q_norm, eps)
            if layer.k_norm is not None:
                k = normalize(k, layer.k_norm, eps)
            rope.rotate(q, c.head_dim, cos, sin, neox)
            rope.rotate(k, c.head_dim, cos, sin, neox)
            attention.append(k, v, keys, values, start)
            y = self._attend(q, keys, values, start, scale)  # (tokens, n_head * head_dim_v)
            x += multiply(layer.attn_output, Activations(y), self.crew)
            a = Activations(normalize(x, layer.ffn_norm, eps))
            gate = multiply(layer.gate, a, self.crew)  # (tokens, n_ff)
            swiglu.swiglu(gate, multiply(layer.up, a, self.crew))
            x += multiply(layer.down, Activations(gate), self.crew)
        if last:
            x = x[-1:]
        return multiply(w.output, Activations(normalize(x, w.output_norm, eps)), self.crew)

    def _attend(self, q: np.ndarray, keys: np.ndarray, values: np.ndarray, start: int, scale: np.float32) -> np.ndarray:
        tokens, c = len(q), self.config
        y = np.empty((tokens, c.n_head * c.head_dim_v), np.float32)
        cost = tokens * (start + tokens) * c.n_head * (c.head_dim + c.head_dim_v)
        work = lambda lo, hi: attention.attend(q, keys, values, start, scale, y, lo, hi)
        self.crew.run(work, tokens * c.n_head, cost)
        return y


def compile_kernels(config: ModelConfig, weights: Weights, kv_dtype: str, progress=None) -> None:
    """Compile, or read from the cache, every kernel that these weights need, so that the first token waits for none."""
    f2, f3 = (types.Array(float32, ndim, "C") for ndim in (2, 3))
    frozen_f1, frozen_f2 = (types.Array(float32, ndim, "C", readonly=True) for ndim in (1, 2))
    frozen_u2 = types.Array(types.uint8, 2, "C", readonly=True)
    codes, sums = types.Array(types.int8, 2, "C"), types.Array(types.int32, 2, "C")
    cached = f3 if DTYPES[kv_dtype] is np.float32 else types.Array(types.uint16, 3, "C")
    linears = [linear for layer in weights.layers for linear in layer.linears] + [weights.output]
    wanted = [
        (norm.rms_norm, (f2, frozen_f1, float32, f2)),
        (rope.rotate, (f2, int64, frozen_f2, frozen_f2, types.boolean)),
        (attention.append, (f2, f2, cached, cached, int64)),
        (attention.attend, (f2, cached, cached, int64, float32, f2, int64, int64)),
        (swiglu.swiglu, (f2, f2)),
    ]
    matmuls = {linear.type: linear.matmul for linear in linears}
    forms = {matmul.form.name: matmul.form for matmul in matmuls.values() if matmul.form is not None}
    for _, form in sorted(forms.items()):
        wanted.append((form.kernel, (f2, codes, f2, sums)))
    for _, matmul in sorted(matmuls.items()):
        operands = (f2,) if matmul.form is None else (codes, f2, sums)
        wanted.append((matmul.kernel, (frozen_u2, *operands, f2, int64, int64)))
    for done, (function, signature) in enumerate(wanted):
        if progress is not None:
            progress("compile", done, len(wanted))
        function.compile(signature)
    if progress is not None:
        progress("compile", len(wanted), len(wanted))
