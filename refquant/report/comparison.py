"""A model and its quantized form on the same text: errors of every matrix, and of what the model predicts.

    W, W'        a matrix of the original (out, in) and of the quantized model, decoded;  E = W - W'
    sqnr_db      10 log10( |W|^2 / |E|^2 )                       cosine   of W and W' as vectors      (metrics.py)
    output_error |X E^T|^2 / |X W^T|^2 over the inputs X (tokens, in) that the original sees in the text; this is
                 tr(E H E^T) / tr(W H W^T) with the Hessian H = X^T X. None where no token came (experts)
    perplexity   exp of the mean of -ln p(token), all tokens but the first of each sequence
    kl           of each token sum_v p_v (ln p_v - ln p'_v), in nats: mean, 99th percentile, largest
    top1         share of tokens to which both models give the same most probable token

Both models run the whole text, each on its own hidden states, block by block: one block of each is in memory, and the
hidden states of all sequences. Inputs of layers are rounded where the quantized folder says so (inputs.py).
Bits         8 * bytes of the tensors / weights of a matrix; of a model, 8 * bytes of its files / parameters.
Scaled       SmoothQuant, AWQ and rotations move factors between layers: W' is then no approximation of W. Norm gains
             that differ give this away, and the report says so; what the model predicts is comparable all the same.
Arithmetic   float32, sums in float64.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant import metrics
from refquant.errors import QuantError
from refquant.models.norm import rms_norm
from refquant.pipeline import architecture, block, open_checkpoint
from refquant.pipeline.calibration import sequences
from refquant.pipeline.checkpoint import Checkpoint
from refquant.report.inputs import Rounding, rounded_inputs

Progress = Callable[[str, int, int], None]
BINS, WIDTH = 49, 4.0  # of histograms: from -4 to 4 times the root mean square of W
ROWS = 64  # tokens whose logits are in memory at a time


@dataclass(frozen=True, slots=True)
class Layer:
    """One matrix. Histograms count weights between -edge and edge, what lies outside in the last bins."""

    name: str
    shape: tuple[int, int]
    bits: float
    sqnr_db: float
    cosine: float
    output_error: float | None
    edge: float
    histogram: tuple[int, ...]
    histogram_quantized: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Predictions:
    """See the module."""

    tokens: int
    perplexity: float
    perplexity_quantized: float
    kl_mean: float
    kl_p99: float
    kl_max: float
    top1: float


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of the files of weights, how many numbers they hold."""

    path: str
    nbytes: int
    parameters: int

    @property
    def bits(self) -> float:
        """Bits of a parameter."""
        return 8 * self.nbytes / self.parameters


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that was measured."""

    original: Size
    quantized: Size
    layers: tuple[Layer, ...]
    predictions: Predictions
    text: str
    notes: tuple[str, ...]


def compare(
    original: str | os.PathLike | Checkpoint,
    quantized: str | os.PathLike | Checkpoint,
    text: str | os.PathLike | Sequence[Sequence[int]],
    *,
    samples: int = 8,
    seq_len: int = 256,
    progress: Progress | None = None,
) -> Comparison:
    """Measure two models: folders of Hugging Face, quantized folders, GGUF files.

    text      a text or JSONL file, or sequences of token ids, as calibration.py reads them by the original's tokenizer
    samples   sequences of seq_len tokens, evenly spread over the text
    progress  is told ("compare", blocks done, blocks in all)

    Raises QuantError and its kinds: models that cannot be read or are of different sizes, no text.
    """
    a, b = (m if isinstance(m, Checkpoint) else open_checkpoint(m) for m in (original, quantized))
    _require_alike(a, b)
    ids = [one for one in sequences(a, text, samples, seq_len) if len(one) > 1]
    if not ids:
        raise QuantError(
            f"report: {text if isinstance(text, str | os.PathLike) else 'text'}: expected 2 tokens or more"
        )
    names = _layers(a)
    roundings, notes = rounded_inputs(b, [layer for found in names for layer in found.values()])
    divisors = architecture.rope_divisors(a.path, a.config)
    table = block.rope_table(a.model, divisors, max(map(len, ids)))
    hidden = [[m.weight("model.embed_tokens.weight")[one] for one in ids] for m in (a, b)]
    layers: list[Layer] = []
    for i, found in enumerate(names):
        prefix = f"model.layers.{i}."
        old, new = _block(a, prefix), _block(b, prefix)
        if any(not np.allclose(old[n], new[n], rtol=0.02, atol=0.02) for n in old if n.endswith("layernorm.weight")):
            notes += (_SCALED,)
        errors = {short: _Output(old[f"{short}.weight"], new[f"{short}.weight"]) for short in found}
        hidden[0] = [block.forward(a.model, old, x, table, _measured(errors)) for x in hidden[0]]
        rounded = _rounded({short: roundings.get(layer) for short, layer in found.items()})
        hidden[1] = [block.forward(b.model, new, x, table, rounded) for x in hidden[1]]
        layers += [_layer(b, layer, errors[short]) for short, layer in found.items()]
        if progress is not None:
            progress("compare", i + 1, len(names) + 1)
    predictions, last = _predictions(a, b, hidden, ids, roundings.get("lm_head"))
    layers += [_layer(b, "lm_head", last)] if last is not None else []
    if progress is not None:
        progress("compare", len(names) + 1, len(names) + 1)
    where = Path(text).name if isinstance(text, str | os.PathLike) else "token ids"
    notes = tuple(dict.fromkeys(notes))
    return Comparison(_size(a), _size(b), tuple(layers), predictions, where, notes)


_SCALED = "norm gains differ: factors were moved between layers, so that errors of weights compare different numbers"


class _Output:
    """The two forms of a matrix, and the running sums of its output's error."""

    def __init__(self, W: np.ndarray, W_hat: np.ndarray):
        self.W, self.W_hat, self.error, self.power, self.tokens = W, W_hat, 0.0, 0.0, 0
        self._E = W - W_hat

    def update(self, X: np.ndarray) -> None:
        self.error += _square(X @ self._E.T)
        self.power += _square(X @ self.W.T)
        self.tokens += len(X)

    @property
    def relative(self) -> float | None:
        if not self.tokens:
            return None
        return self.error / self.power if self.power else (0.0 if not self.error else float("inf"))


