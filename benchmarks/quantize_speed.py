"""Quantizing a file, ours and llama.cpp's in turn: `python -m benchmarks.quantize_speed`, or `make bench-quantize`.

Each run is a process of its own on the same file with as many threads, and the two files it writes are compared byte
for byte. The source is a model of random weights unless a file is named. Before each run the system's disk buffers are
flushed, and the source is read once, so that both find it in memory. Standard output gets Markdown.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.comparison import Spread, ratio
from benchmarks.random_model import default_folder, random_model
from benchmarks.shapes import SHAPES
from refquant.errors import QuantError
from refquant.gguf.file_types import lookup
from runtime.cores import physical_cores
from runtime.processor import processor

TYPES = ("Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "IQ4_XS")
WORKER = Path(__file__).with_name("quantize_worker.py")
ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Result:
    """One file type: what every run of both engines took."""

    type: str
    ours: tuple[dict, ...]
    theirs: tuple[dict, ...]
    same: bool
    nbytes: int

    @property
    def speedup(self) -> Spread:
        """Their seconds to ours, run by run."""
        return ratio([run["seconds"] for run in self.theirs], [run["seconds"] for run in self.ours])


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 1 if a file differs, 2 for anything refused."""
    arguments = _parse(argv)
    try:
        source = arguments.model or _random(arguments)
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results = [measure(source, name, arguments, Path(folder)) for name in arguments.types]
    except KeyboardInterrupt:
        return 130
    except (QuantError, OSError, RuntimeError) as error:
        print(f"quantize_speed: {error}", file=sys.stderr)
        return 2
    print(as_markdown(source, arguments.threads, results))
    return int(not all(result.same for result in results))


def measure(source: Path, name: str, arguments: argparse.Namespace, folder: Path) -> Result:
    """All runs of one file type."""
    ours, theirs = folder / "ours.gguf", folder / "theirs.gguf"
    number = str(lookup(name).number)
    runs: dict[str, list[dict]] = {"refquant": [], "llama.cpp": []}
    for repetition in range(arguments.repetitions):
        for engine, python, target in (
            ("llama.cpp", arguments.llama_python, theirs),
            ("refquant", sys.executable, ours),
        ):
            _settle(source)
            found = _run([python, str(WORKER), engine, str(source), str(target), number, str(arguments.threads)])
            runs[engine].append(found)
            print(f"{name} {repetition + 1}: {engine}: {found['seconds']:.2f} s", file=sys.stderr)
    same = filecmp.cmp(ours, theirs, shallow=False)
    return Result(name, tuple(runs["refquant"]), tuple(runs["llama.cpp"]), same, ours.stat().st_size)


def as_markdown(source: Path, threads: int, results: list[Result]) -> str:
    """A table, and where it was measured."""
    size, first = source.stat().st_size / 1e9, results[0]
    lines = [
        f"{source.name} ({size:.2f} GB), {threads} threads, {processor()[0]}; {first.ours[0]['version']}, "
        f"{first.theirs[0]['version']}. Seconds: median (least-largest).",
        "",
        "| type | GB | refquant s | llama.cpp s | times as fast | refquant CPU s | llama.cpp CPU s | "
        "refquant peak MB | llama.cpp peak MB | same bytes |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        seconds, busy, peak = (
            [[run[key] for run in runs] for runs in (result.ours, result.theirs)]
            for key in ("seconds", "cpu_seconds", "peak")
        )
        cells = [
            result.type,
            f"{result.nbytes / 1e9:.2f}",
            *(Spread.of(samples).text(2) for samples in seconds),
            result.speedup.text(2),
            *(f"{Spread.of(samples).median:.1f}" for samples in busy),
            *(f"{max(samples) / 1e6:.0f}" for samples in peak),
            "yes" if result.same else "NO",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    compiling = max(run["compiling"] for result in results for run in result.ours)
    return "\n".join([*lines, "", f"Compiling refquant's kernels, once: at most {compiling:.1f} s for a type."])


def _random(arguments: argparse.Namespace) -> Path:
    shape = SHAPES[arguments.shape]
    shape = replace(shape, n_layer=arguments.layers or shape.n_layer)
    return random_model(shape, arguments.source, arguments.folder)


def _settle(source: Path) -> None:
    if hasattr(os, "sync"):
        os.sync()
    with source.open("rb") as file:
        while file.read(1 << 24):
            pass


def _run(command: list[str]) -> dict:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: {done.stderr.strip().splitlines()[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="quantize_speed", description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, help="a GGUF file to quantize (default: random weights)")
    parser.add_argument("--shape", choices=SHAPES, default="qwen2.5-1.5b")
    parser.add_argument("--layers", type=int, help="fewer layers than the shape has, for a short run")
    parser.add_argument("--source", choices=("BF16", "F16"), default="F16", help="type of the random weights (F16)")
    parser.add_argument("--types", nargs="+", default=TYPES)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--llama-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--folder", type=Path, default=default_folder(), help="for models and results")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
