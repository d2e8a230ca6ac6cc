"""Observers against torch.ao, torchao and llm-compressor: the same batches, the same ranges."""

import warnings

import numpy as np
import pytest

from refquant import groups
from refquant.groups import Granularity
from refquant.observers import Histogram, MeanSquaredError, MinMax, MovingAverage
from refquant.observers.mean_squared_error import SEARCHES, best_range
from refquant.schemes import parse


def batches(count: int = 5, shape: tuple[int, ...] = (64, 48)) -> list[np.ndarray]:
    rng = np.random.default_rng([count, *shape])
    return [(rng.standard_normal(shape) * (1 + 0.2 * i) + 0.1 * i).astype(np.float32) for i in range(count)]


def both(ours, theirs, torch):
    """The two observers, fed with the same batches."""
    for batch in batches():
        ours.update(batch)
        theirs(torch.from_numpy(batch))
    return ours, theirs


@pytest.fixture
def ao(peer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer("torch")
        return peer("torch.ao.quantization"), peer("torch")


@pytest.mark.parametrize("symmetric", [False, True])
def test_min_max_and_moving_average_equal_torch_ao_bit_for_bit(ao, symmetric):
    observer, torch = ao
    qscheme = torch.per_tensor_symmetric if symmetric else torch.per_tensor_affine
    rule = parse("int8" if symmetric else "uint8").rule
    dtype = torch.qint8 if symmetric else torch.quint8
    for mine, theirs in ((MinMax(), observer.MinMaxObserver), (MovingAverage(), observer.MovingAverageMinMaxObserver)):
        mine, their = both(mine, theirs(dtype=dtype, qscheme=qscheme), torch)
        assert mine.ranges() == (their.min_val.item(), their.max_val.item())
        scale, zero_point = mine.affine(rule)
        ref_scale, ref_zero = their.calculate_qparams()
        assert scale == ref_scale.numpy()[0]
        assert symmetric or zero_point == ref_zero.numpy()[0]


def test_per_channel_ranges_equal_torch_ao_bit_for_bit(ao):
    observer, torch = ao
    kept = observer.PerChannelMinMaxObserver(ch_axis=1, dtype=torch.quint8, qscheme=torch.per_channel_affine)
    mine, their = both(MinMax(Granularity("channel", axis=1)), kept, torch)
    scale, zero_point = mine.affine("uint8")
    ref_scale, ref_zero = their.calculate_qparams()
    np.testing.assert_array_equal(scale[0], ref_scale.numpy())
    np.testing.assert_array_equal(zero_point[0], ref_zero.numpy())


@pytest.mark.parametrize("shape", ["normal", "outliers", "positive"])
def test_the_histogram_search_agrees_with_torch_ao_to_a_bin(ao, shape):
    observer, torch = ao
    rng = np.random.default_rng(3)
    x = {
        "normal": rng.standard_normal(40_000),
        "outliers": np.concatenate([rng.standard_normal(40_000), rng.standard_normal(20) * 12]),
        "positive": rng.exponential(size=40_000),
    }[shape].astype(np.float32)
    mine, theirs = Histogram(), observer.HistogramObserver(dtype=torch.quint8)
    for part in np.array_split(x, 3):
        mine.update(part)
        theirs(torch.from_numpy(part.copy()))
    assert (mine.lo, mine.hi) == (theirs.min_val.item(), theirs.max_val.item())
    counts = theirs.histogram.numpy()
    # a sixteenth of a bin may fall to its neighbour: the middles are computed in float32 there
    assert np.abs(np.cumsum(mine.counts) - np.cumsum(counts, dtype=np.float64)).max() <= counts.max() / 8
    width = (float(mine.hi) - float(mine.lo)) / 2048
    ref = [end.item() for end in theirs._non_linear_param_search()]
    np.testing.assert_allclose([float(end) for end in mine.ranges()], ref, rtol=0, atol=8 * width)


def test_the_first_batch_fills_exactly_the_bins_of_torch(ao):
    observer, torch = ao
    mine, theirs = Histogram(), observer.HistogramObserver(dtype=torch.quint8)
    mine.update(batches(1)[0])
    theirs(torch.from_numpy(batches(1)[0]))
    np.testing.assert_array_equal(mine.counts, theirs.histogram.numpy())


def test_the_line_search_of_torchao_finds_the_same_ranges(peer):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, observer = peer("torch"), peer("torchao.quantization.observer")
        granularity, primitives = (
            peer("torchao.quantization.granularity"),
            peer("torchao.quantization.quant_primitives"),
        )
    rows = np.random.default_rng(5).standard_t(4, (24, 96)).astype(np.float32)
    theirs = observer.AffineQuantizedMSEObserver(
        primitives.MappingType.SYMMETRIC, torch.int8, granularity.PerAxis(0), quant_min=-8, quant_max=7, eps=1e-30
    )
    theirs(torch.from_numpy(rows))
    lo, hi = best_range(rows, parse("int4-channel").rule, SEARCHES["torchao"])
    np.testing.assert_allclose(hi, theirs.max_val.numpy().ravel(), rtol=3e-7)  # amax / 100 * i, two roundings
    np.testing.assert_array_equal(lo, -hi)


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_mse_search_of_llm_compressor_finds_the_same_ranges(peer, symmetric):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, search = peer("torch"), peer("llmcompressor.observers.mse_quant")
        tensors = peer("compressed_tensors.quantization")
    rows = np.random.default_rng(6).standard_t(4, (24, 96)).astype(np.float32)
    arguments = tensors.QuantizationArgs(num_bits=4, symmetric=symmetric, strategy="channel")
    token = arguments.model_copy(update={"strategy": "token"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ref = search._grid_search_mse(torch.from_numpy(rows)[None], arguments, token, 0.2, 5, 100.0, 2.4, 0.3)
    mine = MeanSquaredError("int4-channel" if symmetric else "int4-channel-asym", groups.CHANNEL)
    mine.update(rows)
    for got, theirs in zip(mine.ranges(), ref):
        assert np.mean(got.ravel() == theirs.numpy().ravel()) > 0.9
        np.testing.assert_allclose(got.ravel(), theirs.numpy().ravel(), rtol=0.03)
