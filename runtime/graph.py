"""The step as tables of operations: token ids and a cache in, logits out.

Llama, Qwen2 and Qwen3 differ by values, not by code. Three tables exist: `token` reads one token to its logits,
`prompt` reads up to BATCH tokens up to the last norm, `head` turns up to HEAD of its rows into logits.
"""

import numpy as np

from refquant.models import ModelConfig
from runtime.cache import KVCache
from runtime.jit import Compiled
from runtime.kernels import activations, attention, gemm, norm, rope, swiglu
from runtime.program import Program
from runtime.weights import Layer, Linear, Weights, padded
from runtime.workers import Crew

BATCH, HEAD = 512, 32


class Scratch:
    """The activations of one step, shared by all layers: rows of tokens, columns up to a multiple of 32."""

    def __init__(self, config: ModelConfig, tokens: int, threads: int, cuts: int):
        c = config
        width = max(padded(c.n_embd), padded(c.n_ff), padded(c.o_width))
        floats = lambda *shape: np.zeros(shape, np.float32)
        self.x, self.h = floats(tokens, padded(c.n_embd)), floats(tokens, width)
        self.q, self.k, self.v = (
            floats(tokens, padded(c.q_width)),
            floats(tokens, padded(c.k_width)),
            floats(tokens, padded(c.v_width)),
        )
        self.queries, self.attended = floats(tokens, c.q_width), floats(tokens, padded(c.o_width))
        self.y, self.gate, self.up = (
            floats(tokens, padded(c.n_embd)),
            floats(tokens, padded(c.n_ff)),
            floats(tokens, padded(c.n_ff)),
        )
        step = 2 + padded(c.head_dim_v)
        self.attention = np.zeros(threads * (attention.SCRATCH + 12 * step * 4), np.uint8)
        self.partials = floats(c.n_head, cuts, step)
        self.panels = np.zeros(threads * gemm.PANEL, np.uint8)
        self.forms = {
            form: Form(tokens, width, block) for form, block in ((activations.Q8_0, 32), (activations.Q8_K, 256))
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        arrays = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        return sum(array.nbytes for array in arrays + [a for form in self.forms.values() for a in form.arrays])


class Form:
    """An 8-bit form of activations: codes, e, sums of 32 and of 16 codes."""

    def __init__(self, tokens: int, width: int, block: int):
        self.codes, self.e = np.zeros(tokens * width, np.int8), np.zeros(tokens * width // block + tokens, np.float32)
        self.sums, self.halves = np.zeros(tokens * width // 32, np.int32), np.zeros(tokens * width // 16, np.int32)
        self.arrays = [self.codes, self.e, self.sums, self.halves]


class Graph:
    """One model's weights, its table of angles and the threads that run it, bound to one cache at a time."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Weights,
        cos: np.ndarray,
        sin: np.ndarray,
        crew: Crew | None,
        kv_dtype: str,
        n_ctx: int,
    ):
        self.config, self.weights, self.crew = config, weights, crew
        self.cos, self.sin, self.wide = cos, sin, kv_dtype == "f32"
        threads = crew.threads if crew else 1
        self.one = Scratch(config, 1, threads, -(-n_ctx // 256))
        self.many = Scratch(config, BATCH, threads, 1)
        self.rows = np.zeros((HEAD, padded(config.n_embd)), np.float32)
        self.logits = np.zeros((HEAD, padded(weights.output.rows)), np.float32)
        self._cache: KVCache | None = None
        self._programs = (Program(), Program(), Program())

    @staticmethod
    def kernels(config: ModelConfig, weights: Weights, kv_dtype: str) -> list[Compiled]:
        """What must be compiled before this model can run."""
        small = Graph(config, weights, np.zeros((1, 1), np.float32), np.zeros((1, 1), np.float32), None, kv_dtype, 1)
        small._build(KVCache(config, 1, kv_dtype))
        return list(dict.fromkeys(kernel for program in small._programs for kernel in program.kernels))

    def bind(self, cache: KVCache) -> None:
        """Make tables that read and write `cache`."""
        if cache is self._cache:
            return
        self._build(cache)
        self._tables = [program.table() for program in self._programs]

    def _build(self, cache: KVCache) -> None:
        token, prompt, head = self._programs = Program(), Program(), Program()
        self._cache = cache
        self._body(token, self.one, cache, many=False)
        self._multiply(token, self.weights.output, self.one.h, self.logits, self.one, many=False)
        self._body(prompt, self.many, cache, many=True)
        self._encode(head, self.rows, self.many, [self.weights.output], padded(self.config.n_embd))
        self._multiply(head, self.weights.output, self.rows, self.logits, self.many, many=True)

    def token(self, token: int, cache: KVCache, start: int) -> np.ndarray:
        """Read one token at position start: logits (n_vocab,) float32, a view that the next step overwrites."""
        self.bind(cache)
        self.one.x[0, : self.config.n_embd] = self.weights.embed(np.array([token]))[0]
        table = self._tables[0]
        self.crew.run(table, 0, len(table), 1, start)
        return self.logits[0, : self.config.n_vocab]

    def prompt(self, ids: np.ndarray, cache: KVCache, start: int, last: bool) -> np.ndarray:
        """Read up to BATCH tokens: logits (1 or len(ids), n_vocab) float32."""
        self.bind(cache)
        tokens, n = len(ids), self.config.n_embd
        self.many.x[:tokens, :n] = self.weights.embed(ids)
        (_, table, head), rows = self._tables, self._rows_of_a_layer
        for first in range(0, len(table), rows):  # back to Python between layers, so that Ctrl-C acts
            self.crew.run(table, first, min(first + rows, len(table)), tokens, start)
        h = self.many.h.reshape(-1)[: tokens * padded(n)].reshape(tokens, -1)
        wanted = h[-1:] if last else h
        out = np.empty((len(wanted), self.config.n_vocab), np.float32)
        for first in range(0, len(wanted), HEAD):
            part = wanted[first : first + HEAD]
            self.rows[: len(part)] = part
            self.crew.run(head, 0, len(head), len(part), 0)
            out[first : first + len(part)] = self.logits[: len(part), : self.config.n_vocab]
        return out

    def _body(self, program: Program, s: Scratch, cache: KVCache, many: bool) -> None:
        c, layers = self.config, self.weights.layers
        before = None
        for i, layer in enumerate(layers):
            self._add_norm(program, s, before, layer.attn_norm, [layer.q, layer.k, layer.v])
            for linear, out in ((layer.q, s.q), (layer.k, s.k), (layer.v, s.v)):
                self._multiply(program, linear, s.h, out, s, many, beside=linear is not layer.v)
            self._attend(program, layer, s, cache, i, many)
            self._encode(program, s.attended, s, [layer.attn_output], padded(c.o_width))
            self._multiply(program, layer.attn_output, s.attended, s.y, s, many)
            self._add_norm(program, s, layer.attn_output, layer.ffn_norm, [layer.gate, layer.up])
            self._multiply(program, layer.gate, s.h, s.gate, s, many, beside=True)
            self._multiply(program, layer.up, s.h, s.up, s, many)
            self._swiglu(program, layer, s)
            self._multiply(program, layer.down, s.h, s.y, s, many)
            before = layer.down
            self._rows_of_a_layer = len(program) if i == 0 else self._rows_of_a_layer
        self._add_norm(program, s, before, self.weights.output_norm, [] if many else [self.weights.output])

    def _add_norm(
        self, program: Program, s: Scratch, before: Linear | None, weight: np.ndarray, after: list[Linear]
    ) -> None:
        width, bias = padded(self.config.n_embd), None if before is None else before.bias
        program.add(
            norm.add_norm,
            [s.x, s.y, weight, s.h, *s.forms[1].arrays, *s.forms[2].arrays, bias],
            [
                self.config.n_embd,
                width,
                0 if before is None else width * 4,
                forms(after),
                float(self.config.rms_eps),
                bias is not None,
            ],
            per_token=1,
        )

    def _encode(self, program: Program, h: np.ndarray, s: Scratch, after: list[Linear], width: int) -> None:
        if forms(after):
            arrays = [None, None, h, None, None, *s.forms[1].arrays, *s.forms[2].arrays]
            program.add(swiglu.encode, arrays, [width, 0, forms(after), 0], per_token=-(-width // 256))

    def _swiglu(self, program: Program, layer: Layer, s: Scratch) -> None:
        width, gate, up = padded(self.config.n_ff), layer.gate.bias, layer.up.bias
        program.add(
            swiglu.swiglu,
            [s.gate, s.up, s.h, gate, up, *s.forms[1].arrays, *s.forms[2].arrays],
            [width, width * 4, forms([layer.down]), (gate is not None) + 2 * (up is not None)],
            per_token=-(-width // 256),
        )

    def _multiply(
        self,
        program: Program,
        linear: Linear,
        x: np.ndarray,
        y: np.ndarray,
        s: Scratch,
        many: bool,
        beside: bool = False,
    ) -> None:
        product, stride = linear.product, padded(linear.rows) * 4
        kernel = product.matmul if many else product.matvec
        if product.form:
            form = s.forms[product.form]
            sums = form.halves if product.halves else form.sums
            buffers = [linear.packed, form.codes, form.e, sums, y, s.panels, product.tables]
            numbers = [linear.n, stride, product.unpack, product.bias, 0]
        else:
            buffers = [linear.packed, x, None, None, y, None]
            numbers = [linear.n, stride, 0, 0, padded(linear.n) * 4]
        program.add(kernel, buffers, numbers, fixed=linear.groups, beside=beside)

    def _attend(self, program: Program, layer: Layer, s: Scratch, cache: KVCache, i: int, many: bool) -> None:
        c, keys, values = self.config, cache.keys[i], cache.values[i]
        group, dim_v = c.n_head // c.n_head_kv, padded(c.head_dim_v)
        optional = [layer.q.bias, layer.k.bias, layer.v.bias, layer.q_norm, layer.k_norm]
        flags = sum(1 << bit for bit, array in enumerate(optional) if array is not None)
        program.add(
            rope.place,
            [s.q, s.k, s.v, self.cos, self.sin, s.queries, keys, values, *optional],
            [c.n_head_kv, group, c.head_dim, c.head_dim_v, dim_v, cache.cuts]
            + [padded(w) * 4 for w in (c.q_width, c.k_width, c.v_width)]
            + [c.rope_dim // 2, c.rope_style == "neox", self.wide, float(c.rms_eps), flags],
            per_token=1,
        )
        buffers = [s.queries, keys, values, s.attended, s.attention, s.partials]
        numbers = [
            c.n_head_kv,
            group,
            c.head_dim,
            dim_v,
            c.head_dim_v,
            cache.cuts,
            padded(c.o_width) * 4,
            float(c.attn_scale),
        ]
        if many:
            kernel = attention.attend_prompt_f32 if self.wide else attention.attend_prompt_f16
            program.add(kernel, buffers, numbers, per_six=c.n_head_kv)
        else:
            kernel = attention.attend_cuts_f32 if self.wide else attention.attend_cuts_f16
            program.add(kernel, buffers, numbers, per_cut=c.n_head_kv)
            program.add(attention.merge_cuts, buffers, numbers, fixed=c.n_head)


def forms(linears: list[Linear]) -> int:
    """The 8-bit forms of x that these matrices read."""
    found = 0
    for linear in linears:
        found |= linear.product.form
    return found
