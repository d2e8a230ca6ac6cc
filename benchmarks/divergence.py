"""How far each engine is from exact: `python -m benchmarks.divergence MODEL.gguf ... --text FILE --windows 96`.

    KL_i   = sum over v of p_i(v) (log p_i(v) - log q_i(v))     at position i, in nats and float64
    ratio  = sum over positions of KL(oracle, ours) / sum of KL(oracle, llama.cpp)

p comes from refquant.models.Oracle in float32 with a float32 cache, q from an engine on the same GGUF, both engines
with one type of KV cache. So the weights are equal: KL is what rounding of activations, of the cache and of sums does.
The interval is a paired bootstrap of whole windows, since positions of one window are not independent: windows are
drawn with replacement, both sums over the same ones. `below` is the upper end of the two-sided 95 % interval, the
97.5th percentile. Ids come from our tokenizer for all three. Logits are held for one window at a time.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks import worker
from benchmarks.worker import Worker
from refquant import gguf
from refquant.errors import QuantError, RangeError, ShapeError
from refquant.models import Oracle
from refquant.text import Tokenizer
from runtime.bench_rows import table
from runtime.cores import physical_cores

RESAMPLES = 10_000
LOW, HIGH = 2.5, 97.5  # percentiles of the interval
SEED = 0
READ = 1 << 22  # characters of the text, the most that are looked at


@dataclass(frozen=True, slots=True)
class Divergence:
    """Mean KL divergences in nats a token, and the ratio of ours to theirs with its interval."""

    model: str
    kv: str
    tokens: int
    ours: float
    theirs: float
    ratio: float
    above: float
    below: float
    ours_top: float  # how often the likeliest token is that of the oracle
    theirs_top: float


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(softmax(p), softmax(q)) over the last axis, float64, of logits (..., n_vocab). Raises ShapeError."""
    if p.shape != q.shape:
        raise ShapeError(f"divergence.kl_divergence: q.shape = {q.shape}, expected {p.shape}")
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    return np.sum(np.exp(log_p) * (log_p - log_q), axis=-1)


