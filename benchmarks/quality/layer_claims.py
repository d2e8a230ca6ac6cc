"""What the papers promise about one layer, as pairs of numbers: CLAIMS[name].pair(layer) -> (less, more).

A claim holds on some layers if the geometric mean of less / more is below 1; `pair` measures both on a Layer of real
weights and real inputs. OPEN are comparisons that the papers leave open, or that trained models decide otherwise.
tests/refquant/test_orderings.py asserts the claims on the bundled model, layers.py measures them on the test models.

    output error    |X (W - W^)^T|^2 / |X W^T|^2        weight error    |W - W^|^2 / |W|^2
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from refquant import awq, gguf, hadamard, hqq, llm_int8, magnitude, metrics, obq, quantize, sparsegpt, wanda
from refquant.kivi import decode, encode
from refquant.observers.mean_squared_error import MeanSquaredError
from refquant.weighted_rounding import importance

OBQ_ROWS, OBQ_COLUMNS = 4, 192  # its cost is in^3 for each row: a corner of the matrix, and the inputs of the corner


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A matrix (out, in), what calibration feeds it (tokens, in), and the keys of its block (tokens, heads, dim)."""

    name: str
    W: np.ndarray
    X: np.ndarray
    keys: np.ndarray


@dataclass(frozen=True, slots=True)
class Claim:
    """less <= more, in the mean over layers."""

    less: str
    more: str
    measure: str
    pair: Callable[[Layer], tuple[float, float]]


def output_error(layer: Layer, W_hat: np.ndarray, X_hat: np.ndarray | None = None) -> float:
    """Relative squared error of the products; X_hat: rounded inputs."""
    wanted = layer.X @ layer.W.T
    got = (layer.X if X_hat is None else X_hat) @ W_hat.T
    return float(np.square(wanted - got, dtype=np.float64).sum() / np.square(wanted, dtype=np.float64).sum())


def weight_error(layer: Layer, W_hat: np.ndarray) -> float:
    """Relative squared error of the weights."""
    return float(np.square(layer.W - W_hat, dtype=np.float64).sum() / np.square(layer.W, dtype=np.float64).sum())


def _calibrated(layer: Layer, scheme: str, method: str, **options: object) -> np.ndarray:
    return quantize(layer.W, scheme, method=method, calibration=layer.X, **options).dequantize()


def _rounded(layer: Layer, scheme: str) -> np.ndarray:
    return quantize(layer.W, scheme).dequantize()


def _gptq(layer: Layer, scheme: str) -> tuple[float, float]:
    return output_error(layer, _calibrated(layer, scheme, "gptq")), output_error(layer, _rounded(layer, scheme))


def _act_order(layer: Layer, scheme: str) -> tuple[float, float]:
    ordered = _calibrated(layer, scheme, "gptq", order="activation")
    return output_error(layer, ordered), output_error(layer, _calibrated(layer, scheme, "gptq"))


def _rounding_is_nearer(layer: Layer, scheme: str) -> tuple[float, float]:
    return weight_error(layer, _rounded(layer, scheme)), weight_error(layer, _calibrated(layer, scheme, "gptq"))


def _obq(layer: Layer, scheme: str, method: str) -> tuple[float, float]:
    W, X = layer.W[:OBQ_ROWS, :OBQ_COLUMNS], layer.X[:, :OBQ_COLUMNS]
    corner = Layer(layer.name, W, X, layer.keys)
    options = {"order": "activation", "static_groups": True} if method == "gptq" else {}
    other = _calibrated(corner, scheme, method, **options)
    return output_error(corner, obq.quantize(W, scheme, X).dequantize()), output_error(corner, other)


def _weights(layer: Layer, less: str, more: str) -> tuple[float, float]:
    return weight_error(layer, _rounded(layer, less)), weight_error(layer, _rounded(layer, more))


def _range_search(layer: Layer, scheme: str) -> tuple[float, float]:
    q = quantize(layer.W, scheme)
    observer = MeanSquaredError(scheme, q.scheme.granularity, search="torchao")
    observer.update(layer.W)
    searched = quantize(layer.W, scheme, scale=observer.affine()[0]).dequantize()
    return weight_error(layer, searched), weight_error(layer, q.dequantize())


