"""Recipes: which layers of a model are quantized, to what, by which method.

    Recipe = modifiers in order      QuaRot turns the model, SmoothQuant or AWQ scale a block, then nearest, GPTQ or
                                     SparseGPT round it
    Modifier                         targets "Linear", ignore "lm_head", weights int4-g128, method gptq, damp 0.05

    read("W4A16")                    a preset, a scheme, a spelling of spellings.py
    read("recipe.yaml")              a file of YAML or JSON, or such a text of several lines (recipe_text.py)
    read({"modifiers": [{"method": "gptq", "scheme": "W4A16", "ignore": ["lm_head"], "damp": 0.05}]})
    read({"quant_stage": {"quant_modifiers": {"GPTQModifier": {"scheme": "W4A16", "ignore": ["lm_head"]}}}})

The last is llm-compressor's (llm_compressor.py).

Options   of a method are its module's (OPTIONS): damp and order of gptq, sparsity and pattern of sparsegpt, clip of
          awq, alpha of smoothquant, seed of quarot ...
Names     of a layer, as "model.layers.0.mlp.up_proj", without `.weight`. A pattern matches one if it is
              Linear              any layer
              re:REGEX            the regex, from the beginning (re.match)
              down_proj, lm_head  one of the name's parts, or several in a row: "layers.0", "mlp.up_proj"
First     of two rounding modifiers that match a layer the first decides.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from refquant import gptq, nvfp4, schemes
from refquant.errors import SchemeError
from refquant.pipeline import gguf_grids, llm_compressor, recipe_text
from refquant.pipeline.spellings import LAYOUT_NAMES, Meaning, explain
from refquant.schemes import Scheme

ROUNDING = ("nearest", "gptq", "sparsegpt")
SCALING = ("awq", "smoothquant")
ROTATING = ("quarot",)
ALIASES = {"rtn": "nearest", "round": "nearest", "quantization": "nearest"}
_SWEEP = frozenset(field.name for field in fields(gptq.Settings)) | {"dialect"}
OPTIONS: dict[str, frozenset[str]] = {
    "nearest": frozenset(),
    "gptq": _SWEEP,
    "sparsegpt": _SWEEP | {"sparsity", "pattern"},
    "awq": frozenset({"clip", "dialect"}),
    "smoothquant": frozenset({"alpha", "dialect"}),
    "quarot": frozenset({"seed", "values"}),
}
_OURS = ("method", "scheme", "weights", "activations", "targets", "ignore", "layout")


@dataclass(frozen=True, slots=True)
class Modifier:
    """One step; `weights` and `activations` are None where they are left alone."""

    method: str
    weights: Scheme | None
    activations: Scheme | None = None
    targets: tuple[str, ...] = ("Linear",)
    ignore: tuple[str, ...] = ("lm_head",)
    options: tuple[tuple[str, Any], ...] = ()

    def matches(self, name: str) -> bool:
        """Whether it applies to a layer of this name."""
        return any(matches(name, t) for t in self.targets) and not any(matches(name, p) for p in self.ignore)

    @property
    def calibrated(self) -> bool:
        """Whether it looks at inputs."""
        return self.method != "nearest" and self.method not in ROTATING


@dataclass(frozen=True, slots=True)
class Recipe:
    """Modifiers in order, the layout to write, or a file type of GGUF."""

    modifiers: tuple[Modifier, ...]
    layout: str = "compressed-tensors"
    file_type: str = ""

    def rounding(self, name: str) -> Modifier | None:
        """What rounds the layer `name`."""
        found = (m for m in self.modifiers if m.method in ROUNDING and m.weights is not None and m.matches(name))
        return next(found, None)

    def rotating(self) -> tuple[Modifier, ...]:
        """What turns the whole model before all else."""
        return tuple(m for m in self.modifiers if m.method in ROTATING)

    def scaling(self) -> tuple[Modifier, ...]:
        """What scales blocks before they are rounded."""
        return tuple(m for m in self.modifiers if m.method in SCALING)

    @property
    def calibrated(self) -> bool:
        """Whether a method looks at inputs."""
        return any(m.calibrated for m in self.modifiers)

    @property
    def static_inputs(self) -> bool:
        """Whether inputs are rounded in a format that has a scale of all of them, found before."""
        return any(_is_static(m.activations) for m in self.modifiers)


def _is_static(scheme: Scheme | None) -> bool:
    return scheme is not None and isinstance(scheme.rule, nvfp4.Rule)


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (see the module) means the layer `name`. Raises SchemeError for a regex that is none."""
    if pattern == "Linear":
        return True
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error as error:
            raise SchemeError(f"recipe: pattern {pattern[:80]!r}, expected a regular expression: {error}") from error
    return f".{pattern}." in f".{name}."


