"""`refquant quantize`: a Hugging Face folder in, a quantized folder or a GGUF file out."""

import argparse
import sys
import warnings

from refquant.errors import SchemeError
from refquant.gguf import importance_file
from refquant.inspection import printable
from refquant.memory import human
from refquant.pipeline import oneshot, open_checkpoint, recipe, spellings
from refquant.pipeline.executor import KINDS
from refquant.pipeline.progress import Bar, clock

EPILOG = """\
examples
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --out q4
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --method gptq --calibration text.txt --seq-len 512 --out q4
  refquant quantize Qwen2.5-0.5B --recipe Q4_K_M --out q4.gguf
  refquant quantize Qwen2.5-0.5B --recipe IQ2_M --imatrix imatrix.gguf --out q2.gguf
  refquant quantize Qwen2.5-0.5B --recipe recipe.yaml --layout gptq --out q4
  refquant quantize Qwen2.5-7B --recipe W4A16 --method gptq --calibration t.txt --executor dask://10.0.0.1:8786 --out q

recipe.yaml, the first step that matches a layer rounds it (llm-compressor's recipes are read, too):
  modifiers:
    - {method: gptq, scheme: W8A16, targets: [down_proj], order: activation}
    - {method: gptq, scheme: W4A16, ignore: [lm_head, 're:.*layers.0.*']}

A run that was stopped leaves .OUT.partial beside OUT; the same command goes on with it, another one for the same OUT
begins anew. `refquant explain` lists the names that --recipe takes.
GGUF is written faster by `python -m runtime.quantize MODEL OUT.gguf Q4_K_M`, whose encoders are compiled.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Quantize the weights of a Hugging Face folder or a GGUF file, block by block."
    parser.epilog = EPILOG
    methods = [*recipe.ROUNDING, "rtn", *recipe.SCALING, *recipe.ROTATING]
    layouts, executors = ", ".join(spellings.LAYOUT_NAMES), ", ".join(KINDS)
    add = parser.add_argument
    add("model", metavar="MODEL", help="a folder, quantized or not, or a GGUF file")
    add("--recipe", required=True, help="a preset, scheme or spelling (W4A16, nf4, Q4_K_M), or a file of YAML or JSON")
    add("--out", required=True, metavar="PATH", help="a new folder, or for GGUF a new file")
    add("--method", choices=methods, help="instead of the recipe's")
    add("--ignore", action="append", metavar="NAME", help="a layer to leave alone or re:REGEX; repeat; default lm_head")
    add("--layout", metavar="NAME", help=f"one of {layouts}; default the recipe's")
    add("--calibration", metavar="FILE", help="a text, or JSONL with text or messages; not for rounding to nearest")
    add("--imatrix", metavar="FILE", help="importance for GGUF, needed by its types below 3 bits")
    add("--no-vocab", action="store_true", help="leave the tokenizer out of GGUF")
    add("--samples", type=int, default=128, help="sequences of the calibration text, default 128")
    add("--seq-len", type=int, default=2048, help="tokens of a sequence, default 2048")
    add("--executor", default="threads", metavar="WHERE", help=f"one of {executors}; default threads")


def run(arguments: argparse.Namespace) -> list[str]:
    """What was made. Raises QuantError."""
    chosen = recipe.read(arguments.recipe, method=arguments.method, ignore=arguments.ignore, layout=arguments.layout)
    gguf = {"importance": importance_file.read(arguments.imatrix).weights()} if arguments.imatrix else {}
    gguf |= {"with_vocabulary": False} if arguments.no_vocab else {}
    if gguf and chosen.layout != "gguf":
        said = "--imatrix" if arguments.imatrix else "--no-vocab"
        raise SchemeError(f"quantize: {said} with layout {chosen.layout}, expected a recipe of GGUF such as Q4_K_M")
    checkpoint = open_checkpoint(arguments.model)
    for warning in checkpoint.warnings:
        print(f"refquant: warning: {printable(warning, 1000)}", file=sys.stderr)
    bar = Bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they have been said
            made = oneshot(
                checkpoint,
                chosen,
                arguments.calibration,
                arguments.out,
                samples=arguments.samples,
                seq_len=arguments.seq_len,
                executor=arguments.executor,
                gguf=gguf,
                progress=bar,
            )
    finally:
        bar.end()
    before = f", {made.resumed} parts were there already" if made.resumed else ""
    what = f"{made.layers} matrices, " if made.layers else ""
    return [f"{printable(str(made.path))}: {what}{human(made.nbytes)} in {clock(made.seconds)}{before}"]
