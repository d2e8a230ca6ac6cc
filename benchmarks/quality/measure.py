"""What a row costs a model: perplexity, divergence from the float model, relative error of the layers' outputs.

    nll          -ln p(token) of each scored token, natural logarithm, float64
    perplexity   exp(mean nll)             ratio = perplexity / perplexity of the float model
    kl           mean over scored positions of sum_v p_v ln(p_v / q_v), p the float model's
    layer error  mean over all matrices of |X W^T - Y|^2 / |X W^T|^2, Y the quantized product, X what the float model
                 feeds the matrix on PROBED judged tokens
    bits         stored bits of all quantized matrices / their weights
    seconds      of processor time, to calibrate and quantize

Error bars   the differences nll - nll of the float model are averaged for each window; `windows` keeps these averages.
             Their standard error over windows is that of ln(ratio): tokens of one window are not independent.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.quality.fits import Fitted, Task, fit
from benchmarks.quality.network import Network, Products, exact, hidden_states, rotated
from benchmarks.quality.rows import Row
from benchmarks.quality.text import Text
from refquant import hadamard

PROBED = 512
AT_ONCE = 5  # windows that are judged together: their arrays stay small enough to be allocated without page faults


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Of every scored token: nll (windows, scored), and the log-probabilities or the divergence from others'."""

    nll: np.ndarray
    log_p: np.ndarray | None
    kl: float


@dataclass(slots=True, eq=False)
class Judge:
    """A model, its text, and what the float model says."""

    network: Network
    text: Text
    scores: Scores = field(init=False)
    _turned: Network | None = None
    _probes: dict[bool, Mapping[tuple[int, str], tuple[np.ndarray, list[np.ndarray]]]] = field(default_factory=dict)

    def __post_init__(self):
        self.scores = score(self.network, self.text, exact(self.network), None)

    def measure(self, row: Row) -> dict[str, object]:
        """The numbers of a row, ready for JSON."""
        network, start = self._network(row.rotated), time.thread_time()
        fits = quantized(network, row, self.text.calibration[:: self._step(row)])
        seconds = time.thread_time() - start
        found = score(network, self.text, lambda i, stage, X: fits[i, stage].outputs(X), self.scores.log_p)
        windows = (found.nll - self.scores.nll).mean(axis=1)
        weights = sum(W.size for i, stage in network.stages for W in network.matrices(i, stage))
        return {
            "bits": sum(f.bits for f in fits.values()) / weights,
            "perplexity": float(np.exp(found.nll.mean())),
            "ratio": float(np.exp(windows.mean())),
            "error": float(windows.std(ddof=1) / np.sqrt(len(windows))),
            "kl": found.kl,
            "layer_error": self._layer_error(row.rotated, fits),
            "seconds": seconds,
            "windows": [float(w) for w in windows],
        }

    def _step(self, row: Row) -> int:
        """Every so manieth calibration window is looked at."""
        return len(self.text.calibration) // max(1, row.calibration_windows) or 1

    def _network(self, turned: bool) -> Network:
        if not turned:
            return self.network
        if self._turned is None:
            width = self.network.config.n_embd
            self._turned = rotated(self.network, hadamard.orthogonal(width, np.random.default_rng(width)))
        return self._turned

    def _layer_error(self, turned: bool, fits: Mapping[tuple[int, str], Fitted]) -> float:
        if turned not in self._probes:
            self._probes[turned] = probes(self._network(turned), self.text)
        errors = []
        for place, (X, wanted) in self._probes[turned].items():
            for y, ref in zip(fits[place].outputs(X), wanted):
                errors.append(np.square(y - ref, dtype=np.float64).sum() / np.square(ref, dtype=np.float64).sum())
        return float(np.mean(errors))


def quantized(network: Network, row: Row, calibration: np.ndarray) -> dict[tuple[int, str], Fitted]:
    """All stages, each calibrated on what the stages before it, quantized, make of the calibration windows."""
    fits: dict[tuple[int, str], Fitted] = {}

    def products(i: int, stage: str, X: np.ndarray) -> list[np.ndarray]:
        fits[i, stage] = fit(Task(row, stage, network.matrices(i, stage), X))
        return fits[i, stage].outputs(X)

    if row.calibrated:
        hidden_states(network, calibration, products)
    else:
        fits |= {(i, stage): fit(Task(row, stage, network.matrices(i, stage), None)) for i, stage in network.stages}
    return fits


def score(network: Network, text: Text, products: Products, ref: np.ndarray | None) -> Scores:
    """Judge every scored token. ref (windows, scored, vocabulary): log-probabilities to diverge from; None: keep."""
    nll, divergence, kept = [], [], []
    for w, ids in enumerate(text.judged):
        if w % AT_ONCE == 0:
            x = hidden_states(network, text.judged[w : w + AT_ONCE], products)[:, text.skipped - 1 : -1]
        log_p = log_softmax(x[w % AT_ONCE] @ network.head.T)
        nll.append(-np.take_along_axis(log_p, ids[text.skipped :, None], axis=1)[:, 0].astype(np.float64))
        if ref is None:
            kept.append(log_p)
        else:
            divergence.append(np.sum(np.exp(ref[w]) * (ref[w] - log_p), axis=1, dtype=np.float64))
    return Scores(np.stack(nll), np.stack(kept) if kept else None, float(np.mean(divergence)) if divergence else 0.0)


def probes(network: Network, text: Text) -> dict[tuple[int, str], tuple[np.ndarray, list[np.ndarray]]]:
    """(block, stage) -> (X, products): some inputs of the float model, evenly thinned."""
    found, products = {}, exact(network)

    def seen(i: int, stage: str, X: np.ndarray) -> list[np.ndarray]:
        outputs, step = products(i, stage, X), max(1, len(X) // PROBED)
        found[i, stage] = X[::step].copy(), [y[::step].copy() for y in outputs]
        return outputs

    hidden_states(network, text.judged, seen)
    return found


def log_softmax(x: np.ndarray) -> np.ndarray:
    """x - max - ln sum exp(x - max) over the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))
