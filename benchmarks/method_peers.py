"""The same weights, inputs and settings through other people's packages and through ours: how many codes differ.

    python -m benchmarks.method_peers [--out 128] [--in 512] [--tokens 1024] [--write docs/method-peers.md]

One layer of correlated random inputs of unequal size and Gaussian weights (`layer`). For every pair: how many of the
weights come out as another level, and the ratio of output errors |X (W - W^)^T|^2, ours / theirs. The table is
printed, or written where --write says. Packages that are not installed are named and left out.
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

import refquant
from benchmarks import peer_methods as theirs
from refquant import autoround, sparsegpt, wanda
from refquant.linear_rows import rows_of

PACKAGES = {  # how it is imported: how it is installed
    "gptqmodel": "gptqmodel",
    "llmcompressor": "llmcompressor",
    "awq": "autoawq",
    "hqq": "hqq",
    "auto_round": "auto-round",
}
LIBRARIES = ("numpy", "torch", "transformers", "compressed-tensors")
SUMS = "sums of float32 in another order move weights next to a tie, and what follows them in the row"
SEARCH = "as above; and two ranges of a search may lose alike"
SAME = "the arithmetic is determined"

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True, slots=True)
class Pair:
    """What is compared. close: how far two weights may be apart and still be the same level."""

    package: str
    method: str
    settings: str
    peer: Run
    own: Run
    why: str = SUMS
    close: float = 1e-5


@dataclass(frozen=True, slots=True)
class Found:
    """A row of the table."""

    pair: Pair
    codes: int
    differing: int
    ratio: float = field(default=float("nan"))


def quantized(method: str, scheme: str, **options: object) -> Run:
    """Ours, dequantized."""
    return lambda W, X: refquant.quantize(W, scheme, method=method, calibration=X, **options).dequantize()


def layer(out: int = 128, n: int = 512, tokens: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    """W (out, n) and X (tokens, n), the same for the same sizes."""
    rng = np.random.default_rng([n, out, tokens])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    X = mixed * np.exp(0.5 * rng.standard_normal(n))
    return rng.standard_normal((out, n)).astype(np.float32), X.astype(np.float32)


def shifted(X: np.ndarray) -> np.ndarray:
    """Inputs of the original model, for GPTAQ."""
    return X + np.float32(0.1) * np.roll(X, 1, axis=1)


def pairs() -> list[Pair]:
    """Every comparison, in the order of the table."""
    own = partial(quantized, "gptq")
    gptq = []
    for words, scheme, said, options in (
        ("4 bits, channel", "uint4-channel-sym", {"group_size": -1}, {"order": "natural"}),
        ("4 bits, g128", "uint4-g128-sym", {"group_size": 128}, {"order": "natural"}),
        ("4 bits, g32, asymmetric", "uint4-g32", {"group_size": 32, "sym": False}, {"order": "natural"}),
        ("3 bits, g64, static groups", "uint3-g64-sym", {"group_size": 64, "bits": 3, "static_groups": True},
         {"order": "natural", "static_groups": True}),
        ("4 bits, g64, act-order", "uint4-g64-sym", {"group_size": 64, "desc_act": True}, {"order": "activation"}),
        ("4 bits, g64, group-aware order", "uint4-g64-sym", {"group_size": 64, "act_group_aware": True}, {}),
        ("3 bits, g64, mse 2.4", "uint3-g64-sym", {"group_size": 64, "bits": 3, "mse": 2.4},
         {"order": "natural", "search": "gptq"}),
    ):  # fmt: skip
        peer = partial(theirs.gptqmodel_gptq, **said)
        why = SEARCH if "mse" in said else SUMS
        gptq.append(Pair("gptqmodel", "GPTQ", words, peer, own(scheme, dialect="gptqmodel", **options), why, 1e-2))
    gptq.append(
        Pair(
            "gptqmodel",
            "GPTAQ",
            "4 bits, g64",
            lambda W, X: theirs.gptqmodel_gptaq(W, X, native=shifted(X), group_size=64),
            lambda W, X: quantized("gptaq", "uint4-g64-sym", native=shifted(X), dialect="gptqmodel")(W, X),
            close=1e-2,
        )
    )
    group = {"strategy": "group", "group_size": 64}
    for words, scheme, said, order in (
        ("4 bits, channel", "int4-channel", {}, "natural"),
        ("4 bits, g64, asymmetric", "int4-g64-asym", {**group, "symmetric": False}, "natural"),
        ("4 bits, g64, act-order (static)", "int4-g64", {**group, "actorder": "weight"}, "activation"),
    ):
        peer = partial(theirs.llmcompressor_gptq, **said)
        gptq.append(Pair("llmcompressor", "GPTQ", words, peer, own(scheme, dialect="llm-compressor", order=order)))
    for scheme, said in (
        ("nvfp4", {"strategy": "tensor_group", "group_size": 16}),
        ("mxfp4", {"strategy": "group", "group_size": 32}),
        ("fp8_e4m3fn-channel", {"num_bits": 8}),
    ):
        gptq.append(_small_floats(f"{scheme}@compressed-tensors", said, own))
    return [*gptq, *_pruning(), *_scaling(), *_optimizing()]


def _small_floats(scheme: str, said: dict, own: Callable[..., Run]) -> Pair:
    def peer(W: np.ndarray, X: np.ndarray) -> np.ndarray:
        plain = refquant.quantize(W, scheme)  # the scales, of which tests/refquant/peers compare the bytes
        return theirs.llmcompressor_gptq(
            W, X, scale=plain.scale, global_scale=plain.extras.get("global_scale"), type="float", **said
        )

    words = scheme.partition("@")[0] + ", scales of the format"
    return Pair("llmcompressor", "GPTQ", words, peer, own(scheme, dialect="llm-compressor", order="natural"))


def _pruning() -> list[Pair]:
    found = []
    for words, pattern in (("50 %", None), ("2:4", (2, 4))):
        found += [
            Pair("llmcompressor", "SparseGPT", words, partial(theirs.llmcompressor_sparsegpt, pattern=pattern),
                 partial(sparsegpt.prune, pattern=pattern, dialect="llm-compressor"), close=1e-3),
            Pair("llmcompressor", "Wanda", words, partial(theirs.llmcompressor_wanda, pattern=pattern),
                 partial(wanda.prune, pattern=pattern), "norms of inputs in float32 there, in float64 here"),
        ]  # fmt: skip
    return found


def _scaling() -> list[Pair]:
    scheme, found = "uint4-g64@awq", []
    for words, duo, clip, dialect in (
        ("4 bits, g64, duo, clip", True, True, "autoawq"),
        ("4 bits, g64, clip: llm-awq's formula", False, True, "llm-awq"),
        ("4 bits, g64: llm-awq's formula", False, False, "llm-awq"),
    ):
        peer = partial(theirs.auto_awq, duo=duo, clip=clip)
        why = (
            "means in float32 there: s differs in its last bits, and codes next to a tie; clip factors that lose alike"
        )
        found.append(Pair("awq", "AWQ", words, peer, quantized("awq", scheme, dialect=dialect, clip=clip), why, 1e-2))
    for alpha in (0.5, 0.8):
        peer = partial(theirs.llmcompressor_smoothquant, alpha=alpha)
        own = quantized("smoothquant", "int8-channel@compressed-tensors", alpha=alpha, dialect="llm-compressor")
        why = "powers of torch and NumPy differ in the last bit"
        found.append(Pair("llmcompressor", "SmoothQuant", f"int8 channel, alpha {alpha}", peer, own, why, 2e-3))
    return found


def _optimizing() -> list[Pair]:
    found = []
    for bits in (2, 4):
        for solver, dialect in (("legacy", "last"), ("v2", "best")):
            words, scheme = f"{bits} bits, g64, solver {solver}", f"uint{bits}-g64@hqq"
            peer, own = partial(theirs.hqq, bits=bits, solver=solver), quantized("hqq", scheme, dialect=dialect)
            found.append(Pair("hqq", "HQQ", words, peer, own, "means of float32 in another order", 1e-3))
        found.append(
            Pair("auto_round", "AutoRound", f"{bits} bits, g64, its rounding with given v, a, b",
                 lambda W, X, bits=bits: theirs.auto_round(W, X, bits=bits, **_offsets(W)),
                 lambda W, X, bits=bits: _rounded(W, bits), SAME)
        )  # fmt: skip
    return found


def _offsets(W: np.ndarray) -> dict[str, np.ndarray]:
    rng, count = np.random.default_rng(3), W.size // 64
    a, b = rng.uniform(0.5, 1, (2, count)).astype(np.float32)
    return {"v": rng.uniform(-0.5, 0.5, (count, 64)).astype(np.float32), "a": a, "b": b}


def _rounded(W: np.ndarray, bits: int) -> np.ndarray:
    rows, given = rows_of("method_peers", W, f"uint{bits}-g64-f16"), _offsets(W)
    got = autoround.qdq(rows, given["v"], given["a"][:, None], given["b"][:, None])
    return rows.matrix(got.scale * (got.codes - got.zero))


def compare(pair: Pair, W: np.ndarray, X: np.ndarray) -> Found:
    """One row."""
    ref, got = pair.peer(W, X), pair.own(W, X)
    errors = [np.square(X.astype(np.float64) @ (W - w).T).sum() for w in (got, ref)]
    return Found(pair, W.size, int(np.sum(np.abs(got - ref) > pair.close)), errors[0] / errors[1])


def table(found: list[Found], absent: list[str], sizes: tuple[int, int, int]) -> str:
    """The page in Markdown."""
    out, n, tokens = sizes
    distributions = [*(PACKAGES[name] for name in PACKAGES if name not in absent), *LIBRARIES]
    versions = [f"{name} {version(name)}" for name in distributions if _installed(name)]
    lines = [
        *HEAD,
        "",
        f"Layer: {out} x {n} weights, {tokens} inputs. Versions: {', '.join(versions)}; Python "
        f"{platform.python_version()}.",
        "",
        "| package | method | settings | codes | differing | error ratio | where they differ |",
        "|---|---|---|---|---|---|---|",
    ]
    for f in found:
        share = f"{f.differing} ({100 * f.differing / f.codes:.2g} %)" if f.differing else "0"
        why = f.pair.why if f.differing else ""
        cells = (PACKAGES[f.pair.package], f.pair.method, f.pair.settings, f"{f.codes}", share, f"{f.ratio:.5f}", why)
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"Not installed: {PACKAGES[name]}." for name in absent), *NOTES]
    return "\n".join(lines) + "\n"


def _installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


HEAD = """# Methods, and the packages that people use

The same weights, inputs and settings through each package and through `refquant`, in the dialect of that package.
Differing: weights that come out as another level. Ratio: the error of the output, ours / theirs, so that below 1 is
better. Made by `python -m benchmarks.method_peers --write docs/method-peers.md`.""".splitlines()
NOTES = """Not in the table: llm-compressor's AWQ, which searches inside a model (`tests/refquant/peers` compares its
grid of ratios and its weight means); auto-round's training, which draws batches at random over whole blocks (its
rounding is compared); llm-awq, which is no package (AutoAWQ without duo scaling computes its formula); SparseGPT with
quantization (`tests/refquant/peers/test_gptq_peers.py` repeats its loop around gptqmodel's quantizer).""".splitlines()


def main(arguments: list[str] | None = None) -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=int, default=128)
    parser.add_argument("--in", type=int, default=512, dest="n")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args(arguments)
    sizes = chosen.out, chosen.n, chosen.tokens
    absent = [name for name in PACKAGES if find_spec(name) is None]
    W, X = layer(*sizes)
    found = [compare(pair, W, X) for pair in pairs() if pair.package not in absent]
    text = table(found, absent, sizes)
    if chosen.write is None:
        print(text, end="")
    else:
        chosen.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
