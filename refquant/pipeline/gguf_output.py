"""GGUF as the output of a recipe: the weights scaled or rounded by its methods first, then encoded type by type.

    no method             every tensor to nearest, as llama-quantize does (to_gguf.py)
    QuaRot                the model is turned, written in float32, and then encoded
    AWQ, SmoothQuant      blocks with scaled channels are written in float32 first, and then encoded
    GPTQ, SparseGPT       for the types whose numbers are one grid in groups of 32 with a float16 scale: Q4_0 and Q8_0.
                          The codes are found in that grid and moved into the file as they are, proved (gguf_tensors.py)

The other types have scales that are rounded together (K-quants), levels that are looked up (I-quants) or a free minimum
(Q4_1): a column at a time, as GPTQ goes, their grid is not known. Importance matrices are the way there.
Tensors that the file type gives another type (the embedding, the output) go to nearest.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from refquant.errors import SchemeError
from refquant.gguf.file_types import Choices, Model, select
from refquant.pipeline import architecture, general, work
from refquant.pipeline.executor import Executor
from refquant.pipeline.gguf_grids import base_type
from refquant.pipeline.huggingface import Checkpoint, open_checkpoint
from refquant.pipeline.recipe import ROUNDING, Modifier, Recipe
from refquant.pipeline.to_gguf import Progress, convert_to_gguf, file_type_of, metadata, tensor_shapes

SCALED = "weights"  # the folder of what the methods made, within the working folder
Maker = Callable[[Checkpoint, Recipe, Path], tuple[int, int]]


def make(
    checkpoint: Checkpoint,
    recipe: Recipe,
    output: Path,
    state: dict[str, object],
    folder_maker: Maker,
    keywords: Mapping[str, Any],
    executor: Executor,
    progress: Progress | None,
) -> tuple[int, int]:
    """Write the file `output`; (matrices that a method rounded, parts and tensors that were there).

    keywords  of convert_to_gguf: encoders, choices, importance, name, with_vocabulary

    Raises SchemeError (a method that has no grid in this type), QuantError and its kinds, OSError.
    """
    types = _types(checkpoint, recipe, keywords.get("choices"))
    modifiers = tuple(_with_ignored(m, checkpoint, recipe, types) for m in recipe.modifiers)
    folder, layers, resumed, source = work.begin(output, state), 0, 0, checkpoint
    if modifiers:
        made = folder / SCALED
        made.mkdir(exist_ok=True)
        layers, resumed = folder_maker(
            checkpoint, replace(recipe, modifiers=modifiers, layout="compressed-tensors"), made
        )
        source = open_checkpoint(made)
    given = {"name": general.title(checkpoint.path.resolve().name.removesuffix(".gguf"))} | dict(keywords)
    given |= {"executor": executor, "folder": folder, "progress": progress}
    resumed += convert_to_gguf(source, folder / output.name, recipe.file_type, **given)
    work.publish_file(folder, output.name, output)
    return layers, resumed


def described(keywords: Mapping[str, Any]) -> dict[str, object]:
    """What of the keywords makes two jobs differ: encoders give the same bytes and do not."""
    importance = keywords.get("importance") or {}
    digest = hashlib.sha256()
    for name in sorted(importance):
        digest.update(name.encode() + np.ascontiguousarray(importance[name]).tobytes())
    said = {"choices": repr(keywords.get("choices")), "importance": digest.hexdigest(), "name": keywords.get("name")}
    return said | {"with_vocabulary": keywords.get("with_vocabulary", True)}


def _types(checkpoint: Checkpoint, recipe: Recipe, choices: Choices | None) -> dict[str, str]:
    """{tensor of GGUF: type}."""
    mix, chosen = file_type_of(recipe.file_type, choices)
    entries = metadata(checkpoint, mix, with_vocabulary=False)
    model = Model.from_metadata({key: value for key, (_, value) in entries.items()})
    return select({n: (s, "F32") for n, s in tensor_shapes(checkpoint).items()}, mix, model, chosen)


def _with_ignored(modifier: Modifier, checkpoint: Checkpoint, recipe: Recipe, types: Mapping[str, str]) -> Modifier:
    """A rounding modifier leaves alone what gets another type than its grid's."""
    if modifier.method not in ROUNDING:
        return modifier
    wanted = base_type(recipe.file_type)
    others = [
        f"re:{re.escape(source.removesuffix('.weight'))}$"
        for name, type_name in types.items()
        if type_name != wanted
        for source in architecture.sources(name, checkpoint.model, checkpoint.kind)
    ]
    if len(others) == sum(len(architecture.sources(n, checkpoint.model, checkpoint.kind)) for n in types):
        raise SchemeError(f"oneshot: tensors of type {wanted} in {recipe.file_type} = 0, expected some to round")
    return replace(modifier, ignore=(*modifier.ignore, *others))
