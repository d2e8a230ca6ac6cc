"""Quantizing a whole model file: what llama-quantize does, to the same bytes.

    run(make_plan(file, lookup("Q4_K_M")), "out.gguf", threads=4)      the file, all at once or not at all

The work is cut into slabs of whole rows, and every thread takes the next one: reads it from the mapped input, widens it
to float32, encodes it, and writes it where it belongs, for sizes are known before. So memory does not grow with the
model, and threads wait for nobody.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant import gguf
from refquant.errors import NonFiniteError
from refquant.gguf import FORMATS, GGUFWriter
from refquant.gguf.splits import COUNT, NO, TOTAL, shard_name
from runtime.compilation import prepare
from runtime.encoders import RowEncoder
from runtime.encoders.scalars import WIDEN
from runtime.jit import Compiled
from runtime.quantization_plan import Conversion, Plan

SLAB = 1 << 18  # weights that a thread takes at a time: a megabyte of float32
COPY = 1 << 22  # bytes, where nothing is converted
Progress = Callable[[str, int, int], None]


def run(plan: Plan, path: str | Path, threads: int = 1, progress: Progress | None = None) -> list[Path]:
    """Write the file, or the files, and return their paths. progress("compile", ...), then ("quantize", bytes, of all).

    Whatever is raised, Ctrl-C too, leaves no file behind. Raises NonFiniteError for weights that are no numbers, or
    whose scales leave the range of float16; RangeError where ggml would abort; OSError.
    """
    encoders = _Encoders(plan)
    prepare(encoders.kernels, progress)
    with ExitStack() as stack:
        files = [stack.enter_context(file) for file in _create(plan, Path(path))]
        _work(plan, files, encoders, max(1, threads), progress)
    return [file.path for file in files]


def kernels(plan: Plan) -> list[Compiled]:
    """What `run` will call, to be compiled beforehand."""
    return _Encoders(plan).kernels


def _create(plan: Plan, path: Path) -> Iterator[GGUFWriter]:
    count = max(1, plan.shards)
    prefix = path.name.removesuffix(".gguf")
    for no in range(count):
        tensors = {c.name: (c.shape, c.type) for c in plan.conversions if c.shard == no}
        metadata, types = (plan.metadata, plan.types) if no == 0 else ({}, {})
        if count > 1:
            metadata = metadata | {NO: no, COUNT: count, TOTAL: len(plan.conversions)}
            types = types | {NO: "u16", COUNT: "u16", TOTAL: "i32"}
        target = path.with_name(shard_name(prefix, no, count)) if plan.shards else path
        yield gguf.create(target, metadata, tensors, types)


class _Encoders:
    """The encoders that a plan needs; those of an importance matrix are made when their turn comes."""

    def __init__(self, plan: Plan):
        self._shared: dict[tuple[str, int], RowEncoder] = {}
        kernels: dict[str, Compiled] = {}
        for conversion in plan.conversions:
            if conversion.is_copy:
                continue
            if conversion.tensor.type in WIDEN:
                kernels[conversion.tensor.type] = WIDEN[conversion.tensor.type]
            if not FORMATS[conversion.type].is_scalar:
                for kernel in self.find(conversion, 0).kernels:
                    kernels[kernel.name] = kernel
        self.kernels = list(kernels.values())

    def find(self, conversion: Conversion, matrix: int) -> RowEncoder:
        """For one matrix of a tensor."""
        n = conversion.shape[-1]
        if conversion.importance is not None:
            return RowEncoder(conversion.type, n, conversion.importance[matrix])
        key = conversion.type, n
        if key not in self._shared:
            self._shared[key] = RowEncoder(conversion.type, n)
        return self._shared[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    conversion: Conversion
    first: int  # row
    rows: int
    encode: RowEncoder | None  # absent for scalar types


def _slabs(plan: Plan, encoders: _Encoders) -> Iterator[_Slab]:
    for conversion in plan.conversions:
        n = conversion.shape[-1]
        if conversion.is_copy:
            step = max(1, COPY // max(1, conversion.row_bytes))
            for first in range(0, conversion.rows, step):
                yield _Slab(conversion, first, min(step, conversion.rows - first), None)
            continue
        step, per_matrix = max(1, SLAB // n), conversion.shape[-2] if len(conversion.shape) > 1 else 1
        for matrix in range(conversion.rows // per_matrix):
            encode = None if FORMATS[conversion.type].is_scalar else encoders.find(conversion, matrix)
            for first in range(0, per_matrix, step):
                yield _Slab(conversion, matrix * per_matrix + first, min(step, per_matrix - first), encode)


def _work(plan: Plan, files: list[GGUFWriter], encoders: _Encoders, threads: int, progress: Progress | None) -> None:
    slabs, lock, stop = _slabs(plan, encoders), threading.Lock(), threading.Event()
    done, total = 0, plan.nbytes

    def take() -> _Slab | None:
        with lock:
            return None if stop.is_set() else next(slabs, None)

    def serve() -> None:
        nonlocal done
        buffer = np.empty(0, np.float32)
        try:
            while (slab := take()) is not None:
                size = slab.rows * slab.conversion.shape[-1]
                if not slab.conversion.is_copy and size > buffer.size:
                    buffer = np.empty(size, np.float32)
                data = _convert(slab, buffer)
                files[slab.conversion.shard].put(slab.conversion.name, slab.first * slab.conversion.row_bytes, data)
                _release(slab)
                with lock:
                    done += len(data)
                    if progress is not None:
                        progress("quantize", done, total)
        finally:
            stop.set()  # when one is done or fails, nothing is left to begin

    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(serve) for _ in range(threads)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
    for future in futures:
        future.result()


def _source_rows(slab: _Slab) -> np.ndarray:
    """The rows of the slab as the file holds them, (rows, whatever a row is)."""
    data = slab.conversion.tensor.data
    rows = data.reshape(slab.conversion.rows, -1)
    return rows[slab.first : slab.first + slab.rows]


def _release(slab: _Slab) -> None:
    tensor, rows = slab.conversion.tensor, slab.conversion.rows
    row_bytes = tensor.nbytes // max(1, rows)
    tensor.release(slab.first * row_bytes, slab.rows * row_bytes)


def _convert(slab: _Slab, buffer: np.ndarray) -> np.ndarray:
    """Flat uint8."""
    source, conversion = _source_rows(slab), slab.conversion
    if conversion.is_copy:
        return np.ascontiguousarray(source).reshape(-1).view(np.uint8)
    x = _weights(source, conversion, buffer)
    if slab.encode is not None:
        data = slab.encode(x)
    else:
        encoded = FORMATS[conversion.type].encode(x[..., None])
        data = np.ascontiguousarray(encoded).view(np.uint8)
    _check_scales(conversion, data)
    return data.reshape(-1)


def _weights(source: np.ndarray, conversion: Conversion, buffer: np.ndarray) -> np.ndarray:
    """(rows, n) float32, finite."""
    type, size = conversion.tensor.type, len(source) * conversion.shape[-1]
    if type in WIDEN and size % 16 == 0:
        x = buffer[:size]
        finite = WIDEN[type](source.ctypes.data, x.ctypes.data, size)
    else:
        x = gguf.dequantize(np.ascontiguousarray(source), type).reshape(-1)
        finite = np.isfinite(x).all()
    if not finite:
        raise NonFiniteError(f"quantize: {conversion.name}: a weight is not finite, expected numbers")
    return x.reshape(len(source), conversion.shape[-1])


def _check_scales(conversion: Conversion, data: np.ndarray) -> None:
    """llama.cpp refuses to write scales that are infinite or NaN, and so do we."""
    format = FORMATS[conversion.type]
    fields = [format.layout] if format.is_scalar else [format.layout[name] for name in format.layout.names]
    names = [None] if format.is_scalar else format.layout.names
    blocks = data.reshape(-1).view(format.layout)
    for name, kind in zip(names, fields):
        values = blocks if name is None else blocks[name]
        if (kind == np.float16 and (values.view(np.uint16) & 0x7C00 == 0x7C00).any()) or (
            name == "e" and (values == 255).any()
        ):
            raise NonFiniteError(
                f"quantize: {conversion.name} as {conversion.type}: an infinite scale, expected weights within float16"
            )
