"""Whole models through the pipeline, seconds and peak memory: `python -m benchmarks.pipeline`, `make bench-pipeline`.

    W4A16 by GPTQ       64 sequences of 512 tokens, the folder of compressed-tensors
    Q4_K_M to nearest   GGUF with the compiled encoders

Each job is a process of its own on a folder of random weights (random_checkpoint) and a text of random words; memory is
the most that the process had resident, files that it mapped included. Standard output gets Markdown.
"""

import argparse
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.random_checkpoint import random_checkpoint
from benchmarks.random_model import default_folder
from benchmarks.shapes import SHAPES
from runtime.cores import physical_cores

ROOT = Path(__file__).parents[1]
SAMPLES, LENGTH = 64, 512


def jobs(folder: Path, text: Path, out: Path, samples: int, length: int) -> dict[str, list[str]]:
    """{what it is: the command}."""
    calibration = ["--calibration", str(text), "--samples", str(samples), "--seq-len", str(length)]
    gptq = ["-m", "refquant", "quantize", str(folder), "--recipe", "W4A16", "--method", "gptq", *calibration]
    return {
        f"W4A16, GPTQ, {samples} x {length} tokens": [*gptq, "--out", str(out / "gptq")],
        "Q4_K_M, to nearest": ["-m", "runtime.quantize", str(folder), str(out / "q.gguf"), "Q4_K_M"],
    }


def measured(command: list[str]) -> tuple[float, float, int]:
    """(seconds, seconds of processors, bytes resident at most) of a Python that runs `command`."""
    worker = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True);"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN);"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
    )
    began = time.monotonic()
    made = subprocess.run(
        [sys.executable, "-c", worker, *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    used, resident = made.stdout.split()[-2:]
    return time.monotonic() - began, float(used), int(resident) * unit


def write_text(path: Path, words: int) -> Path:
    """Random words of 1 to 9 letters, always the same."""
    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (words, 9), np.uint8)
    lengths = rng.integers(1, 10, words)
    lines = [bytes(word[:n]).decode() for word, n in zip(letters, lengths)]
    path.write_text(" ".join(lines))
    return path


def main() -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(prog="pipeline", description=__doc__.partition(":")[0])
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-0.5b")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="where the model is kept")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--length", type=int, default=LENGTH)
    arguments = parser.parse_args()
    folder = random_checkpoint(SHAPES[arguments.shape], arguments.folder / f"{arguments.shape}-folder")
    text = write_text(arguments.folder / "words.txt", arguments.samples * arguments.length)
    out = arguments.folder / "made"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    print(f"{arguments.shape}, {physical_cores()} cores of {platform.machine()}, NumPy {np.__version__}\n")
    print("| job | seconds | of processors | GiB resident at most |\n|---|---|---|---|")
    for name, command in jobs(folder, text, out, arguments.samples, arguments.length).items():
        seconds, used, nbytes = measured(command)
        print(f"| {name} | {seconds:.0f} | {used:.0f} | {nbytes / 2**30:.2f} |", flush=True)
    shutil.rmtree(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
