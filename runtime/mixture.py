"""The experts of a layer as rows of the table of operations (runtime.kernels.experts says what they do)."""

import numpy as np

from refquant.models import ModelConfig
from runtime.kernels import experts, swiglu
from runtime.products import product_record
from runtime.program import Program
from runtime.scratch import BLOCKS, Form, MixtureScratch, Rounded, row_bytes, written
from runtime.weights import Experts, Linear, padded


class MixtureRows:
    """Adds the rows of experts to one program: `many` tokens, or one."""

    def __init__(self, program: Program, config: ModelConfig, s: MixtureScratch, panels: np.ndarray, many: bool):
        self.program, self.config, self.s, self.panels, self.many = program, config, s, panels, many

    def choose(self, weights: Experts, h: np.ndarray, forms: dict[int, Form | Rounded]) -> None:
        """From the scores of the router to rows; h and its 8-bit forms are not needed afterwards."""
        s, m, n = self.s, self.config.mixture, padded(self.config.n_embd)
        numbers = [m.n_expert, m.n_used, s.scores.shape[1] * 4, m.normalized]
        self.program.add(experts.route, [s.scores, s.chosen, s.weights], numbers, per_token=1)
        arranged = [s.chosen, s.places, s.sources, s.firsts, s.owners]
        self.program.add(experts.arrange, arranged, [m.n_expert, m.n_used, self.many], fixed=1)
        for form in sorted({weights.gate.product.form, weights.up.product.form}):
            own = (forms[form].arrays, s.forms[form].arrays, row_bytes(form, n)) if form else ([h], [s.x], [n * 4])
            buffers = [array for pair in zip(*own[:2]) for array in pair]
            numbers = [len(own[2]), *own[2]]
            self.program.add(experts.gather, [s.sources, *buffers], numbers, per_token=m.n_used)

    def run(self, weights: Experts, y: np.ndarray) -> None:
        """From rows to their results, and these with what y holds of a shared expert to y."""
        s, m, n, wide = self.s, self.config.mixture, padded(self.config.n_embd), padded(self.config.mixture.n_ff)
        self.multiply(weights.gate, s.x, s.gate, beside=True)
        self.multiply(weights.up, s.x, s.up)
        self.program.add(
            swiglu.swiglu,
            [s.gate, s.up, s.h, None, None, *written(s.forms)],
            [wide, wide * 4, weights.down.product.form, 0],
            per_token=m.n_used * -(-wide // 256),
        )
        self.multiply(weights.down, s.h, s.results)
        shared = weights.shared_gate is not None
        self.program.add(
            experts.combine,
            [s.results, s.places, s.weights, y, s.gates],
            [m.n_used, n * 4, shared, s.gates.shape[1] * 4],
            per_token=1,
        )

    def multiply(self, linear: Linear, x: np.ndarray, y: np.ndarray, beside: bool = False) -> None:
        """Each segment of rows by its expert."""
        s, m = self.s, self.config.mixture
        kernel, buffers, numbers = product_record(linear, x, y, s.forms, self.panels, self.many)
        if linear.product.form in BLOCKS:
            codes, e, sums, halves = row_bytes(linear.product.form, linear.n)[:4]
            steps = [codes, e, halves if linear.product.halves else sums]
        else:
            steps = [padded(linear.n) * (2 if linear.product.form else 4), 0, 0]
        size = len(linear.packed) // linear.experts
        buffers += [None] * (8 - len(buffers)) + [s.firsts, s.owners, s.records]
        numbers += [0] * (16 - len(numbers)) + [kernel, linear.groups, size, *steps, padded(linear.rows) * 4]
        segments = m.n_expert if self.many else m.n_used
        self.program.add(experts.multiply, buffers, numbers, fixed=segments * linear.groups, beside=beside)
