"""AWQ's search of one Llama block against AutoAWQ, on the same weights, inputs and machine, alternating.

    python -m benchmarks.awq [--size 1024] [--tokens 512] [--rounds 3] [--scales-only] [--no-peer]

4 bits with zero points, groups of 128. The four searches of a block: q, k, v judged by the output of attention, o by
its own, gate and up by the output of the MLP, down by its own; then the clipping of all but q and k. The hidden size is
--size, the MLP 2.75 times as wide, heads of 64. The fastest round counts. Printed: seconds of the scales and of the
clipping with their ratios (ours / theirs, below 1 is faster), our peak of resident memory, and how far the scales that
were found are apart. AutoAWQ's clipping takes minutes for layers of 2048 and more: --scales-only leaves it out.
"""

import argparse
import resource
import time
from importlib.util import find_spec

import numpy as np

from benchmarks import peer_methods as theirs
from refquant import awq
from refquant.models.attention import attend
from refquant.models.norm import silu
from refquant.schemes import parse

GROUP, HEAD = 128, 64
SCHEME = parse(f"uint4-g{GROUP}@awq")
Scales = dict[str, np.ndarray]


def block(size: int, tokens: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights by name, and the inputs X of each group of layers that shares one."""
    rng, wide = np.random.default_rng(0), int(size * 2.75) // GROUP * GROUP
    shapes = dict.fromkeys("qkvo", (size, size)) | {"gate": (wide, size), "up": (wide, size), "down": (size, wide)}
    W = {name: rng.standard_normal(s, dtype=np.float32) / np.float32(s[1] ** 0.5) for name, s in shapes.items()}
    widths = {"qkv": size, "o": size, "gate up": size, "down": wide}
    spread = {name: np.exp(rng.standard_normal(n, dtype=np.float32)) for name, n in widths.items()}
    return W, {name: rng.standard_normal((tokens, n), dtype=np.float32) * spread[name] for name, n in widths.items()}


def ours(W: dict[str, np.ndarray], X: dict[str, np.ndarray], clipped: str) -> tuple[float, float, Scales]:
    """(seconds of the scales, of clipping the layers that `clipped` names, scales)."""

    def attention(x: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
        q, k, v = ((x @ M.T).reshape(len(x), -1, HEAD) for M in matrices)
        return attend(q, k, v, HEAD**-0.5) @ W["o"].T

    def mlp(x: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
        gate, up = (x @ M.T for M in matrices)
        return (silu(gate) * up) @ W["down"].T

    start, scales = time.perf_counter(), {}
    for names, output in ((["q", "k", "v"], attention), (["o"], None), (["gate", "up"], mlp), (["down"], None)):
        x = X["qkv" if output is attention else " ".join(names)]
        found = awq.search_scale([W[n] for n in names], x, SCHEME, "autoawq", output)
        scales |= dict.fromkeys(names, found.scale)
    between = time.perf_counter()
    for name in clipped.split():
        awq.clip_bound(W[name] * scales[name], X[_inputs_of(name)] / scales[name], SCHEME)
    return between - start, time.perf_counter() - between, scales


def auto_awq(W: dict[str, np.ndarray], X: dict[str, np.ndarray], clipped: str) -> tuple[float, float, Scales]:
    """As `ours`, by AutoAWQ's AwqQuantizer."""
    torch = theirs.load("torch")
    functional = torch.nn.functional

    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.o = (theirs.linear(W[n]) for n in "qkvo")

        def forward(self, x):
            heads = (m(x).unflatten(-1, (-1, HEAD)).transpose(1, 2) for m in (self.q, self.k, self.v))
            mixed = functional.scaled_dot_product_attention(*heads, is_causal=True)
            return self.o(mixed.transpose(1, 2).flatten(2))

    class MLP(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.up, self.down = (theirs.linear(W[n]) for n in ("gate", "up", "down"))

        def forward(self, x):
            return self.down(functional.silu(self.gate(x)) * self.up(x))

    quantizer, attention, mlp = theirs.auto_awq_quantizer(True, GROUP), Attention(), MLP()
    start, scales = time.perf_counter(), {}
    for names, module in (
        (["q", "k", "v"], attention), (["o"], None), (["gate", "up"], mlp), (["down"], None)
    ):  # fmt: skip
        x = torch.from_numpy(X["qkv" if module is attention else " ".join(names)])
        layers = [theirs.linear(W[n]) for n in names] if module is None else [getattr(module, n) for n in names]
        found = theirs.auto_awq_scale(quantizer, layers, x, module).numpy()
        scales |= dict.fromkeys(names, found)
    between = time.perf_counter()
    for name in clipped.split():
        scaled = torch.from_numpy(W[name] * scales[name])
        quantizer._compute_best_clip(scaled, torch.from_numpy(X[_inputs_of(name)] / scales[name])[None])
    return between - start, time.perf_counter() - between, scales


def _inputs_of(name: str) -> str:
    return {"v": "qkv", "gate": "gate up", "up": "gate up"}.get(name, name)


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scales-only", action="store_true")
    parser.add_argument("--no-peer", action="store_true")
    chosen = parser.parse_args(arguments)
    W, X = block(chosen.size, chosen.tokens)
    held = sum(a.nbytes for part in (W, X) for a in part.values()) >> 20
    runs = {"refquant": ours}
    if not chosen.no_peer and find_spec("awq") is not None:
        runs["autoawq"] = auto_awq
    best, found, peak = dict.fromkeys(runs, (np.inf, np.inf)), {}, 0
    for _ in range(chosen.rounds):
        for name, run in runs.items():
            scale, clip, found[name] = run(W, X, "" if chosen.scales_only else "v o gate up down")
            best[name] = min(best[name][0], scale), min(best[name][1], clip)
            print(f"  {name}: scales {scale:.2f} s, clipping {clip:.2f} s", flush=True)
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"AWQ of one block, {chosen.size} wide, 4 bits g{GROUP}, {chosen.tokens} tokens, best of {chosen.rounds}")
    print(f"{'':12}{'scales s':>10}{'ratio':>7}{'clipping s':>12}{'ratio':>7}")
    for name, (scale, clip) in best.items():
        first, second = best["refquant"]
        clipping = "" if chosen.scales_only else f"{clip:12.2f}{second / clip:7.2f}"
        print(f"{name:12}{scale:10.2f}{first / scale:7.2f}{clipping}")
    print(f"peak memory after our first round: {peak / 1024:.0f} MiB, of which weights and inputs {held} MiB")
    if "autoawq" in runs:
        apart = max(np.abs(found["autoawq"][n] / s - 1).max() for n, s in found["refquant"].items())
        print(f"largest relative difference of the scales found: {apart:.1e}")
    else:
        print("autoawq: not compared")


if __name__ == "__main__":
    main()
