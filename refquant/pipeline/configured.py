"""config.json of a quantized folder: quantization_config as transformers and vLLM read it.

compressed-tensors   a group for each format, with targets "Linear" if there is one; `ignore` names every other layer
gptq, awq            what layouts.configuration says; awq: modules_to_not_convert
bitsandbytes         the keywords of BitsAndBytesConfig
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from refquant import affine, mx, nvfp4
from refquant.errors import SchemeError
from refquant.layouts import configuration
from refquant.layouts.catalogue import Record
from refquant.schemes import Scheme

_DYNAMIC = {"tile": "block"}
_STATIC = {"tile": "block", "token": "channel", "tensor": "channel"}  # one scale of all is written for every row


@dataclass(frozen=True, slots=True)
class Stored:
    """How a layer is stored: its scheme, that of its input or None, the entry of layouts.LAYOUTS."""

    scheme: Scheme
    activations: Scheme | None
    layout: str


def quantization_config(
    layout: str, stored: Mapping[str, Stored], others: Iterable[str], sample: Record, dtype: str
) -> dict[str, object]:
    """The entry for layers `stored` {name: how} and `others`, which stay as they are. `sample` is one of the records.

    Raises SchemeError for several formats where the layout knows one only.
    """
    kinds = list(dict.fromkeys(stored.values()))
    others = sorted(others)
    if layout == "compressed-tensors":
        return _compressed(stored, kinds, others)
    if len(kinds) != 1:
        raise SchemeError(f"config: {len(kinds)} formats in {layout}, expected one: compressed-tensors holds several")
    scheme = kinds[0].scheme
    if layout == "bitsandbytes":
        if kinds[0].layout == "bitsandbytes-int8":
            return {"quant_method": "bitsandbytes", "load_in_8bit": True, "llm_int8_skip_modules": others}
        return {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4" if scheme.head == "nf4" else "fp4",
            "bnb_4bit_use_double_quant": scheme.rule.double,
            "bnb_4bit_compute_dtype": dtype,
            "bnb_4bit_quant_storage": "uint8",
            "llm_int8_skip_modules": others,
        }
    found = configuration.configuration(kinds[0].layout, sample)
    if found is None:
        raise SchemeError(f"config: {kinds[0].layout} has no entry of config.json, expected another layout")
    if layout.startswith("awq"):
        found["modules_to_not_convert"] = others or None
    if found.get("group_size") and scheme.granularity.kind != "group":
        found["group_size"] = -1
    return found


def _compressed(stored: Mapping[str, Stored], kinds: list[Stored], others: list[str]) -> dict[str, object]:
    groups = {}
    for i, kind in enumerate(kinds):
        names = [name for name, how in stored.items() if how == kind]
        groups[f"group_{i}"] = {
            "targets": ["Linear"] if len(kinds) == 1 else names,
            "weights": _arguments(kind.scheme, dynamic=False),
            "input_activations": _arguments(kind.activations, dynamic=True) if kind.activations else None,
            "output_activations": None,
        } | ({} if len(kinds) == 1 else {"format": kind.layout})
    return {
        "quant_method": "compressed-tensors",
        "format": kinds[0].layout if len(kinds) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": others,
    }


def _arguments(scheme: Scheme, dynamic: bool) -> dict[str, object]:
    """QuantizationArgs of compressed-tensors."""
    granularity, rule = scheme.granularity, scheme.rule
    said: dict[str, object] = {
        "num_bits": rule.bits,
        "type": "int" if isinstance(rule, affine.Rule) else "float",
        "symmetric": rule.symmetric if isinstance(rule, affine.Rule) else True,
        "strategy": (_DYNAMIC if dynamic else _STATIC).get(granularity.kind, granularity.kind),
        "group_size": granularity.size if granularity.kind == "group" else None,
        "dynamic": dynamic,
    }
    if granularity.kind == "tile":
        said["block_structure"] = [granularity.rows, granularity.size]
    if isinstance(rule, mx.Rule):
        said |= dict.fromkeys(("scale_dtype", "zp_dtype"), "torch.uint8")
    if isinstance(rule, nvfp4.Rule):
        said |= {"strategy": "tensor_group"} | dict.fromkeys(("scale_dtype", "zp_dtype"), "torch.float8_e4m3fn")
        said |= {"dynamic": "local", "observer": "static_minmax"} if dynamic else {}
    return said
