"""Sums of squares of what each matrix of a model is multiplied with, collected while it reads a text.

    collect(path, text, ctx=512)      an ImportanceMatrix of refquant.gguf.importance_file

A text is read in chunks of `ctx` tokens, each from an empty cache and, where the model wants it, with BOS in place of
its first token. What counts is the input of the matrices of all blocks, not that of the output or of the embedding.

    dense models        an operation of the runtime (kernels.square_sums) before each matrix: the activations are those
                        that a user's runs have, rounded to 8 bits wherever the runtime rounds them
    models of experts,  the NumPy oracle and its taps: nothing is rounded, and it takes far longer; the entry of experts
    or exact=True       has a row and a count for each expert, and only tokens that chose it

Source   llama.cpp, tools/imatrix/imatrix.cpp, collect_imatrix, compute_imatrix.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from refquant import gguf
from refquant.errors import NonFiniteError, RangeError
from refquant.gguf.importance_file import Entry, ImportanceMatrix
from refquant.models import ModelConfig
from refquant.models.forward import Oracle
from refquant.text import Tokenizer
from runtime.arena import Arena
from runtime.cache import KVCache
from runtime.cores import physical_cores
from runtime.engine import Engine
from runtime.graph import BATCH, Graph
from runtime.kernels.square_sums import add_squares
from runtime.program import Program
from runtime.weights import Linear, padded

Progress = Callable[[str, int, int], None]
Read = Callable[[np.ndarray], None]  # the ids of a chunk


class Sums:
    """What has been added up so far."""

    def __init__(self):
        self.sums: dict[str, np.ndarray] = {}  # (matrices, n or more) float32
        self.counts: dict[str, np.ndarray] = {}  # (matrices,) int64
        self.widths: dict[str, int] = {}  # n

    def room(self, name: str, matrices: int, n: int, columns: int) -> np.ndarray:
        """The sums of a tensor, made when they are first asked for."""
        if name not in self.sums:
            self.sums[name] = np.zeros((matrices, columns), np.float32)
            self.counts[name], self.widths[name] = np.zeros(matrices, np.int64), n
        return self.sums[name]

    def entries(self) -> dict[str, Entry]:
        """Raises NonFiniteError where activations overflowed."""
        found = {}
        for name, sums in self.sums.items():
            values = sums[:, : self.widths[name]]
            if not np.isfinite(values).all():
                raise NonFiniteError(f"imatrix: {name}: sums of squares are not finite, expected sane activations")
            found[name] = Entry(values, self.counts[name])
        return found


class SummingGraph(Graph):
    """A graph whose prompts add the squares of the inputs of every matrix to `sums`."""

    def __init__(self, sums: Sums, *arguments):
        self._sums = sums
        super().__init__(*arguments)

    def _multiply(self, program: Program, linear: Linear, x, y, s, many: bool, beside: bool = False) -> None:
        if many and linear.name.startswith("blk."):
            width = padded(linear.n)
            sums = self._sums.room(linear.name, 1, linear.n, width)
            program.add(add_squares, [x, sums], [width], fixed=width // 16, beside=True)
        super()._multiply(program, linear, x, y, s, many, beside)


def collect(
    path: Path,
    text: str,
    *,
    dataset: str = "",
    ctx: int = 512,
    chunks: int | None = None,
    threads: int | None = None,
    exact: bool = False,
    progress: Progress | None = None,
) -> ImportanceMatrix:
    """Read up to `chunks` chunks of a text.

    Raises RangeError where the text has fewer than two chunks, GGUFError, NonFiniteError.
    """
    with gguf.open(path) as file:
        config, tokenizer = ModelConfig.from_metadata(file), Tokenizer.from_gguf(file)
        if not 16 <= ctx <= config.n_ctx_train:
            raise RangeError(f"imatrix: ctx = {ctx}, expected 16 to {config.n_ctx_train}, the trained context")
        ids = np.array(tokenizer.encode(text), np.int64)
        if len(ids) < 2 * ctx:
            raise RangeError(f"imatrix: tokens of the text = {len(ids)}, expected at least {2 * ctx}, two chunks")
        count = len(ids) // ctx if chunks is None else min(chunks, len(ids) // ctx)
        sums = Sums()
        slow = exact or config.mixture is not None
        reading = _by_oracle(file, sums) if slow else _by_runtime(file, config, ctx, threads, sums, progress)
        for read in reading:
            for i in range(count):
                chunk = ids[i * ctx : (i + 1) * ctx].copy()
                if tokenizer.add_bos:
                    chunk[0] = tokenizer.bos
                read(chunk)
                if progress is not None:
                    progress("imatrix", i + 1, count)
    return ImportanceMatrix(sums.entries(), (dataset,) if dataset else (), count, ctx)


def _by_runtime(
    file: gguf.GGUFFile, config: ModelConfig, ctx: int, threads: int | None, sums: Sums, progress: Progress | None
) -> Iterator[Read]:
    """One reader, on threads that end with it."""
    engine = Engine(file, config, ctx, threads or physical_cores(), "f16", Arena())
    try:
        engine.prepare(progress)
        plain = engine.graph
        graph = SummingGraph(sums, config, engine.weights, plain.cos, plain.sin, engine.crew, "f16", ctx)

        def read(ids: np.ndarray) -> None:
            cache = KVCache(config, ctx, "f16")
            for first in range(0, len(ids), BATCH):
                graph.prompt(ids[first : first + BATCH], cache, first, wanted=0)
            for count in sums.counts.values():
                count += len(ids)

        yield read
    finally:
        engine.close()


def _by_oracle(file: gguf.GGUFFile, sums: Sums) -> Iterator[Read]:
    """One reader. Matrices are decoded anew for each chunk, so that memory does not hold a float32 model."""
    oracle = Oracle(file, kv_dtype=np.float16, keep=False)

    def tap(name: str, x: np.ndarray) -> None:
        name, _, expert = name.rstrip("]").partition("[")
        if not name.startswith("blk."):
            return
        e, tensor = int(expert or 0), file.tensors[name]
        matrices = tensor.shape[0] if expert else 1
        total = sums.room(name, matrices, x.shape[1], x.shape[1])
        for row in x:  # one token after the other, as llama.cpp adds them up
            total[e] += row * row
        sums.counts[name][e] += len(x)

    def read(ids: np.ndarray) -> None:
        oracle.logits(ids, last=True, tap=tap)

    yield read