def bootstrap(ours: np.ndarray, theirs: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    """The interval of sum(ours) / sum(theirs) when windows are drawn again; both (windows,). Raises ShapeError."""
    if ours.shape != theirs.shape or ours.ndim != 1 or not len(ours):
        raise ShapeError(f"divergence.bootstrap: shapes {ours.shape} and {theirs.shape}, expected (windows,) twice")
    drawn = rng.integers(0, len(ours), (RESAMPLES, len(ours)))
    low, high = np.percentile(ours[drawn].sum(1) / theirs[drawn].sum(1), (LOW, HIGH))
    return float(low), float(high)


def divergence(
    path: Path, windows: list[list[int]], kv: str, threads: int, ours: Worker, theirs: Worker, note=lambda done: None
) -> Divergence:
    """Both engines on one model. `windows` are lists of ids of one length, each read from an empty context."""
    for engine in (ours, theirs):
        engine.ask("load", path=str(path), threads=threads, n_ctx=len(windows[0]), kv=kv)
    sums = np.zeros((2, len(windows)))
    top = np.zeros(2)
    with gguf.open(path) as file:
        oracle = Oracle(file)
        for i, ids in enumerate(windows):
            note(i)
            exact = oracle.logits(ids)
            for side, engine in enumerate((ours, theirs)):
                got = _logits(engine, ids)
                sums[side, i] = kl_divergence(exact, got).sum()
                top[side] += np.sum(got.argmax(-1) == exact.argmax(-1))
    tokens = sum(map(len, windows))
    total = sums.sum(1)
    above, below = bootstrap(*sums, np.random.default_rng(SEED))
    means = (total / tokens).tolist()
    return Divergence(path.name, kv, tokens, *means, float(total[0] / total[1]), above, below, *(top / tokens).tolist())


def cut(ids: list[int], windows: int, length: int, bos: int | None) -> list[list[int]]:
    """`windows` runs of `length` ids, evenly spread over the text, each beginning with BOS where there is one."""
    body = length - (bos is not None)
    if body < 1 or windows < 1 or windows * body > len(ids):
        raise RangeError(
            f"divergence: the text has {len(ids)} tokens, expected {windows} windows of {length}: "
            "a longer text, or fewer or shorter windows"
        )
    starts = np.linspace(0, len(ids) - body, windows).astype(int).tolist()
    return [([] if bos is None else [bos]) + ids[start : start + body] for start in starts]


def as_markdown(results: list[Divergence]) -> str:
    """One row a model."""
    header = ("model", "KV", "tokens", "refquant KL", "llama.cpp KL", "ratio", "95 %", "same top", "llama.cpp same top")
    rows = [
        (
            r.model,
            r.kv,
            str(r.tokens),
            f"{r.ours:.3e}",
            f"{r.theirs:.3e}",
            f"{r.ratio:.4f}",
            f"{r.above:.4f}-{r.below:.4f}",
            f"{100 * r.ours_top:.2f} %",
            f"{100 * r.theirs_top:.2f} %",
        )
        for r in results
    ]
    return table(header, "<<>>>>>>>", rows)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _logits(engine: Worker, ids: list[int]) -> np.ndarray:
    answer = engine.ask("logits", ids=ids)
    return np.frombuffer(answer["raw"], np.float32).reshape(answer["shape"])


def _windows(path: Path, arguments: argparse.Namespace) -> list[list[int]]:
    text = arguments.text.read_text("utf-8")[:READ]
    with gguf.open(path) as file:
        tokenizer = Tokenizer.from_gguf(file)
    ids = tokenizer.encode(text, add_special=False)
    return cut(ids, arguments.windows, arguments.length, tokenizer.bos if tokenizer.add_bos else None)


def main(argv: list[str] | None = None) -> int:
    """The command line."""
    p = argparse.ArgumentParser(prog="python -m benchmarks.divergence", description=__doc__.partition("\n")[0])
    p.add_argument("models", nargs="+", type=Path, metavar="MODEL", help="GGUF files")
    p.add_argument("--text", type=Path, required=True, metavar="FILE", help="UTF-8 text to read")
    p.add_argument("--windows", type=int, default=96, metavar="N", help="pieces of the text (96)")
    p.add_argument("--length", type=int, default=256, metavar="N", help="tokens of a piece (256)")
    p.add_argument("--kv", choices=("f16", "f32", "q8_0"), default="f16", help="type of both engines' KV cache (f16)")
    p.add_argument("-t", "--threads", type=int, default=physical_cores(), metavar="N", help="threads of both engines")
    p.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto", help="of llama.cpp (auto)")
    p.add_argument("--llama-python", metavar="PATH", help="a Python that has llama_cpp (default: this one)")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    arguments = p.parse_args(argv)
    results: list[Divergence] = []
    status = 0
    try:
        theirs, about = worker.llama_cpp(arguments.llama_python, arguments.flash_attn)
        with theirs, worker.ours() as ours:
            print(f"divergence: {about['version']}; {about['settings']}", file=sys.stderr)
            for path in arguments.models:
                note = lambda done, name=path.name: print(
                    f"\rdivergence: {name}: window {done + 1} of {arguments.windows}",
                    end="",
                    file=sys.stderr,
                    flush=True,
                )
                windows = _windows(path, arguments)
                results.append(divergence(path, windows, arguments.kv, arguments.threads, ours, theirs, note))
                print(file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    except (QuantError, OSError) as error:
        print(f"divergence: {error}", file=sys.stderr)
        status = 2
    if results:
        print(as_markdown(results))
        if arguments.json is not None:
            arguments.json.write_text(json.dumps([asdict(r) for r in results], indent=2) + "\n", encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
