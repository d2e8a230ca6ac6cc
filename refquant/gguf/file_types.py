"""File types ("Q4_K_M"): which tensor type each tensor of a model gets when a whole file is quantized.

A file type is a base type for most matrices, and rules that give more bits to what suffers most from few. The rules
look at the name of a tensor (its role), at its place among the tensors of the same role, and at the model.

    select(tensors, lookup("Q4_K_M"), Model.from_metadata(...)) -> {name: type}

    kept       what is not a matrix of weights: fewer than two axes, norms, routers, small tables (`is_quantized`)
    asked for  `Choices`: a type for the output, for the token embedding, for names that match an expression
    output     Q6_K, or what `_output` says; the token embedding where it serves as the output
    others     by role, below; "more" layers are the first eighth, the last eighth and every third between
    fallback   a row that is no whole number of blocks gets a type of smaller blocks (FALLBACK), at last F16

Order      some rules count how many tensors of a role came before, so tensors are visited as llama.cpp sorts them:
           by `file_order`, or, where a split model stays split, as they lie in the files.
Source     llama.cpp, src/llama-quant.cpp: tensor_allows_quantization, llama_tensor_get_type, tensor_type_fallback;
           include/llama.h, enum llama_ftype; tools/quantize/quantize.cpp for the spellings.
Differs    a model of an architecture that llama.cpp does not know is quantized like any other.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np

from refquant.errors import RangeError, SchemeError, UnsupportedError
from refquant.gguf.formats import FORMATS

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FileType:
    """A name, the number that `general.file_type` gets, and the type of most matrices."""

    name: str
    number: int
    base: str


_TABLE = (
    ("F32", 0, "F32"), ("F16", 1, "F16"), ("Q4_0", 2, "Q4_0"), ("Q4_1", 3, "Q4_1"), ("Q8_0", 7, "Q8_0"),
    ("Q5_0", 8, "Q5_0"), ("Q5_1", 9, "Q5_1"), ("Q2_K", 10, "Q2_K"), ("Q3_K_S", 11, "Q3_K"), ("Q3_K_M", 12, "Q3_K"),
    ("Q3_K_L", 13, "Q3_K"), ("Q4_K_S", 14, "Q4_K"), ("Q4_K_M", 15, "Q4_K"), ("Q5_K_S", 16, "Q5_K"),
    ("Q5_K_M", 17, "Q5_K"), ("Q6_K", 18, "Q6_K"), ("IQ2_XXS", 19, "IQ2_XXS"), ("IQ2_XS", 20, "IQ2_XS"),
    ("Q2_K_S", 21, "Q2_K"), ("IQ3_XS", 22, "IQ3_S"), ("IQ3_XXS", 23, "IQ3_XXS"), ("IQ1_S", 24, "IQ1_S"),
    ("IQ4_NL", 25, "IQ4_NL"), ("IQ3_S", 26, "IQ3_S"), ("IQ3_M", 27, "IQ3_S"), ("IQ2_S", 28, "IQ2_XS"),
    ("IQ2_M", 29, "IQ2_S"), ("IQ4_XS", 30, "IQ4_XS"), ("IQ1_M", 31, "IQ1_M"), ("BF16", 32, "BF16"),
    ("TQ1_0", 36, "TQ1_0"), ("TQ2_0", 37, "TQ2_0"), ("MXFP4_MOE", 38, "MXFP4"), ("Q1_0", 40, "Q1_0"),
    ("Q2_0", 41, "Q2_0"),
)  # fmt: skip
FILE_TYPES = {name: FileType(name, number, base) for name, number, base in _TABLE}
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

FALLBACK = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}
NEEDS_IMATRIX = {"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"}
TOKEN_EMBEDDINGS = ("token_embd.weight", "per_layer_token_embd.weight")

# Parts of names of matrices that stay as they are: routers, convolutions, tables, all of them small.
_KEPT = (
    "_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj",
    "ssm_conv1d", "shortconv.conv.weight", "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight",
    "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight", "time_mix_v0.weight", "time_mix_v1.weight",
    "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight", "time_mix_g1.weight",
    "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
    "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd",
    ".patch_merger", "a.rvq.codebook", "mm.a.code_embd",
)  # fmt: skip
_KEPT_NAMES = ("position_embd.weight", "token_types.weight")
_KEPT_GLM5 = (
    "hc_", "indexer.attn_q_b", "indexer.attn_k", "indexer.proj", "indexer_compressor_gate", "indexer_compressor_ape",
    "ssm_f_a.weight", "ssm_f_b.weight", "ssm_g_a.weight", "ssm_g_b.weight", "ssm_beta.weight", "attn_kv_a_mqa.weight",
    "attn_k_b.weight", "attn_v_b.weight",
)  # fmt: skip
_ROLES = (  # the first part that a name contains
    ("attn_qkv.weight", "attn_v"), ("attn_kv_b.weight", "attn_v"), ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"), ("attn_q.weight", "attn_q"), ("attn_output.weight", "attn_output"),
    ("ffn_up", "ffn_up"), ("ffn_gate", "ffn_gate"), ("ffn_down", "ffn_down"),
)  # fmt: skip
_LAYERS_OF_70B = {"llama": 80, "llama-embed": 80, "qwen2": 80, "deci": 80, "olmo": 80, "jais2": 68}


@dataclass(frozen=True, slots=True)
class Model:
    """What the rules want to know of a model."""

    arch: str
    n_layer: int
    n_group: int  # query heads that share a key head; 0 where the first layer has no attention
    n_expert: int = 0
    is_70b: bool = False  # eight query heads share attn_v, which can afford more bits

    @classmethod
    def from_metadata(cls, metadata: Mapping) -> "Model":
        """Raises RangeError where the architecture, the number of layers or that of heads is missing or absurd."""
        arch = metadata.get("general.architecture")
        if not isinstance(arch, str):
            raise RangeError(f"file_types: metadata 'general.architecture' = {arch!r}, expected a name")
        n_layer = _number(metadata, f"{arch}.block_count", None)
        heads = _number(metadata, f"{arch}.attention.head_count", 0)
        kv_heads = _number(metadata, f"{arch}.attention.head_count_kv", heads)
        n_expert = _number(metadata, f"{arch}.expert_count", 0)
        is_70b = n_layer == _LAYERS_OF_70B.get(arch)
        if arch.startswith("llama"):
            is_70b = is_70b and heads != kv_heads and n_expert != 8
        return cls(arch, n_layer, heads // kv_heads if kv_heads else 0, n_expert, is_70b)


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user asks for beside the file type."""

    output_type: str | None = None
    token_embedding_type: str | None = None
    tensor_types: tuple[tuple[re.Pattern, str], ...] = ()  # the first expression found in a name decides
    pure: bool = False  # the base type everywhere, without the rules
    leave_output: bool = False