def read(
    said: "str | os.PathLike | Mapping[str, Any] | Sequence[Mapping[str, Any]] | Recipe",
    *,
    method: str | None = None,
    ignore: Sequence[str] | None = None,
    layout: str | None = None,
) -> Recipe:
    """A recipe from any of the forms above. `method`, `ignore` and `layout` replace what it says.

    Raises SchemeError: unknown names, keys, options, schemes, layouts; a file that is no JSON.
    """
    recipe = said if isinstance(said, Recipe) else _read(said)
    if method is not None and recipe.layout == "gguf":
        recipe = _to_gguf(Meaning(recipe.file_type, method=method, layout="gguf"))
        method = None
    modifiers = recipe.modifiers
    if method is not None:
        modifiers = _with_method(modifiers, method)
    if ignore is not None:
        modifiers = tuple(replace(m, ignore=tuple(ignore)) for m in modifiers)
    recipe = _in_layout(replace(recipe, modifiers=modifiers), layout)
    if recipe.layout not in LAYOUT_NAMES:
        raise SchemeError(f"recipe: layout = {str(recipe.layout)[:80]!r}, expected one of {', '.join(LAYOUT_NAMES)}")
    for modifier in recipe.modifiers:
        _no_other_options(modifier.method, dict(modifier.options))
    return recipe


def _read(said: object) -> Recipe:
    if isinstance(said, os.PathLike) or (isinstance(said, str) and said.endswith(recipe_text.ENDINGS)):
        return _read_parsed(recipe_text.read_file(Path(said)), str(said))
    if isinstance(said, str) and ("\n" in said or said.lstrip()[:1] in ("{", "[")):
        parse = recipe_text.from_json if said.lstrip()[:1] in ("{", "[") else recipe_text.from_yaml
        return _read_parsed(parse(said, "recipe"), "recipe")
    if isinstance(said, str):
        return _from_meaning(explain(said), None)
    if isinstance(said, Mapping):
        return _from_mapping(dict(said))
    if isinstance(said, Sequence):
        return _joined([_read(part) for part in said])
    raise SchemeError(f"recipe: {type(said).__name__}, expected a name, a file, a dict or a list of dicts")


def _read_parsed(said: object, where: str) -> Recipe:
    """What a text held: an object or a list, and no further name of a file."""
    if not isinstance(said, Mapping | list) or not said:
        raise SchemeError(f"{where}: holds {type(said).__name__}, expected an object or a list of modifiers")
    return _read(said)


def _from_mapping(said: dict[str, Any]) -> Recipe:
    if "modifiers" in said:
        layout = said.pop("layout", None)
        recipe = _joined([_from_ours(dict(entry)) for entry in _list(said.pop("modifiers"))])
        _no_rest("recipe", said)
        return _in_layout(recipe, layout)
    if llm_compressor.is_theirs(said):
        return _joined([_from_ours(entry) for entry in llm_compressor.modifiers(said)])
    if "scheme" in said or "method" in said or "weights" in said:
        return _from_ours(said)
    return _from_meaning(explain(said), None)


def _from_ours(said: dict[str, Any]) -> Recipe:
    """{"method", "scheme" or "weights" and "activations", "targets", "ignore", "layout", and options of the method}."""
    given = {key: said.pop(key) for key in _OURS if key in said}
    if given.get("method") in ROTATING and set(given) == {"method"}:
        return Recipe((Modifier(given["method"], None, options=tuple(sorted(said.items()))),))
    is_gguf = "scheme" in given and explain(given["scheme"]).layout == "gguf"
    if "weights" in given and not is_gguf:
        meaning = Meaning(given["weights"], given.get("activations") or "")
    else:
        meaning = explain(given.get("scheme", given.get("method", "")))
    method = _known_method(given.get("method", meaning.method))
    _no_other_options(method, said)
    meaning = replace(meaning, method=method, options=tuple((dict(meaning.options) | said).items()))
    if is_gguf:
        recipe = _to_gguf(meaning, given.get("ignore"), given.get("targets"), given.get("weights"))
    else:
        recipe = _from_meaning(meaning, given.get("ignore"), given.get("targets"))
    return _in_layout(recipe, given.get("layout"))


def _from_meaning(meaning: Meaning, ignore: Any, targets: Any = None) -> Recipe:
    if meaning.layout == "gguf":
        return _to_gguf(meaning, ignore, targets)
    ignored = _strings("ignore", ignore) if ignore is not None else (meaning.ignore or ("lm_head",))
    method = _known_method(meaning.method)
    weights = schemes.parse(meaning.weights) if meaning.weights else None
    activations = schemes.parse(meaning.activations) if meaning.activations else None
    wanted = _strings("targets", targets) if targets is not None else ("Linear",)
    rounding = method if method in ROUNDING else "nearest"
    last = Modifier(rounding, weights, activations, wanted, ignored)
    modifiers = (replace(last, method=method), last) if method in SCALING else (last,)
    if method in ROTATING:
        return Recipe((Modifier(method, None, options=tuple(sorted(meaning.options))), last), meaning.layout)
    return Recipe(tuple(_with_options(m, dict(meaning.options)) for m in modifiers), meaning.layout)


