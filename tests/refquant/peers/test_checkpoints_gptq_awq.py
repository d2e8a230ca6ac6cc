"""GPTQ and AWQ folders written here are read by others on the processor and compute what we compute from them.

transformers hands both formats to gptqmodel, which needs a newer torch than the other packages here, a compiler, and
minutes to build its kernels when it is first loaded: continuous integration does not install it. There GPTQ runs in the
torch kernels of auto-round (float16, symmetric codes), which transformers takes in gptqmodel's place when it is asked
to, and AWQ is read by compressed-tensors' converter of AutoAWQ folders, whose result transformers loads.
"""

import json

import numpy as np
import pytest
from folder_logits import logits, perplexity, read_folder, text_sequences
from tiny_checkpoints import write_tiny_checkpoint

from refquant.layouts import safetensors_file
from refquant.pipeline import oneshot

pytestmark = pytest.mark.filterwarnings("ignore")
RECIPES = {
    "gptq": {"scheme": "int4-g128", "layout": "gptq"},
    "awq-gemm": {"scheme": "uint4-g128", "layout": "awq-gemm"},
}


@pytest.fixture
def made(peer, shared, tmp_path):
    """made(layout) -> the folder, sequences of text, and our perplexity of them."""
    source = shared("models/tiny-qwen2")
    tokenizer = peer("tokenizers").Tokenizer.from_file(str(source / "tokenizer.json"))
    sequences = text_sequences(tokenizer, shared("text/docs.txt").read_text(encoding="utf-8")[:4000], 2, 96)

    def make(layout: str):
        oneshot(source, RECIPES[layout], None, tmp_path / "q")
        layers = read_folder(source, tmp_path / "q", layout)
        assert len(layers.quantized) == 56
        return tmp_path / "q", sequences, perplexity(logits(layers, sequences), sequences)

    return make


def agree(peer, model, sequences: np.ndarray, ref: float, within: float) -> None:
    torch = peer("torch")
    with torch.no_grad():
        got = perplexity(model(torch.tensor(sequences)).logits.float().numpy(), sequences)
    assert got < 500  # the text means something to the model
    assert abs(got / ref - 1) < within


def test_gptq_folders_have_our_perplexity_in_the_kernels_of_auto_round(peer, made):
    torch, transformers = peer("torch"), peer("transformers")
    peer("auto_round"), peer("accelerate")
    folder, sequences, ref = made("gptq")
    kernels = transformers.AutoRoundConfig(backend="torch")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float16, device_map="cpu", quantization_config=kernels
    )
    assert type(theirs.model.layers[0].mlp.up_proj).__name__ == "QuantLinear"
    agree(peer, theirs.eval(), sequences, ref, within=0.005)


def test_awq_folders_are_converted_by_compressed_tensors_and_have_our_perplexity(peer, made, tmp_path):
    torch, transformers = peer("torch"), peer("transformers")
    convert = peer("compressed_tensors.entrypoints.convert")
    folder, sequences, ref = made("awq-gemm")
    converter = convert.AutoAWQConverter.from_pretrained(str(folder))
    convert.convert_checkpoint(str(folder), str(tmp_path / "theirs"), converter, device="cpu")
    whole = transformers.CompressedTensorsConfig(dequantize=True)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "theirs", dtype=torch.float32, quantization_config=whole
    )
    agree(peer, theirs.eval(), sequences, ref, within=1e-4)  # it decodes in float16, as the scales are
    oneshot(folder, {"scheme": "int4-g128-asym", "layout": "compressed-tensors"}, None, tmp_path / "ours")
    assert quantized(tmp_path / "theirs") == quantized(tmp_path / "ours")  # the codes are moved, not found anew


def test_packed_zero_points_load_in_transformers_only_where_it_decodes_them(peer, tmp_path):
    """The same for a folder that compressed-tensors has written itself: its layers expect zero points unpacked."""
    torch, transformers = peer("torch"), peer("transformers")
    convert = peer("compressed_tensors.entrypoints.convert")
    source = write_tiny_checkpoint(tmp_path / "m", "qwen2", n_embd=128, n_ff=256)
    oneshot(source, "W4A16_ASYM", None, tmp_path / "ours")
    oneshot(source, RECIPES["awq-gemm"], None, tmp_path / "awq")
    converter = convert.AutoAWQConverter.from_pretrained(str(tmp_path / "awq"))
    convert.convert_checkpoint(str(tmp_path / "awq"), str(tmp_path / "theirs"), converter, device="cpu")
    load = transformers.AutoModelForCausalLM.from_pretrained
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
            load(folder, dtype=torch.float32)
        whole = transformers.CompressedTensorsConfig(dequantize=True)
        load(folder, dtype=torch.float32, quantization_config=whole)


def quantized(folder) -> dict[str, bytes]:
    """The arrays of quantized layers by name."""
    files = set(json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"].values())
    tensors = {n: t for file in files for n, t in safetensors_file.read(folder / file).tensors.items()}
    return {n: np.array(t.data).tobytes() for n, t in tensors.items() if "_proj.weight" in n}


@pytest.mark.parametrize("layout", RECIPES)
def test_folders_have_our_perplexity_in_gptqmodel(peer, made, layout):
    gptqmodel, torch = peer("gptqmodel"), peer("torch")
    folder, sequences, ref = made(layout)
    options = {"backend": gptqmodel.BACKEND.TORCH, "device": "cpu", "dtype": torch.float16}
    theirs = gptqmodel.GPTQModel.load(str(folder), **options)
    agree(peer, theirs.model, sequences, ref, within=0.005)