def lookup(name: str) -> FileType:
    """A file type by its name, in any case, or its number. Raises SchemeError."""
    upper = name.upper()
    found = FILE_TYPES.get(ALIASES.get(upper, upper))
    if found is None and name.isdecimal():
        found = next((file_type for file_type in FILE_TYPES.values() if file_type.number == int(name)), None)
    if found is None:
        near = get_close_matches(upper, FILE_TYPES, n=3, cutoff=0.5) or list(FILE_TYPES)
        raise SchemeError(f"file_types: file type = {name!r}, expected one such as {', '.join(near)}")
    return found


def file_order(name: str) -> tuple[int, bytes]:
    """The key by which llama.cpp sorts tensors: those without a layer first, then layer by layer, names by bytes."""
    layer = re.match(r"blk\.(\d+)\.?", name)
    return int(layer[1]) if layer else -1, name.encode(errors="surrogateescape")


def is_quantized(name: str, shape: Shape, arch: str, leave_output: bool = False) -> bool:
    """Whether a tensor (NumPy order) takes part at all."""
    axes = len(shape) - next((i for i, n in enumerate(shape) if n != 1), len(shape))
    kept = _KEPT + _KEPT_GLM5 if arch == "glm5-next" else _KEPT
    return (
        axes >= 2
        and name.endswith("weight")
        and name not in _KEPT_NAMES
        and not any(part in name for part in kept)
        and not (leave_output and name == "output.weight")
    )


def needs_imatrix(name: str, type: str, file_type: FileType) -> bool:
    """Whether llama.cpp refuses to quantize this tensor to `type` without importance."""
    if name == "output.weight" or name in TOKEN_EMBEDDINGS:
        return False
    return type in NEEDS_IMATRIX or (type == "Q2_K" and file_type.name == "Q2_K_S")


def select(
    tensors: Mapping[str, tuple[Shape, str]],
    file_type: FileType,
    model: Model,
    choices: Choices | None = None,
    has_imatrix: bool = False,
) -> dict[str, str]:
    """The type of every tensor: {name: (shape in NumPy order, type)}, in the order of visiting -> {name: type}.

    Raises UnsupportedError where the rows of a tensor fit neither a type nor any fallback, RangeError for a layer of
    experts beyond the model's.
    """
    chosen = choices or Choices()
    roles = Counter(role_of(name) for name in tensors)
    rules = _Rules(file_type, model, has_imatrix, roles, chosen.output_type, chosen.token_embedding_type)
    found = {}
    for name, (shape, type) in tensors.items():
        if is_quantized(name, shape, model.arch, chosen.leave_output):
            type = _select(name, shape, file_type, chosen, rules)
        found[name] = type
    return found


