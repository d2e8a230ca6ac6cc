"""Checkpoints that are quantized already, as input: their weights decoded when they are read.

    GPTQ, AWQ, compressed-tensors (integers, FP8, NVFP4, MXFP4, MXFP8), bitsandbytes (NF4, FP4, int8), and whatever else
    layouts.detect recognizes

The layout of a layer is that of `quantization_config` where it says it (GPTQ's two ways to store a zero point look much
alike), else what its arrays are. A decoded weight is float32 as its layout's formula has it (linear.py, floating.py);
what is written of it unquantized is rounded to the dtype that config.json names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import QuantError, ShapeError, UnsupportedError
from refquant.layouts import catalogue
from refquant.layouts.catalogue import Record
from refquant.layouts.detect import detect
from refquant.layouts.layers import grouped
from refquant.layouts.safetensors_file import Tensor

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class Decoded:
    """An array of float32 that is decoded when a part of it is asked for: `x[rows]`, np.asarray(x)."""

    dtype = np.dtype(np.float32)

    def __init__(self, where: str, layout: str, arrays: Mapping[str, np.ndarray], options: Mapping, shape: tuple):
        self._where, self._layout, self._arrays, self._options = where, layout, arrays, options
        self.shape = shape

    @property
    def ndim(self) -> int:
        """Axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Weights."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Of the arrays as they are stored."""
        return sum(array.nbytes for array in self._arrays.values())

    def __len__(self) -> int:
        return self.shape[0]

    def record(self) -> Record:
        """Codes and scales. Raises QuantError and its kinds, naming the layer."""
        try:
            return catalogue.unpack(self._arrays, self._layout, **self._options)
        except QuantError as error:
            raise type(error)(f"{self._where}: {error}") from error

    def __getitem__(self, key: object) -> np.ndarray:
        values = self.record().dequantize()
        if values.shape != self.shape:
            raise ShapeError(f"{self._where}: shape = {values.shape}, expected {self.shape}")
        return values[key]

    def __array__(self, dtype: object = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)


def decoded(
    path: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], files: Mapping[str, str], shapes: Mapping
) -> tuple[dict[str, Tensor], dict[str, str], str]:
    """(tensors, files, a sentence) with a Decoded weight in place of the arrays of each quantized layer.

    shapes  {full name of a weight: (out, in)} of those that the model needs

    Raises QuantError (no quantized layer, one whose layout is not certain, broken arrays).
    """
    said = config.get("quantization_config") or {}
    dtype = DTYPES.get(str(config.get("torch_dtype", config.get("dtype"))).removeprefix("torch."), "F16")
    kept, places, layouts = dict(tensors), dict(files), {}
    for prefix, group in grouped(tensors).items():
        name = f"{prefix}weight"
        if name not in shapes:
            continue
        where = f"{path / files[next(iter(group.values()))]}: layer {prefix.rstrip('.')}"
        arrays = {short: tensors[full].data for short, full in group.items()}
        layout, options = _layout(where, said, arrays)
        entry = catalogue.layout(layout)
        own = {short: arrays[short] for short in (*entry.required, *entry.optional) if short in arrays}
        for short in own:
            del kept[group[short]]
            places.pop(group[short])
        kept[name] = Tensor(dtype, Decoded(where, layout, own, options, shapes[name]))
        places[name] = files[group[next(iter(own))]]
        layouts[layout] = layouts.get(layout, 0) + 1
    if not layouts:
        method = str(said.get("quant_method"))[:40]
        raise UnsupportedError(f"{path}: quantized already ({method}), but no layer has a layout that is known here")
    counted = ", ".join(f"{count} layers of {layout}" for layout, count in layouts.items())
    return kept, places, f"{path}: is quantized already ({counted}): rounding its weights again adds to their errors"


def _layout(where: str, said: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[str, dict[str, object]]:
    """The layout of one layer, and the options to read it with."""
    method = said.get("quant_method")
    if method == "gptq" and "qweight" in arrays:
        return ("gptq_v2" if said.get("checkpoint_format") == "gptq_v2" else "gptq"), {}
    if method == "awq" and "qweight" in arrays:
        return f"awq-{str(said.get('version', 'gemm')).lower()}", {"group_size": _group_size(said)}
    found = detect(arrays)
    if not found.certain:
        fits = " or ".join(found.layouts) or "no layout"
        raise QuantError(f"{where}: fits {fits} ({'; '.join(found.evidence)[:300]}), expected one that is certain")
    return found.layouts[0], dict(found.options)


def _group_size(said: Mapping[str, Any]) -> int | None:
    size = said.get("group_size")
    return size if isinstance(size, int) and size > 0 else None
