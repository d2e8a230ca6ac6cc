"""What other frameworks call a format, in our words: scheme of weights and activations, method, layout.

    explain("load_in_4bit")                                 bitsandbytes' default, FP4 in blocks of 64
    explain({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True})
    explain({"bits": 4, "group_size": 128, "sym": False, "desc_act": True})                     a GPTQConfig
    explain("W4A16"), explain("int8"), explain("nf4"), explain("Q4_K_M"), explain("int4-g64-asym")

Presets   names of compressed-tensors' quant_scheme.py; W4A16_ASYM, FP8 and others that presets.py lacks are here.
Our own   a scheme of schemes.py means itself; but `int8` and `int4`, which there are one scale for a whole tensor, mean
          int8-channel and int4-g128 here, as they do to those who write load_in_8bit. `int8-tensor` is the other.
Source    transformers 5 utils/quantization_config.py; compressed_tensors 0.19 quantization/quant_scheme.py;
          bitsandbytes 0.50; torchao 0.18 quantization/quant_api.py; optimum-quanto 0.2 qtypes.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches

from refquant import schemes
from refquant.errors import SchemeError
from refquant.gguf.file_types import ALIASES, FILE_TYPES

LAYOUT_NAMES = ("compressed-tensors", "gptq", "gptq_v2", "awq-gemm", "awq-gemv", "bitsandbytes", "gguf")


@dataclass(frozen=True, slots=True)
class Meaning:
    """A spelling in our words. weights and activations are schemes or "" for 16 or 32-bit numbers left alone; a GGUF
    file type stands in weights with layout "gguf"."""

    weights: str
    activations: str = ""
    method: str = "nearest"
    layout: str = "compressed-tensors"
    options: tuple[tuple[str, object], ...] = ()  # of the method
    ignore: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        extra = "".join(f", {name} {value}" for name, value in self.options)
        lines = [
            f"weights      {self.weights or 'as they are'}",
            f"activations  {self.activations or 'as they are'}",
            f"method       {self.method}{extra}",
            f"layout       {self.layout}",
        ]
        lines += [f"ignore       {', '.join(self.ignore)}"] if self.ignore else []
        return "\n".join([*lines, *(f"note         {note}" for note in self.notes)])


_TOKEN, _FP8 = "int8-token", "fp8_e4m3fn-channel"
_MXFP4, _MXFP8, _NVFP4 = (f"{name}@compressed-tensors" for name in ("mxfp4", "mxfp8_e4m3", "nvfp4"))
_BNB8 = Meaning("int8-token@bitsandbytes", "int8-token@bitsandbytes", layout="bitsandbytes")
_NF4 = Meaning("nf4", layout="bitsandbytes")
NAMES: dict[str, Meaning] = {
    "W16A16": Meaning("", notes=("nothing is quantized",)),
    "W4A16": Meaning("int4-g128"),
    "W4A16_ASYM": Meaning("int4-g128-asym"),
    "W8A16": Meaning("int8-channel"),
    "W8A8": Meaning("int8-channel", _TOKEN),
    "INT8": Meaning("int8-channel", _TOKEN),
    "W4A8": Meaning("int4-g128", _TOKEN),
    "FP8_DYNAMIC": Meaning(_FP8, "fp8_e4m3fn-token"),
    "FP8": Meaning(_FP8, "fp8_e4m3fn-token", notes=("activations get a scale for each token, not one that is static",)),
    "FP8_BLOCK": Meaning("fp8_e4m3fn-b128x128", "fp8_e4m3fn-g128"),
    "MXFP4": Meaning(_MXFP4, _MXFP4),
    "MXFP4A16": Meaning(_MXFP4),
    "MXFP8": Meaning(_MXFP8, _MXFP8),
    "MXFP8A16": Meaning(_MXFP8),
    "NVFP4": Meaning(_NVFP4, _NVFP4, notes=("inputs need a calibration text; NVFP4A16 leaves them alone",)),
    "NVFP4A16": Meaning(_NVFP4),
    "int8": Meaning("int8-channel"),
    "int4": Meaning("int4-g128"),
    "fp8": Meaning(_FP8),
    "nf4": _NF4,
    "nf4-dq": dataclasses.replace(_NF4, weights="nf4-dq"),
    "fp4": Meaning("bnb_fp4", layout="bitsandbytes"),
    "load_in_8bit": _BNB8,
    "load_in_4bit": Meaning("bnb_fp4", layout="bitsandbytes", notes=("bnb_4bit_quant_type is fp4 unless nf4 is said",)),
    "qlora": dataclasses.replace(_NF4, weights="nf4-dq"),
    "llm_int8": _BNB8,
    "awq": Meaning("uint4-g128", method="awq", layout="awq-gemm"),
    "gptq": Meaning("int4-g128", method="gptq", layout="gptq"),
    "smoothquant": Meaning("int8-channel", _TOKEN, method="smoothquant"),
    "qint8": Meaning("int8-channel@quanto"),
    "qint4": Meaning("uint4-g128@quanto"),
    "int8_weight_only": Meaning("int8-channel@torchao"),
    "int4_weight_only": Meaning("uint4-g128@tinygemm"),
    "int8_dynamic_activation_int8_weight": Meaning("int8-channel@torchao", _TOKEN),
}
_BNB_IGNORED = {
    "bnb_4bit_compute_dtype": "is of the runtime: nothing of it is stored in the codes",
    "bnb_4bit_quant_storage": "changes how bytes are viewed, not the bytes; uint8 is written",
    "llm_int8_threshold": "is of the runtime: which inputs stay in 16 bits",
    "llm_int8_enable_fp32_cpu_offload": "is of the runtime",
    "llm_int8_has_fp16_weight": "is of training",
}
KEYWORDS: dict[str, str] = {
    "bnb_4bit_quant_type": "names the levels: nf4, or fp4 (bnb_fp4 here), its default",
    "bnb_4bit_use_double_quant": "stores scales in 8 bits: nf4-dq, bnb_fp4-dq",
    "llm_int8_skip_modules": "is `ignore` of a recipe",
    **_BNB_IGNORED,
    "bits": "with group_size and sym names the scheme: int4-g128",
    "group_size": "is the g128 of int4-g128; -1 is a scale for each row, int4-channel",
    "sym": "false gives codes a zero point: uint4-g128",
    "desc_act": "is `order: activation` of the method gptq",
    "static_groups": "is the same option of the method gptq",
    "damp_percent": "is `damp` of the method gptq",
    "checkpoint_format": "is the layout: gptq or gptq_v2",
    "w_bit": "is bits, of AutoAWQ",
    "q_group_size": "is group_size, of AutoAWQ",
    "zero_point": "true gives codes a zero point: uint4-g128, AutoAWQ's default",
    "version": "is the layout: gemm is awq-gemm, gemv is awq-gemv",
    "modules_to_not_convert": "is `ignore` of a recipe",
}  # of BitsAndBytesConfig, GPTQConfig and AwqConfig, beside load_in_4bit and load_in_8bit


def explain(said: str | Mapping[str, object]) -> Meaning:
    """What a name, a scheme or the keywords of another framework mean. Raises SchemeError, which names the nearest."""
    if isinstance(said, Mapping):
        return _keywords(dict(said))
    if not isinstance(said, str):
        raise SchemeError(f"spellings: format = {type(said).__name__}, expected a name or keywords")
    for name in (said, said.lower(), said.upper()):
        if name in NAMES:
            return NAMES[name]
    if said in KEYWORDS:
        raise SchemeError(f"spellings: {said} {KEYWORDS[said]}; expected beside load_in_4bit or bits, as a keyword")
    upper = said.upper()
    if upper in FILE_TYPES or upper in ALIASES:
        return Meaning(ALIASES.get(upper, upper), layout="gguf")
    try:
        scheme = schemes.parse(said)
    except SchemeError as error:
        near = get_close_matches(said, [*NAMES, *FILE_TYPES], n=3, cutoff=0.6)
        hint = f"; nearest of other frameworks: {', '.join(near)}" if near else ""
        raise SchemeError(f"{error}{hint}") from error
    four_bit = scheme.head in ("nf4", "bnb_fp4")
    return Meaning(said, layout="bitsandbytes" if four_bit else "compressed-tensors")


def _keywords(said: dict[str, object]) -> Meaning:
    method = said.pop("quant_method", None)
    if method == "bitsandbytes" or any(k.startswith(("load_in_", "bnb_", "llm_int8_")) for k in said):
        return _bitsandbytes(said)
    if method in ("gptq", "awq") or "bits" in said or "w_bit" in said:
        return _integers(said, method)
    raise SchemeError(f"spellings: keywords {sorted(said)[:6]}, expected load_in_4bit, load_in_8bit or bits")


def _bitsandbytes(said: dict[str, object]) -> Meaning:
    four, eight = said.pop("load_in_4bit", False), said.pop("load_in_8bit", False)
    kind = said.pop("bnb_4bit_quant_type", "fp4")
    double, skipped = said.pop("bnb_4bit_use_double_quant", False), said.pop("llm_int8_skip_modules", None) or []
    if bool(four) == bool(eight):
        raise SchemeError(f"spellings: load_in_4bit, load_in_8bit = {four!r}, {eight!r}, expected one of the two")
    if kind not in ("fp4", "nf4"):
        raise SchemeError(f"spellings: bnb_4bit_quant_type = {kind!r}, expected fp4 or nf4")
    notes = tuple(f"{name} {why}" for name, why in _BNB_IGNORED.items() if said.pop(name, None) is not None)
    if said:
        raise SchemeError(f"spellings: keyword {sorted(said)[0]!r} is unknown to bitsandbytes' configuration")
    found = NAMES["load_in_8bit"] if eight else Meaning("nf4" if kind == "nf4" else "bnb_fp4", layout="bitsandbytes")
    weights = f"{found.weights}-dq" if four and double else found.weights
    return dataclasses.replace(found, weights=weights, notes=notes, ignore=_names(skipped))


def _integers(said: dict[str, object], method: object) -> Meaning:
    """GPTQConfig (bits, group_size, desc_act, sym, damp_percent), AwqConfig and quant_config of AutoAWQ (w_bit ...)."""
    awq = method == "awq" or "w_bit" in said or "zero_point" in said
    bits = said.pop("bits", said.pop("w_bit", 4))
    size = said.pop("group_size", said.pop("q_group_size", 128))
    symmetric = not said.pop("zero_point", True) if awq else said.pop("sym", True)
    if type(bits) is not int or type(size) is not int or bits not in range(2, 9) or (size != -1 and size < 1):
        raise SchemeError(f"spellings: bits, group_size = {bits!r}, {size!r}, expected 2 to 8, and -1 or a group size")
    word = "channel" if size == -1 else f"g{size}"
    scheme = f"int{bits}-{word}" if symmetric else f"uint{bits}-{word}"
    ignore = _names(said.pop("modules_to_not_convert", None) or [])
    options: dict[str, object] = {}
    if said.pop("desc_act", False):
        options["order"] = "activation"
    if "damp_percent" in said:
        options["damp"] = said.pop("damp_percent")
    if said.pop("static_groups", False):
        options["static_groups"] = True
    version, form = str(said.pop("version", "gemm")).lower(), str(said.pop("checkpoint_format", "gptq"))
    known = {"dataset", "tokenizer", "true_sequential", "model_seqlen", "backend", "pack_dtype", "lm_head", "meta"}
    unknown = sorted(set(said) - known)
    if unknown:
        raise SchemeError(f"spellings: keyword {unknown[0]!r} is unknown, expected those of GPTQConfig or AwqConfig")
    notes = tuple(f"{name} is not looked at" for name in sorted(said))
    layout = f"awq-{version}" if awq else form
    return Meaning(scheme, "", "awq" if awq else "gptq", layout, tuple(options.items()), ignore, notes)


def _names(names: object) -> tuple[str, ...]:
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise SchemeError(f"spellings: modules = {str(names)[:80]}, expected a list of names")
    return tuple(names)
