"""Which ggml type llama-quantize gives to each matrix of a Llama or Qwen2 model, without an importance matrix.

    mix         attn_v                  ffn_down                 output, or tied token_embd    other matrices
    Q4_0 ...    itself                  itself                   Q6_K                          itself
    Q8_0        itself                  itself                   itself                        itself
    Q4_K_M      Q6_K in "more" layers   Q6_K in "more" layers    Q6_K                          Q4_K
    Q5_K_M      the same                the same                 Q6_K                          Q5_K
    IQ4_NL XS   Q5_K if n_group >= 4    Q5_K in the first n/8    Q6_K                          itself
    F16 BF16    itself                  itself                   itself                        itself

"more": layer i of n with i < n/8, i >= 7n/8 or (i - n/8) % 3 == 2, in integers. A matrix whose rows are no whole blocks
of its type gets a type of smaller blocks instead (FALLBACK). Norms, biases, routers and rope_freqs stay F32. Experts
(ffn_down_exps, ffn_down_shexp ...) have the types of what they stand for.

Source   llama.cpp, src/llama-quant.cpp: llama_tensor_get_type_impl, tensor_type_fallback. Without the rules for
         models of 70B and for mixtures of 8 experts.
"""

from dataclasses import dataclass

from refquant.errors import SchemeError
from refquant.gguf import FORMATS


@dataclass(frozen=True, slots=True)
class Mix:
    """What is asked for: the type of most matrices and llama.cpp's number of the mix, general.file_type."""

    base: str
    file_type: int


MIXES = {
    "F16": Mix("F16", 1),
    "BF16": Mix("BF16", 32),
    "Q8_0": Mix("Q8_0", 7),
    "Q4_0": Mix("Q4_0", 2),
    "Q4_1": Mix("Q4_1", 3),
    "Q5_0": Mix("Q5_0", 8),
    "Q5_1": Mix("Q5_1", 9),
    "Q4_K_M": Mix("Q4_K", 15),
    "Q5_K_M": Mix("Q5_K", 17),
    "Q6_K": Mix("Q6_K", 18),
    "IQ4_NL": Mix("IQ4_NL", 25),
    "IQ4_XS": Mix("IQ4_XS", 30),
}
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0", "IQ4_XS": "IQ4_NL"}


def lookup(mix: str) -> Mix:
    """The record of a name. Raises SchemeError."""
    if mix not in MIXES:
        raise SchemeError(f"type_mix: mix = {mix!r}, expected one of {', '.join(MIXES)}")
    return MIXES[mix]


def matrix_type(mix: str, role: str, n_in: int, layer: int, n_layer: int, n_group: int, tied: bool) -> str:
    """The type of a matrix with rows of n_in weights. `role` is its name without layer and suffix: "attn_v"."""
    base, role = lookup(mix).base, role.removesuffix("_exps").removesuffix("_shexp")
    if FORMATS[base].is_scalar:
        return base
    kind = base
    if role == "output" or (role == "token_embd" and tied):
        kind = base if base == "Q8_0" else "Q6_K"
    elif mix in ("Q4_K_M", "Q5_K_M") and role in ("attn_v", "ffn_down") and _more_bits(layer, n_layer):
        kind = "Q6_K"
    elif mix in ("IQ4_NL", "IQ4_XS") and (
        (role == "attn_v" and n_group >= 4) or (role == "ffn_down" and layer < n_layer // 8)
    ):
        kind = "Q5_K"
    return FALLBACK[kind] if n_in % FORMATS[kind].values else kind


def _more_bits(layer: int, n_layer: int) -> bool:
    eighth = n_layer // 8
    return layer < eighth or layer >= 7 * n_layer // 8 or (layer - eighth) % 3 == 2
