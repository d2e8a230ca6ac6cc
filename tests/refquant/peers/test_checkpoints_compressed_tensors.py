"""compressed-tensors folders written here load in transformers and compute what we compute from the same files.

Where inputs are rounded, the model is not continuous: an input within an ulp of a tie falls on the other side in other
arithmetic, and everything later sees it. Two runs of our own forward pass on tiny-qwen2 in FP8, whose hidden states
differ by a factor 1 + 3e-7 n, have perplexities 0.3 % apart over 1024 tokens and 0.6 % over 256, as far as the peer is
from either. So the peer's rounded inputs are taken at every layer, where ours must be the same but for such ties; then
nothing accumulates, and the perplexities agree to 1e-4.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest
from folder_logits import logits, perplexity, read_folder, text_sequences
from tiny_checkpoints import write_tiny_checkpoint

from refquant import quantize
from refquant.layouts import safetensors_file
from refquant.pipeline import convert_to_gguf, oneshot
from refquant.rounding import narrow

pytestmark = pytest.mark.filterwarnings("ignore")
TOKENS = np.random.default_rng(7).integers(3, 250, (1, 48))
LAYOUTS = {
    "W4A16": "pack-quantized",
    "W4A16_ASYM": "pack-quantized",
    "W8A8": "int-quantized",
    "FP8": "float-quantized",
    "FP8_BLOCK": "float-quantized",
    "NVFP4": "nvfp4-pack-quantized",
    "NVFP4A16": "nvfp4-pack-quantized",
    "MXFP4": "mxfp4-pack-quantized",
}
# The peer multiplies in bfloat16 what it unpacks of FP4, and its model of W4A16_ASYM expects zero points that are not
# packed, so that folders of its own fail to load too; both load where it decodes weights at once.
DECODED_AT_ONCE = ("W4A16_ASYM", "NVFP4A16")
IN_BFLOAT16 = ("MXFP4", "NVFP4")  # where inputs are to be rounded it cannot decode at once
ROUNDED_INPUTS = {"W8A8": "int8-token", "FP8": "fp8_e4m3fn-token", "FP8_BLOCK": "fp8_e4m3fn-g128"}
ROUNDED_INPUTS |= {"MXFP4": "mxfp4@compressed-tensors", "NVFP4": "nvfp4@compressed-tensors"}


def loaded(peer, folder, recipe: str = ""):
    """The model in float32."""
    torch, transformers = peer("torch"), peer("transformers")
    options = {}
    if recipe in DECODED_AT_ONCE:
        options["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    small = recipe in IN_BFLOAT16
    dtype = torch.bfloat16 if small else torch.float32
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **options).eval()
    if small:  # weights are unpacked when a first token comes, and rounded: bfloat16 holds those of MXFP4
        computed(peer, model, np.array([[1]]))
        torch.nn.Module.float(model)
    return model


def computed(peer, model, sequences: np.ndarray) -> np.ndarray:
    torch = peer("torch")
    with torch.no_grad():
        return model(torch.tensor(sequences)).logits.float().numpy()


@pytest.fixture
def sequences_of(shared, peer):
    """Two sequences of 96 tokens of English text, by a model's own tokenizer."""

    def make(model: str) -> np.ndarray:
        tokenizer = peer("tokenizers").Tokenizer.from_file(str(shared(f"models/{model}/tokenizer.json")))
        return text_sequences(tokenizer, shared("text/docs.txt").read_text(encoding="utf-8")[:4000], 2, 96)

    return make


@pytest.mark.parametrize(
    "model, recipe, within",
    [
        ("tiny-llama", "W4A16", 1e-5),
        ("tiny-qwen2", "W4A16", 1e-5),
        ("tiny-qwen2", "W4A16_ASYM", 0.005),
        ("tiny-llama", "NVFP4A16", 0.005),
        ("tiny-qwen2", "NVFP4A16", 0.005),
    ],
)
def test_trained_models_with_rounded_weights_have_our_perplexity(
    peer, shared, sequences_of, tmp_path, model, recipe, within
):
    peer("compressed_tensors")
    source, sequences = shared(f"models/{model}"), sequences_of(model)
    oneshot(source, recipe, None, tmp_path / "q")
    got = perplexity(computed(peer, loaded(peer, tmp_path / "q", recipe), sequences), sequences)
    ref = perplexity(logits(read_folder(source, tmp_path / "q", LAYOUTS[recipe]), sequences), sequences)
    assert got < 500  # the text means something to the model
    assert abs(got / ref - 1) < within