def _measured(errors: dict[str, _Output]) -> block.Tap:
    def tap(name: str, X: np.ndarray) -> None:
        if name in errors:
            errors[name].update(X)

    return tap


def _rounded(roundings: dict[str, Rounding | None]) -> block.Tap:
    def tap(name: str, X: np.ndarray) -> np.ndarray | None:
        rounding = roundings.get(name)
        return None if rounding is None or not len(X) else rounding(X)  # of an expert, no rows may come

    return tap


def _predictions(
    a: Checkpoint, b: Checkpoint, hidden: list[list[np.ndarray]], ids: list[np.ndarray], rounding: Rounding | None
) -> tuple[Predictions, _Output | None]:
    """What the last layers say of every token, a few rows of logits at a time."""
    tied = "lm_head.weight" not in a.tensors
    matrices = [
        m.weight("lm_head.weight" if "lm_head.weight" in m.tensors else "model.embed_tokens.weight") for m in (a, b)
    ]
    norms = [m.weight("model.norm.weight") for m in (a, b)]
    last = None if tied else _Output(*matrices)
    nll: list[list[np.ndarray]] = [[], []]
    kl, same = [], []
    for one, x, y in zip(ids, *hidden):
        for first in range(0, len(one) - 1, ROWS):
            rows = slice(first, min(first + ROWS, len(one) - 1))
            h = [rms_norm(z[rows], norm, m.model.rms_eps) for z, norm, m in zip((x, y), norms, (a, b))]
            if last is not None:
                last.update(h[0])
            h[1] = h[1] if rounding is None else rounding(h[1])
            p, q = (_log_softmax(g @ W.T) for g, W in zip(h, matrices))
            wanted = one[rows.start + 1 : rows.stop + 1]
            for found, log in zip(nll, (p, q)):
                found.append(-log[np.arange(len(wanted)), wanted])
            kl.append(np.sum(np.exp(p) * (p - q), axis=-1))
            same.append(p.argmax(axis=-1) == q.argmax(axis=-1))
    divergence = np.maximum(np.concatenate(kl), 0)
    perplexities = [float(np.exp(np.mean(np.concatenate(found)))) for found in nll]
    top1 = float(np.mean(np.concatenate(same)))
    facts = float(divergence.mean()), float(np.percentile(divergence, 99)), float(divergence.max())
    return Predictions(divergence.size, *perplexities, *facts, top1), last


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _layer(b: Checkpoint, name: str, found: _Output) -> Layer:
    W, W_hat = found.W, found.W_hat
    edge = WIDTH * float(np.sqrt(np.mean(np.square(W, dtype=np.float64)))) or 1.0
    counts = [np.histogram(np.clip(x, -edge, edge), BINS, (-edge, edge))[0] for x in (W, W_hat)]
    tensor = b.tensors[f"{name}.weight"]
    return Layer(
        name,
        tuple(W.shape),
        8 * tensor.data.nbytes / tensor.data.size,
        metrics.sqnr_db(W, W_hat),
        metrics.cosine(W, W_hat),
        found.relative,
        edge,
        *(tuple(int(n) for n in one) for one in counts),
    )


def _layers(a: Checkpoint) -> list[dict[str, str]]:
    """Of every block {name without "model.layers.N.": full name} of its matrices."""
    found = []
    for i in range(a.model.n_layer):
        prefix = f"model.layers.{i}."
        shapes = {n[len(prefix) :]: t.data for n, t in a.tensors.items() if n.startswith(prefix)}
        found.append({short: prefix + short for short in block.linears(shapes)})
    return found


def _block(m: Checkpoint, prefix: str) -> dict[str, np.ndarray]:
    return {n[len(prefix) :]: m.weight(n) for n in m.tensors if n.startswith(prefix) and n not in m.unused}


def _size(m: Checkpoint) -> Size:
    return Size(str(m.path), sum(size for size, _ in m.file_states.values()), m.parameters)


def _require_alike(a: Checkpoint, b: Checkpoint) -> None:
    for field in ("arch", "n_layer", "n_embd", "n_ff", "n_head", "n_head_kv", "head_dim", "n_vocab"):
        x, y = getattr(a.model, field), getattr(b.model, field)
        if x != y:
            raise QuantError(f"report: {field} = {x} in {a.path} and {y} in {b.path}, expected the same model twice")


def _square(x: np.ndarray) -> float:
    return float(np.sum(np.square(x, dtype=np.float64)))
