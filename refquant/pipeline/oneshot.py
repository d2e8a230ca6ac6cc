"""One pass over a model: a Hugging Face folder or a GGUF file in, a quantized folder (or GGUF file) out.

    QuaRot turns the model first, where it is asked for (rotation.py)
    for each block:   inputs X of its matrices, from the calibration sequences through the blocks before, quantized
                      AWQ, SmoothQuant scale channels (scaling.py)
                      every matrix that the recipe matches is rounded: to nearest, or by GPTQ, SparseGPT with
                      H = 2 X^T X / n of its inputs
                      the block is written, read back, and the sequences go on through what was read

Tasks     chunks of sequences, matrices and tensors of GGUF are tasks (tasks.py, gguf_tensors.py) for an executor
          (executor.py); the bytes of the result do not depend on which.
Memory    one block in float32, its Hessians for every task under way, and the hidden states: samples * seq_len * n_embd
          * 4 bytes.
Resumed   a block is a file; one that is there is not made again, only run. What a killed run makes after that is the
          same as in one go, since in both the next block sees what is read from the file.
Arithmetic of the forward pass is float32 (block.py); activations are not rounded on the way.
Quantized models as input are decoded (quantized.py, with a warning), or their codes are moved (moved.py).
Output    work.py: nothing under the name of the result before it is complete.
"""

import hashlib
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import QuantError, SchemeError
from refquant.hessian import Hessian
from refquant.layouts import safetensors_file
from refquant.layouts.arrays import floats, stored
from refquant.pipeline import gguf_output, rotation, scaling, tasks, vocabulary, work
from refquant.pipeline.calibration import sequences
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.configured import quantization_config
from refquant.pipeline.executor import Executor, open_executor
from refquant.pipeline.global_scales import is_global, merged
from refquant.pipeline.huggingface import open_checkpoint
from refquant.pipeline.part import Part
from refquant.pipeline.plan import Plan, names_of, parts_of, plan_of
from refquant.pipeline.recipe import Modifier, Recipe, read
from refquant.pipeline.to_gguf import Encoder
from refquant.rounding import narrow

Progress = Callable[[str, int, int], None]
Ids = Sequence[Sequence[int]]
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_EMBEDDING = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Result:
    """What was made: the path, matrices quantized, parts that an earlier run had finished, bytes, seconds."""

    path: Path
    layers: int
    resumed: int
    nbytes: int
    seconds: float


