"""What a job consists of, before any of it is done: the tensors of every block, what happens to each layer, the parts.

    names_of(checkpoint)              {block: {name without "model.layers.N.": full name}}; what is in no block is last
    plan_of(checkpoint, recipe, ...)  {layer: (the modifier that rounds it, how it is stored)}
    parts_of(checkpoint, ...)         the files of the result in order, each with its own share of names and plan

Checked   now, not hours later: groups that do not fit the shape of a layer, formats that the layout does not hold.
"""

from pathlib import Path

from refquant import groups
from refquant.pipeline import block, records
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.configured import Stored
from refquant.pipeline.part import Part
from refquant.pipeline.recipe import Modifier, Recipe

Names = dict[int, dict[str, str]]
Plan = dict[str, tuple[Modifier, Stored]]


def names_of(checkpoint: Checkpoint) -> Names:
    """See the module; tensors that nothing needs are left out."""
    count = checkpoint.model.n_layer
    found: Names = {i: {} for i in range(count + 1)}
    for name in checkpoint.tensors:
        if name in checkpoint.unused:
            continue
        words = name.split(".", 3)
        i = int(words[2]) if name.startswith("model.layers.") else count
        found[i][words[3] if i < count else name] = name
    return found


def plan_of(checkpoint: Checkpoint, recipe: Recipe, names: Names, scale_dtype: str = "") -> Plan:
    """What happens to every layer that a modifier matches; scales are of `scale_dtype`, "": as the layout stores them.

    Raises ShapeError (groups that do not fit a layer, named), SchemeError (a format that the layout does not hold).
    """
    plan: Plan = {}
    for i, table in names.items():
        shapes = {short: checkpoint.tensors[full].data for short, full in table.items()}
        is_block = i < checkpoint.model.n_layer
        layers = block.linears(shapes) if is_block else [n for n in ["lm_head"] if f"{n}.weight" in table]
        for short in layers:
            layer = table[f"{short}.weight"].removesuffix(".weight")
            modifier = recipe.rounding(layer)
            if modifier is not None:
                dtype = checkpoint.dtype(f"{layer}.weight")
                scheme = records.fitted(modifier.weights, recipe.layout, scale_dtype or dtype)
                layout = records.layout_of(scheme, recipe.layout, modifier.activations is None)
                where = f"{checkpoint.path}: layer {layer}"
                groups.scale_shape(where, shapes[f"{short}.weight"].shape, scheme.granularity)
                plan[layer] = modifier, Stored(scheme, modifier.activations, layout)
    return plan


def parts_of(checkpoint: Checkpoint, names: Names, plan: Plan, folder: Path, floats: str = "") -> list[Part]:
    """One for each block and one for the rest, whose files are made in `folder`; `floats` as in Part."""
    model, stamp, count = str(checkpoint.path.resolve()), checkpoint.stamp, len(names)
    found = []
    for i, table in names.items():
        layers = {n.removesuffix(".weight") for n in table.values() if n.endswith(".weight")}
        own = {layer: plan[layer] for layer in plan if layer in layers}
        file = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
        found.append(Part(model, stamp, str(folder.resolve()), i, file, i < count - 1, table, own, floats))
    return found
