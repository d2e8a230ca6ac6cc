"""The files that the mutation check is made of: every one that computes the codes, values or bytes of a format."""

from fnmatch import fnmatchcase

from conformance.mutation.mutants import ROOT

NUMBERS = "affine affine_scale bits double_quant dynamic_map groups linear_dialects linear_rows rounding"
CODEBOOKS = "af4 codebook fitted fp4 kmeans nf4 quantile"
FLOATS = "minifloat mx mx_scale nvfp4 peak scaled_minifloat scaled_values"
ALGORITHMS = (
    "adaround adam autoround awq column_grids column_order compensated easyquant factor gptaq gptq grid hessian hqq "
    "layer_inputs ldlq llm_int8 low_rank magnitude nearest obq smoothquant sparse_split sparsegpt sparsity wanda "
    "weighted_rounding zeroquant"
)
VECTORS = "aqlm exl3 quip_sharp trellis vptq"
CACHES = "kivi kv_cache kvquant"
TRAINING = "fake_quant hadamard obd obs rotations zero_plus_plus"
GGML = (
    "bit_streams fp4 i_encoders i_neighbours i_quants importance iq1_encoders iq4_encoders k_encoders k_packing "
    "k_quants k_weighted legacy legacy_weighted planes scalars scale_search ternary"
)
LAYOUTS = (
    "arrays awq bitsandbytes blocks compressed_tensors deepspeed floating gptq hqq linear microscaled mlx modelopt "
    "onnx quanto torchao words"
)
OBSERVERS = "entropy histogram magnitudes mean_squared_error min_max parameters percentile"
FILES = tuple(
    f"refquant/{folder}{name}.py"
    for folder, names in (
        ("", f"{NUMBERS} {CODEBOOKS} {FLOATS} {ALGORITHMS} {VECTORS} {CACHES} {TRAINING}"),
        ("gguf/", GGML),
        ("layouts/", LAYOUTS),
        ("observers/", OBSERVERS),
    )
    for name in sorted(names.split())
)


def files(pattern: str = "*") -> list[str]:
    """Those whose path, or name without folder and suffix, matches the glob."""
    return [
        file
        for file in FILES
        if fnmatchcase(file, pattern) or fnmatchcase(file.removeprefix("refquant/").removesuffix(".py"), pattern)
    ]


def missing() -> list[str]:
    """Files in scope that are not there."""
    return [file for file in FILES if not (ROOT / file).is_file()]
