"""`refquant detect`: which layout the quantized weights of a file have, and how one knows."""

import argparse
import json
from collections import defaultdict

from refquant.inspection import printable
from refquant.layouts import Detection, detect_file


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Tell the layout of the quantized weights in a safetensors, GGUF or ONNX file (GPTQ with which zero points, "
        "AWQ GEMM or GEMV, compressed-tensors, NVFP4 with which tensor scale ...), with the evidence."
    )
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print JSON, a line of evidence for every layer")


def run(arguments: argparse.Namespace) -> list[str]:
    """A paragraph for each layout found, or JSON. Raises QuantError."""
    found = detect_file(arguments.file)
    if arguments.json:
        return [json.dumps({name: _facts(detection) for name, detection in found.items()}, indent=1)]
    if not found:
        return [f"{printable(arguments.file)}: no quantized weight that a layout knows"]
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name, detection in found.items():
        alike[detection.layouts].append(name)
    lines = []
    for layouts, names in alike.items():
        title = " or ".join(layouts) or "unknown"
        lines.append(f"{title}{'' if len(layouts) < 2 else ' (ambiguous)'}: {len(names)} weights")
        lines.append(f"  {printable(names[0].rstrip('.'))}{' ...' if len(names) > 1 else ''}")
        lines += [f"  - {printable(said, 300)}" for said in found[names[0]].evidence]
    return lines


def _facts(detection: Detection) -> dict[str, object]:
    return {"layouts": detection.layouts, "options": detection.options, "evidence": detection.evidence}
