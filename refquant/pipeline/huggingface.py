"""Hugging Face folders: config.json, safetensors in one file or several, a tokenizer; checked, and read when asked.

    model.safetensors                          all tensors, or
    model.safetensors.index.json               {"weight_map": {tensor: file}} and the files that it names
    config.json                                architecture.py says what is read of it
    tokenizer.json, tokenizer.model ...        vocabulary.py

    open_checkpoint("Qwen2.5-0.5B").weight("model.layers.0.mlp.up_proj.weight")

Checked   every file is there and whole, every tensor that the architecture needs has its shape and is F32, F16 or BF16.
          What is wrong raises QuantError (UnsupportedError for what is well-formed but not known here) naming file and
          tensor. Tensors that are not needed (rotary_emb.inv_freq of old files) are listed in `unused`.
Memory    files are mapped: a tensor costs memory while its values are in use.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import safetensors_file
from refquant.layouts.arrays import floats
from refquant.models import ModelConfig, expected_tensors
from refquant.pipeline import architecture

DTYPES = ("F32", "F16", "BF16")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
MAX_JSON = 256 << 20  # tokenizer.json of large vocabularies has some 30 MiB


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A folder that was checked. `tensors` are read-only views of the mapped files by Hugging Face's names."""

    path: Path
    config: Mapping[str, Any]  # config.json
    model: ModelConfig
    tensors: Mapping[str, safetensors_file.Tensor]
    files: Mapping[str, str]  # tensor -> name of its file
    unused: tuple[str, ...]

    @property
    def kind(self) -> str:
        """model_type of config.json."""
        return self.config["model_type"]

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold."""
        return sum(tensor.data.size for tensor in self.tensors.values())

    def weight(self, name: str, rows: slice = slice(None)) -> np.ndarray:
        """A tensor, or some of its rows, as a new float32 array. Raises QuantError (unknown, NaN, infinity)."""
        if name not in self.tensors:
            raise QuantError(f"{self.path}: tensor {name!r} is missing, expected it in one of the safetensors files")
        x, _ = floats(self.tensors[name].data[rows])
        if not np.isfinite(x).all():
            raise QuantError(f"{self.path / self.files[name]}: {name} holds NaN or infinity, expected finite weights")
        return x

    def dtype(self, name: str) -> str:
        """float32, float16 or bfloat16."""
        return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[self.tensors[name].dtype]


def open_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Open and check the folder `path`. Raises QuantError and its kinds (see the module)."""
    path = Path(path)
    if not path.is_dir():
        raise QuantError(f"{path}: is no folder, expected one with config.json and model.safetensors")
    config = read_json(path / "config.json")
    tensors, files = _tensors(path)
    if "quantization_config" in config:
        method = str((config["quantization_config"] or {}).get("quant_method"))[:40]
        raise UnsupportedError(f"{path}: quantized already ({method}), expected F32, F16 or BF16 weights")
    said = architecture.metadata(path / "config.json", config)
    model = _model(path, said, config, tensors)
    needed = _check(path, model, config, tensors, files)
    unused = tuple(name for name in tensors if name not in needed)
    return Checkpoint(path, config, model, tensors, files, unused)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file. Raises QuantError (missing, too large, no JSON, no object)."""
    try:
        if not path.is_file():
            raise QuantError(f"{path.parent}: {path.name} is missing, expected it in the folder of a model")
        if path.stat().st_size > MAX_JSON:
            raise QuantError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_JSON}")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, QuantError):
            raise
        raise QuantError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise QuantError(f"{path}: holds {type(value).__name__}, expected an object")
    return value


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
    if not tied and "lm_head.weight" not in tensors:
        raise QuantError(f"{path}: tensor 'lm_head.weight' is missing, expected it where tie_word_embeddings is false")
    table = {"token_embd.weight": SimpleNamespace(shape=tensors["model.embed_tokens.weight"].data.shape)}
    seen = table if tied else table | {"output.weight": None}
    values = {key: value for key, (_, value) in said.items()}
    return ModelConfig.from_metadata(SimpleNamespace(path=path / "config.json", metadata=values, tensors=seen))


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
