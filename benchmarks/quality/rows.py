"""What is measured: one Row for every method and format.

    weights      the format of the matrices, in the spelling of schemes.py; "" leaves them in 16 bits
    activations  the format of their inputs, or ""
    method       which of fits.FITS quantizes them
    rotated      QuaRot: the residual stream turned by a randomized Hadamard matrix, and a Hadamard transform on the
                 inputs of o_proj and down_proj while the model runs

Embedding and output matrix stay as they are, as in the papers. Scales are float16 where the format leaves it open.
"""

from dataclasses import dataclass

ASYMMETRIC, SYMMETRIC = "uint{bits}-g{group}-f16", "int{bits}-g{group}-f16"
UNCALIBRATED = ("float", "nearest", "hqq", "magnitude", "llm_int8", "gguf")
FIRST = {
    *("float", "gptq", "awq", "hqq", "sparsegpt", "wanda", "magnitude", "llm_int8"),
    *("uint4-g64-f16", "uint3-g64-f16", "uint2-g64-f16", "int4-g64-f16", "int8-channel-restricted", "int4-channel-f16"),
    *("nf4", "mxfp4", "nvfp4", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q4_0"),
}  # methods and formats
Options = tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A method with its settings."""

    family: str  # heading of its table
    label: str
    method: str
    weights: str = ""
    activations: str = ""
    options: Options = ()
    rotated: bool = False

    @property
    def key(self) -> str:
        """The name of the row in results: unique, and all that decides what is computed."""
        said = [self.method, self.weights, self.activations, *(f"{k}={v}" for k, v in self.options)]
        return " ".join(part for part in [*said, "rotated" * self.rotated] if part)

    @property
    def calibrated(self) -> bool:
        """Whether it looks at inputs."""
        return self.method not in UNCALIBRATED or ("imatrix", True) in self.options

    @property
    def calibration_windows(self) -> int:
        """How many windows it looks at: many where whole Hessians are estimated, few where means and maxima are."""
        if not self.calibrated:
            return 0
        return 32 if self.method in ("gptq", "sparsegpt", "autoround") else 16

    @property
    def turn(self) -> tuple[bool, bool, int]:
        """Rows with the lesser turn are measured first: what comparisons need, the cheap ones first; AutoRound last."""
        first = self.weights in FIRST or (self.method in FIRST and "uint8" not in self.weights)
        return self.method == "autoround", not first, self.calibration_windows


def _linear() -> list[Row]:
    rows = []
    for bits in (8, 4, 3, 2):
        asym, sym = (spelling.format(bits=bits, group=64) for spelling in (ASYMMETRIC, SYMMETRIC))
        rows += [
            Row("Rounding to nearest", "RTN, symmetric", "nearest", sym),
            Row("Rounding to nearest", "RTN, asymmetric", "nearest", asym),
            Row("Calibrated", "GPTQ", "gptq", asym),
            Row("Calibrated", "GPTQ, act-order", "gptq", asym, options=(("order", "activation"),)),
            Row("Calibrated", "AWQ", "awq", asym),
            Row("Data-free search", "HQQ", "hqq", f"{asym}@hqq"),
        ]
    for bits in (4, 3, 2):
        asym = ASYMMETRIC.format(bits=bits, group=64)
        rows.append(Row("Calibrated", "AutoRound, 40 steps", "autoround", asym, options=(("iterations", 40),)))
    for bits, group in ((4, 32), (4, 128), (3, 32), (3, 128), (2, 32), (2, 128)):
        rows.append(Row("Rounding to nearest", "RTN, asymmetric", "nearest", ASYMMETRIC.format(bits=bits, group=group)))
    for group in (32, 128):
        rows.append(Row("Calibrated", "GPTQ", "gptq", ASYMMETRIC.format(bits=2, group=group)))
    rows.append(Row("Rounding to nearest", "RTN, symmetric, a scale a row", "nearest", "int4-channel-f16"))
    rows.append(Row("Calibrated", "SmoothQuant, weights only", "smoothquant", "uint4-g64-f16"))
    return rows


def _formats() -> list[Row]:
    small = "Small floats and codebooks"
    rows = [Row(small, label, "nearest", weights) for label, weights in (
        ("NF4", "nf4"), ("NF4, double quantization", "nf4-dq"), ("FP4 (bitsandbytes)", "bnb_fp4"), ("NVFP4", "nvfp4"),
        ("MXFP4", "mxfp4"), ("MXFP4, even", "mxfp4-even"), ("MXFP6 E2M3", "mxfp6_e2m3"), ("MXFP8 E4M3", "mxfp8_e4m3"),
        ("FP8 E4M3", "fp8_e4m3fn-channel"),
    )]  # fmt: skip
    plain = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS")
    weighted = ("Q4_K", "Q3_K", "Q2_K", "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
    rows += [Row("GGUF", name, "gguf", name) for name in plain]
    rows += [Row("GGUF", f"{name}, imatrix", "gguf", name, options=(("imatrix", True),)) for name in weighted]
    return rows


def _pruned() -> list[Row]:
    rows = []
    for pattern, share in ((None, "50 %"), ((2, 4), "2:4")):
        for label, method in (("SparseGPT", "sparsegpt"), ("Wanda", "wanda"), ("Magnitude", "magnitude")):
            rows.append(Row("Pruned, 16 bits", f"{label} {share}", method, options=(("pattern", pattern),)))
    return rows


def _both() -> list[Row]:
    family, channel, token = "Weights and activations", "int8-channel-restricted", "int8-token-restricted"
    static = (("static", True),)
    smooth = [
        Row(family, f"SmoothQuant W8A8, alpha {alpha}, {label}", "smoothquant", weights, activations, (*said, *options))
        for label, weights, activations, options in (
            ("a scale a token", channel, token, ()),
            ("static, per tensor", "int8-restricted", "int8-restricted", static),
        )
        for alpha, said in ((0.5, (("alpha", 0.5),)), (0.8, (("alpha", 0.8),)))
    ]
    four, four_token = "int4-channel-f16", "int4-token"
    return [
        Row(family, "W8A8, a scale a token", "nearest", channel, token),
        Row(family, "W8A8, static, per tensor", "static", "int8-restricted", "int8-restricted"),
        *smooth,
        Row(family, "LLM.int8()", "llm_int8", "int8-channel", "int8-token"),
        Row(family, "FP8 W8A8", "nearest", "fp8_e4m3fn-channel", "fp8_e4m3fn-token"),
        Row(family, "W4A4", "nearest", four, four_token),
        Row(family, "QuaRot W4A4", "nearest", four, four_token, rotated=True),
        Row(family, "QuaRot W4A4, GPTQ", "gptq", four, four_token, rotated=True),
        Row(family, "MXFP4 W4A4", "nearest", "mxfp4", "mxfp4"),
        Row(family, "MXFP4 W4A4, rotated", "nearest", "mxfp4", "mxfp4", rotated=True),
        Row(family, "NVFP4 W4A4", "nearest", "nvfp4", "nvfp4"),
        Row(family, "NVFP4 W4A4, rotated", "nearest", "nvfp4", "nvfp4", rotated=True),
    ]


def _turned() -> list[Row]:
    return [
        Row("Rotated, weights only", f"{label}, rotated", "nearest", weights, rotated=True)
        for label, weights in (("RTN, symmetric, a scale a row", "int4-channel-f16"), ("NF4", "nf4"))
    ]


ROWS: tuple[Row, ...] = (Row("Float", "BF16", "float"), *_linear(), *_formats(), *_pruned(), *_both(), *_turned())
