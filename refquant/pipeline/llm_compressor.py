"""llm-compressor's recipes in the words of ours: what stands under each of its modifiers.

    quant_stage:                                    stages and the names that end in _modifiers are looked through
      quant_modifiers:
        SmoothQuantModifier: {smoothing_strength: 0.8}
        GPTQModifier: {scheme: W4A16, targets: Linear, ignore: [lm_head], dampening_frac: 0.01, actorder: static}

    QuantizationModifier   method nearest
    GPTQModifier           gptq          dampening_frac -> damp, block_size -> block, actorder -> order, static_groups
    SparseGPTModifier      sparsegpt     sparsity, mask_structure "2:4" -> pattern, dampening_frac, block_size
    SmoothQuantModifier    smoothquant   smoothing_strength -> alpha
    AWQModifier            awq

scheme          a preset name, or an object {preset: targets} of which each becomes a modifier
config_groups   QuantizationArgs of each group become schemes; a group is a modifier with its targets
Not looked at   mappings (found by the architecture), duo_scaling, offload_device and other things of a run.
Source          llm-compressor 0.14, modifiers/*/base.py; compressed_tensors 0.19, quantization/quant_args.py.
"""

import re
from collections.abc import Mapping
from typing import Any

from refquant.errors import SchemeError

MODIFIERS: dict[str, tuple[str, dict[str, str]]] = {
    "QuantizationModifier": ("nearest", {}),
    "GPTQModifier": ("gptq", {"dampening_frac": "damp", "block_size": "block"}),
    "SparseGPTModifier": ("sparsegpt", {"sparsity": "sparsity", "dampening_frac": "damp", "block_size": "block"}),
    "SmoothQuantModifier": ("smoothquant", {"smoothing_strength": "alpha"}),
    "AWQModifier": ("awq", {}),
}
_NOT_LOOKED_AT = (
    "mappings", "offload_device", "offload_hessians", "duo_scaling", "n_grid", "quantize", "num_calibration_steps",
    "sequential_targets", "sequential_update", "start", "end", "update", "index", "group", "bypass_divisibility_checks",
)  # fmt: skip


def is_theirs(said: Mapping[str, Any]) -> bool:
    """Whether a mapping has the shape of their recipes."""
    return any(str(key).endswith(("_stage", "_modifiers")) or key in MODIFIERS for key in said)


def modifiers(said: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The modifiers of all stages in order, as mappings that recipe.read takes. Raises SchemeError (unknown names)."""
    return [ours for name, values in _flat(said) for ours in _translated(name, dict(values))]


def _flat(said: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, values) of the modifiers in all stages."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key, value in said.items():
        if key in MODIFIERS and (value is None or isinstance(value, Mapping)):
            found.append((key, value or {}))
        elif isinstance(value, Mapping) and str(key).endswith(("_stage", "_modifiers")):
            found += _flat(value)
        else:
            known = ", ".join(MODIFIERS)
            raise SchemeError(f"recipe: {str(key)[:80]!r}, expected a stage or one of {known} with its options")
    return found


def _translated(name: str, said: dict[str, Any]) -> list[dict[str, Any]]:
    method, options = MODIFIERS[name]
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
    groups = said.pop("config_groups", None)
    for key in _NOT_LOOKED_AT:
        said.pop(key, None)
    if said:
        raise SchemeError(f"recipe: key {min(map(str, said))!r} of {name} is unknown, expected one that is documented")
    if groups is not None:
        return [found | group for group in _config_groups(groups)]
    if isinstance(found.get("scheme"), Mapping):
        return [found | {"scheme": scheme, "targets": targets} for scheme, targets in found["scheme"].items()]
    if method == "smoothquant":
        found.setdefault("scheme", "W8A8")
    return [found]


def _config_groups(groups: Any) -> list[dict[str, Any]]:
    """weights, activations and targets of each group."""
    if not isinstance(groups, Mapping) or not groups or not all(isinstance(g, Mapping) for g in groups.values()):
        raise SchemeError(f"recipe: config_groups = {str(groups)[:80]}, expected objects, a group each")
    found = []
    for group in groups.values():
        entry = {
            "weights": arguments(group.get("weights")),
            "activations": arguments(group.get("input_activations")),
        }
        found.append(entry | ({"targets": group["targets"]} if "targets" in group else {}))
    return found


def arguments(said: Any) -> str:
    """QuantizationArgs as a scheme; "" for None. Raises SchemeError for numbers that are not known here."""
    if said is None:
        return ""
    if not isinstance(said, Mapping):
        raise SchemeError(f"recipe: {str(said)[:80]}, expected QuantizationArgs: num_bits, type, strategy ...")
    bits, kind, strategy = said.get("num_bits", 8), said.get("type", "int"), said.get("strategy")
    size, symmetric = said.get("group_size"), said.get("symmetric", True)
    grouped = isinstance(size, int) and size > 0
    strategy = strategy or ("group" if grouped else "channel" if size == -1 else "tensor")
    word = f"g{size}" if strategy == "group" and grouped else strategy
    if kind == "float" and bits == 8 and word in ("tensor", "channel", "token", f"g{size}"):
        return f"fp8_e4m3fn-{word}"
    if kind != "int" or word not in ("tensor", "channel", "token", f"g{size}"):
        raise SchemeError(f"recipe: {str(said)[:120]}, expected integers, or floats of 8 bits, in groups or channels")
    return f"int{bits}-{word}" + ("" if symmetric else "-asym")