def oneshot(
    model: str | os.PathLike | Checkpoint,
    recipe: object,
    calibration: str | os.PathLike | Ids | None = None,
    output: str | os.PathLike = "quantized",
    *,
    samples: int = 128,
    seq_len: int = 2048,
    encoders: Mapping[str, Encoder] | None = None,
    executor: str | Executor = "threads",
    gguf: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Result:
    """Quantize `model`, a folder or a GGUF file, by `recipe` (recipe.py: a name, a file, a text, a dict) into `output`.

    calibration  a text or JSONL file, or sequences of token ids (calibration.py); all methods but nearest and quarot
                 need it, and so do inputs in NVFP4, whose scale is found before the model runs
    encoders     for GGUF, as in `convert_to_gguf`
    gguf         for GGUF, more keywords of `convert_to_gguf`: choices, importance, name, with_vocabulary
    executor     "serial", "threads", "processes", "dask://HOST:PORT" or an Executor (executor.py)
    progress     is told (what, steps done, steps in all)

    Raises QuantError and its kinds: a broken folder, a recipe that matches nothing, a layer that does not fit the
    format (named), an output that exists, a disk that is full.
    """
    start = time.monotonic()
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    recipe, output = read(recipe), Path(output)
    for warning in checkpoint.warnings:
        warnings.warn(warning, stacklevel=2)
    ids = _ids(checkpoint, recipe, calibration, samples, seq_len)
    keywords = {"encoders": encoders} | dict(gguf or {})
    state = _state(checkpoint, recipe, ids) | gguf_output.described(keywords)
    try:
        with open_executor(executor) as workers:
            if recipe.layout == "gguf":
                maker = _folder_maker(ids, workers, progress)
                made = gguf_output.make(checkpoint, recipe, output, state, maker, keywords, workers, progress)
            else:
                folder = work.begin(output, state)
                made = quantized_folder(checkpoint, recipe, ids, folder, workers, progress)
                work.publish(folder, output)
    except QuantError:
        work.tidy(output)
        raise
    except OSError as error:
        kept = f"; what is finished stays in {work.place(output)}" if work.place(output).exists() else ""
        raise QuantError(f"{output}: cannot be written: {error.strerror or error}{kept}") from error
    nbytes = sum(file.stat().st_size for file in output.iterdir()) if output.is_dir() else output.stat().st_size
    return Result(output, *made, nbytes, time.monotonic() - start)


def quantized_folder(
    checkpoint: Checkpoint,
    recipe: Recipe,
    ids: Sequence[np.ndarray],
    folder: Path,
    executor: Executor,
    progress: Progress | None = None,
    for_gguf: bool = False,
) -> tuple[int, int]:
    """Make all files of the result in `folder`; (matrices quantized, parts that were there).

    for_gguf  scales are float16, and what is not quantized is float32: a file of GGUF is made of it
    """
    names = names_of(checkpoint)
    for modifier in recipe.rotating():
        turned = folder / rotation.FOLDER
        parts = parts_of(checkpoint, names, {}, turned)
        checkpoint = rotation.rotated(checkpoint, modifier, parts, turned, executor)
        names = names_of(checkpoint)
    plan = plan_of(checkpoint, recipe, names, "float16" if for_gguf else "")
    if not plan and not recipe.scaling() and not recipe.rotating():
        raise SchemeError("oneshot: layers that the recipe matches = 0, expected some: look at targets and ignore")
    hidden = [floats(checkpoint.tensors[_EMBEDDING].data[one])[0] for one in ids]
    parts = parts_of(checkpoint, names, plan, folder, "F32" if for_gguf else "")
    run = _Run(checkpoint, recipe, plan, parts, hidden, executor)
    resumed = run.all_parts(progress)
    run.finish(folder)
    if recipe.rotating():
        shutil.rmtree(folder / rotation.FOLDER)
    return len(plan), resumed


@dataclass(slots=True)
class _Run:
    """The state of one job."""

    checkpoint: Checkpoint
    recipe: Recipe
    plan: Plan
    parts: list[Part]  # the last is what is in no block
    hidden: list[np.ndarray]
    executor: Executor

    def all_parts(self, progress: Progress | None) -> int:
        """Every file, one after the other; how many were there."""
        found, count = 0, len(self.parts)
        missing = [part for part in self.parts if not part.path.is_file()]
        plain = ((part, short, None, None) for part in missing for short in tasks.planned(part))
        stream = None if self.hidden else self.executor.map(tasks.rounded_of, plain)
        for i, part in enumerate(self.parts):
            if part.path.is_file():
                found += 1
            else:
                made = stream if stream is not None else self._calibrated(part)
                spare = safetensors_file.room(f"{n}{'x' * 64}" for n in part.names.values() for _ in range(6))
                safetensors_file.write(part.path, self._tensors(part, made), {"format": "pt"}, spare)
                part.scaled.unlink(missing_ok=True)
            if self.hidden and part.is_block and self._needed_after(i):
                moved = self.executor.map(partial(tasks.advance, part), tasks.chunks(self.hidden))
                self.hidden = [x for chunk in moved for x in chunk]
            if progress is not None:
                progress("quantize", i + 1, count)
        return found

    def finish(self, folder: Path) -> None:
        """Index, config.json and tokenizer."""
        weight_map, total = {}, 0
        for part in self.parts:
            file = safetensors_file.read(part.path)
            weight_map |= dict.fromkeys(file.tensors, part.file)
            total += sum(tensor.data.nbytes for tensor in file.tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        work.put(folder / "model.safetensors.index.json", json.dumps(index, indent=1))
        config = dict(self.checkpoint.config)
        if self.plan:
            config["quantization_config"] = self._quantization_config()
        work.put(folder / "config.json", json.dumps(config, indent=1))
        vocabulary.copy_files(self.checkpoint, folder)

    def _quantization_config(self) -> dict[str, object]:
        how = {name: entry for name, (_, entry) in self.plan.items()}
        others = {layer for part in self.parts for layer in self._layers(part)} | {"lm_head"}
        name = next(iter(how))
        sample = next(part for part in self.parts if f"{name}.weight" in part.names.values()).record(name)
        dtype = self.checkpoint.dtype(f"{name}.weight")
        return quantization_config(self.recipe.layout, how, others - set(how), sample, dtype)

    def _layers(self, part: Part) -> list[str]:
        """Full names of all matrices of a part that are layers, routers included."""
        names = (n for n in part.names.values() if n.endswith(".weight") and self.checkpoint.tensors[n].data.ndim == 2)
        return [n.removesuffix(".weight") for n in names if "embed_tokens" not in n]

    def _needed_after(self, i: int) -> bool:
        """Whether a later part looks at the hidden states behind part i."""
        rest = self.parts[i + 1 :]
        return any(part.is_block or self._wanted(part) or self._peaking(part) for part in rest)

    def _wanted(self, part: Part) -> frozenset[str]:
        """The layers whose Hessians are needed, of those that share an input the first."""
        chosen = (n for n in tasks.planned(part) if self.plan[part.layer(f"{n}.weight")][0].calibrated)
        return frozenset(tasks.first(name) for name in chosen)

    def _peaking(self, part: Part) -> frozenset[str]:
        """The layers whose inputs get a scale from calibration, of those that share an input the first."""
        chosen = (n for n in tasks.planned(part) if is_global(self.plan[part.layer(f"{n}.weight")][1].activations))
        return frozenset(tasks.first(name) for name in chosen)

    def _calibrated(self, part: Part) -> Iterator[list[tuple[str, str, np.ndarray]]]:
        """The layers of a part, rounded with their Hessians."""
        part.scaled.unlink(missing_ok=True)  # of a run that was killed
        for modifier in self.recipe.scaling() if part.is_block else ():
            self._scale(part, modifier)
        hessians: Mapping[str, Hessian] = {}
        wanted = self._wanted(part)
        if wanted:
            seen = self.executor.map(partial(tasks.observe, part, wanted), tasks.chunks(self.hidden))
            hessians = reduce(tasks.merged, seen)
        peaks: Mapping[str, np.float32] = {}
        if peaking := self._peaking(part):
            peaks = reduce(merged, self.executor.map(partial(tasks.peaks, part, peaking), tasks.chunks(self.hidden)))
        firsts = ((name, tasks.first(name)) for name in tasks.planned(part))
        items = ((name, hessians.get(first), peaks.get(first)) for name, first in firsts)
        return self.executor.map(partial(tasks.rounded, part), items)

    def _scale(self, part: Part, modifier: Modifier) -> None:
        """Write the weights that one modifier changes beside those that others have."""
        pairs = scaling.pairs(modifier, part.prefix, self.checkpoint.model, part.names)
        wanted = scaling.inputs(modifier, part.prefix, pairs, part.names)
        step = max(1, math.ceil(sum(len(x) for x in self.hidden) / scaling.TOKENS))
        seen = list(self.executor.map(partial(tasks.inputs, part, wanted, step), tasks.chunks(self.hidden)))
        X = {name: np.concatenate([rows for one in seen for rows in one[name]]) for name in wanted}
        scales = self.executor.map(partial(tasks.searched, part, modifier), ((p, X[p.layers[0]]) for p in pairs))
        changes = scaling.changes(modifier, part.prefix, part.names, dict(zip(pairs, scales)), X)
        changed = self.executor.map(partial(tasks.scaled, part, modifier), changes.items())
        old = safetensors_file.read(part.scaled).tensors if part.scaled.is_file() else {}
        arrays = {n: np.array(t.data) for n, t in old.items()} | {part.names[n]: w for n, w in zip(changes, changed)}
        tensors = [(name, "F32", array) for name, array in arrays.items()]
        safetensors_file.write(part.scaled, tensors, None, safetensors_file.room(arrays))

    def _tensors(self, part: Part, made: Iterator[list]) -> Iterator[tuple[str, str, np.ndarray]]:
        """(name, dtype, array) of one file; `made` is asked for one layer after the other."""
        for short, full in part.names.items():
            if part.layer(short):
                yield from next(made)
            else:
                yield full, *self._as_it_is(part, short)

    def _as_it_is(self, part: Part, short: str) -> tuple[str, np.ndarray]:
        full = part.names[short]
        dtype = part.floats or self.checkpoint.tensors[full].dtype
        data = self.checkpoint.tensors[full].data
        is_stored = isinstance(data, np.ndarray) and data.dtype == np.dtype(safetensors_file.DTYPES[dtype])
        if is_stored and not part.scaled.is_file() and dtype == self.checkpoint.tensors[full].dtype:
            return dtype, data
        name = next(name for name, short_name in _NAMES.items() if short_name == dtype)
        return dtype, stored("oneshot", full, narrow(part.weight(short), name), name)


def _folder_maker(ids: Sequence[np.ndarray], executor: Executor, progress: Progress | None) -> Callable[..., object]:
    """quantized_folder with all but (checkpoint, recipe, folder) given: what GGUF output takes its weights from."""

    def make(checkpoint: Checkpoint, recipe: Recipe, folder: Path) -> tuple[int, int]:
        return quantized_folder(checkpoint, recipe, ids, folder, executor, progress, for_gguf=True)

    return make


def _ids(checkpoint: Checkpoint, recipe: Recipe, data: object, samples: int, seq_len: int) -> list[np.ndarray]:
    if not recipe.calibrated and not recipe.static_inputs:
        return []
    if data is None:
        why = "a recipe that looks at inputs"
        why = why if recipe.calibrated else "inputs in NVFP4, or a recipe that leaves inputs alone, such as NVFP4A16"
        raise QuantError(f"oneshot: calibration = None, expected a text or token ids for {why}")
    return sequences(checkpoint, data, samples, seq_len)


def _state(checkpoint: Checkpoint, recipe: Recipe, ids: list[np.ndarray]) -> dict[str, object]:
    """What makes two jobs the same: the files of the model, the recipe, the calibration."""
    digest = hashlib.sha256(b"".join(one.astype("<i8").tobytes() + b";" for one in ids)).hexdigest()
    config = dict(checkpoint.config)
    return {"model": checkpoint.file_states, "config": config, "recipe": repr(recipe), "calibration": digest}
