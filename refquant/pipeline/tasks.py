"""What workers do: functions of a Part and one item, for Executor.map. Each computes the same bits wherever it runs.

    observe    sequences -> the Hessians of their inputs, by layer            summed up over the chunks in their order
    inputs     sequences -> some rows of the inputs of layers, by layer       joined in the order of the chunks
    peaks      sequences -> max|X| of the inputs of layers, by layer          the largest of the chunks
    searched   a pair of layers, their input -> the scale between them, of AWQ or SmoothQuant
    scaled     a tensor, its change by such scales -> the tensor
    rounded    a layer, its Hessian, the peak of its inputs -> the arrays of its layout
    advance    sequences -> the same behind the block, as its file has it

A chunk is a list of sequences, hidden states (tokens, n_embd) float32. `chunks` cuts by their number of tokens only.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from refquant import methods
from refquant.errors import QuantError, SchemeError
from refquant.hessian import Hessian
from refquant.layouts import catalogue, safetensors_file
from refquant.models.norm import rms_norm
from refquant.nearest import quantize as nearest
from refquant.pipeline import block, global_scales, moved, records, scaling
from refquant.pipeline.part import Part
from refquant.pipeline.recipe import Modifier

CHUNK = 4096  # tokens
_FIRST_OF = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj", "w3": "w1"}  # who shares whose input
Chunk = list[np.ndarray]


def chunks(hidden: Chunk) -> list[Chunk]:
    """Neighbours together, up to CHUNK tokens."""
    found: list[Chunk] = []
    size = CHUNK
    for one in hidden:
        if size + len(one) > CHUNK:
            found.append([])
            size = 0
        found[-1].append(one)
        size += len(one)
    return found


def observe(part: Part, wanted: frozenset[str], chunk: Chunk) -> dict[str, Hessian]:
    """The Hessians of the inputs of `wanted`, layers that `first` names; behind the last block that of `lm_head`."""
    found = {name: Hessian() for name in sorted(wanted)}

    def tap(name: str, X: np.ndarray) -> None:
        if name in found:
            found[name].update(X)

    _feed(part, chunk, tap)
    return found


def peaks(part: Part, wanted: frozenset[str], chunk: Chunk) -> dict[str, np.float32]:
    """max|X| of the inputs of `wanted`, layers that `first` names; 0 for an expert that no token reached."""
    found = dict.fromkeys(sorted(wanted), np.float32(0))

    def tap(name: str, X: np.ndarray) -> None:
        if name in found and X.size:
            found[name] = max(found[name], np.abs(X).max())

    _feed(part, chunk, tap)
    return found


def _feed(part: Part, chunk: Chunk, tap: block.Tap) -> None:
    """Show `tap` the inputs of all layers of a part; behind the last block that of `lm_head`."""
    model = part.checkpoint.model
    if not part.is_block:
        norm = part.weight("model.norm.weight")
        for x in chunk:
            tap("lm_head", rms_norm(x, norm, model.rms_eps))
        return
    weights, table = part.weights(), part.table(max(map(len, chunk)))
    for x in chunk:
        block.forward(model, weights, x, table, tap)


def merged(sum_of: Mapping[str, Hessian], more: Mapping[str, Hessian]) -> Mapping[str, Hessian]:
    """`sum_of` with the sums of the next chunk added."""
    for name, hessian in more.items():
        sum_of[name].merge(hessian)
    return sum_of


def inputs(part: Part, wanted: frozenset[str], step: int, chunk: Chunk) -> dict[str, list[np.ndarray]]:
    """Every `step`-th row of what the layers `wanted` are fed, a list for each."""
    seen: dict[str, list[np.ndarray]] = {name: [] for name in sorted(wanted)}

    def tap(name: str, X: np.ndarray) -> None:
        if name in seen:
            seen[name].append(X[::step].copy())

    weights, table = part.weights(), part.table(max(map(len, chunk)))
    for x in chunk:
        block.forward(part.checkpoint.model, weights, x, table, tap)
    return seen


def searched(part: Part, modifier: Modifier, item: tuple[scaling.Pair, np.ndarray]) -> np.ndarray:
    """The scale s (in,) of a pair of layers, from the input X (tokens, in) of its first one."""
    pair, X = item
    return scaling.search(modifier, [part.weight(f"{layer}.weight") for layer in pair.layers], X)


def scaled(part: Part, modifier: Modifier, item: tuple[str, scaling.Change]) -> np.ndarray:
    """A tensor, by its short name, with its change, float32."""
    short, change = item
    return scaling.changed(modifier, part.weight(short), change)


def rounded(part: Part, item: tuple[str, Hessian | None, np.float32 | None]) -> list[tuple[str, str, np.ndarray]]:
    """(name, dtype, array) of what the layer with the short name item[0] becomes."""
    short, H, peak = item
    layer = part.layer(f"{short}.weight")
    modifier, how = part.plan[layer]
    try:
        arrays = moved.moved(part, f"{short}.weight")
        if arrays is None:
            W = part.weight(f"{short}.weight")
            fused = global_scales.is_global(how.scheme)
            if fused:
                W = global_scales.with_row(W, global_scales.shared(part, short))
            if modifier.calibrated and H is not None and H.count:
                tensor = methods.METHODS[modifier.method](W, how.scheme, H, **dict(modifier.options))
            else:
                tensor = nearest(W, how.scheme)
            tensor = global_scales.without_row(tensor) if fused else tensor
            record = records.record(tensor, how.layout, part.checkpoint.dtype(f"{layer}.weight"))
            arrays = catalogue.pack(record, how.layout)
        if peak is not None and global_scales.is_global(how.activations):
            arrays = arrays | {global_scales.INPUT: global_scales.of_inputs(peak)}
    except TypeError as error:
        raise SchemeError(f"oneshot: options of {modifier.method}: {error}") from error
    except QuantError as error:
        raise type(error)(f"{part.model}: layer {layer}: {error}") from error
    dtypes = catalogue.layout(how.layout).dtypes
    return [
        (f"{layer}.{name}", dtypes.get(name, safetensors_file.NAMES[array.dtype.name]), array)
        for name, array in arrays.items()
    ]


def rounded_of(item: tuple[Part, str, None, None]) -> list[tuple[str, str, np.ndarray]]:
    """`rounded` where items are of several parts."""
    return rounded(item[0], item[1:])


def advance(part: Part, chunk: Chunk) -> Chunk:
    """The hidden states behind the block."""
    weights, table = part.written(), part.table(max(map(len, chunk)))
    return [block.forward(part.checkpoint.model, weights, x, table) for x in chunk]


def first(name: str) -> str:
    """The layer that sees the same input and comes first."""
    start, _, last = name.rpartition(".")
    return f"{start}.{_FIRST_OF[last]}" if last in _FIRST_OF else name


def planned(part: Part) -> Iterator[str]:
    """Short names, without `.weight`, of the layers that are rounded."""
    return (short.removesuffix(".weight") for short in part.names if part.layer(short))
