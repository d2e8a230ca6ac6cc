"""Memory that the operations of a step hand on to each other: activations, their forms, room for each thread."""

import numpy as np

from refquant.models import ModelConfig
from runtime.aligned import zeros
from runtime.kernels import activations, attention, experts, gemm
from runtime.weights import padded

BLOCKS = {activations.Q8_0: 32, activations.Q8_K: 256}  # values that share a scale
PARTS = {activations.Q8_0: 4, activations.Q8_K: 5}  # arrays of a form


class Form:
    """An 8-bit form of activations: codes, e, sums of 32 and of 16 codes, and with Q8_K the raised codes."""

    def __init__(self, tokens: int, width: int, form: int):
        block = BLOCKS[form]
        self.codes, self.e = zeros(tokens * width, np.int8), zeros(tokens * width // block + tokens, np.float32)
        self.sums, self.halves = zeros(tokens * width // 32, np.int32), zeros(tokens * width // 16, np.int32)
        self.raised = zeros(tokens * width if form == activations.Q8_K else 0, np.uint8)
        self.arrays = [self.codes, self.e, self.sums, self.halves, self.raised][: PARTS[form]]


class Rounded:
    """Activations in bfloat16."""

    def __init__(self, tokens: int, width: int):
        self.codes = zeros(tokens * width, np.uint16)
        self.arrays = [self.codes]


def make_forms(tokens: int, width: int) -> dict[int, Form | Rounded]:
    """Room for every form."""
    forms = {form: Form(tokens, width, form) for form in BLOCKS}
    return forms | {activations.BF16: Rounded(tokens, width)}


def written(forms: dict[int, Form | Rounded]) -> list[np.ndarray]:
    """The arrays of all forms in the order of the records that write them (runtime.kernels.norm, swiglu)."""
    return [array for kind in (*BLOCKS, activations.BF16) for array in forms[kind].arrays]


def row_bytes(form: int, n: int) -> tuple[int, ...]:
    """What n activations take in the arrays of a form."""
    if form == activations.BF16:
        return (n * 2,)
    return (n, n // BLOCKS[form] * 4, n // 32 * 4, n // 16 * 4, n)[: PARTS[form]]


class MixtureScratch:
    """What the experts of one layer need for `tokens` tokens, each of which becomes n_used rows."""

    def __init__(self, config: ModelConfig, tokens: int, threads: int):
        m, n, self.tokens = config.mixture, padded(config.n_embd), tokens
        rows, wide = tokens * m.n_used, padded(m.n_ff)
        floats = lambda *shape: zeros(shape, np.float32)
        integers = lambda *shape: zeros(shape, np.int32)
        self.scores, self.gates = floats(tokens, padded(m.n_expert)), floats(tokens, padded(1))
        self.chosen, self.weights, self.places = integers(rows), floats(rows), integers(rows)
        self.sources, self.firsts = integers(rows), integers(max(m.n_expert, rows) + 1)
        self.owners = integers(max(m.n_expert, rows))
        self.x, self.results = floats(rows, n), floats(rows, n)
        self.gate, self.up, self.h = floats(rows, wide), floats(rows, wide), floats(rows, wide)
        self.forms = make_forms(rows, max(n, wide))
        self.records = zeros(threads * experts.RECORD, np.uint8)


class Scratch:
    """The activations of one step, shared by all layers: rows of tokens, columns up to a multiple of 32."""

    def __init__(self, config: ModelConfig, tokens: int, threads: int, cuts: int):
        c = config
        dense = padded(c.n_ff_dense)
        width = max(padded(c.n_embd), dense, padded(c.o_width))
        floats = lambda *shape: zeros(shape, np.float32)
        self.x, self.h = floats(tokens, padded(c.n_embd)), floats(tokens, width)
        self.q, self.k, self.v = (
            floats(tokens, padded(c.q_width)),
            floats(tokens, padded(c.k_width)),
            floats(tokens, padded(c.v_width)),
        )
        self.queries, self.attended = floats(tokens, c.q_width), floats(tokens, padded(c.o_width))
        self.y, self.gate, self.up = floats(tokens, padded(c.n_embd)), floats(tokens, dense), floats(tokens, dense)
        step = 2 + padded(c.head_dim_v)
        scratch = attention.scratch_bytes(c.n_head // c.n_head_kv, padded(c.head_dim_v))
        self.attention = zeros(threads * scratch, np.uint8)
        self.partials = floats(c.n_head, cuts, step)
        self.panels = zeros(threads * gemm.PANEL, np.uint8)
        self.forms = make_forms(tokens, width)
        self.mixture = None if c.mixture is None else MixtureScratch(c, tokens, threads)

    @property
    def nbytes(self) -> int:
        """Bytes of all of it."""
        parts = [self] if self.mixture is None else [self, self.mixture]
        return sum(array.nbytes for part in parts for array in arrays_of(part))


def arrays_of(part: Scratch | MixtureScratch) -> list[np.ndarray]:
    """All of its memory."""
    own = [value for value in vars(part).values() if isinstance(value, np.ndarray)]
    return own + [array for form in part.forms.values() for array in form.arrays]