def _select(name: str, shape: Shape, file_type: FileType, choices: Choices, rules: "_Rules") -> str:
    named = next((type for pattern, type in choices.tensor_types if pattern.search(name)), None)
    own_table = name == TOKEN_EMBEDDINGS[1] and named is not None
    if choices.token_embedding_type and name in TOKEN_EMBEDDINGS and not own_table:
        return choices.token_embedding_type
    if choices.output_type and name == "output.weight":
        return choices.output_type
    if FORMATS[file_type.base].is_scalar:
        return file_type.base
    type = named or (file_type.base if choices.pure else rules.type_of(name, shape))
    return fallback(name, type, shape[-1])


def fallback(name: str, type: str, n_in: int) -> str:
    """`type`, or one whose blocks fit into rows of n_in weights. Raises UnsupportedError."""
    if n_in % FORMATS[type].values == 0:
        return type
    if type not in FALLBACK and FORMATS[type].values > 32:
        raise UnsupportedError(
            f"file_types: {name}: rows of {n_in} weights, expected a multiple of {FORMATS[type].values} for {type}"
        )
    smaller = FALLBACK.get(type, type)
    return "F16" if n_in % FORMATS[smaller].values else smaller


def role_of(name: str) -> str:
    """output, token_embd, attn_q, attn_k, attn_v (attn_qkv and attn_kv_b too), attn_output, ffn_up, ffn_gate,
    ffn_down or other."""
    if name == "output.weight":
        return "output"
    if name in TOKEN_EMBEDDINGS:
        return "token_embd"
    return next((role for part, role in _ROLES if part in name), "other")


def more_bits(i: int, n: int) -> bool:
    """Whether layer i of n is one of the "more" layers."""
    return i < n // 8 or i >= 7 * n // 8 or (i - n // 8) % 3 == 2


