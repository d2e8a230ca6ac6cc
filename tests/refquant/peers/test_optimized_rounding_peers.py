"""HQQ's solvers, AutoRound's rounding with learned offsets, and its search for scales: theirs against ours."""

import numpy as np
import pytest

from refquant import autoround, hqq, weighted_rounding
from refquant.linear_rows import rows_of

pytestmark = pytest.mark.filterwarnings("ignore")


def matrix() -> np.ndarray:
    return np.random.default_rng(11).standard_t(4, (32, 128)).astype(np.float32)


@pytest.mark.parametrize("round_zero", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("dialect", ["last", "best"])
def test_codes_and_zero_points_are_those_of_hqq(peer, monkeypatch, bits, dialect, round_zero):
    torch, package, solvers = peer("torch"), peer("hqq.core.quantize"), peer("hqq.core.optimize")
    solver = {"last": solvers.optimize_weights_proximal_legacy, "best": solvers.optimize_weights_proximal_v2}[dialect]
    monkeypatch.setattr(package.Quantizer, "optimize_weights", staticmethod(solver))
    W = matrix()
    codes, meta = package.Quantizer.quantize(
        torch.tensor(W), nbits=bits, group_size=64, round_zero=round_zero, axis=1, bitpack=False, device="cpu"
    )
    got = hqq.quantize(W, f"uint{bits}-g64@hqq", dialect=dialect, round_zero=round_zero)
    np.testing.assert_array_equal(got.scale.ravel(), meta["scale"].numpy().ravel())
    np.testing.assert_allclose(got.zero_point.ravel(), meta["zero"].numpy().ravel(), rtol=2e-5, atol=2e-5)
    assert np.mean(got.codes.ravel() != codes.numpy().ravel()) <= 1e-3  # means of float32 in another order


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("symmetric", [False, True])
def test_rounding_with_offsets_and_shrunk_ranges_is_that_of_auto_round(peer, bits, symmetric):
    torch, package = peer("torch"), peer("auto_round.data_type.int")
    rng = np.random.default_rng(3)
    rows = rows_of("test", matrix(), f"int{bits}-g64-signedmax-f16" if symmetric else f"uint{bits}-g64-f16")
    v = rng.uniform(-0.5, 0.5, rows.values.shape).astype(np.float32)
    a, b = rng.uniform(0.5, 1, (2, *rows.scale.shape)).astype(np.float32)
    function = package.quant_tensor_sym if symmetric else package.quant_tensor_asym
    ref, scale, _ = function(
        torch.tensor(rows.values.copy()),
        bits=bits,
        group_size=64,
        v=torch.tensor(v),
        min_scale=torch.tensor(a[:, 0]),
        max_scale=torch.tensor(b[:, 0]),
    )
    got = autoround.qdq(rows, v, a, b)
    np.testing.assert_array_equal(got.scale, scale.float().numpy())
    np.testing.assert_allclose(got.scale * (got.codes - got.zero), ref.numpy(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_scales_without_training_are_those_of_auto_round(peer, bits):
    torch, package = peer("torch"), peer("auto_round.data_type.int")
    rows = rows_of("test", matrix(), f"int{bits}-g64-signedmax")
    q = np.random.default_rng(5).random(rows.values.shape).astype(np.float32)
    ref = package.search_scales(torch.tensor(rows.values.copy()), bits, qw=torch.tensor(q)).numpy()
    half = np.float32(1 << (bits - 1))
    got = weighted_rounding.search(rows.values, q, half, weighted_rounding.shifts_of("auto-round", bits), refit=False)
    assert np.mean(~np.isclose(got.ravel(), ref.ravel(), rtol=1e-6)) <= 0.02  # near-ties of two losses
