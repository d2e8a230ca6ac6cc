"""Folders written here load in transformers with compressed-tensors and compute what we compute from the same files.

Where activations are rounded, the model is not continuous: an input within an ulp of a tie falls on the other side in
other arithmetic, and all later tokens of its sequence see it. Our own forward pass, its hidden states multiplied by
1 + 3e-7 n, moves the perplexity of these random models by up to 1 % in that way, exactly as far as the peer lies. So
random models are compared in many short sequences: so perturbed, half to three quarters of ours agree to 1e-3; a wrong
scale would leave none. Perplexity is that of trained models.
"""

import json

import numpy as np
import pytest
from tiny_checkpoints import write_tiny_checkpoint

from refquant import quantize
from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.arrays import floats
from refquant.pipeline import block, convert_to_gguf, oneshot, open_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPES = [("W4A16", None), ("W8A8", "int8-token"), ("FP8", "fp8_e4m3fn-token")]
TOKENS = np.random.default_rng(7).integers(3, 250, 48)


def our_logits(source, folder, activations=None, sequences=TOKENS[None]) -> np.ndarray:
    """Logits (sequences, tokens, n_vocab) by our forward pass, inputs of quantized layers rounded to `activations`."""
    checkpoint = open_checkpoint(source)
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors_file.read(file).tensors
    config = json.loads((folder / "config.json").read_text())["quantization_config"]

    def weights(prefix: str) -> tuple[dict[str, np.ndarray], set[str]]:
        found, rounded = {}, set()
        for name in (n for n in checkpoint.tensors if n.startswith(prefix)):
            layer = name.removesuffix(".weight")
            fields = {n[len(layer) + 1 :]: t.data for n, t in tensors.items() if n.startswith(f"{layer}.")}
            fields.pop("bias", None)
            short = name[len(prefix) :]
            if name.endswith(".weight") and len(fields) > 1:
                found[short] = catalogue.unpack(fields, config["format"]).dequantize()
                rounded.add(short.removesuffix(".weight"))
            else:
                found[short], _ = floats(tensors[name].data)
        return found, rounded

    table = block.rope_table(checkpoint.model, None, sequences.shape[1])
    top, _ = weights("")
    xs = [top["model.embed_tokens.weight"][one] for one in sequences]
    for i in range(checkpoint.model.n_layer):
        names, rounded = weights(f"model.layers.{i}.")

        def tap(name, X, rounded=rounded):
            return quantize(X, activations).dequantize() if activations and name in rounded else None

        xs = [block.forward(checkpoint.model, names, x, table, tap) for x in xs]
    x = np.stack(xs)
    h = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + checkpoint.model.rms_eps) * top["model.norm.weight"]
    return h @ top.get("lm_head.weight", top["model.embed_tokens.weight"]).T


def their_logits(peer, folder, sequences=TOKENS[None]) -> np.ndarray:
    torch, transformers = peer("torch"), peer("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor(sequences)).logits.float().numpy()


def perplexity(logits: np.ndarray, sequences=TOKENS[None]) -> float:
    shifted = logits[:, :-1].astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    chosen = np.take_along_axis(shifted, sequences[:, 1:, None], axis=-1)[..., 0]
    return float(np.exp(np.mean(np.log(np.exp(shifted).sum(axis=-1)) - chosen)))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("recipe, activations", RECIPES)
def test_compressed_tensors_folders_give_our_logits(peer, tmp_path, kind, recipe, activations):
    peer("compressed_tensors")
    source = write_tiny_checkpoint(tmp_path / "m", kind, n_embd=128, n_ff=256)
    oneshot(source, recipe, None, tmp_path / "q")
    sequences = TOKENS.reshape(12, 4)
    got = their_logits(peer, tmp_path / "q", sequences)
    ref = our_logits(source, tmp_path / "q", activations, sequences)
    close = np.abs(got - ref).max(axis=(1, 2)) < 1e-3
    assert close.all() if activations is None else close.mean() > 0.25


@pytest.mark.parametrize("model", ["tiny-llama", "tiny-qwen2"])
@pytest.mark.parametrize("recipe, activations", RECIPES[:2])
def test_trained_models_have_our_perplexity_within_half_a_percent(peer, shared, tmp_path, model, recipe, activations):
    peer("compressed_tensors")
    source = shared(f"models/{model}")
    oneshot(source, recipe, None, tmp_path / "q")
    tokenizer = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    text = shared("text/docs.txt").read_text(encoding="utf-8")[:4000]
    sequences = np.array(tokenizer.encode(text).ids[:256]).reshape(2, 128)
    got = perplexity(their_logits(peer, tmp_path / "q", sequences), sequences)
    ref = perplexity(our_logits(source, tmp_path / "q", activations, sequences), sequences)
    assert got < 500  # the text means something to the model
    assert abs(got / ref - 1) < 0.005


def test_a_folder_by_gptq_with_calibration_loads_too(peer, tmp_path):
    peer("compressed_tensors")
    source = write_tiny_checkpoint(tmp_path / "m", "llama", n_embd=128, n_ff=256)
    ids = [np.random.default_rng(i).integers(3, 250, 32) for i in range(3)]
    oneshot(source, {"scheme": "W4A16", "method": "gptq"}, ids, tmp_path / "q")
    got, ref = their_logits(peer, tmp_path / "q"), our_logits(source, tmp_path / "q")
    np.testing.assert_allclose(got, ref, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_unquantized_folders_give_the_logits_of_transformers(peer, tmp_path, kind):
    """The names, shapes and order of rows that block.py and the GGUF conversion share."""
    from refquant import gguf
    from refquant.models import Oracle

    source = write_tiny_checkpoint(tmp_path / "m", kind)
    convert_to_gguf(source, tmp_path / "m.gguf", "F32")
    with gguf.open(tmp_path / "m.gguf") as file:
        ref = Oracle(file).logits(TOKENS)
    np.testing.assert_allclose(their_logits(peer, source)[0], ref, atol=1e-3)


@pytest.mark.parametrize("recipe", ["nf4", "nf4-dq"])
def test_bitsandbytes_folders_load_on_the_cpu(peer, tmp_path, recipe):
    peer("bitsandbytes")
    source = write_tiny_checkpoint(tmp_path / "m", "llama", n_embd=128, n_ff=256)
    oneshot(source, recipe, None, tmp_path / "q")
    got = their_logits(peer, tmp_path / "q")
    assert got.shape[1] == len(TOKENS) and np.isfinite(got).all()
    ref = their_logits(peer, source)
    assert abs(perplexity(got) / perplexity(ref) - 1) < 0.5
