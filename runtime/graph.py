"""The step as tables of operations: token ids and a cache in, logits out.

Llama, Qwen2 and Qwen3 differ by values, not by code; experts (runtime.mixture) take the place of a feed-forward block
or stand beside it. Four tables exist: `token` reads one token to its logits, `prompt` reads up to BATCH tokens up to
the last norm, `head` turns up to HEAD of its rows into logits, `last` the last one alone.
"""

import numpy as np

from refquant.models import ModelConfig
from runtime.aligned import zeros
from runtime.cache import KVCache
from runtime.jit import Compiled
from runtime.kernels import attention, norm, rope, swiglu
from runtime.mixture import MixtureRows
from runtime.products import forms, product_record
from runtime.program import Program
from runtime.scratch import Scratch, written
from runtime.weights import Layer, Linear, Weights, padded
from runtime.workers import Crew

BATCH, HEAD = 512, 32


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
        self.cos, self.sin, self.kv_dtype = cos, sin, kv_dtype
        threads = crew.threads if crew else 1
        self.one = Scratch(config, 1, threads, -(-n_ctx // 256))
        self.many = Scratch(config, BATCH, threads, 1)
        self.rows = zeros((HEAD, padded(config.n_embd)))
        self.logits = zeros((HEAD, padded(weights.output.rows)))
        self._cache: KVCache | None = None
        self._programs = (Program(), Program(), Program(), Program())

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
        token, prompt, head, last = self._programs = Program(), Program(), Program(), Program()
        self._cache = cache
        self._body(token, self.one, cache, many=False)
        self._multiply(token, self.weights.output, self.one.h, self.logits, self.one, many=False)
        self._body(prompt, self.many, cache, many=True)
        self._encode(head, self.rows, self.many, [self.weights.output], padded(self.config.n_embd))
        self._multiply(head, self.weights.output, self.rows, self.logits, self.many, many=True)
        self._encode(last, self.rows, self.one, [self.weights.output], padded(self.config.n_embd))
        self._multiply(last, self.weights.output, self.rows, self.logits, self.one, many=False)

    def token(self, token: int, cache: KVCache, start: int) -> np.ndarray:
        """Read one token at position start: logits (n_vocab,) float32, a view that the next step overwrites."""
        self.bind(cache)
        self.one.x[0, : self.config.n_embd] = self.weights.embed(np.array([token]))[0]
        table = self._tables[0]
        self.crew.run(table, 0, len(table), 1, start)
        return self.logits[0, : self.config.n_vocab]

    def prompt(self, ids: np.ndarray, cache: KVCache, start: int, wanted: int) -> np.ndarray:
        """Read up to BATCH tokens: logits (wanted, n_vocab) float32 after the last `wanted` of them."""
        self.bind(cache)
        tokens, n = len(ids), self.config.n_embd
        self.many.x[:tokens, :n] = self.weights.embed(ids)
        (_, table, head, single), rows = self._tables, self._rows_of_a_layer
        for first in range(0, len(table), rows):  # back to Python between layers, so that Ctrl-C acts
            self.crew.run(table, first, min(first + rows, len(table)), tokens, start)
        h = self.many.h.reshape(-1)[: tokens * padded(n)].reshape(tokens, -1)
        out = np.empty((wanted, self.config.n_vocab), np.float32)
        for first in range(0, wanted, HEAD):
            part = h[tokens - wanted :][first : first + HEAD]
            self.rows[: len(part)] = part
            end = single if len(part) == 1 else head  # a matrix that is read once
            self.crew.run(end, 0, len(end), len(part), 0)
            out[first : first + len(part)] = self.logits[: len(part), : self.config.n_vocab]
        return out

    def _body(self, program: Program, s: Scratch, cache: KVCache, many: bool) -> None:
        c, layers = self.config, self.weights.layers
        added, bias = False, None
        for i, layer in enumerate(layers):
            self._add_norm(program, s, added, bias, layer.attn_norm, [layer.q, layer.k, layer.v])
            for linear, out in ((layer.q, s.q), (layer.k, s.k), (layer.v, s.v)):
                self._multiply(program, linear, s.h, out, s, many, beside=linear is not layer.v)
            self._attend(program, layer, s, cache, i, many)
            self._encode(program, s.attended, s, [layer.attn_output], padded(c.o_width))
            self._multiply(program, layer.attn_output, s.attended, s.y, s, many)
            self._add_norm(program, s, True, layer.attn_output.bias, layer.ffn_norm, layer.read_together)
            if layer.experts is not None:
                self._choose_experts(program, layer, s, many)
            if layer.gate is not None:
                self._multiply(program, layer.gate, s.h, s.gate, s, many, beside=True)
                self._multiply(program, layer.up, s.h, s.up, s, many)
                self._swiglu(program, layer, s)
                self._multiply(program, layer.down, s.h, s.y, s, many)
            if layer.experts is not None:
                MixtureRows(program, c, s.mixture, s.panels, many).run(layer.experts, s.y)
            added, bias = True, None if layer.down is None else layer.down.bias
            self._rows_of_a_layer = len(program) if i == 0 else self._rows_of_a_layer
        self._add_norm(program, s, added, bias, self.weights.output_norm, [] if many else [self.weights.output])

    def _add_norm(
        self,
        program: Program,
        s: Scratch,
        added: bool,
        bias: np.ndarray | None,
        weight: np.ndarray,
        after: list[Linear],
    ) -> None:
        width = padded(self.config.n_embd)
        program.add(
            norm.add_norm,
            [s.x, s.y, weight, s.h, *written(s.forms), bias],
            [
                self.config.n_embd,
                width,
                width * 4 if added else 0,
                forms(after),
                float(self.config.rms_eps),
                bias is not None,
            ],
            per_token=1,
        )

    def _encode(self, program: Program, h: np.ndarray, s: Scratch, after: list[Linear], width: int) -> None:
        if forms(after):
            arrays = [None, None, h, None, None, *written(s.forms)]
            program.add(swiglu.encode, arrays, [width, 0, forms(after), 0], per_token=-(-width // 256))

    def _choose_experts(self, program: Program, layer: Layer, s: Scratch, many: bool) -> None:
        m, experts = s.mixture, layer.experts
        if experts.shared_gate is not None:
            self._multiply(program, experts.shared_gate, s.h, m.gates, s, many, beside=True)
        self._multiply(program, experts.router, s.h, m.scores, s, many)
        MixtureRows(program, self.config, m, s.panels, many).choose(experts, s.h, s.forms)

    def _swiglu(self, program: Program, layer: Layer, s: Scratch) -> None:
        width, gate, up = padded(self.config.n_ff_dense), layer.gate.bias, layer.up.bias
        program.add(
            swiglu.swiglu,
            [s.gate, s.up, s.h, gate, up, *written(s.forms)],
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
        kernel, buffers, numbers = product_record(linear, x, y, s.forms, s.panels, many)
        program.add(kernel, buffers, numbers, fixed=linear.groups, beside=beside)

    def _attend(self, program: Program, layer: Layer, s: Scratch, cache: KVCache, i: int, many: bool) -> None:
        c, keys, values = self.config, cache.keys[i], cache.values[i]
        group, dim_v, key_tile = c.n_head // c.n_head_kv, padded(c.head_dim_v), cache.rows.key_tile(c.head_dim)
        optional = [layer.q.bias, layer.k.bias, layer.v.bias, layer.q_norm, layer.k_norm]
        flags = sum(1 << bit for bit, array in enumerate(optional) if array is not None)
        program.add(
            rope.place,
            [s.q, s.k, s.v, self.cos, self.sin, s.queries, keys, values, *optional],
            [c.n_head_kv, group, c.head_dim, c.head_dim_v, key_tile, cache.cuts]
            + [padded(w) * 4 for w in (c.q_width, c.k_width, c.v_width)]
            + [c.rope_dim // 2, c.rope_style == "neox", cache.rows.kind, float(c.rms_eps), flags]
            + [cache.rows.value_tile],
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
            key_tile,
        ]
        if many:
            program.add(attention.PROMPT[self.kv_dtype], buffers, numbers, per_six=c.n_head_kv)
        else:
            program.add(attention.CUTS[self.kv_dtype], buffers, numbers, per_cut=c.n_head_kv)
            program.add(attention.merge_cuts, buffers, numbers, fixed=c.n_head)