def _awq(layer: Layer, scheme: str) -> tuple[float, float]:
    scaled = awq.quantize(layer.W, scheme, layer.X, clip=False).dequantize()
    return output_error(layer, scaled), output_error(layer, _rounded(layer, scheme))


def _hqq(layer: Layer, scheme: str) -> tuple[float, float]:
    found = hqq.quantize(layer.W, scheme).dequantize(), _rounded(layer, scheme)
    less, more = (float(np.abs(layer.W - W_hat).mean(dtype=np.float64)) for W_hat in found)
    return less, more


def _weights_of_hqq(layer: Layer, scheme: str) -> tuple[float, float]:
    return weight_error(layer, hqq.quantize(layer.W, scheme).dequantize()), weight_error(layer, _rounded(layer, scheme))


def _outliers_apart(layer: Layer) -> tuple[float, float]:
    """The 1 % largest inputs set the threshold: few layers of small models reach the published 6.0."""
    W, threshold = llm_int8.encode(layer.W), float(np.quantile(np.abs(layer.X).max(axis=0), 0.99))
    wanted = layer.X @ layer.W.T
    found = (llm_int8.matmul(layer.X, W, layer.W, threshold=t) for t in (threshold, 0.0))
    less, more = (float(np.square(wanted - y, dtype=np.float64).sum()) for y in found)
    return less, more


def _kurtosis(layer: Layer) -> tuple[float, float]:
    def of(X: np.ndarray) -> float:
        square = np.square(X, dtype=np.float64)
        return float(np.mean(square * square) / np.mean(square) ** 2)

    return of(hadamard.transform(layer.X)), of(layer.X)


def _rotated(layer: Layer, weights: str, inputs: str) -> tuple[float, float]:
    turned_W, turned_X = (hadamard.transform(np.ascontiguousarray(a)) for a in (layer.W, layer.X))
    turned = output_error(layer, quantize(turned_W, weights).dequantize(), quantize(turned_X, inputs).dequantize())
    return turned, output_error(layer, _rounded(layer, weights), quantize(layer.X, inputs).dequantize())


def _pruned(layer: Layer, less: str, more: str) -> tuple[float, float]:
    prune = {
        "sparsegpt": lambda: sparsegpt.prune(layer.W, layer.X),
        "wanda": lambda: wanda.prune(layer.W, layer.X),
        "magnitude": lambda: magnitude.prune(layer.W),
    }
    return output_error(layer, prune[less]()), output_error(layer, prune[more]())


def _imatrix(layer: Layer, type_name: str) -> tuple[float, float]:
    weight = importance(layer.X)
    plain = gguf.dequantize(gguf.quantize(layer.W, type_name), type_name)
    with_importance = gguf.dequantize(gguf.quantize(layer.W, type_name, imatrix=weight), type_name)
    less, more = (metrics.hessian_error(layer.W, W_hat, np.diag(weight)) for W_hat in (with_importance, plain))
    return less, more


