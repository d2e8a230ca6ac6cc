"""Which layers of a quantized folder round their inputs too, by its config.json (compressed-tensors, dynamic ones).

    type, bits, strategy     scheme here
    int 8, token             int8-token@compressed-tensors
    float 8, token           fp8_e4m3fn-token@compressed-tensors      group of 128 alike
    float 8, group of 32     mxfp8_e4m3@compressed-tensors            scale_dtype uint8
    float 4, group of 32     mxfp4@compressed-tensors
    float 4, tensor_group    nvfp4@compressed-tensors                 with the layer's input_global_scale

Everything else (static scales, LLM.int8's outliers) is left alone and told.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from refquant import quantize
from refquant.pipeline.checkpoint import Checkpoint
from refquant.pipeline.global_scales import INPUT
from refquant.pipeline.json_file import read_json
from refquant.pipeline.recipe import matches

_NVFP4 = "nvfp4@compressed-tensors"


@dataclass(frozen=True, slots=True, eq=False)
class Rounding:
    """What happens to the inputs of a layer; `scale` is one of all inputs where the format has it."""

    scheme: str
    scale: np.ndarray | None = None

    def __call__(self, X: np.ndarray) -> np.ndarray:
        """X (tokens, in) as the layer multiplies it."""
        given = {} if self.scale is None else {"scale": self.scale}
        return quantize(X, self.scheme, **given).dequantize()


def rounded_inputs(model: Checkpoint, layers: list[str]) -> tuple[dict[str, Rounding], tuple[str, ...]]:
    """({layer: what happens to its input}, sentences about what is not looked at)."""
    if not model.path.is_dir():
        return {}, ()
    config = read_json(model.path / "config.json").get("quantization_config")
    if not isinstance(config, dict):
        return {}, ()
    if config.get("load_in_8bit"):
        return {}, ("LLM.int8 rounds inputs when it runs: here they are left alone",)
    groups = config.get("config_groups")
    found: dict[str, Rounding] = {}
    unknown = []
    for group in groups.values() if isinstance(groups, dict) else ():
        said = group.get("input_activations") if isinstance(group, dict) else None
        if not isinstance(said, dict):
            continue
        scheme = _scheme(said)
        if scheme is None:
            unknown.append(f"inputs of {_words(said)} are left alone here")
            continue
        ignored = [name for name in config.get("ignore") or [] if isinstance(name, str)]
        for layer in layers:
            targeted = any(matches(layer, target) for target in group.get("targets") or [])
            if targeted and not any(matches(layer, name) for name in ignored):
                scale = model.tensors.get(f"{layer}.{INPUT}")
                found.setdefault(layer, Rounding(scheme, scale.data if scheme == _NVFP4 and scale else None))
    return found, tuple(dict.fromkeys(unknown))


def _scheme(said: Mapping[str, Any]) -> str | None:
    """The scheme of QuantizationArgs; None where there is none."""
    kind, bits, size = said.get("type"), said.get("num_bits"), said.get("group_size")
    if (kind, bits, said.get("strategy"), said.get("dynamic")) == ("float", 4, "tensor_group", "local"):
        return _NVFP4
    if said.get("dynamic") is not True or said.get("symmetric", True) is not True:
        return None
    table = {
        ("int", 8, "token"): "int8-token",
        ("float", 8, "token"): "fp8_e4m3fn-token",
        ("float", 8, "group"): "mxfp8_e4m3" if size == 32 else f"fp8_e4m3fn-g{size}",
        ("float", 4, "group"): "mxfp4" if size == 32 else None,
    }
    name = table.get((kind, bits, said.get("strategy")))
    return None if name is None else f"{name}@compressed-tensors"


def _words(said: Mapping[str, Any]) -> str:
    dynamic = "dynamic" if said.get("dynamic") is True else "static"
    return f"{dynamic} {said.get('type')} of {said.get('num_bits')} bits for each {said.get('strategy')}"
