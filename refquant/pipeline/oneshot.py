"""One pass over a checkpoint: a Hugging Face folder in, a quantized folder (or GGUF file) out, block by block.

    for each block:   inputs X of its matrices, from the calibration sequences through the blocks before, quantized
                      AWQ, SmoothQuant scale channels (scaling.py)
                      every matrix that the recipe matches is rounded: to nearest, or by GPTQ, SparseGPT with
                      H = 2 X^T X / n of its inputs
                      the block is written, read back, and the sequences go on through what was read

Memory    one block in float32, its Hessians, and the hidden states: samples * seq_len * n_embd * 4 bytes.
Resumed   a block is a file; one that is there is not made again, only run. What a killed run makes after that is the
          same as in one go, since in both the next block sees what is read from the file.
Arithmetic of the forward pass is float32 (block.py); activations are not rounded on the way.
Output    work.py: nothing under the name of the result before it is complete.
"""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant import groups, methods
from refquant.errors import QuantError, SchemeError
from refquant.hessian import Hessian
from refquant.layouts import catalogue, safetensors_file
from refquant.layouts.arrays import floats, stored
from refquant.models.norm import rms_norm
from refquant.nearest import quantize as nearest
from refquant.pipeline import architecture, block, records, scaling, work
from refquant.pipeline.calibration import sequences
from refquant.pipeline.configured import Stored, quantization_config
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint
from refquant.pipeline.recipe import Modifier, Recipe, read
from refquant.pipeline.to_gguf import Encoder, convert_to_gguf
from refquant.rounding import narrow

Progress = Callable[[str, int, int], None]
Ids = Sequence[Sequence[int]]
COPIED = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_FIRST_OF = {"k_proj": "q_proj", "v_proj": "q_proj", "up_proj": "gate_proj", "w3": "w1"}  # who shares whose input
_NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class Result:
    """What was made: the path, matrices quantized, blocks that an earlier run had finished, bytes, seconds."""

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
    progress: Progress | None = None,
) -> Result:
    """Quantize the folder `model` by `recipe` (recipe.py: a name, a dict, a file, a Recipe) into `output`.

    calibration  a text or JSONL file, or sequences of token ids (calibration.py); all methods but nearest need it
    encoders     for GGUF, as in `convert_to_gguf`
    progress     is told (what, steps done, steps in all)

    Raises QuantError and its kinds: a broken folder, a recipe that matches nothing, a layer that does not fit the
    format (named), an output that exists, a disk that is full.
    """
    start = time.monotonic()
    checkpoint = model if isinstance(model, Checkpoint) else open_checkpoint(model)
    recipe, output = read(recipe), Path(output)
    try:
        if recipe.layout == "gguf":
            if output.exists():
                raise QuantError(f"{output}: exists already, expected a new file")
            convert_to_gguf(checkpoint, output, recipe.file_type, encoders=encoders, progress=progress)
            return Result(output, 0, 0, output.stat().st_size, time.monotonic() - start)
        run = _Run.planned(checkpoint, recipe, calibration, samples, seq_len, output)
        resumed = run.all_blocks(progress)
        run.finish(output)
    except OSError as error:
        raise QuantError(f"{output}: cannot be written: {error.strerror or error}") from error
    nbytes = sum(file.stat().st_size for file in output.iterdir())
    return Result(output, len(run.plan), resumed, nbytes, time.monotonic() - start)


