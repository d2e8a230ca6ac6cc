"""Whole files: every quantized layer of a safetensors file transcoded, everything else copied, one layer in memory.

The result appears under its name only when it is complete. A layer that cannot be the same in the target stops the
conversion with the name of the layer and the reason; nothing is written then.
GGUF is no target of files: its tensors have other names, and llama.cpp wants the rows of q and k in another order.
Single weights go there through `transcode`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant.errors import QuantError, UnsupportedError
from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.configuration import configuration
from refquant.layouts.detect import Detection, detect
from refquant.layouts.layers import grouped, kind
from refquant.layouts.transcode import convert


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done: layers converted, tensors copied, and the entry for config.json (None if the layout has none)."""

    source: str
    target: str
    layers: int
    copied: int
    config: dict[str, object] | None


def transcode_file(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    target: str,
    *,
    layout: str | None = None,
    group_size: int | None = None,
    tolerance: float = 0.0,
    **options: object,
) -> Conversion:
    """Write the safetensors file `source` again with its quantized layers in the layout `target`.

    layout      of the source; None detects it from the first layer
    options     what the arrays do not tell: bits, and for layouts with it `source_group_size`
    others      as in `transcode`

    Raises QuantError and its kinds: broken file, ambiguous layout, numbers that the target cannot hold.
    """
    if kind(source) != "safetensors" or target.startswith(("gguf", "onnx")):
        raise UnsupportedError(f"transcode_file: {source} to {target}, expected safetensors files on both sides")
    if Path(source).resolve() == Path(destination).resolve():
        raise QuantError(f"transcode_file: destination = {destination}, expected another file than the source")
    wanted = catalogue.layout(target)
    file = safetensors_file.read(source)
    groups = grouped(file.tensors)
    if not groups:
        raise QuantError(f"{source}: no quantized layer that a layout knows, expected one; detect says what there is")
    first = next(iter(groups))
    arrays = {name: file.tensors[full].data for name, full in groups[first].items()}
    if layout is None:
        layout, options = _chosen(str(source), first, detect(arrays), options)
    if "source_group_size" in options:
        options["group_size"] = options.pop("source_group_size")
    known = set(catalogue.layout(layout).required)
    groups = {prefix: group for prefix, group in groups.items() if known <= group.keys()}
    theirs = known | set(catalogue.layout(layout).optional)
    done = {full for group in groups.values() for name, full in group.items() if name in theirs}
    facts: dict[str, object] = {}

    def tensors() -> Iterator[tuple[str, str, np.ndarray]]:
        for name, tensor in file.tensors.items():
            if name not in done:
                yield name, tensor.dtype, tensor.data
        for prefix, group in groups.items():
            arrays = {name: file.tensors[full].data for name, full in group.items() if name in theirs}
            try:
                # bits and group size of MLX stand in no array, and may differ from layer to layer
                asked = options or (detect(arrays).options if layout == "mlx" else {})
                record = catalogue.unpack(arrays, layout, **asked)
                written = convert(record, target, group_size=group_size, tolerance=tolerance)
            except QuantError as error:
                raise type(error)(f"{source}: layer {prefix.rstrip('.')[:200]!r}: {error}") from error
            if not facts:
                facts["config"] = configuration(target, catalogue.unpack(written, target, **wanted.told(record)))
            for name, array in written.items():
                yield prefix + name, wanted.dtypes.get(name, safetensors_file.NAMES[array.dtype.name]), array

    spare = safetensors_file.room([*file.tensors, *(f"{p}{'x' * 64}" for p in groups for _ in range(8))], file.metadata)
    safetensors_file.write(destination, tensors(), file.metadata, spare)
    return Conversion(layout, target, len(groups), len(file.tensors) - len(done), facts.get("config"))


def _chosen(path: str, layer: str, found: Detection, options: dict[str, object]) -> tuple[str, dict[str, object]]:
    """The layout of the file and the options to read it with."""
    if not found.certain:
        said = " or ".join(found.layouts) or "no layout"
        why = "; ".join(found.evidence)
        raise QuantError(f"{path}: layer {layer.rstrip('.')[:200]!r} fits {said} ({why}), expected one: say the layout")
    return found.layouts[0], options
