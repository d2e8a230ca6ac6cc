"""GPTQ, GPTAQ, SparseGPT and Wanda against gptqmodel and llm-compressor: same W, X and settings, same codes."""

import importlib
import warnings

import numpy as np
import pytest

import refquant
from refquant import gptaq, gptq, sparsegpt, wanda

TOLERATED = 2e-3  # share of codes that float32 sums in another order may move: weights next to a tie, and what follows


def layer(n: int = 256, out: int = 32, tokens: int = 700) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([n, out, tokens])
    mixed = rng.standard_normal((tokens, n)) @ (rng.standard_normal((n, n)) / np.sqrt(n) + np.eye(n))
    return rng.standard_normal((out, n)).astype(np.float32), (mixed * np.exp(0.5 * rng.standard_normal(n))).astype(
        np.float32
    )


def find(peer, *names: str):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [peer(name) for name in names]


def linear(torch, W: np.ndarray):
    module = torch.nn.Linear(W.shape[1], W.shape[0], bias=False)
    module.weight.data = torch.from_numpy(W.copy())
    return module


@pytest.mark.parametrize("options, settings", [
    ({"group_size": -1}, {"order": "natural"}),
    ({"group_size": 128}, {"order": "natural"}),
    ({"group_size": 32}, {"order": "natural"}),
    ({"group_size": 32, "sym": False}, {"order": "natural"}),
    ({"group_size": 64, "static_groups": True}, {"order": "natural", "static_groups": True}),
    ({"group_size": 64, "desc_act": True}, {"order": "activation"}),
    ({"group_size": 64, "desc_act": True, "static_groups": True}, {"order": "activation", "static_groups": True}),
    ({"group_size": 64, "act_group_aware": True}, {}),
    ({"group_size": 64, "mse": 2.4, "bits": 3}, {"order": "natural", "search": "gptq"}),
])  # fmt: skip
def test_the_codes_are_those_of_gptqmodel(peer, options, settings):
    torch, quantization, module = find(peer, "torch", "gptqmodel.quantization", "gptqmodel.quantization.gptq")
    W, X = layer()
    given = {"offload_to_disk": False, "bits": 4, "sym": True, "desc_act": False, "act_group_aware": False, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = module.GPTQ(linear(torch, W), quantization.QuantizeConfig(**given))
        theirs.quantizer.configure(perchannel=True)
        theirs.add_batch(torch.from_numpy(X)[None], None)
        dequantized, scale, zero, g_idx, *_ = (getattr(o, "numpy", lambda o=o: o)() for o in theirs.quantize())
    group = "channel" if given["group_size"] == -1 else f"g{given['group_size']}"
    scheme = f"uint{given['bits']}-{group}" + ("-sym" if given["sym"] else "")
    got = gptq.quantize(W, scheme, X, dialect="gptqmodel", **settings)
    codes = np.rint(dequantized / scale[:, g_idx] + zero[:, g_idx])
    own = got.extras.get("g_idx", np.arange(256) // (256 // got.scale.shape[1]))
    if "static_groups" not in options:  # gptqmodel numbers static groups of a permuted layer by position
        np.testing.assert_array_equal(own, g_idx)
        np.testing.assert_allclose(got.scale, scale, rtol=2e-3)
        assert np.mean(got.codes != codes) <= TOLERATED
    ours, power = got.dequantize(), np.square(X @ W.T).sum()
    assert np.mean(np.abs(ours - dequantized) > 1e-5) <= TOLERATED
    errors = [np.square(X @ (W - w).T).sum() / power for w in (ours, dequantized)]
    assert errors[0] == pytest.approx(errors[1], rel=5e-3)


@pytest.mark.parametrize("actorder", [None, "static"])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", ["channel", 64])
def test_the_codes_are_those_of_llm_compressor(peer, actorder, symmetric, group):
    torch, tensors, module = find(
        peer, "torch", "compressed_tensors.quantization", "llmcompressor.modifiers.gptq.gptq_quantize"
    )
    W, X = layer()
    strategy = {"strategy": "channel"} if group == "channel" else {"strategy": "group", "group_size": group}
    arguments = tensors.QuantizationArgs(num_bits=4, symmetric=symmetric, actorder=actorder, **strategy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utilities = importlib.import_module("compressed_tensors.quantization.utils")
        parts = torch.from_numpy(W.reshape(32, -1, 256 if group == "channel" else group))
        scale, zero = utilities.calculate_qparams(parts.amin(-1), parts.amax(-1), arguments)
        if actorder and group != "channel":
            arguments = arguments.model_copy(update={"actorder": tensors.ActivationOrdering.WEIGHT})
        H = 2 * torch.from_numpy(X.T @ X)
        ref, _, fell_back = module.quantize_weight(
            torch.from_numpy(W)[None].clone(), H[None].clone(), scale[None], zero[None], None, arguments
        )
    assert not fell_back.any()
    scheme = f"int4-{'channel' if group == 'channel' else f'g{group}'}" + ("" if symmetric else "-asym")
    got = gptq.quantize(W, scheme, X, dialect="llm-compressor", order="activation" if actorder else "natural")
    np.testing.assert_allclose(got.scale, scale.numpy(), rtol=1e-6)
    assert np.mean(np.abs(got.dequantize() - ref[0].numpy()) > 1e-5) <= TOLERATED


def test_the_codes_are_those_of_gptqmodels_gptaq(peer):
    torch, quantization, module = find(peer, "torch", "gptqmodel.quantization", "gptqmodel.quantization.gptaq")
    named = find(
        peer, "gptqmodel.looper.named_module", "gptqmodel.looper.native_processor", "gptqmodel.quantization.config"
    )
    W, X = layer()
    native = X + np.float32(0.1) * np.roll(X, 1, axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = quantization.QuantizeConfig(
            offload_to_disk=False,
            bits=4,
            group_size=64,
            sym=True,
            desc_act=False,
            act_group_aware=False,
            gptaq=named[2].GPTAQConfig(alpha=0.25),
        )
        layer_of = named[0].NamedModule(linear(torch, W), name="l", full_name="l", layer_index=0)
        layer_of.state[named[1].NATIVE_INPUTS_STATE_KEY] = [torch.from_numpy(native)[None]]
        theirs = module.GPTAQ(layer_of, config)
        theirs.quantizer.configure(perchannel=True)
        theirs.add_batch(torch.from_numpy(X)[None], None)
        ref = theirs.quantize()[0].numpy()
    got = gptaq.quantize(W, "uint4-g64-sym", X, native=native, dialect="gptqmodel").dequantize()
    assert np.mean(np.abs(got - ref) > 1e-5) <= 5 * TOLERATED


@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_sparsegpt_and_wanda_keep_what_llm_compressor_keeps(peer, pattern):
    torch, sparse, score = find(
        peer,
        "torch",
        "llmcompressor.modifiers.pruning.sparsegpt.sgpt_sparsify",
        "llmcompressor.modifiers.pruning.wanda.wanda_sparsify",
    )
    W, X = layer()
    module, n, m = linear(torch, W), *(pattern or (0, 0))
    with torch.no_grad():
        H, _ = sparse.accumulate_hessian(torch.from_numpy(X), module, sparse.make_empty_hessian(module), 0)
        _, ref = sparse.sparsify_weight(module, {module: H}, 0.5, n, m, 128, 0.01, False)
        S, _ = score.accumulate_row_scalars(torch.from_numpy(X), module, score.make_empty_row_scalars(module), 0)
        kept = score.sparsify_weight(module, {module: S}, 0.5, n, m).numpy()
    ref, got = ref.numpy(), sparsegpt.prune(W, X, pattern=pattern, dialect="llm-compressor")
    assert np.mean((got == 0) != (ref == 0)) <= TOLERATED
    same = (got == 0) == (ref == 0)
    assert np.mean(np.abs(got - ref)[same] > 1e-3) <= TOLERATED
    assert np.mean((wanda.prune(W, X, pattern=pattern) == 0) != (kept == 0)) <= TOLERATED


@pytest.mark.parametrize("bits, symmetric", [(4, True), (4, False), (3, True)])
@pytest.mark.parametrize("pattern", [None, (2, 4)])
def test_pruning_with_quantization_is_the_authors_loop_around_their_quantizer(peer, bits, symmetric, pattern):
    """sparsegpt.py has no package: its loop is repeated here, in float32, around gptqmodel's copy of its quant.py."""
    torch, quantization, module = find(peer, "torch", "gptqmodel.quantization", "gptqmodel.quantization.quantizer")
    W, X = layer()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = quantization.QuantizeConfig(bits=bits, sym=symmetric, group_size=-1, offload_to_disk=False)
        quantizer = module.Quantizer(config)
        quantizer.configure(perchannel=True)
        quantizer.find_params(torch.from_numpy(W), weight=True)
        H = torch.from_numpy(2 * X.T @ X)
        H += 0.01 * H.diagonal().mean() * torch.eye(256)
        U = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(H)), upper=True)
        left, ref = torch.from_numpy(W.copy()), torch.empty(32, 256)
        for first in range(0, 256, 128):
            diagonal = U.diagonal()[first : first + 128]
            scores = left[:, first : first + 128] ** 2 / diagonal**2
            gone = scores <= scores.flatten().sort()[0][scores.numel() // 2]
            for i in range(128):
                j = first + i
                if pattern and i % 4 == 0:
                    scores = left[:, j : j + 4] ** 2 / diagonal[i : i + 4] ** 2
                    gone[:, i : i + 4] = False
                    gone.scatter_(1, i + scores.topk(2, dim=1, largest=False)[1], True)
                q = torch.where(gone[:, i], 0, left[:, j])
                ref[:, j] = quantizer.quantize(q[:, None]).flatten()
                error = (left[:, j] - ref[:, j]) / U[j, j]
                left[:, j:] -= error[:, None] * U[j, j:]
    scheme = f"uint{bits}-channel" + ("-sym" if symmetric else "")
    got = sparsegpt.quantize(W, scheme, X, pattern=pattern, dialect="ist")
    np.testing.assert_allclose(got.scale, quantizer.scale.reshape(-1, 1).numpy(), rtol=1e-6)
    assert np.mean(np.abs(got.dequantize() - ref.numpy()) > 1e-4) <= 2 * TOLERATED


@pytest.mark.parametrize("kind", ["nvfp4", "mxfp4", "fp8_e4m3fn-channel"])
def test_the_codes_of_small_floats_are_those_of_llm_compressor(peer, kind):
    torch, tensors, module = find(
        peer, "torch", "compressed_tensors.quantization", "llmcompressor.modifiers.gptq.gptq_quantize"
    )
    W, X = layer()
    given = {
        "nvfp4": {"num_bits": 4, "strategy": "tensor_group", "group_size": 16},
        "mxfp4": {"num_bits": 4, "strategy": "group", "group_size": 32},
        "fp8_e4m3fn-channel": {"num_bits": 8, "strategy": "channel"},
    }
    arguments = tensors.QuantizationArgs(type="float", symmetric=True, **given[kind])
    own = refquant.quantize(W, f"{kind}@compressed-tensors")  # its scales are compared elsewhere
    scale = torch.from_numpy(own.scale.reshape(32, -1).copy())
    tensor = torch.from_numpy(own.extras["global_scale"].reshape(1).copy()) if kind == "nvfp4" else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ref, _, fell_back = module.quantize_weight(
            torch.from_numpy(W)[None].clone(),
            2 * torch.from_numpy(X.T @ X)[None],
            scale[None],
            torch.zeros_like(scale)[None],
            None if tensor is None else tensor[None],
            arguments,
        )
    assert not fell_back.any()
    got = gptq.quantize(W, f"{kind}@compressed-tensors", X, dialect="llm-compressor", order="natural")
    np.testing.assert_array_equal(got.scale, own.scale)
    off = np.abs(got.dequantize() - ref[0].numpy()) > 1e-5
    assert np.mean(off) <= TOLERATED
