"""Recipes: which layers of a model are quantized, to what, by which method.

    Recipe = modifiers in order      SmoothQuant or AWQ scale a block first, then nearest, GPTQ or SparseGPT round it
    Modifier                         targets "Linear", ignore "lm_head", weights int4-g128, method gptq, damp 0.05

    read("W4A16")                    a preset, a scheme, a spelling of spellings.py
    read("recipe.json")              a file of JSON
    read({"modifiers": [{"method": "gptq", "scheme": "W4A16", "ignore": ["lm_head"], "damp": 0.05}]})
    read({"quant_stage": {"quant_modifiers": {"GPTQModifier": {"scheme": "W4A16", "ignore": ["lm_head"]}}}})

The last is llm-compressor's, as a dict or as JSON; YAML that has been parsed to such a dict is read as well.

Names     of a layer, as "model.layers.0.mlp.up_proj", without `.weight`. A pattern matches one if it is
              Linear              any layer
              re:REGEX            the regex, from the beginning (re.match)
              down_proj, lm_head  one of the name's parts, or several in a row: "layers.0", "mlp.up_proj"
First     of two rounding modifiers that match a layer the first decides.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from refquant import schemes
from refquant.errors import SchemeError
from refquant.methods import METHODS
from refquant.pipeline.spellings import Meaning, explain
from refquant.schemes import Scheme

ROUNDING = ("nearest", "gptq", "sparsegpt")
SCALING = ("awq", "smoothquant")
ALIASES = {"rtn": "nearest", "round": "nearest", "quantization": "nearest"}
MAX_FILE = 1 << 20
_OURS = ("method", "scheme", "weights", "activations", "targets", "ignore", "layout")
_THEIRS = {  # llm-compressor's modifiers, and what their options are called here
    "QuantizationModifier": ("nearest", {}),
    "GPTQModifier": ("gptq", {"dampening_frac": "damp", "block_size": "block"}),
    "SparseGPTModifier": ("sparsegpt", {"sparsity": "sparsity", "dampening_frac": "damp", "block_size": "block"}),
    "SmoothQuantModifier": ("smoothquant", {"smoothing_strength": "alpha"}),
    "AWQModifier": ("awq", {}),
}


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
        return self.method != "nearest"


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

    def scaling(self) -> tuple[Modifier, ...]:
        """What scales blocks before they are rounded."""
        return tuple(m for m in self.modifiers if m.method in SCALING)

    @property
    def calibrated(self) -> bool:
        """Whether inputs are needed."""
        return any(m.calibrated for m in self.modifiers)


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

    Raises SchemeError: unknown names, keys, schemes; a file that is no JSON.
    """
    recipe = said if isinstance(said, Recipe) else _read(said)
    modifiers = recipe.modifiers
    if method is not None:
        modifiers = _with_method(modifiers, method)
    if ignore is not None:
        modifiers = tuple(replace(m, ignore=tuple(ignore)) for m in modifiers)
    return replace(recipe, modifiers=modifiers, layout=layout or recipe.layout)


def _read(said: object) -> Recipe:
    if isinstance(said, os.PathLike) or (isinstance(said, str) and said.endswith((".json", ".yaml", ".yml"))):
        return _read(_file(Path(said)))
    if isinstance(said, str):
        return _from_meaning(explain(said), None)
    if isinstance(said, Mapping):
        return _from_mapping(dict(said))
    if isinstance(said, Sequence):
        return _joined([_read(part) for part in said])
    raise SchemeError(f"recipe: {type(said).__name__}, expected a name, a file, a dict or a list of dicts")


def _file(path: Path) -> Any:
    try:
        data = path.read_bytes()[: MAX_FILE + 1]
        if len(data) > MAX_FILE:
            raise SchemeError(f"{path}: expected a recipe of at most {MAX_FILE} bytes")
        return json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SchemeError):
            raise
        raise SchemeError(
            f"{path}: cannot be read as JSON, the form of recipe files here: {str(error)[:160]}"
        ) from error


def _from_mapping(said: dict[str, Any]) -> Recipe:
    if "modifiers" in said:
        layout = said.pop("layout", None)
        recipe = _joined([_from_ours(dict(entry)) for entry in _list(said.pop("modifiers"))])
        _no_rest("recipe", said)
        return replace(recipe, layout=layout) if layout else recipe
    if any(key.endswith("_stage") for key in said) or any(key in _THEIRS for key in said):
        return _joined([_from_theirs(name, dict(values)) for name, values in _theirs(said)])
    if "scheme" in said or "method" in said or "weights" in said:
        return _from_ours(said)
    return _from_meaning(explain(said), None)


def _from_ours(said: dict[str, Any]) -> Recipe:
    """{"method", "scheme" or "weights" and "activations", "targets", "ignore", "layout", and options of the method}."""
    given = {key: said.pop(key) for key in _OURS if key in said}
    if "weights" in given:
        meaning = Meaning(given["weights"], given.get("activations") or "")
    else:
        meaning = explain(given.get("scheme", given.get("method", "")))
    layout = given.get("layout", meaning.layout)
    meaning = replace(meaning, method=given.get("method", meaning.method), layout=layout)
    recipe = _from_meaning(meaning, given.get("ignore"), given.get("targets"))
    table = dict(meaning.options) | said
    return replace(recipe, modifiers=tuple(_with_options(m, table) for m in recipe.modifiers))


