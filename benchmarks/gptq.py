"""GPTQ of one layer against gptqmodel and llm-compressor, on the same weights, inputs and machine, alternating.

    python -m benchmarks.gptq [--size 4096] [--tokens 8192] [--rounds 3] [--peers gptqmodel,llmcompressor]

int4, groups of 128, symmetric, natural order, damping 1 %. Two times are taken of each: accumulating the Hessian from
float32 inputs, and quantizing with it. The fastest round counts. Printed: seconds, the ratio to each peer
(ours / theirs, below 1 is faster), the relative output error of every result, and our peak of resident
memory.
"""

import argparse
import resource
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from refquant import gptq
from refquant.hessian import Hessian

GROUP = 128
Timed = tuple[float, float, np.ndarray]  # seconds of the Hessian, of quantizing, dequantized weights


def ours(W: np.ndarray, X: np.ndarray) -> Timed:
    """This package, precision="fast"."""
    start = time.perf_counter()
    hessian = Hessian()
    hessian.update(X)
    between = time.perf_counter()
    q = gptq.quantize(W, f"uint4-g{GROUP}-sym", hessian)
    end = time.perf_counter()
    return between - start, end - between, q.dequantize()


def gptqmodel(W: np.ndarray, X: np.ndarray) -> Timed:
    """gptqmodel's GPTQ class on the CPU."""
    import torch
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.quantization.gptq import GPTQ

    module = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    module.weight.data = torch.from_numpy(W.copy())
    config = QuantizeConfig(
        bits=4,
        group_size=GROUP,
        sym=True,
        desc_act=False,
        act_group_aware=False,
        damp_percent=0.01,
        offload_to_disk=False,
    )
    theirs = GPTQ(module, config)
    theirs.quantizer.configure(perchannel=True)
    start = time.perf_counter()
    theirs.add_batch(torch.from_numpy(X)[None], None)
    theirs.materialize_global_hessian()
    between = time.perf_counter()
    dequantized = theirs.quantize()[0]
    return between - start, time.perf_counter() - between, dequantized.numpy()


def llmcompressor(W: np.ndarray, X: np.ndarray) -> Timed:
    """llm-compressor's quantize_weight on the CPU, scales included."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import calculate_qparams
    from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
    from llmcompressor.modifiers.gptq.helpers import accumulate_hessian, make_empty_hessian

    module = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    arguments = QuantizationArgs(num_bits=4, symmetric=True, strategy="group", group_size=GROUP)
    with torch.no_grad():
        start = time.perf_counter()
        H, count = accumulate_hessian(torch.from_numpy(X), module, make_empty_hessian(module), torch.tensor(0))
        between = time.perf_counter()
        groups = torch.from_numpy(W).reshape(len(W), -1, GROUP)
        scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
        weight = torch.from_numpy(W)[None].clone()
        dequantized, _, _ = quantize_weight(weight, (H / count)[None], scale[None], zero[None], None, arguments)
        end = time.perf_counter()
    return between - start, end - between, dequantized[0].numpy()


PEERS: dict[str, Callable[[np.ndarray, np.ndarray], Timed]] = {"gptqmodel": gptqmodel, "llmcompressor": llmcompressor}


def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=",".join(PEERS))
    chosen = parser.parse_args(arguments)
    rng, n = np.random.default_rng(0), chosen.size
    W = rng.standard_normal((n, n), dtype=np.float32)
    X = rng.standard_normal((chosen.tokens, n), dtype=np.float32)
    X += np.roll(X, 1, axis=1) + np.roll(X, 2, axis=1)  # neighbours are correlated
    asked = [name for name in chosen.peers.split(",") if name]
    absent = [name for name in asked if find_spec(name) is None]
    runs = {"refquant": ours, **{name: PEERS[name] for name in asked if name not in absent}}
    best: dict[str, tuple[float, float]] = dict.fromkeys(runs, (np.inf, np.inf))
    error: dict[str, float] = {}
    peak = 0
    sample = X[:512]  # the error of the output, on some of the inputs
    power = np.square(sample @ W.T).sum()
    for _ in range(chosen.rounds):
        for name, run in runs.items():
            hessian, quantizing, dequantized = run(W, X)
            best[name] = min(best[name][0], hessian), min(best[name][1], quantizing)
            error[name] = float(np.square(sample @ (W - dequantized).T).sum() / power)
            print(f"  {name}: Hessian {hessian:.2f} s, quantize {quantizing:.2f} s", flush=True)
            peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"GPTQ {n} x {n}, int4 g{GROUP}, {chosen.tokens} tokens, best of {chosen.rounds}")
    print(f"{'':15}{'Hessian s':>11}{'quantize s':>12}{'ratio':>8}{'output error':>15}")
    for name, (hessian, quantizing) in best.items():
        ratio = best["refquant"][1] / quantizing
        print(f"{name:15}{hessian:11.2f}{quantizing:12.2f}{ratio:8.2f}{error[name]:15.3e}")
    print(
        f"peak memory after our first round: {peak / 1024:.0f} MiB, of which W and X {(W.nbytes + X.nbytes) >> 20} MiB"
    )
    for name in absent:
        print(f"{name}: not installed")


if __name__ == "__main__":
    main()