@dataclass(slots=True)
class _Run:
    """The state of one job."""

    checkpoint: Checkpoint
    recipe: Recipe
    plan: dict[str, tuple[Modifier, Stored]]  # by layer
    names: dict[int, dict[str, str]]  # block -> {short name: full name}; the last is what is in no block
    hidden: list[np.ndarray]
    folder: Path

    @classmethod
    def planned(
        cls, checkpoint: Checkpoint, recipe: Recipe, data: object, samples: int, seq_len: int, output: Path
    ) -> "_Run":
        names = _names(checkpoint)
        plan = _plan(checkpoint, recipe, names)
        if recipe.calibrated and data is None:
            raise QuantError(
                "oneshot: calibration = None, expected a text or token ids for a recipe that looks at inputs"
            )
        ids = sequences(checkpoint, data, samples, seq_len) if recipe.calibrated else []
        folder = work.begin(output, _state(checkpoint, recipe, ids))
        embedding = "model.embed_tokens.weight"
        hidden = [floats(checkpoint.tensors[embedding].data[one])[0] for one in ids]
        return cls(checkpoint, recipe, plan, names, hidden, folder)

    def all_blocks(self, progress: Progress | None) -> int:
        """Every file, one after the other; how many were there."""
        count, found = len(self.names), 0
        length = max((len(x) for x in self.hidden), default=1)
        divisors = architecture.rope_divisors(self.checkpoint.path, self.checkpoint.config)
        table = block.rope_table(self.checkpoint.model, divisors, length)
        for i in range(count):
            path = self.folder / self._file(i)
            if path.is_file():
                found += 1
            else:
                spare = safetensors_file.room(f"{n}{'x' * 64}" for n in self.names[i].values() for _ in range(6))
                safetensors_file.write(path, self._made(i, table), {"format": "pt"}, spare)
            if self.hidden and i < count - 1:
                weights = self._read_back(i)
                self.hidden = [block.forward(self.checkpoint.model, weights, x, table) for x in self.hidden]
            if progress is not None:
                progress("quantize", i + 1, count)
        return found

    def finish(self, output: Path) -> None:
        """Index, config.json and tokenizer; then the folder gets its name."""
        weight_map, total = {}, 0
        for i in self.names:
            file = safetensors_file.read(self.folder / self._file(i))
            weight_map |= dict.fromkeys(file.tensors, self._file(i))
            total += sum(tensor.data.nbytes for tensor in file.tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        work.put(self.folder / "model.safetensors.index.json", json.dumps(index, indent=1))
        how = {name: entry for name, (_, entry) in self.plan.items()}
        others = {n for i, names in self.names.items() for n in self._layers(i, names)} - set(how)
        others |= {"lm_head"}
        first = next(iter(how))
        config = dict(self.checkpoint.config)
        dtype = self.checkpoint.dtype(f"{first}.weight")
        config["quantization_config"] = quantization_config(
            self.recipe.layout, how, others - set(how), self._record(first), dtype
        )
        work.put(self.folder / "config.json", json.dumps(config, indent=1))
        for name in COPIED:
            if (self.checkpoint.path / name).is_file():
                shutil.copyfile(self.checkpoint.path / name, self.folder / name)
        work.publish(self.folder, output)

    def _file(self, i: int) -> str:
        return f"model-{i + 1:05d}-of-{len(self.names):05d}.safetensors"

    def _layers(self, i: int, names: Mapping[str, str]) -> list[str]:
        """Full names of all matrices of a file that are layers, routers included."""
        matrices = [n for n in names.values() if n.endswith(".weight") and self.checkpoint.tensors[n].data.ndim == 2]
        return [n.removesuffix(".weight") for n in matrices if "embed_tokens" not in n]

    def _made(self, i: int, table: tuple[np.ndarray, np.ndarray]) -> Iterator[tuple[str, str, np.ndarray]]:
        """(name, dtype, array) of one file."""
        names, checkpoint = self.names[i], self.checkpoint
        last = i == len(self.names) - 1
        weights: dict[str, np.ndarray] = {}
        changed: dict[str, np.ndarray] = {}
        hessians: dict[str, Hessian] = {}
        calibrated = [n for n in self.plan if f"{n}.weight" in names.values() and self.plan[n][0].calibrated]
        if self.hidden and not last:
            weights = {short: checkpoint.weight(full) for short, full in names.items()}
            for modifier in self.recipe.scaling():
                changed |= self._scaled(modifier, i, weights | changed, table)
            if calibrated:
                hessians = self._hessians(weights | changed, table)
        elif calibrated:  # the output matrix
            hessians = {"lm_head": Hessian()}
            norm = checkpoint.weight("model.norm.weight")
            for x in self.hidden:
                hessians["lm_head"].update(rms_norm(x, norm, checkpoint.model.rms_eps))
        for short, full in names.items():
            layer = full.removesuffix(".weight")
            if layer not in self.plan or layer == full:
                yield full, *self._as_it_is(full, changed.get(short))
                continue
            W = changed[short] if short in changed else checkpoint.weight(full)
            yield from self._quantized(layer, W, hessians.get(_first(short.removesuffix(".weight"))))

    def _as_it_is(self, full: str, changed: np.ndarray | None) -> tuple[str, np.ndarray]:
        dtype = self.checkpoint.dtype(full)
        if changed is None:
            return _NAMES[dtype], self.checkpoint.tensors[full].data
        return _NAMES[dtype], stored("oneshot", full, narrow(changed, dtype), dtype)

    def _quantized(self, layer: str, W: np.ndarray, H: Hessian | None) -> Iterator[tuple[str, str, np.ndarray]]:
        modifier, how = self.plan[layer]
        try:
            if modifier.calibrated and H is not None and H.count:
                tensor = methods.METHODS[modifier.method](W, how.scheme, H, **dict(modifier.options))
            else:
                tensor = nearest(W, how.scheme)
            record = records.record(tensor, how.layout, self.checkpoint.dtype(f"{layer}.weight"))
            arrays = catalogue.pack(record, how.layout)
        except TypeError as error:
            raise SchemeError(f"oneshot: options of {modifier.method}: {error}") from error
        except QuantError as error:
            raise type(error)(f"{self.checkpoint.path}: layer {layer}: {error}") from error
        dtypes = catalogue.layout(how.layout).dtypes
        for name, array in arrays.items():
            yield f"{layer}.{name}", dtypes.get(name, safetensors_file.NAMES[array.dtype.name]), array

    def _hessians(self, weights: block.Weights, table: tuple[np.ndarray, np.ndarray]) -> dict[str, Hessian]:
        found: dict[str, Hessian] = {}

        def tap(name: str, X: np.ndarray) -> None:
            if _first(name) == name:
                found.setdefault(name, Hessian()).update(X)

        for x in self.hidden:
            block.forward(self.checkpoint.model, weights, x, table, tap)
        return found

    def _scaled(
        self, modifier: Modifier, i: int, weights: block.Weights, table: tuple[np.ndarray, np.ndarray]
    ) -> dict[str, np.ndarray]:
        wanted = scaling.scaled_inputs(weights)
        step = max(1, math.ceil(sum(len(x) for x in self.hidden) / scaling.TOKENS))
        seen: dict[str, list[np.ndarray]] = {name: [] for name in wanted}

        def tap(name: str, X: np.ndarray) -> None:
            if name in seen:
                seen[name].append(X[::step].copy())

        for x in self.hidden:
            block.forward(self.checkpoint.model, weights, x, table, tap)
        X = {name: np.concatenate(parts) for name, parts in seen.items()}
        return scaling.scale(modifier, f"model.layers.{i}.", self.checkpoint.model, weights, X)

    def _read_back(self, i: int) -> dict[str, np.ndarray]:
        """The block as its file has it, float32."""
        file = safetensors_file.read(self.folder / self._file(i))
        weights = {}
        for short, full in self.names[i].items():
            layer = full.removesuffix(".weight")
            if layer in self.plan and layer != full:
                weights[short] = self._record(layer, file).dequantize()
            else:
                weights[short], _ = floats(file.tensors[full].data)
        return weights

    def _record(self, layer: str, file: safetensors_file.File | None = None) -> catalogue.Record:
        if file is None:
            i = next(i for i, names in self.names.items() if f"{layer}.weight" in names.values())
            file = safetensors_file.read(self.folder / self._file(i))
        start = f"{layer}."
        arrays = {
            n[len(start) :]: t.data for n, t in file.tensors.items() if n.startswith(start) and n != f"{start}bias"
        }
        return catalogue.unpack(arrays, self.plan[layer][1].layout)


def _names(checkpoint: Checkpoint) -> dict[int, dict[str, str]]:
    """{block: {name without "model.layers.N.": full name}}; what is in no block comes last."""
    count = checkpoint.model.n_layer
    found: dict[int, dict[str, str]] = {i: {} for i in range(count + 1)}
    for name in checkpoint.tensors:
        if name in checkpoint.unused:
            continue
        parts = name.split(".", 3)
        i = int(parts[2]) if name.startswith("model.layers.") else count
        found[i][parts[3] if i < count else name] = name
    return found


def _plan(
    checkpoint: Checkpoint, recipe: Recipe, names: Mapping[int, Mapping[str, str]]
) -> dict[str, tuple[Modifier, Stored]]:
    """What happens to every layer that a modifier matches."""
    plan = {}
    for i, table in names.items():
        shapes = {short: checkpoint.tensors[full].data for short, full in table.items()}
        layers = (
            block.linears(shapes)
            if i < checkpoint.model.n_layer
            else [n for n in ["lm_head"] if f"{n}.weight" in table]
        )
        for short in layers:
            layer = table[f"{short}.weight"].removesuffix(".weight")
            modifier = recipe.rounding(layer)
            if modifier is not None:
                dtype = checkpoint.dtype(f"{layer}.weight")
                scheme = records.fitted(modifier.weights, recipe.layout, dtype)
                layout = records.layout_of(scheme, recipe.layout, modifier.activations is None)
                where = f"{checkpoint.path}: layer {layer}"
                groups.scale_shape(where, shapes[f"{short}.weight"].shape, scheme.granularity)  # now, not hours later
                plan[layer] = modifier, Stored(scheme, modifier.activations, layout)
    if not plan:
        raise SchemeError("oneshot: layers that the recipe matches = 0, expected some: look at targets and ignore")
    return plan


def _state(checkpoint: Checkpoint, recipe: Recipe, ids: list[np.ndarray]) -> dict[str, object]:
    """What makes two jobs the same: the files of the model, the recipe, the calibration."""
    files = {}
    for name in sorted(set(checkpoint.files.values())):
        status = (checkpoint.path / name).stat()
        files[name] = [status.st_size, status.st_mtime_ns]
    digest = hashlib.sha256(b"".join(one.astype("<i8").tobytes() + b";" for one in ids)).hexdigest()
    return {"model": files, "config": dict(checkpoint.config), "recipe": repr(recipe), "calibration": digest}


def _first(name: str) -> str:
    """The layer that sees the same input and comes first."""
    start, _, last = name.rpartition(".")
    return f"{start}.{_FIRST_OF[last]}" if last in _FIRST_OF else name