def _theirs(said: dict[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, values) of the modifiers in all stages."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in said.items():
        if key in _THEIRS:
            found.append((key, value or {}))
        elif isinstance(value, Mapping) and key.endswith(("_stage", "_modifiers")):
            found += _theirs(dict(value))
        else:
            known = ", ".join(_THEIRS)
            raise SchemeError(f"recipe: {key!r}, expected a stage or one of {known}")
    return found


def _from_theirs(name: str, said: dict[str, Any]) -> Recipe:
    method, options = _THEIRS[name]
    found: dict[str, Any] = {"method": method}
    order = said.pop("actorder", None)
    if order not in (None, False):
        found |= {"order": "activation", "static_groups": str(order) in ("static", "weight")}
    if "mask_structure" in said:
        structure = str(said.pop("mask_structure"))
        if re.fullmatch(r"[1-9]\d*:[1-9]\d*", structure):
            found["pattern"] = tuple(int(n) for n in structure.split(":"))
    for key, ours in options.items():
        if key in said:
            found[ours] = said.pop(key)
    found |= {key: said.pop(key) for key in ("scheme", "targets", "ignore") if key in said}
    if "config_groups" in said:
        found |= _config_groups(said.pop("config_groups"))
    for key in ("mappings", "offload_device", "duo_scaling", "quantize", "num_calibration_steps"):
        said.pop(key, None)
    _no_rest(name, said)
    if method == "smoothquant":
        found.setdefault("scheme", "W8A8")
    return _from_ours(found)


def _config_groups(groups: Any) -> dict[str, Any]:
    """weights and activations of the one group that is understood."""
    if not isinstance(groups, Mapping) or len(groups) != 1:
        raise SchemeError(f"recipe: config_groups = {str(groups)[:80]}, expected one group")
    group = next(iter(groups.values()))
    found = {"weights": _arguments(group.get("weights")), "activations": _arguments(group.get("input_activations"))}
    return found | ({"targets": group["targets"]} if "targets" in group else {})


def _arguments(said: Any) -> str:
    """QuantizationArgs as a scheme."""
    if said is None:
        return ""
    bits, kind, strategy = said.get("num_bits", 8), said.get("type", "int"), said.get("strategy", "tensor")
    size, symmetric = said.get("group_size"), said.get("symmetric", True)
    word = f"g{size}" if strategy == "group" or (size or 0) > 0 else strategy
    if kind == "float" and bits == 8:
        return f"fp8_e4m3fn-{word}"
    if kind != "int" or word not in ("tensor", "channel", "token", f"g{size}"):
        raise SchemeError(f"recipe: {str(said)[:120]}, expected integers, or floats of 8 bits")
    return f"int{bits}-{word}" + ("" if symmetric else "-asym")


def _from_meaning(meaning: Meaning, ignore: Any, targets: Any = None) -> Recipe:
    if meaning.layout == "gguf":
        return Recipe((), "gguf", meaning.weights)
    ignored = _strings("ignore", ignore) if ignore is not None else (meaning.ignore or ("lm_head",))
    method = _known_method(meaning.method)
    weights = schemes.parse(meaning.weights) if meaning.weights else None
    activations = schemes.parse(meaning.activations) if meaning.activations else None
    wanted = _strings("targets", targets) if targets is not None else ("Linear",)
    rounding = method if method in ROUNDING else "nearest"
    last = Modifier(rounding, weights, activations, wanted, ignored)
    modifiers = (replace(last, method=method), last) if method in SCALING else (last,)
    return Recipe(tuple(_with_options(m, dict(meaning.options)) for m in modifiers), meaning.layout)


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
    if method in SCALING:
        return replace(last, method=method, options=()), replace(last, method="nearest", options=())
    keep = tuple(m for m in modifiers if m.method in SCALING)
    return (*keep, *(replace(m, method=method) for m in modifiers if m.method in ROUNDING))


def _known_method(name: str) -> str:
    found = ALIASES.get(str(name).lower(), str(name).lower())
    if found not in ROUNDING + SCALING or found not in METHODS:
        raise SchemeError(f"recipe: method = {name!r}, expected one of {', '.join((*ROUNDING, *SCALING))}")
    return found


def _joined(parts: list[Recipe]) -> Recipe:
    """Modifiers one after the other. What a scaling one brings to round with counts only if nothing else rounds."""
    if not parts:
        raise SchemeError("recipe: modifiers = [], expected at least one")
    modifiers = [m for part in parts for m in part.modifiers]
    said = [m for part in parts if not any(m.method in SCALING for m in part.modifiers) for m in part.modifiers]
    if said:
        modifiers = [m for m in modifiers if m.method in SCALING] + [m for m in said if m.method in ROUNDING]
    return replace(parts[-1], modifiers=tuple(modifiers))


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
