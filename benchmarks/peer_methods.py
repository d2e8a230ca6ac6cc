"""Calibrated methods of other people's packages, each as a function of the same weights and inputs.

    function(W (out, in), X (tokens, in), **settings) -> dequantized weights (out, in), NumPy, float32

They call the package's own class or function for one layer, without a model around it, on the CPU. A package is
imported when its function is called; its warnings are not shown.
"""

import importlib
import warnings
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np


def load(name: str) -> ModuleType:
    """A module, without the warnings of its import."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


def linear(W: np.ndarray) -> Any:
    """A torch.nn.Linear of a copy of W."""
    torch = load("torch")
    module = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    module.weight.data = torch.from_numpy(W.copy())
    return module


def gptqmodel_gptq(W: np.ndarray, X: np.ndarray, **settings: Any) -> np.ndarray:
    """gptqmodel.quantization.gptq.GPTQ; settings of its QuantizeConfig."""
    torch, quantization, module = (load(n) for n in ("torch", "gptqmodel.quantization", "gptqmodel.quantization.gptq"))
    given = {"bits": 4, "sym": True, "desc_act": False, "act_group_aware": False, "offload_to_disk": False, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = module.GPTQ(linear(W), quantization.QuantizeConfig(**given))
        theirs.quantizer.configure(perchannel=True)
        theirs.add_batch(torch.from_numpy(X)[None], None)
        return theirs.quantize()[0].numpy()


def gptqmodel_gptaq(W: np.ndarray, X: np.ndarray, *, native: np.ndarray, **settings: Any) -> np.ndarray:
    """gptqmodel.quantization.gptaq.GPTAQ with alpha .25."""
    torch, quantization, module = (load(n) for n in ("torch", "gptqmodel.quantization", "gptqmodel.quantization.gptaq"))
    named = load("gptqmodel.looper.named_module").NamedModule
    key = load("gptqmodel.looper.native_processor").NATIVE_INPUTS_STATE_KEY
    extra = load("gptqmodel.quantization.config").GPTAQConfig(alpha=0.25)
    given = {"bits": 4, "sym": True, "desc_act": False, "act_group_aware": False, "offload_to_disk": False, **settings}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = named(linear(W), name="l", full_name="l", layer_index=0)
        layer.state[key] = [torch.from_numpy(native)[None]]
        theirs = module.GPTAQ(layer, quantization.QuantizeConfig(gptaq=extra, **given))
        theirs.quantizer.configure(perchannel=True)
        theirs.add_batch(torch.from_numpy(X)[None], None)
        return theirs.quantize()[0].numpy()


def llmcompressor_gptq(
    W: np.ndarray,
    X: np.ndarray,
    *,
    scale: np.ndarray | None = None,
    global_scale: np.ndarray | None = None,
    **settings: Any,
) -> np.ndarray:
    """llmcompressor's quantize_weight; settings of QuantizationArgs. Scales are its own, or those given."""
    torch, tensors = load("torch"), load("compressed_tensors.quantization")
    module, utilities = (
        load(n) for n in ("llmcompressor.modifiers.gptq.gptq_quantize", "compressed_tensors.quantization.utils")
    )
    arguments = tensors.QuantizationArgs(**{"num_bits": 4, "symmetric": True, "strategy": "channel", **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if scale is None:
            parts = torch.from_numpy(W).reshape(len(W), -1, arguments.group_size or W.shape[1])
            scale, zero = utilities.calculate_qparams(parts.amin(-1), parts.amax(-1), arguments)
        else:
            scale = torch.from_numpy(scale.reshape(len(W), -1).copy())
            zero = torch.zeros_like(scale)
        outer = None if global_scale is None else torch.from_numpy(global_scale.reshape(1, 1).copy())
        H = torch.from_numpy(2 * X.T @ X)
        return module.quantize_weight(
            torch.from_numpy(W)[None].clone(), H[None], scale[None], zero[None], outer, arguments
        )[0][0].numpy()


def llmcompressor_sparsegpt(W: np.ndarray, X: np.ndarray, *, pattern: tuple[int, int] | None = None) -> np.ndarray:
    """llmcompressor's sparsify_weight: half of the weights, or n of m."""
    torch, sparse = load("torch"), load("llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify")
    module, (n, m) = linear(W), pattern or (0, 0)
    with torch.no_grad():
        H, _ = sparse.accumulate_hessian(torch.from_numpy(X), module, sparse.make_empty_hessian(module), 0)
        return sparse.sparsify_weight(module, {module: H}, 0.5, n, m, 128, 0.01, False)[1].numpy()


def llmcompressor_wanda(W: np.ndarray, X: np.ndarray, *, pattern: tuple[int, int] | None = None) -> np.ndarray:
    """llmcompressor's Wanda: half of the weights, or n of m."""
    torch, score = load("torch"), load("llmcompressor.modifiers.pruning.wanda.wanda_sparsify")
    module, (n, m) = linear(W), pattern or (0, 0)
    with torch.no_grad():
        S, _ = score.accumulate_row_scalars(torch.from_numpy(X), module, score.make_empty_row_scalars(module), 0)
        return score.sparsify_weight(module, {module: S}, 0.5, n, m).numpy()


def auto_awq(W: np.ndarray, X: np.ndarray, *, duo: bool = True, clip: bool = True, group: int = 64) -> np.ndarray:
    """AutoAWQ's scale and clip search; duo=False is the formula of llm-awq. Weights as the scaled layer has them."""
    torch, quantizer = load("torch"), auto_awq_quantizer(duo, group)
    layer = linear(W)
    with torch.no_grad():
        s = auto_awq_scale(quantizer, [layer], torch.from_numpy(X)).numpy()
        scaled = torch.from_numpy(W * s)
        if clip:
            bound = quantizer._compute_best_clip(scaled, torch.from_numpy(X / s)[None])
            grouped = scaled.reshape(len(W), -1, group)
            scaled = torch.clamp(grouped, -bound, bound).reshape(W.shape)
        return quantizer.pseudo_quantize_tensor(scaled)[0].numpy() / s


def auto_awq_quantizer(duo: bool, group: int) -> Any:
    """AutoAWQ's AwqQuantizer, 4 bits with zero points, without a model."""
    module = load("awq.quantize.quantizer")
    quantizer = module.AwqQuantizer.__new__(module.AwqQuantizer)
    quantizer.w_bit, quantizer.group_size, quantizer.zero_point = 4, group, True
    quantizer.duo_scaling, quantizer.max_chunk_memory, quantizer.n_parallel_calib_samples = duo, 1024**3, None
    quantizer._sanitize_kwargs = lambda kwargs, module: kwargs
    return quantizer


def auto_awq_scale(quantizer: Any, layers: list[Any], X: Any, block: Any = None) -> Any:
    """Its search for the layers that share X, judged by the output of `block`: by default of the only layer.

    On a CPU, .cpu() makes no copy and AutoAWQ scales its own backup; so state_dict is one here.
    """
    torch = load("torch")
    block = layers[0] if block is None else block
    kept = {name: value.clone() for name, value in block.state_dict().items()}
    block.state_dict = lambda: {name: value.clone() for name, value in kept.items()}
    holder = torch.nn.Sequential(torch.nn.Identity(), *layers)
    with torch.no_grad():
        return quantizer._search_best_scale(holder, holder[0], layers, X[None], block)[2]


def llmcompressor_smoothquant(W: np.ndarray, X: np.ndarray, *, alpha: float) -> np.ndarray:
    """llmcompressor's smoothing scales, then int8 by channel with compressed_tensors."""
    torch, tensors = load("torch"), load("compressed_tensors.quantization")
    module = load("llmcompressor.modifiers.transform.smoothquant.base").SmoothQuantModifier
    utilities = load("compressed_tensors.quantization.utils")
    settings = SimpleNamespace(smoothing_strength=alpha, algorithm="smoothquant")
    arguments = tensors.QuantizationArgs(num_bits=8, symmetric=True, strategy="channel")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        s = module._calculate_smoothing_scales(settings, [linear(W)], torch.from_numpy(np.ptp(X, axis=0)))
        scaled = torch.from_numpy(W) * s
        scale, zero = utilities.calculate_qparams(scaled.amin(1, True), scaled.amax(1, True), arguments)
        return (tensors.fake_quantize(scaled, scale, zero, arguments) / s).numpy()


def hqq(W: np.ndarray, X: np.ndarray, *, bits: int, solver: str) -> np.ndarray:
    """hqq's Quantizer, groups of 64 along a row; solver "legacy" (its default) or "v2"."""
    torch, package, solvers = load("torch"), load("hqq.core.quantize").Quantizer, load("hqq.core.optimize")
    usual = package.optimize_weights
    package.optimize_weights = staticmethod(getattr(solvers, f"optimize_weights_proximal_{solver}"))
    try:
        codes, meta = package.quantize(
            torch.from_numpy(W.copy()), nbits=bits, group_size=64, round_zero=False, axis=1, bitpack=False, device="cpu"
        )
    finally:
        package.optimize_weights = staticmethod(usual)
    values = (codes.numpy().astype(np.float32) - meta["zero"].numpy()) * meta["scale"].numpy()
    return values.reshape(W.shape)


def auto_round(
    W: np.ndarray, X: np.ndarray, *, bits: int, v: np.ndarray, a: np.ndarray, b: np.ndarray, group: int = 64
) -> np.ndarray:
    """auto-round's quantize-dequantize with offsets v, and ranges shrunk by a and b: one step of its training."""
    torch, package = load("torch"), load("auto_round.data_type.int")
    rows = torch.from_numpy(W.reshape(-1, group).copy())
    scales = {"min_scale": torch.from_numpy(a), "max_scale": torch.from_numpy(b)}
    got = package.quant_tensor_asym(rows, bits=bits, group_size=group, v=torch.from_numpy(v), **scales)[0]
    return got.numpy().reshape(W.shape)
