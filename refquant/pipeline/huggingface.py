"""Hugging Face folders: config.json, safetensors in one file or several, a tokenizer; checked, and read when asked.

    model.safetensors                          all tensors, or
    model.safetensors.index.json               {"weight_map": {tensor: file}} and the files that it names
    config.json                                architecture.py says what is read of it
    tokenizer.json, tokenizer.model ...        vocabulary.py

    open_checkpoint("Qwen2.5-0.5B").weight("model.layers.0.mlp.up_proj.weight")

Checked   every file is there and whole, every tensor that the architecture needs has its shape and is F32, F16 or BF16.
          What is wrong raises QuantError (UnsupportedError for what is well-formed but not known here) naming file and
          tensor. Tensors that are not needed are listed in `unused`: nothing computes with them, and no result holds
          them, which is a warning, but for rotary_emb.inv_freq of old files.
Quantized folders (config.json has a quantization_config) give decoded weights: quantized.py.
Memory    files are mapped: a tensor costs memory while its values are in use.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import safetensors_file
from refquant.models import ModelConfig, expected_tensors
from refquant.pipeline import architecture
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.json_file import read_json
from refquant.pipeline.quantized import decoded

DTYPES = ("F32", "F16", "BF16")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


def open_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Open and check the folder `path`, or a GGUF file (gguf_input.py). Raises QuantError and its kinds."""
    path = Path(path)
    if path.is_file():
        from refquant.pipeline.gguf_input import open_gguf

        return open_gguf(path)
    if not path.is_dir():
        raise QuantError(f"{path}: is no folder, expected one with config.json and model.safetensors, or a GGUF file")
    config = read_json(path / "config.json")
    tensors, files = _tensors(path)
    said = architecture.metadata(path / "config.json", config)
    model, warnings = _model(path, said, config, tensors), ()
    if isinstance(config.get("quantization_config"), dict):
        tensors, files, warning = decoded(path, config, tensors, files, _matrices(model, config["model_type"]))
        config = {key: value for key, value in config.items() if key != "quantization_config"}
        warnings = (warning,)
    needed = _check(path, model, config, tensors, files)
    unused = tuple(name for name in tensors if name not in needed)
    if not warnings and (left := [name for name in unused if not name.endswith("rotary_emb.inv_freq")]):
        shown = ", ".join(name[:120] for name in left[:3])
        warnings = (f"{path}: {len(left)} tensors that a {config['model_type']} does not have are left out: {shown}",)
    return Checkpoint(path, config, model, tensors, files, unused, {}, warnings)


def _tensors(path: Path) -> tuple[dict[str, safetensors_file.Tensor], dict[str, str]]:
    """All tensors by name, and which file each is in."""
    if not (path / INDEX).is_file():
        if not (path / SINGLE).is_file():
            bins = "; files of pickle (.bin) are not read" if any(path.glob("*.bin")) else ""
            raise QuantError(f"{path}: neither {SINGLE} nor {INDEX}, expected one of them{bins}")
        tensors = dict(safetensors_file.read(path / SINGLE).tensors)
        return tensors, dict.fromkeys(tensors, SINGLE)
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(f, str) for f in weight_map.values()):
        raise QuantError(f"{path / INDEX}: weight_map expected an object of file names")
    tensors, files = {}, {}
    for file in sorted(set(weight_map.values())):
        if Path(file).name != file:
            raise QuantError(f"{path / INDEX}: weight_map names {file[:120]!r}, expected files of the same folder")
        if not (path / file).is_file():
            count = sum(f == file for f in weight_map.values())
            raise QuantError(f"{path}: shard {file} is missing, expected it with {count} tensors of the index")
        found = safetensors_file.read(path / file).tensors
        for name in (n for n, f in weight_map.items() if f == file):
            if name not in found:
                raise QuantError(f"{path / file}: tensor {name[:200]!r} is missing, expected it as the index says")
            tensors[name], files[name] = found[name], file
    return tensors, files


def _model(path: Path, said: Mapping[str, Any], config: Mapping[str, Any], tensors: Mapping[str, Any]) -> ModelConfig:
    """The numbers of config.json through the checks of models.ModelConfig."""
    if "model.embed_tokens.weight" not in tensors:
        raise QuantError(f"{path}: tensor 'model.embed_tokens.weight' is missing, expected a decoder's embedding")
    tied = config.get("tie_word_embeddings", False) is True
    if not tied and not any(name.startswith("lm_head.") for name in tensors):  # it may be quantized: lm_head.qweight
        raise QuantError(f"{path}: tensor 'lm_head.weight' is missing, expected it where tie_word_embeddings is false")
    table = {"token_embd.weight": SimpleNamespace(shape=tensors["model.embed_tokens.weight"].data.shape)}
    seen = table if tied else table | {"output.weight": None}
    values = {key: value for key, (_, value) in said.items()}
    return ModelConfig.from_metadata(SimpleNamespace(path=path / "config.json", metadata=values, tensors=seen))


def _matrices(model: ModelConfig, kind: str) -> dict[str, tuple[int, int]]:
    """{name: (out, in)} of all that may be quantized."""
    required, optional = expected_tensors(model)
    shapes = {}
    for name, shape in (required | optional).items():
        one = shape[-2:] if name.split(".")[-2].endswith("_exps") else shape
        if len(one) == 2:
            shapes |= dict.fromkeys(architecture.sources(name, model, kind), one)
    return shapes


def _check(
    path: Path,
    model: ModelConfig,
    config: Mapping[str, Any],
    tensors: Mapping[str, safetensors_file.Tensor],
    files: Mapping[str, str],
) -> set[str]:
    """The names that the architecture uses, after looking at each of them."""
    required, optional = expected_tensors(model)
    used = set()
    for name, shape in (required | optional).items():
        names = architecture.sources(name, model, config["model_type"])
        one = shape[1:] if name.split(".")[-2].endswith("_exps") else shape
        for source in names:
            if source not in tensors:
                if name in required:
                    raise QuantError(f"{path}: tensor {source!r} is missing, expected it with shape {one}")
                continue
            tensor = tensors[source]
            where = f"{path / files[source]}: {source}"
            got = tensor.data.shape[1:] if source.endswith("shared_expert_gate.weight") else tensor.data.shape
            if got != one:
                raise QuantError(f"{where}: shape = {tensor.data.shape}, expected {one}")
            if tensor.dtype not in DTYPES:
                raise UnsupportedError(f"{where}: dtype = {tensor.dtype}, expected one of {', '.join(DTYPES)}")
            used.add(source)
    return used
