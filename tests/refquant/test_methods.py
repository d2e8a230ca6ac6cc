"""Methods and formats: each of METHODS fills small floats with better codes, or says which method to take instead."""

import numpy as np
import pytest

import refquant
from refquant import metrics, sparsegpt
from refquant.errors import SchemeError
from refquant.methods import METHODS
from refquant.schemes import parse

SMALL_FLOATS = [
    "mxfp4", "mxfp4@modelopt", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8", "nvfp4", "nvfp4@compressed-tensors",
    "nvfp4@torchao-local", "fp8_e4m3fn-channel", "fp8_e5m2", "fp4_e2m1-g32", "fp4_e2m1-g16-f16",
]  # fmt: skip
COMPENSATING = ("gptq", "gptaq", "ldlq", "obq")  # round a column with the errors of others in mind
LINEAR_ONLY = ("hqq", "adaround", "autoround", "weighted", "easyquant")
EXACT = {"gptq", "gptaq", "ldlq", "sparsegpt"}


def layer(n: int = 64, out: int = 16, tokens: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, out, tokens])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    return rng.standard_normal((out, n)).astype(np.float32), (mixed * np.exp(0.5 * rng.standard_normal(n))).astype(
        np.float32
    )


def quantize(name: str, scheme: str, W: np.ndarray, X: np.ndarray, **options):
    if name == "gptaq":
        options["native"] = X
    if name == "awq" and parse(scheme).granularity.kind == "tensor":
        options["clip"] = False
    if name == "zeroquant":
        options["steps"] = 5
    if name == "obq":
        options["order"] = "activation"  # greed suffers from inputs of unequal size (obq.py)
    return refquant.quantize(W, scheme, method=name, calibration=X, **options)


@pytest.mark.parametrize("scheme", SMALL_FLOATS)
@pytest.mark.parametrize("name", [name for name in METHODS if name not in LINEAR_ONLY])
def test_a_method_returns_codes_of_the_format_it_was_asked_for(name, scheme):
    W, X = layer()
    q, plain = quantize(name, scheme, W, X), refquant.quantize(W, scheme)
    assert q.scheme == plain.scheme
    assert q.codes.dtype == plain.codes.dtype and q.codes.shape == W.shape
    assert q.scale.shape == plain.scale.shape and q.zero_point is None
    assert plain.extras.keys() <= q.extras.keys()
    assert np.isfinite(q.dequantize()).all()


@pytest.mark.parametrize("scheme", SMALL_FLOATS)
@pytest.mark.parametrize("name", COMPENSATING)
def test_errors_are_compensated_in_small_floats_as_in_integers(name, scheme):
    W, X = layer()
    H = X.T @ X
    plain, got = (q.dequantize() for q in (refquant.quantize(W, scheme), quantize(name, scheme, W, X)))
    assert metrics.hessian_error(W, got, H) < 0.8 * metrics.hessian_error(W, plain, H)


@pytest.mark.parametrize("scheme", SMALL_FLOATS)
def test_without_correlations_the_codes_are_those_of_the_format(scheme):
    W, _ = layer()
    X = np.eye(64, dtype=np.float32)  # H is diagonal: no column can make up for another
    got, ref = (
        refquant.quantize(W, scheme, method="gptq", calibration=X, static_groups=True),
        refquant.quantize(W, scheme),
    )
    np.testing.assert_array_equal(got.scale, ref.scale)
    np.testing.assert_array_equal(got.dequantize(), ref.dequantize())
    for part, array in ref.extras.items():
        np.testing.assert_array_equal(got.extras[part], array)


@pytest.mark.parametrize("scheme", ["mxfp4", "nvfp4", "nvfp4@compressed-tensors", "fp8_e4m3fn-channel", "mxint8"])
@pytest.mark.parametrize("name", sorted(EXACT))
def test_fast_and_exact_arithmetic_give_nearly_the_same_codes(name, scheme):
    W, X = layer()
    fast, exact = (quantize(name, scheme, W, X, precision=p) for p in ("fast", "exact"))
    np.testing.assert_array_equal(fast.scale.shape, exact.scale.shape)
    assert np.mean(fast.codes != exact.codes) <= 2e-3


@pytest.mark.parametrize("scheme, joint_wins", [("mxfp4", True), ("fp4_e2m1-channel", True), ("nvfp4", False)])
def test_pruning_and_rounding_at_once_pays_where_a_scale_serves_many_weights(scheme, joint_wins):
    W, X = layer(128, 24, 1000)
    H = X.T @ X
    joint = quantize("sparsegpt", scheme, W, X, pattern=(2, 4)).dequantize()
    apart = refquant.quantize(sparsegpt.prune(W, X, pattern=(2, 4)), scheme).dequantize()
    assert (joint.reshape(24, -1, 4) == 0).sum(axis=-1).min() >= 2
    at_once, later = (metrics.hessian_error(W, w, H) for w in (joint, apart))
    assert (at_once < later) == joint_wins
    assert at_once < 1.05 * later


def test_the_scale_of_the_tensor_is_that_of_the_original_weights():
    W, X = layer()
    for scheme, extra in (("nvfp4", "tensor_scale"), ("nvfp4@compressed-tensors", "global_scale")):
        got = quantize("gptq", scheme, W, X).extras[extra]
        np.testing.assert_array_equal(got, refquant.quantize(W, scheme).extras[extra])


@pytest.mark.parametrize("name", LINEAR_ONLY)
@pytest.mark.parametrize("scheme", ["mxfp4", "nvfp4", "fp8_e4m3fn-channel", "nf4", "Q4_0"])
def test_methods_for_linear_formats_name_others_for_the_rest(name, scheme):
    W, X = layer()
    with pytest.raises(SchemeError, match=r"expected a linear format.*take method gptq, awq or smoothquant"):
        quantize(name, scheme, W, X)


@pytest.mark.parametrize("name", [*COMPENSATING, "sparsegpt"])
@pytest.mark.parametrize("scheme, instead", [
    ("Q4_K", "Take method nearest, awq or smoothquant, or an importance matrix"),
    ("kmeans4-g32", "with method nearest"),
    ("nf4-dq", "expected plain scales"),
    ("mxfp4-stochastic", "expected a deterministic one"),
    ("fp8_e4m3fn-cast", "fp8_e4m3fn-channel"),
])  # fmt: skip
def test_formats_that_no_column_can_be_rounded_to_alone_are_refused_with_advice(name, scheme, instead):
    W, X = layer(256, 4)
    with pytest.raises(SchemeError, match=instead):
        quantize(name, scheme, W, X)


def test_awq_says_how_to_do_without_clipping():
    W, X = layer()
    with pytest.raises(SchemeError, match="or clip=False"):
        refquant.quantize(W, "fp8_e4m3fn", method="awq", calibration=X)
