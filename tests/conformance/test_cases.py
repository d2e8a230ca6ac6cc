"""What the cases claim: bounds that hold and are not empty, codes far from ties, files that can be made again."""

from pathlib import Path

import numpy as np
import pytest
from tiny_models import write_tiny_model

import refquant
from conformance import runner, vectors
from conformance.cases import methods, products
from refquant import gguf

DATA = Path(__file__).parents[1] / "data"


@pytest.mark.parametrize("member", ["gptq", "gptq@ist", "gptq@llm-compressor"])
def test_codes_of_methods_lie_far_from_ties(member):
    """float32 by BLAS, and inputs moved by a millionth, give the codes that float64 in a fixed order gives."""
    rng = np.random.default_rng(0)
    for test in vectors.select(f"method.{member}:quantize/*"):
        params = dict(test.params) | {"precision": "fast"}
        moved = test.inputs["X"] * (1 + 1e-6 * rng.standard_normal(test.inputs["X"].shape)).astype(np.float32)
        for X in (test.inputs["X"], moved):
            got = refquant.quantize(test.inputs["W"], method=member, calibration=X, **params)
            np.testing.assert_array_equal(got.codes, test.expect["codes"]["bits"], err_msg=test.id)


def test_inputs_rounded_to_eight_bits_stay_within_the_bound_of_products_and_inputs_in_another_order_do_not():
    for test in vectors.select("product.*:matvec/random"):
        x, (expect,) = test.inputs["x"], test.expect.values()
        scalar = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(test.algorithm.partition(".")[2])
        data = test.inputs["bytes"] if scalar is None else test.inputs["bytes"].view(scalar)
        W = gguf.dequantize(data, test.algorithm.partition(".")[2]).astype(np.float64)
        rounded = gguf.dequantize(gguf.quantize(x[None], "Q8_0"), "Q8_0")[0]
        assert np.abs(W @ rounded - expect["ref"]).max() <= expect["max"]
        halves = np.concatenate([x[256:], x[:256]])
        assert np.abs(W @ halves - expect["ref"]).max() > expect["max"]


def test_the_bound_of_a_product_is_that_of_its_worst_row():
    W, x = np.float32([[1, -1], [0, 2]]), np.float32([127, 1])
    step = 127 / 127 * (0.5 + 127 * 2.0**-11)
    ref = max(2 * step + products.UNIT * 10 * 128, 2 * step + products.UNIT * 10 * 2)
    assert products.bound(W, x, 2) == pytest.approx(ref, rel=1e-12)


def test_shared_inputs_are_those_of_the_cases():
    named = methods.shared()
    assert set(named) == {f"{layer}-{part}" for layer in ("layer", "few", "pruned", "scaled") for part in "WX"}
    assert all(x.dtype == np.float32 for x in named.values())


def test_small_models_are_what_the_tests_make(tmp_path):
    settings = {
        "llama": {},
        "qwen2": {"tied": True},
        "qwen3": {"tied": True, "head_dim": 32, "n_head_kv": 1},
    }
    for arch, each in settings.items():
        made = write_tiny_model(tmp_path / f"{arch}.gguf", arch=arch, types="Q8_0", **each)
        assert made.read_bytes() == (vectors.ROOT / "models" / f"{arch}.gguf").read_bytes()


def test_vocabularies_and_templates_are_those_of_the_tests():
    for folder, kind in (("vocabularies", "vocab"), ("templates", "templates")):
        for path in (vectors.ROOT / folder).iterdir():
            if path.stem != "bundled":
                assert path.read_bytes() == (DATA / kind / path.name).read_bytes()


@pytest.mark.parametrize(
    "pattern",
    [
        "layer.*",
        "sampler.*",
        "layout.awq-*",
        "method.gptq:quantize",
        *(f"method.gptq@{dialect}:layers" for dialect in ("ist", "llm-compressor")),
        *(f"observer.min-max:{group}" for group in ("int8", "uint8", "few-int3", "few-uint3")),
    ],
)
def test_the_exact_witness_agrees(pattern):
    import exact_witness

    statuses = {outcome.test: outcome.status for outcome in runner.run(vectors.select(pattern), exact_witness)}
    assert set(statuses.values()) <= {"pass", "skip"}
    assert list(statuses.values()).count("pass") >= 2


@pytest.mark.parametrize(
    "pattern, share",
    [
        *((f"checkpoint.{name}", 1) for name in ("awq-gemv_fast", "gptq_p", "mlx", "modelopt-nvfp4")),
        *((f"variant.{name}:*", 1) for name in ("uint4@gptq", "mxfp8_e5m2@torchao", "nf4", "int2")),
        *((f"method.{name}:options", 0.8) for name in ("gptq", "hqq", "sparsegpt", "low_rank")),
        *((f"{name}.*", 0.9) for name in ("bits", "words", "tensor")),
        ("levels.kmeans-optimal:fit", 0.9),
        ("observer.percentile", 0.9),
    ],
)
def test_the_exact_witness_gives_the_answers_of_what_is_accepted(pattern, share):
    """Share of tests; the others are excepted in the vectors, and said nothing about, or their sums end otherwise."""
    import exact_witness

    tests = [test for test in vectors.select(pattern) if test.expect is not None]
    statuses = [outcome.status for outcome in runner.run(tests, exact_witness)]
    assert statuses.count("pass") >= share * len(statuses) > 0
    assert "error" not in statuses
