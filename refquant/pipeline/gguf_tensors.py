"""The tensors of a GGUF file out of a model: cut into slabs of rows, each of which is a task of its own.

    slabs(checkpoint, "blk.0.attn_q.weight", shape, type)     what to make, in the order of the file
    encoded(source, slab)                                     its bytes

A slab whose weights are quantized already and whose numbers the type holds as they are (int4 in groups of 32 with
float16 scales as Q4_0) is moved, not rounded again: layouts.transcode proves it, and what it refuses is rounded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from refquant import gguf
from refquant.errors import RangeError, SchemeError, ShapeError
from refquant.layouts import catalogue
from refquant.layouts.linear import Linear
from refquant.layouts.transcode import convert
from refquant.pipeline import architecture
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.huggingface import open_checkpoint
from refquant.pipeline.rows import heads_to_permute, permuted, reordered

SLAB = 1 << 20  # weights at a time
Encoder = Callable[..., np.ndarray]


@dataclass(frozen=True, slots=True)
class Source:
    """What a worker is told once: the model, and the encoders in place of ours."""

    model: str
    stamp: str
    encoders: Mapping[str, Encoder]

    @property
    def checkpoint(self) -> Checkpoint:
        """The model, opened once in a process."""
        return _opened(self.model, self.stamp)


@dataclass(frozen=True, slots=True, eq=False)
class Slab:
    """Rows `first` to `last` of expert `expert` of a tensor, as `type`."""

    name: str
    type: str
    width: int
    expert: int
    first: int
    last: int
    importance: np.ndarray | None


def slabs(
    checkpoint: Checkpoint,
    name: str,
    shape: tuple[int, ...],
    type_name: str,
    importance: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Slab]:
    """The slabs of a tensor, in the order of the file."""
    width = shape[-1]
    names = architecture.sources(name, checkpoint.model, checkpoint.kind)
    values = None if importance is None else importance.get(name)
    for expert, source in enumerate(names or ("",)):
        count = len(checkpoint.tensors[source].data) if source else 1
        whole = not source or len(shape) == 1 or heads_to_permute(name, checkpoint.model)
        whole = whole or not isinstance(checkpoint.tensors[source].data, np.ndarray)  # decoded all at once
        step = count if whole else max(1, SLAB // width)
        weights = values[expert] if values is not None and values.ndim == 2 else values
        for first in range(0, count, step):
            yield Slab(name, type_name, width, expert, first, min(first + step, count), weights)


def encoded(source: Source, slab: Slab) -> np.ndarray:
    """Flat uint8."""
    return bytes_of(source.checkpoint, slab, source.encoders)


def bytes_of(checkpoint: Checkpoint, slab: Slab, encoders: Mapping[str, Encoder]) -> np.ndarray:
    """Flat uint8 of a slab of an open model."""
    data = moved(checkpoint, slab)
    if data is None:
        x = weights(checkpoint, slab)
        given = encoders.get(slab.type)
        data = gguf.quantize(x, slab.type, slab.importance) if given is None else given(x, imatrix=slab.importance)
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def weights(checkpoint: Checkpoint, slab: Slab) -> np.ndarray:
    """float32 (rows, width) in the order of the file."""
    names = architecture.sources(slab.name, checkpoint.model, checkpoint.kind)
    if not names:
        return architecture.rope_divisors(checkpoint.path, checkpoint.config)[None]
    x = checkpoint.weight(names[slab.expert], slice(slab.first, slab.last))
    heads = heads_to_permute(slab.name, checkpoint.model)
    return (permuted(x, heads) if heads else x).reshape(-1, slab.width)


def moved(checkpoint: Checkpoint, slab: Slab) -> np.ndarray | None:
    """The bytes of a whole matrix that is quantized already, where the type holds just its numbers; else None."""
    names = architecture.sources(slab.name, checkpoint.model, checkpoint.kind)
    target = f"gguf-{slab.type}"
    record = checkpoint.record(names[slab.expert]) if names and target in catalogue.LAYOUTS else None
    heads = heads_to_permute(slab.name, checkpoint.model)
    if record is None or (heads and not isinstance(record, Linear)):
        return None
    try:
        arrays = convert(reordered(record, heads) if heads else record, target)
    except (RangeError, ShapeError, SchemeError):
        return None
    return arrays["weight"] if set(arrays) == {"weight"} else None


@lru_cache(maxsize=1)
def _opened(model: str, stamp: str) -> Checkpoint:
    return open_checkpoint(model)
