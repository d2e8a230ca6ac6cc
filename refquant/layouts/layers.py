"""The quantized layers of a file: which tensors belong together.

    model.layers.0.q_proj.qweight  \\
    model.layers.0.q_proj.qzeros    }  the layer "model.layers.0.q_proj." with arrays qweight, qzeros, scales
    model.layers.0.q_proj.scales   /

A name belongs to a layout if a layout of the catalogue has it; a layer is a prefix with at least two such names. Norms
and embeddings, which have a `weight` alone, are none.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from refquant.errors import QuantError
from refquant.layouts import safetensors_file
from refquant.layouts.catalogue import LAYOUTS

NAMES = sorted({name for layout in LAYOUTS.values() for name in (*layout.required, *layout.optional)}, key=len)[::-1]


def grouped(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """{prefix: {name in the layout: full name}}; the longest name wins (`weight.absmax` before `absmax`)."""
    found: dict[str, dict[str, str]] = {}
    for full in names:
        name = next((n for n in NAMES if full == n or full.endswith("." + n)), None)
        if name is not None:
            found.setdefault(full[: len(full) - len(name)], {})[name] = full
    return {prefix: group for prefix, group in found.items() if len(group) > 1}


def kind(path: str | os.PathLike) -> str:
    """ "gguf", "onnx" or "safetensors" by the first bytes and the ending. Raises QuantError (missing, unreadable)."""
    path = Path(path)
    try:
        if not path.is_file():
            raise QuantError(f"{path}: is no regular file, expected safetensors, GGUF or ONNX")
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise QuantError(f"{path}: cannot be opened: {error.strerror or error}") from error
    return "gguf" if magic == b"GGUF" else "onnx" if path.suffix == ".onnx" else "safetensors"


def layers(path: str | os.PathLike) -> Mapping[str, dict[str, np.ndarray]]:
    """{prefix: arrays} of a safetensors file, views of the file. Raises QuantError."""
    file = safetensors_file.read(path)
    groups = grouped(file.tensors)
    return {p: {name: file.tensors[full].data for name, full in group.items()} for p, group in groups.items()}
