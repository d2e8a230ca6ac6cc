"""`refquant quantize`: a Hugging Face folder in, a quantized folder or a GGUF file out."""

import argparse
import sys
import time

from refquant.inspection import printable
from refquant.memory import human
from refquant.pipeline import oneshot, recipe

EPILOG = """\
examples
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --out q4
  refquant quantize Qwen2.5-0.5B --recipe W4A16 --method gptq --calibration text.txt --seq-len 512 --out q4
  refquant quantize Qwen2.5-0.5B --recipe Q4_K_M --out q4.gguf
  refquant quantize Qwen2.5-0.5B --recipe recipe.json --layout gptq --out q4

A run that was stopped leaves .OUT.partial beside OUT; the same command goes on with it. `refquant explain` lists names.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Quantize the weights of a Hugging Face folder, block by block."
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL_DIR")
    parser.add_argument("--recipe", required=True, help="a preset, scheme or spelling (W4A16, nf4, Q4_K_M), or a file")
    parser.add_argument("--out", required=True, metavar="PATH", help="a new folder, or for GGUF a new file")
    parser.add_argument("--method", choices=[*recipe.ROUNDING, "rtn", *recipe.SCALING], help="instead of the recipe's")
    parser.add_argument("--ignore", action="append", metavar="NAME", help="a layer to leave alone, or re:REGEX; repeat")
    parser.add_argument("--layout", metavar="NAME", help="compressed-tensors, gptq, gptq_v2, awq-gemm, bitsandbytes")
    parser.add_argument("--calibration", metavar="FILE", help="a text, or JSONL with text or messages")
    parser.add_argument("--samples", type=int, default=128, help="sequences of the calibration text, default 128")
    parser.add_argument("--seq-len", type=int, default=2048, help="tokens of a sequence, default 2048")


def run(arguments: argparse.Namespace) -> list[str]:
    """What was made. Raises QuantError."""
    chosen = recipe.read(arguments.recipe, method=arguments.method, ignore=arguments.ignore, layout=arguments.layout)
    meter = _Meter()
    made = oneshot(
        arguments.model,
        chosen,
        arguments.calibration,
        arguments.out,
        samples=arguments.samples,
        seq_len=arguments.seq_len,
        progress=meter,
    )
    meter.end()
    before = f", {made.resumed} parts were there already" if made.resumed else ""
    what = f"{made.layers} matrices, " if made.layers else ""
    return [f"{printable(str(made.path))}: {what}{human(made.nbytes)} in {_clock(made.seconds)}{before}"]


class _Meter:
    """A line on the terminal's error stream with the time that is left, by the pace so far; nothing elsewhere."""

    def __init__(self):
        self.start, self.shown = time.monotonic(), 0.0
        self.visible = sys.stderr.isatty()

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if not self.visible or (now - self.shown < 0.1 and done < total):
            return
        self.shown = now
        left = (now - self.start) * (total - done) / max(1, done)
        sys.stderr.write(f"\r{what} {100 * done // max(1, total):3d} %, {_clock(left)} left \x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if self.visible:
            sys.stderr.write("\r\x1b[K")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}" if minutes else f"{rest} s"
