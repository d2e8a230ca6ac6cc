"""Greedy text against llama.cpp: ten prompts a file, 64 tokens each, as tests/golden/record.py recorded them.

Where a text parts from the recorded one, the two tokens must be a near-tie in the NumPy oracle: the kernels round
activations to 8 bits for quantized weights, and add in another order than llama.cpp for all of them. A text that has
parted says nothing more, so every recorded step is also asked for by itself, behind the recorded tokens.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from refquant import gguf
from refquant.models.forward import Oracle
from runtime import Model, bundled

FOLDER = Path(__file__).parents[1] / "golden"
EXACT = ("stories260K-f32", "tiny-qwen2-F32", "tiny-llama-F32")
QUANTIZED = ("tiny-qwen2-Q8_0", "tiny-qwen2-Q4_K_M", "tiny-llama-Q8_0", "tiny-llama-Q4_0")
GOLDEN = {name: json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in EXACT + QUANTIZED}


def converted(shared, name: str, folder: Path) -> Path:
    """The float32 GGUF of the checkpoint models/`name` of the shared folder."""
    out = folder / f"{name}-F32.gguf"
    if not out.exists():
        tool = [sys.executable, shared("tools/hf_to_gguf.py"), shared(f"models/{name}"), out, "--outtype", "f32"]
        done = subprocess.run([str(part) for part in tool], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return out


def requantized(source: Path, kind: str, special: dict[str, str]) -> Path:
    """`source` with every matrix in the type `kind`, apart from those that `special` names."""
    out = source.with_name(source.name.replace("F32", kind))
    with gguf.open(source) as model:
        tensors = {}
        for name, tensor in model.tensors.items():
            to = special.get(name, kind) if tensor.data.ndim == 2 else tensor.type
            tensors[name] = (gguf.quantize(tensor.data, to) if to != tensor.type else tensor.data, to)
        gguf.write(out, model.metadata, tensors, types=model.types)
    return out


def model_file(name: str, shared, folder: Path) -> Path:
    """The model file of the record `name`: of the shared folder, or made in `folder` from what is there."""
    if name in ("stories260K-f32", "tiny-qwen2-Q4_K_M"):
        return shared(f"models/{name}.gguf")
    checkpoint, kind = name.rsplit("-", 1)
    source = converted(shared, checkpoint, folder)
    return source if kind == "F32" else requantized(source, kind, {"output.weight": "Q8_0"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("golden")


@pytest.fixture(scope="module", params=EXACT + QUANTIZED)
def model(request, folder):
    """The model of one record, with float32 keys and values as there."""
    name = request.param
    with_clone = name == "tiny-qwen2-Q8_0"
    path = bundled.path() if with_clone else model_file(name, request.getfixturevalue("shared"), folder)
    with Model.load(path, kv_dtype="f32") as loaded:
        yield loaded


@pytest.fixture
def record(model, request) -> dict:
    """What llama.cpp said to `model`."""
    return GOLDEN[request.node.callspec.params["model"]]


@pytest.fixture
def exact(record) -> bool:
    """Whether activations stay float32."""
    return record["file"].removesuffix(".gguf") in EXACT


def tensors_digest(file: gguf.GGUFFile) -> str:
    """The digest that tests/golden/record.py defines."""
    digest = hashlib.sha256()
    for name, tensor in sorted(file.tensors.items()):
        digest.update(f"{name} {tensor.type} {'x'.join(map(str, tensor.shape))}\n".encode())
        digest.update(np.ascontiguousarray(tensor.data).view(np.uint8).data)
    return digest.hexdigest()


def parting(model: Model, prompt: dict) -> tuple[int, float] | None:
    """Where the model leaves the recorded text, if it does: the step, and the gap of the two tokens in the oracle."""
    got, ref = list(model.generate(prompt["ids"], 64, temperature=0, stop_at_eog=False)), prompt["next"]
    assert len(got) == len(ref) == 64
    if got == ref:
        return None
    step = next(i for i in range(64) if got[i] != ref[i])
    logits = Oracle(model.gguf).logits(prompt["ids"] + ref[:step], last=True)[0]
    return step, float(abs(logits[got[step]] - logits[ref[step]]))


def test_every_record_has_ten_prompts_and_names_its_model():
    assert [len(record["prompts"]) for record in GOLDEN.values()] == 7 * [10]
    assert [record["file"] for record in GOLDEN.values()] == [f"{name}.gguf" for name in GOLDEN]


def test_the_file_holds_the_tensors_that_llama_cpp_ran(model, record):
    """For the files made here this says: our encoder writes what llama.cpp's quantizer wrote, in every tensor."""
    assert tensors_digest(model.gguf) == record["tensors_sha256"]


def test_prompts_and_answers_have_the_tokens_of_llama_cpp(model, record):
    tokenizer = model.tokenizer
    for prompt in record["prompts"]:
        assert tokenizer.encode(prompt["text"], add_special=True, parse_special=prompt["special"]) == prompt["ids"]
        whole = tokenizer.decode(prompt["ids"] + prompt["next"])
        assert whole.removeprefix(tokenizer.decode(prompt["ids"])) == prompt["answer"]


def test_the_greedy_text_is_that_of_llama_cpp(model, record, exact):
    found = [parting(model, prompt) for prompt in record["prompts"]]
    partings = [each for each in found if each is not None]
    assert all(gap < (0.005 if exact else 0.2) for _, gap in partings), partings
    assert len(partings) <= (1 if exact else 2), partings


def test_every_single_step_takes_the_token_of_llama_cpp(model, record, exact):
    missed = []
    for prompt in record["prompts"]:
        logits = model.logits(prompt["ids"] + prompt["next"][:-1])[len(prompt["ids"]) - 1 :]
        for token, ref, (first, second, runner_up) in zip(
            logits.argmax(axis=-1).tolist(), prompt["next"], prompt["top"], strict=True
        ):
            if token != ref:
                missed.append((prompt["text"], token == second, first - runner_up))
    assert all(is_second and gap < (0.005 if exact else 0.2) for _, is_second, gap in missed), missed
    assert len(missed) <= (1 if exact else 12), missed  # of 640


@pytest.mark.parametrize("kv_dtype", ["f16", "q8_0"])
def test_narrow_keys_and_values_keep_the_text(kv_dtype):
    prompts = GOLDEN["tiny-qwen2-Q8_0"]["prompts"]
    with Model.load(bundled.path(), kv_dtype=kv_dtype) as model:
        texts = [list(model.generate(p["ids"], 64, temperature=0, stop_at_eog=False)) for p in prompts]
    assert sum(text == prompt["next"] for text, prompt in zip(texts, prompts, strict=True)) >= 8