@pytest.mark.parametrize(
    "model, recipe",
    [(m, r) for m in ("tiny-llama", "tiny-qwen2") for r in ("W8A8", "FP8", "NVFP4")] + [("tiny-qwen2", "MXFP4")],
)
def test_trained_models_with_rounded_inputs_have_our_perplexity(
    peer, shared, sequences_of, tmp_path, monkeypatch, model, recipe
):
    peer("compressed_tensors")
    source, sequences = shared(f"models/{model}"), sequences_of(model)
    oneshot(source, recipe, sequences, tmp_path / "q")
    theirs = loaded(peer, tmp_path / "q", recipe)
    seen = watch(monkeypatch, theirs)
    got = perplexity(computed(peer, theirs, sequences), sequences)
    layers, differing, values = read_folder(source, tmp_path / "q", LAYOUTS[recipe]), 0, 0
    exact = perplexity(logits(layers, sequences, lambda layer, i, X: seen[layer][i]), sequences)
    if recipe in IN_BFLOAT16:
        layers.weights.update({f"{n}.weight": narrow(layers.weights[f"{n}.weight"], "bfloat16") for n in seen})

    def rounded(layer: str, i: int, X: np.ndarray) -> np.ndarray:
        nonlocal differing, values
        ref = rounded_here(recipe, X, layer, tmp_path / "q")
        differing += int((np.abs(ref - seen[layer][i]) > 1e-5 * np.abs(ref)).sum())
        values += X.size
        return seen[layer][i]

    ref = perplexity(logits(layers, sequences, rounded), sequences)
    assert set(seen) == layers.quantized and got < 500
    assert differing < 1e-4 * values
    assert abs(got / ref - 1) < 1e-4
    assert abs(got / exact - 1) < 0.005


def rounded_here(recipe: str, X: np.ndarray, layer: str, folder: Path) -> np.ndarray:
    """X as our own format rounds it, with the scale of all inputs that the folder has for the layer."""
    given = {"scale": input_scale(folder, layer)} if recipe == "NVFP4" else {}
    return quantize(X, ROUNDED_INPUTS[recipe], **given).dequantize()


def input_scale(folder: Path, layer: str) -> np.ndarray:
    files = [safetensors_file.read(file).tensors for file in folder.glob("*.safetensors")]
    return next(tensors[name].data for tensors in files if (name := f"{layer}.input_global_scale") in tensors)


def watch(monkeypatch, model) -> dict[str, np.ndarray]:
    """{layer: its input as the peer rounded it}, filled when the model runs."""
    module = importlib.import_module("compressed_tensors.quantization.lifecycle.forward")
    names, seen, original = {m: n for n, m in model.named_modules()}, {}, module.forward_quantize

    def forward_quantize(layer, value, base_name, args):
        result = original(layer, value, base_name, args)
        if base_name == "input":
            seen[names[layer]] = result.float().numpy()
        return result

    monkeypatch.setattr(module, "forward_quantize", forward_quantize)
    return seen


@pytest.mark.parametrize("recipe", ROUNDED_INPUTS)
def test_inputs_are_rounded_as_the_peer_rounds_them(peer, tmp_path, monkeypatch, recipe):
    """One layer, the same input on both sides: no bit differs."""
    peer("compressed_tensors")
    source = write_tiny_checkpoint(tmp_path / "m", "llama", n_embd=256, n_ff=256)
    oneshot(source, recipe, TOKENS, tmp_path / "q")
    model = loaded(peer, tmp_path / "q", recipe)
    computed(peer, model, TOKENS)  # unpacks the weights
    seen = watch(monkeypatch, model)
    torch = peer("torch")
    X = np.random.default_rng(3).standard_normal((1, 40, 256), np.float32)
    X[0, 0], X[0, 1, ::7] = 0, 448.0
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj(torch.tensor(X))
    layer = "model.layers.0.mlp.up_proj"
    np.testing.assert_array_equal(rounded_here(recipe, X[0], layer, tmp_path / "q"), seen[layer][0])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_folders_and_the_gguf_files_made_of_them_give_the_logits_of_transformers(peer, tmp_path, kind):
    """The names, shapes and order of rows that block.py and the GGUF conversion share."""
    from refquant import gguf
    from refquant.models import Oracle

    source = write_tiny_checkpoint(tmp_path / "m", kind, n_embd=128, n_ff=256)
    convert_to_gguf(source, tmp_path / "m.gguf", "F32")
    with gguf.open(tmp_path / "m.gguf") as file:
        ref = Oracle(file).logits(TOKENS[0])
    np.testing.assert_allclose(computed(peer, loaded(peer, source), TOKENS)[0], ref, atol=1e-3)


@pytest.mark.parametrize("kind, recipe", [("llama", {"scheme": "W4A16", "method": "gptq"}), ("qwen3", "W4A16")])
def test_random_models_give_our_logits(peer, tmp_path, kind, recipe):
    peer("compressed_tensors")
    source = write_tiny_checkpoint(tmp_path / "m", kind, n_embd=128, n_ff=256)
    ids = [np.random.default_rng(i).integers(3, 250, 32) for i in range(3)]
    oneshot(source, recipe, ids, tmp_path / "q")
    got = computed(peer, loaded(peer, tmp_path / "q"), TOKENS)
    ref = logits(read_folder(source, tmp_path / "q", "pack-quantized"), TOKENS)
    np.testing.assert_allclose(got, ref, atol=1e-3)
