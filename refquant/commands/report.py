"""`refquant report`: what quantization did to a model, on one page of HTML."""

import argparse
import dataclasses
import json
import math
from pathlib import Path

from refquant.errors import QuantError
from refquant.inspection import printable
from refquant.pipeline.progress import Bar
from refquant.report import Comparison, compare, page

EPILOG = """\
examples
  refquant report Qwen2.5-0.5B q4 --text text.txt -o report.html
  refquant report model-F16.gguf model-Q4_K_M.gguf --text text.txt --json

The page has no scripts and needs no network. Progress is shown on standard error where that is a terminal.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Compare a model with its quantized form on a text: errors of matrices and of predictions."
    parser.epilog = EPILOG
    parser.add_argument("original", metavar="ORIGINAL", help="a Hugging Face folder, a quantized one, or a GGUF file")
    parser.add_argument("quantized", metavar="QUANTIZED", help="any of these")
    parser.add_argument("--text", required=True, metavar="FILE", help="a text, or JSONL with text or messages")
    parser.add_argument("-o", "--out", metavar="FILE", help="the page, default report.html")
    parser.add_argument("--samples", type=int, default=8, help="sequences of the text, default 8")
    parser.add_argument("--seq-len", type=int, default=256, help="tokens of a sequence, default 256")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON; a page only if --out names it")


def run(arguments: argparse.Namespace) -> list[str]:
    """A line that names the page, or JSON. Raises QuantError."""
    path, wanted = Path(arguments.out or "report.html"), arguments.out or not arguments.json
    if wanted and not path.parent.is_dir():
        raise QuantError(f"{path}: {path.parent} is no folder, expected one to put the page into")
    bar = Bar()
    try:
        found = compare(
            arguments.original,
            arguments.quantized,
            arguments.text,
            samples=arguments.samples,
            seq_len=arguments.seq_len,
            progress=bar,
        )
    finally:
        bar.end()
    if wanted:
        try:
            path.write_text(page(found), encoding="utf-8")
        except OSError as error:
            raise QuantError(f"{path}: cannot be written: {error.strerror or error}") from error
    if arguments.json:
        return [json.dumps(_finite(dataclasses.asdict(found)), indent=1)]
    return [f"{printable(str(path))}: {_summary(found)}"]


def _summary(found: Comparison) -> str:
    p = found.predictions
    bits = f"{found.quantized.bits:.2f} bits a parameter"
    return f"{bits}, perplexity {p.perplexity:.4g} -> {p.perplexity_quantized:.4g}, KL {p.kl_mean:.3g} nats"


def _finite(value: object) -> object:
    """JSON has no infinity: null."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
