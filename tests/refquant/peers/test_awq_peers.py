"""AWQ of AutoAWQ and llm-compressor, SmoothQuant of llm-compressor: the same layer, the same scales."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from refquant import awq, smoothquant

pytestmark = pytest.mark.filterwarnings("ignore")


def layer() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    X = rng.standard_normal((96, 128)) * np.exp(rng.standard_normal(128))
    return rng.standard_normal((64, 128)).astype(np.float32), X.astype(np.float32)


def auto_awq(peer):
    """AutoAWQ's quantizer without a model. The package is archived: its import warns, and reads old transformers."""
    torch = peer("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from awq.quantize.quantizer import AwqQuantizer
        except ImportError as error:
            pytest.skip(f"autoawq cannot be imported beside this transformers: {error}")
    quantizer = AwqQuantizer.__new__(AwqQuantizer)
    quantizer.w_bit, quantizer.group_size, quantizer.zero_point = 4, 64, True
    quantizer.duo_scaling, quantizer.max_chunk_memory, quantizer.n_parallel_calib_samples = True, 1024**3, None
    return torch, quantizer


def test_scales_and_clipping_are_those_of_autoawq(peer):
    peer("awq")
    torch, quantizer = auto_awq(peer)
    W, X = layer()
    linear = torch.nn.Linear(128, 64, bias=False)
    linear.weight.data = torch.tensor(W.copy())
    original = {"weight": linear.weight.data.clone()}  # on a CPU .cpu() is no copy, and AutoAWQ scales its own backup
    linear.state_dict = lambda: {name: value.clone() for name, value in original.items()}
    holder = torch.nn.Sequential(torch.nn.Identity(), linear)
    quantizer._sanitize_kwargs = lambda kwargs, module: kwargs
    with torch.no_grad():
        _, _, ref = quantizer._search_best_scale(holder, holder[0], [linear], torch.tensor(X)[None])
        got = awq.search_scale([W], X, "uint4-g64@awq", "autoawq").scale
        np.testing.assert_allclose(got, ref.numpy(), rtol=2e-5)
        bound = quantizer._compute_best_clip(torch.tensor(W * got), torch.tensor(X / got)[None]).numpy()
    own = awq.clip_bound(W * got, X / got, "uint4-g64@awq").reshape(64, 2, 64)[:, :, 0]
    assert np.mean(~np.isclose(own, bound[..., 0], rtol=1e-6)) <= 0.02  # near-ties of two factors


def test_the_grid_of_ratios_is_that_of_llm_compressor(peer):
    module = peer("llmcompressor.modifiers.transform.awq.base")
    settings = SimpleNamespace(duo_scaling=True, n_grid=20)
    ref = module.AWQModifier._get_grid_search_params(settings)
    assert ref == [tuple(point) for point in awq.DIALECTS["llm-compressor"].points]


def test_the_weight_means_are_those_of_llm_compressor(peer):
    torch, module = peer("torch"), peer("llmcompressor.modifiers.transform.awq.base")
    tensors = peer("compressed_tensors.quantization")
    W, _ = layer()
    linear = torch.nn.Linear(128, 64, bias=False)
    linear.weight.data = torch.tensor(W.copy())
    arguments = tensors.QuantizationArgs(num_bits=4, strategy="group", group_size=64)
    linear.quantization_scheme = tensors.QuantizationScheme(targets=["Linear"], weights=arguments)
    ref = module.AWQModifier._compute_layer_means([linear]).detach().numpy()
    np.testing.assert_allclose(awq.weight_mean([W], awq.parse("int4-g64"), 1e-6), ref, rtol=1e-5)


@pytest.mark.parametrize("alpha", [0.5, 0.8])
def test_smoothing_scales_are_those_of_llm_compressor(peer, alpha):
    torch, module = peer("torch"), peer("llmcompressor.modifiers.transform.smoothquant.base")
    W, X = layer()
    W[:, 3] = 0
    linear = torch.nn.Linear(128, 64, bias=False)
    linear.weight.data = torch.tensor(W.copy())
    settings = SimpleNamespace(smoothing_strength=alpha, algorithm="smoothquant")
    ranges = torch.tensor(np.ptp(X, axis=0))
    with torch.no_grad():
        ref = module.SmoothQuantModifier._calculate_smoothing_scales(settings, [linear], ranges).numpy()
    got = smoothquant.smooth_scale([W], X, alpha, "llm-compressor")
    np.testing.assert_allclose(got, np.maximum(ref, 1e-5), rtol=1e-5)
    settings.algorithm = "log_equalization"
    ref = module.SmoothQuantModifier._calculate_smoothing_scales(settings, [linear], ranges).numpy()
    np.testing.assert_allclose(smoothquant.log_equalization(np.ptp(X, axis=0)), ref, rtol=1e-5)