def _to_gguf(meaning: Meaning, ignore: Any = None, targets: Any = None, weights: Any = None) -> Recipe:
    """A file type, and the method that prepares its weights, with the grid of integers that stands for it, or
    `weights` in its place."""
    method, file_type = _known_method(meaning.method), meaning.weights
    if method == "nearest":
        return Recipe((), "gguf", file_type)
    if method in ROTATING:
        return Recipe((Modifier(method, None, options=tuple(sorted(meaning.options))),), "gguf", file_type)
    of_type = gguf_grids.search_grid if method in SCALING else gguf_grids.rounding_grid
    grid = of_type(file_type, method) if weights is None or method in ROUNDING else schemes.parse(weights)
    wanted = _strings("targets", targets) if targets is not None else ("Linear",)
    ignored = _strings("ignore", ignore) if ignore is not None else ()
    modifier = Modifier(method, grid, None, wanted, ignored)
    return Recipe((_with_options(modifier, dict(meaning.options)),), "gguf", file_type)


def _in_layout(recipe: Recipe, layout: str | None) -> Recipe:
    """The recipe with another layout. GGUF takes a scheme that is one of its types, and rounds to nearest by itself."""
    if layout in (None, recipe.layout):
        return recipe
    if recipe.layout == "gguf":
        raise SchemeError(f"recipe: {recipe.file_type} as {layout}, expected a scheme such as int4-g128, or W4A16")
    if layout != "gguf":
        return replace(recipe, layout=layout)
    kinds = {(m.weights, m.activations) for m in recipe.modifiers if m.method in ROUNDING}
    if len(kinds) != 1:
        raise SchemeError(f"recipe: {len(kinds)} formats as gguf, expected one, or a file type such as Q4_K_M")
    kept = tuple(m for m in recipe.modifiers if m.method != "nearest")
    return Recipe(kept, "gguf", gguf_grids.type_of(*kinds.pop()))


def _with_options(modifier: Modifier, options: dict[str, Any]) -> Modifier:
    """Options belong to the method that was named: scaling where there is one, else rounding."""
    if not options or modifier.method == "nearest":
        return modifier
    return replace(modifier, options=tuple(sorted((dict(modifier.options) | options).items())))


def _with_method(modifiers: tuple[Modifier, ...], method: str) -> tuple[Modifier, ...]:
    method = _known_method(method)
    last = next((m for m in modifiers if m.method in ROUNDING), None)
    if last is None:
        raise SchemeError(f"recipe: method = {method!r}, expected a recipe that rounds weights")
    if method in ROTATING:
        return Modifier(method, None), *modifiers
    if method in SCALING:
        return replace(last, method=method, options=()), replace(last, method="nearest", options=())
    keep = tuple(m for m in modifiers if m.method not in ROUNDING)
    rounding = (m for m in modifiers if m.method in ROUNDING)
    kept = ((m, tuple(o for o in m.options if o[0] in OPTIONS[method])) for m in rounding)
    return (*keep, *(replace(m, method=method, options=options) for m, options in kept))


def _known_method(name: str) -> str:
    found = ALIASES.get(str(name).lower(), str(name).lower())
    if found not in ROUNDING + SCALING + ROTATING:
        raise SchemeError(f"recipe: method = {name!r}, expected one of {', '.join((*ROUNDING, *SCALING, *ROTATING))}")
    return found


def _joined(parts: list[Recipe]) -> Recipe:
    """Modifiers one after the other. What a scaling one brings to round with counts only if nothing else rounds."""
    if not parts:
        raise SchemeError("recipe: modifiers = [], expected at least one")
    modifiers = [m for part in parts for m in part.modifiers]
    plain = [part for part in parts if not any(m.method in SCALING for m in part.modifiers)]
    said = [m for part in plain for m in part.modifiers if m.method in ROUNDING]
    if said:
        modifiers = [m for m in modifiers if m.method not in ROUNDING] + said
    return replace(parts[-1], modifiers=tuple(modifiers))


def _no_other_options(method: str, said: Mapping[str, Any]) -> None:
    """A key that is mistyped must not be lost: what it was to say would not happen. Raises SchemeError."""
    unknown = sorted(set(said) - OPTIONS[method])
    if unknown:
        known = ", ".join([*_OURS, *sorted(OPTIONS[method])])
        raise SchemeError(f"recipe: key {unknown[0]!r} of {method} is unknown, expected one of {known}")


def _strings(what: str, value: Any) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
        raise SchemeError(f"recipe: {what} = {str(value)[:80]}, expected a name or a list of names")
    return tuple(names)


def _list(value: Any) -> list:
    if not isinstance(value, list | tuple) or not all(isinstance(v, Mapping) for v in value):
        raise SchemeError(f"recipe: modifiers = {str(value)[:80]}, expected a list of objects")
    return list(value)


def _no_rest(where: str, said: Mapping[str, Any]) -> None:
    if said:
        raise SchemeError(f"recipe: key {sorted(said)[0]!r} of {where} is unknown, expected one that is documented")