@dataclass(slots=True)
class _Rules:
    """The rules of one file type for one model. Asked for one tensor after the other: it counts them by role."""

    file_type: FileType
    model: Model
    has_imatrix: bool
    roles: Counter  # of all tensors
    output_type: str | None
    token_embedding_type: str | None
    seen: Counter = field(default_factory=Counter)

    def type_of(self, name: str, shape: Shape) -> str:
        """The type before any fallback."""
        role, mix, base = role_of(name), self.file_type.name, self.file_type.base
        if self.model.arch == "glm5-next" and re.search("attn_q_a|attn_q_b|nextn.eh_proj", name):
            return "Q8_0"
        if role == "output" or (role == "token_embd" and not self.roles["output"]):
            return self._output(shape)
        if mix == "MXFP4_MOE":
            return "MXFP4" if self._is_expert(role, shape) else "Q8_0"
        if role == "token_embd":
            return self.token_embedding_type or _TOKEN_EMBEDDING.get(mix, base)
        if mix in _TWO_BITS:
            return self._two_bits(role)
        if role == "attn_v":
            return self._attn_v()
        if role in ("attn_k", "attn_q"):
            return "Q8_0" if role == "attn_k" and self.model.n_expert == 8 else _ATTN_QK.get(mix, base)
        if role == "ffn_down":
            return self._ffn_down(*self._layer(role, name))
        if role == "attn_output":
            return self._attn_output()
        if role in ("ffn_gate", "ffn_up"):
            i, n = self._layer(role, name)
            return "IQ3_XXS" if mix == "IQ3_XS" and n // 8 <= i < 7 * n // 8 else base
        return base

    def _output(self, shape: Shape) -> str:
        mix, base = self.file_type.name, self.file_type.base
        if self.output_type:
            return self.output_type
        if mix == "MXFP4_MOE" or self.model.arch == "falcon" or shape[-1] % FORMATS[base].values:
            return "Q8_0"
        if mix in _TWO_BITS or mix == "IQ3_XXS":
            return "Q5_K"
        return base if base == "Q8_0" else "Q6_K"

    def _is_expert(self, role: str, shape: Shape) -> bool:
        stacked = len(shape) > 2 and shape[-3] > 1
        return stacked and (self.model.arch != "bailingmoe3" or role.startswith("ffn_"))

    def _two_bits(self, role: str) -> str:
        """IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M."""
        mix, base, experts = self.file_type.name, self.file_type.base, self.model.n_expert
        better = "IQ3_S" if mix in ("IQ2_S", "IQ2_M") else "Q2_K"
        if role == "attn_v":
            return "Q4_K" if self.model.n_group >= 4 or experts >= 4 else better
        if role == "attn_k" and experts == 8:
            return "Q4_K"
        if role == "ffn_down":
            self.seen[role] += 1
            return better if self.seen[role] <= self.model.n_layer // 8 else base
        if role == "attn_output":
            if experts == 8:
                return "Q5_K"
            return {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(mix, base)
        return base

    def _attn_v(self) -> str:
        mix, type, grouped = self.file_type.name, self.file_type.base, self.model.n_group >= 4
        i, n = self.seen["attn_v"], self.roles["attn_v"]
        self.seen["attn_v"] += 1
        if mix == "Q2_K":
            type = "Q4_K" if grouped else "Q3_K"
        elif mix == "IQ3_XXS":
            type = "Q4_K" if grouped else "IQ3_XXS" if self.has_imatrix else "IQ3_S"
        elif mix == "IQ3_M" or (mix in ("Q2_K_S", "IQ3_XS", "IQ3_S") and grouped):
            type = "Q4_K"
        elif mix == "Q3_K_M":
            type = "Q5_K" if i < 2 else "Q4_K"
        elif mix == "Q3_K_L" or (mix in ("IQ4_NL", "IQ4_XS") and grouped) or (mix == "Q4_K_S" and i < 4):
            type = "Q5_K"
        elif mix in ("Q4_K_M", "Q5_K_M") and more_bits(i, n):
            type = "Q6_K"
        if self.model.is_70b and type in ("Q3_K", "Q4_K"):
            type = "Q5_K"
        return "Q8_0" if self.model.n_expert == 8 else type

    def _ffn_down(self, i: int, n: int) -> str:
        mix, base, falcon = self.file_type.name, self.file_type.base, self.model.arch == "falcon"
        early, more = i < n // 8, more_bits(i, n)
        if mix == "Q2_K":
            return "Q3_K"
        if mix == "Q2_K_S":
            return "Q4_K" if early else base
        if mix == "IQ3_XXS" and not self.has_imatrix:
            return "Q4_K" if early else "Q3_K"
        if mix == "Q3_K_M":
            return "Q5_K" if i < n // 16 else "Q4_K" if not falcon or more else "Q3_K"
        if mix == "IQ3_M":
            return "Q4_K" if early or (self.model.n_expert == 8 and more) else base
        if mix == "Q3_K_L":
            return "Q4_K" if falcon else "Q5_K"
        if mix == "Q4_K_M" and falcon:
            return "Q6_K" if i < n // 16 else "Q5_K" if more else "Q4_K"
        if mix in ("Q4_K_M", "Q5_K_M"):
            return "Q6_K" if more else base
        if mix in ("IQ4_NL", "IQ4_XS"):
            return "Q5_K" if early and not self.has_imatrix else base
        if mix == "Q4_K_S":
            return "Q5_K" if early and not falcon else base
        if mix in ("Q4_0", "Q5_0"):
            return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[mix] if early and self.has_imatrix else base
        return base

    def _attn_output(self) -> str:
        mix, base = self.file_type.name, self.file_type.base
        if self.model.arch == "falcon":
            return "Q4_K" if mix == "Q3_K_L" else base
        if self.model.n_expert == 8:
            return "Q5_K" if mix in _ATTN_OUTPUT_OF_EIGHT else base
        return _ATTN_OUTPUT.get(mix, base)

    def _layer(self, role: str, name: str) -> tuple[int, int]:
        """Which layer this is, and of how many: counted, but where there are experts, read off the name."""
        i, n = self.seen[role], self.model.n_layer
        self.seen[role] += 1
        if self.model.n_expert > 1:
            found = re.match(r"blk\.(\d+)\.", name)
            if found is None or int(found[1]) >= n:
                raise RangeError(f"file_types: tensor {name!r}: layer, expected blk.0 to blk.{n - 1}")
            i = int(found[1])
        return i, n


_TWO_BITS = {"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M"}
_TOKEN_EMBEDDING = {
    **dict.fromkeys(("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"), "Q2_K"),
    **dict.fromkeys(("IQ2_S", "IQ2_M", "IQ3_XXS"), "IQ3_S"),
    **dict.fromkeys(("TQ1_0", "TQ2_0", "Q2_0"), "Q4_K"),
}
_ATTN_QK = {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}
_ATTN_OUTPUT = {"Q2_K": "Q3_K", "IQ3_XXS": "IQ3_S", "Q3_K_M": "Q4_K", "Q3_K_L": "Q5_K", "IQ3_M": "Q4_K"}
_ATTN_OUTPUT_OF_EIGHT = {
    "Q2_K", "IQ3_XS", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ3_S", "IQ3_M", "IQ4_XS",
}  # fmt: skip


def _number(metadata: Mapping, key: str, default: int | None) -> int:
    """A number, or the first of an array of one for each layer."""
    value = metadata.get(key, default)
    if isinstance(value, np.ndarray) and value.ndim == 1 and value.size:
        value = value[0]
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise RangeError(f"file_types: metadata {key!r} = {value!r}, expected a number of at least 0")
    return int(value)