def _keys(layer: Layer, bits: int) -> tuple[float, float]:
    keys = layer.keys[: len(layer.keys) // 32 * 32].astype(np.float16)
    by_token = decode(encode(keys.reshape(*keys.shape[:2], -1, 32), bits)).reshape(keys.shape)
    tokens = np.moveaxis(keys.reshape(-1, 32, *keys.shape[1:]), 1, -1)
    by_channel = np.moveaxis(decode(encode(tokens, bits)), -1, 1).reshape(keys.shape)
    less, more = (metrics.mse(keys.astype(np.float32), k.astype(np.float32)) for k in (by_channel, by_token))
    return less, more


_OUTPUT, _WEIGHT = "output error", "weight error"
_BITS = {bits: f"uint{bits}-g64" for bits in (4, 3, 2)}
_K = ("Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
CLAIMS: tuple[Claim, ...] = (
    *(Claim(f"GPTQ {b} bits", f"RTN {b} bits", _OUTPUT, partial(_gptq, scheme=s)) for b, s in _BITS.items()),
    *(
        Claim(f"GPTQ act-order {b} bits", f"GPTQ {b} bits", _OUTPUT, partial(_act_order, scheme=s))
        for b, s in _BITS.items()
    ),
    Claim("RTN 3 bits", "GPTQ 3 bits", _WEIGHT, partial(_rounding_is_nearer, scheme=_BITS[3])),
    Claim("OBQ 3 bits", "RTN 3 bits", _OUTPUT, partial(_obq, scheme=_BITS[3], method="nearest")),
    *(
        Claim(less, more, _WEIGHT, partial(_weights, less=less, more=more))
        for less, more in (
            ("uint4-g32", "uint4-g64"), ("uint4-g64", "uint4-g128"), ("uint3-g32", "uint3-g64"),
            ("uint3-g64", "uint3-g128"), ("uint2-g32", "uint2-g64"), ("uint2-g64", "uint2-g128"),
            ("uint4-g64", "int4-g64"), ("uint3-g64", "int3-g64"), ("uint2-g64", "int2-g64"),
            ("nf4", "bnb_fp4"), ("nf4", "int4-g64"), ("nvfp4", "mxfp4"),
            ("mxfp4-even", "mxfp4"), *pairwise(_K),
        )
    ),
    *(
        Claim(f"int{b}-g64, range searched", f"int{b}-g64", _WEIGHT, partial(_range_search, scheme=f"int{b}-g64"))
        for b in (4, 3)
    ),
    *(Claim(f"AWQ {b} bits", f"RTN {b} bits", _OUTPUT, partial(_awq, scheme=s)) for b, s in _BITS.items()),
    *(
        Claim(f"HQQ {b} bits", f"RTN {b} bits", "mean absolute error", partial(_hqq, scheme=f"uint{b}-g64@hqq"))
        for b in (4, 3, 2)
    ),
    Claim("LLM.int8(), 1 % of columns apart", "int8 by rows", _OUTPUT, _outliers_apart),
    Claim("inputs after a Hadamard transform", "inputs", "kurtosis", _kurtosis),
    Claim("int4 W4A4 rotated", "int4 W4A4", _OUTPUT, partial(_rotated, weights="int4-channel", inputs="int4-token")),
    Claim("MXFP4 W4A4 rotated", "MXFP4 W4A4", _OUTPUT, partial(_rotated, weights="mxfp4", inputs="mxfp4")),
    Claim("SparseGPT 50 %", "Wanda 50 %", _OUTPUT, partial(_pruned, less="sparsegpt", more="wanda")),
    Claim("Wanda 50 %", "magnitude 50 %", _OUTPUT, partial(_pruned, less="wanda", more="magnitude")),
    *(
        Claim(f"{name} with imatrix", name, "importance-weighted error", partial(_imatrix, type_name=name))
        for name in ("Q4_K", "Q3_K", "Q2_K")
    ),
    Claim("keys by channel, 2 bits (KIVI)", "keys by token, 2 bits", "mean squared error", partial(_keys, bits=2)),
)  # fmt: skip

OPEN: tuple[Claim, ...] = (
    Claim("OBQ 3 bits", "GPTQ act-order 3 bits, static groups", _OUTPUT, partial(_obq, scheme=_BITS[3], method="gptq")),
    Claim("int4-g64", "int4-g64-f16", _WEIGHT, partial(_weights, less="int4-g64", more="int4-g64-f16")),
    Claim("uint4-g64", "nf4", _WEIGHT, partial(_weights, less="uint4-g64", more="nf4")),
    Claim("NVFP4 W4A4 rotated", "NVFP4 W4A4", _OUTPUT, partial(_rotated, weights="nvfp4", inputs="nvfp4")),
    Claim("HQQ 3 bits", "RTN 3 bits", _WEIGHT, partial(_weights_of_hqq, scheme="uint3-g64@hqq")),
)  # what may go either way


def ratios(claim: Claim, layers: Sequence[Layer]) -> np.ndarray:
    """less / more of every layer that the claim is about."""
    return np.array([less / more for less, more in map(claim.pair, layers)])
