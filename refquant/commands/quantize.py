"""`refquant quantize`: a Hugging Face folder in, a quantized folder or a GGUF file out."""

import argparse
import sys
import warnings

from refquant.inspection import printable
from refquant.memory import human
from refquant.pipeline import Checkpoint, Result, oneshot, open_checkpoint, recipe
from refquant.pipeline.executor import KINDS
from refquant.pipeline.progress import Bar, clock

EPILOG = """\
examples
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --out q4
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --method gptq --calibration text.txt --seq-len 512 --out q4
  refquant quantize Qwen2.5-0.5B --recipe Q4_K_M --out q4.gguf
  refquant quantize Qwen2.5-0.5B --recipe recipe.yaml --layout gptq --out q4
  refquant quantize Qwen2.5-7B --recipe W4A16 --method gptq --calibration t.txt --executor dask://10.0.0.1:8786 --out q

A run that was stopped leaves .OUT.partial beside OUT; the same command goes on with it. `refquant explain` lists names.
GGUF is written faster by `python -m runtime.quantize MODEL OUT.gguf Q4_K_M`, whose encoders are compiled.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Quantize the weights of a Hugging Face folder or a GGUF file, block by block."
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a folder, quantized or not, or a GGUF file")
    parser.add_argument("--recipe", required=True, help="a preset, scheme or spelling (W4A16, nf4, Q4_K_M), or a file")
    parser.add_argument("--out", required=True, metavar="PATH", help="a new folder, or for GGUF a new file")
    known = [*recipe.ROUNDING, "rtn", *recipe.SCALING, *recipe.ROTATING]
    parser.add_argument("--method", choices=known, help="instead of the recipe's")
    parser.add_argument("--ignore", action="append", metavar="NAME", help="a layer to leave alone, or re:REGEX; repeat")
    parser.add_argument("--layout", metavar="NAME", help="compressed-tensors, gptq, gptq_v2, awq-gemm, bitsandbytes")
    parser.add_argument("--calibration", metavar="FILE", help="a text, or JSONL with text or messages")
    parser.add_argument("--samples", type=int, default=128, help="sequences of the calibration text, default 128")
    parser.add_argument("--seq-len", type=int, default=2048, help="tokens of a sequence, default 2048")
    parser.add_argument("--executor", default="threads", metavar="WHERE", help=f"one of {', '.join(KINDS)}; threads")


def run(arguments: argparse.Namespace) -> list[str]:
    """What was made. Raises QuantError."""
    chosen = recipe.read(arguments.recipe, method=arguments.method, ignore=arguments.ignore, layout=arguments.layout)
    checkpoint = open_checkpoint(arguments.model)
    for warning in checkpoint.warnings:
        print(f"refquant: warning: {printable(warning, 1000)}", file=sys.stderr)
    bar = Bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they have been said
        made = _made(arguments, checkpoint, chosen, bar)
    bar.end()
    before = f", {made.resumed} parts were there already" if made.resumed else ""
    what = f"{made.layers} matrices, " if made.layers else ""
    return [f"{printable(str(made.path))}: {what}{human(made.nbytes)} in {clock(made.seconds)}{before}"]


def _made(arguments: argparse.Namespace, checkpoint: Checkpoint, chosen: recipe.Recipe, bar: Bar) -> Result:
    return oneshot(
        checkpoint,
        chosen,
        arguments.calibration,
        arguments.out,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
        executor=arguments.executor,
        progress=bar,
    )
