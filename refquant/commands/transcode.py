"""`refquant transcode`: the quantized weights of a safetensors file in another layout, proved equal."""

import argparse
import json

from refquant.inspection import printable
from refquant.layouts import LAYOUTS, transcode_file

FROM = [name for name in LAYOUTS if not name.startswith(("gguf", "onnx"))]
EPILOG = """\
Every weight is read back from what was written and compared with the source, value by value. Where the target cannot
hold the same numbers nothing is written, and the reason is printed. NVFP4 between compressed-tensors and ModelOpt needs
--tolerance 2.4e-7: their tensor scales are reciprocals of each other, and a reciprocal is rounded.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Write a safetensors file again with its quantized weights in another layout, losslessly."
    parser.epilog = EPILOG
    parser.add_argument("source", metavar="IN.safetensors")
    parser.add_argument("destination", metavar="OUT.safetensors")
    parser.add_argument("--to", required=True, choices=FROM, metavar="LAYOUT", help=", ".join(FROM))
    parser.add_argument("--from", dest="layout", choices=FROM, metavar="LAYOUT", help="default: detected")
    parser.add_argument("--bits", type=int, help="of the source, where its arrays do not tell")
    parser.add_argument("--source-group-size", type=int, help="of the source, where its arrays do not tell")
    parser.add_argument("--group-size", type=int, help="of the result; default: the same groups")
    parser.add_argument("--tolerance", type=float, default=0.0, help="largest relative difference; default 0")


def run(arguments: argparse.Namespace) -> list[str]:
    """What was done, and the entry for config.json. Raises QuantError."""
    said = {"bits": arguments.bits, "source_group_size": arguments.source_group_size}
    done = transcode_file(
        arguments.source,
        arguments.destination,
        arguments.to,
        layout=arguments.layout,
        group_size=arguments.group_size,
        tolerance=arguments.tolerance,
        **{name: value for name, value in said.items() if value is not None},
    )
    equal = "every value equal" if arguments.tolerance == 0 else f"every value within {arguments.tolerance:g}"
    lines = [
        f"{printable(arguments.destination)}: {done.layers} weights from {done.source} to {done.target}, {equal}; "
        f"{done.copied} other tensors copied"
    ]
    if done.config is not None:
        key = "quantization" if done.target == "mlx" else "quantization_config"
        lines.append(f"in config.json: {json.dumps({key: done.config})}")
    return lines
