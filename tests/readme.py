"""The tables of README.md, made from the registries: `make readme` runs this file, which writes them."""

import re
from pathlib import Path

from refquant import gguf, schemes
from runtime.kernels import PRODUCTS

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = (
    *("int8", "int8-channel", "int4-g128", "int4-g128-asym", "uint2-g32", "nf4", "nf4-dq", "af4", "bnb_fp4"),
    *("dynamic8", "kmeans4-g64", "quantile4-g64", "fp8_e4m3fn", "fp8_e5m2", "fp6_e2m3", "fp4_e2m1"),
    *("mxfp4", "mxfp6_e2m3", "mxfp8_e4m3", "mxint8", "nvfp4"),
)
NOT_WEIGHTS = {"I8", "I16", "I32", "I64", "F64", "Q8_1", "Q8_K"}  # no model stores its matrices in these


def formats() -> str:
    """One row a format: examples of the families, then the types of ggml by their bits."""
    types = [f for f in gguf.FORMATS.values() if f.name not in NOT_WEIGHTS]
    names = [*EXAMPLES, *(f.name for f in sorted(types, key=lambda f: (f.bits_per_weight, f.ggml_id)))]
    lines = ["| format | bits per weight | quantize | runtime |", "|---|---|---|---|"]
    for name in names:
        scheme = schemes.parse(name)
        bits = f"{scheme.bits_per_weight:.4f}".rstrip("0").rstrip(".")
        runtime = "kernel" if name in PRODUCTS else "as float32" if name in gguf.FORMATS else ""
        lines.append(f"| `{name}` | {bits} | {'yes' if scheme.can_encode else ''} | {runtime} |")
    return "\n".join(lines)


def current(text: str) -> str:
    """`text` with its tables as the registries have them now."""
    return re.sub(r"(<!-- formats -->\n).*?(<!-- /formats -->)", rf"\g<1>{formats()}\n\g<2>", text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(current(README.read_text("utf-8")), encoding="utf-8")
