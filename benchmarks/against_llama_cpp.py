"""Ours and llama.cpp on the same files, in turn: `python -m benchmarks.against_llama_cpp`, or `make bench`.

Each engine is one process that stays alive for all tests of a model and a number of threads, and is asleep while the
other one runs (the report has the processor time it took nevertheless). Both read the same file, with as many threads,
an F16 KV cache, and random tokens; at a depth only writing is measured. Models are of random weights unless files are
named. Standard output gets Markdown; --json and --markdown name files that are brought up to date after each model.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import worker
from benchmarks.comparison import Comparison, alternate
from benchmarks.comparison_report import Report, Surroundings
from benchmarks.first_token import first_token
from benchmarks.footprint import Footprint
from benchmarks.random_model import default_folder, one_layer, random_model
from benchmarks.shapes import MIXTURES, SHAPES
from benchmarks.type_mix import MIXES
from benchmarks.worker import Worker
from refquant import gguf
from refquant.errors import QuantError
from refquant.models import ModelConfig
from runtime.bandwidth import read_bandwidth
from runtime.cores import physical_cores
from runtime.model_facts import cache_bytes, tensor_bytes, weight_traffic
from runtime.resident_memory import ResidentMemory
from runtime.speed_tests import SpeedTest

TYPES = ("Q4_0", "Q8_0", "Q4_K_M", "Q6_K", "IQ4_XS", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A file to measure, and one with a single layer where there is one."""

    path: Path
    single: Path | None = None
    made: tuple[Path, ...] = ()  # what may be deleted afterwards


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = _parse(argv)
    report = None
    status = 0
    try:
        theirs, about = worker.llama_cpp(arguments.llama_python, arguments.flash_attn, arguments.llama_lib)
        theirs.close()
        with worker.ours() as ours:
            report = Report(Surroundings.here(ours.ask("about"), about), arguments.repetitions)
        for candidate in _candidates(arguments):
            _measure(candidate, arguments, report)
            report.write(arguments.markdown, arguments.json)
            for path in candidate.made:
                path.unlink(missing_ok=True)
    except KeyboardInterrupt:
        status = 130
    except (QuantError, OSError) as error:
        print(f"against_llama_cpp: {error}", file=sys.stderr)
        status = 2
    if report is not None and report.comparisons:
        report.write(arguments.markdown, arguments.json)
        print(report.as_markdown())
    return status


def _candidates(arguments: argparse.Namespace) -> Iterator[Candidate]:
    for path in arguments.models:
        yield Candidate(path)
    if arguments.models:
        return
    folder = arguments.folder or default_folder()
    for name, mix in product(arguments.shapes, arguments.types):
        _note(f"{name} {mix}: making the model, unless it is there")
        shape = (SHAPES | MIXTURES)[name]
        path = random_model(shape, mix, folder)
        single = random_model(one_layer(shape), mix, folder)
        yield Candidate(path, single, (path, single) if arguments.discard else ())


def _measure(candidate: Candidate, arguments: argparse.Namespace, report: Report) -> None:
    """Everything about one file, into the report."""
    path = candidate.path
    with gguf.open(path) as file:
        config, size = ModelConfig.from_metadata(file), tensor_bytes(file)
        traffic = weight_traffic(file, config)
    reads = report.reads[path.name] = {}
    for threads in {1, min(2, physical_cores())} - {*arguments.threads}:
        reads[threads] = _read(path, size, threads)
    tests = _tests(arguments)
    for threads in arguments.threads:
        results = []
        before = _read(path, size, threads)
        with worker.ours() as ours, _theirs(arguments) as theirs:
            loaded = [_load(engine, path, threads, tests) for engine in (ours, theirs)]
            for test in tests:
                rates, idle = _compare(ours, theirs, test, arguments.repetitions, f"{path.name}: threads {threads}")
                written = traffic + cache_bytes(config, test.n_depth + (test.n_gen - 1) / 2, "f16") if test.n_gen else 0
                results.append(Comparison(path.name, size, threads, str(test), *rates, int(written), before, idle))
            used = [_memory(engine) for engine in (ours, theirs)]
        reads[threads] = max(before, _read(path, size, threads))
        report.comparisons += [replace(result, read_bytes_per_second=reads[threads]) for result in results]
        if threads == max(arguments.threads):
            cache = int(cache_bytes(config, _n_ctx(tests), "f16"))
            for name, start, end in zip(("refquant", "llama.cpp"), loaded, used):
                report.footprints.append(Footprint(path.name, name, size, cache, start, end))
            if candidate.single is not None:
                report.footprints[-2:] = _with_one_layer(report.footprints[-2:], candidate.single, threads, arguments)
    if arguments.first_token:
        _note(f"{path.name}: {arguments.first_token} fresh processes of each engine to the first token")
        threads = max(arguments.threads)
        runs = arguments.first_token
        report.first_tokens.append(first_token(str(path), threads, runs, lambda: _theirs(arguments)))


def _tests(arguments: argparse.Namespace) -> list[SpeedTest]:
    prompts = [SpeedTest(n, 0) for n in arguments.n_prompt if n]
    return prompts + [SpeedTest(0, n, depth) for depth, n in product(arguments.n_depth, arguments.n_gen) if n]


def _n_ctx(tests: list[SpeedTest]) -> int:
    return max(test.n_ctx for test in tests)


def _theirs(arguments: argparse.Namespace) -> Worker:
    return worker.llama_cpp(arguments.llama_python, arguments.flash_attn, arguments.llama_lib)[0]


def _read(path: Path, size: int, threads: int) -> float:
    read = read_bandwidth(size, threads)
    _note(f"{path.name}: threads {threads}: a plain read: {read / 1e9:.1f} GB/s")
    return read


def _load(engine: Worker, path: Path, threads: int, tests: list[SpeedTest]) -> ResidentMemory:
    answer = engine.ask("load", path=str(path), threads=threads, n_ctx=_n_ctx(tests), kv="f16")
    notes = "; ".join(answer.get("notes", []))
    _note(f"{path.name}: {engine.name}: loaded in {answer['seconds']:.2f} s{notes and ', '}{notes}")
    return _memory(engine)


def _memory(engine: Worker) -> ResidentMemory:
    return ResidentMemory(**engine.ask("memory"))


def _compare(ours: Worker, theirs: Worker, test: SpeedTest, rounds: int, where: str) -> tuple[list[Any], float | None]:
    """([our rates, their rates], idle percent)."""
    for engine in (ours, theirs):
        engine.ask("prepare", n_prompt=test.n_prompt, n_gen=test.n_gen, n_depth=test.n_depth)
    *seconds, idle = alternate(ours, theirs, rounds, lambda done: _note(f"{where}: {test}: run {done + 1} of {rounds}"))
    return [tuple(test.n_tokens / s for s in sample) for sample in seconds], idle


def _with_one_layer(
    footprints: list[Footprint], single: Path, threads: int, arguments: argparse.Namespace
) -> list[Footprint]:
    """The footprints with what the same tests take on one layer."""
    tests = _tests(arguments)
    with gguf.open(single) as file:
        size = tensor_bytes(file)
        cache = int(cache_bytes(ModelConfig.from_metadata(file), _n_ctx(tests), "f16"))
    full = []
    with worker.ours() as ours, _theirs(arguments) as theirs:
        for footprint, engine in zip(footprints, (ours, theirs)):
            _load(engine, single, threads, tests)
            for test in tests:
                engine.ask("prepare", n_prompt=test.n_prompt, n_gen=test.n_gen, n_depth=test.n_depth)
                engine.ask("run")
            small = {"one_layer": _memory(engine), "one_layer_tensor_bytes": size, "one_layer_cache_bytes": cache}
            full.append(replace(footprint, **small))
    return full


def _parse(argv: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(
        prog="python -m benchmarks.against_llama_cpp",
        description=__doc__,
        epilog="Values may be lists: -t 1,2 -d 0,4096 --types Q4_0,Q8_0. -p 0 or -n 0 leaves that test out.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole = lambda text: [int(part) for part in text.split(",")]
    p.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="GGUF files (default: random ones)")
    p.add_argument(
        "--shapes",
        type=_names(SHAPES | MIXTURES),
        default=[*SHAPES],
        help=f"of random models ({','.join(SHAPES)}); also {', '.join(MIXTURES)}",
    )
    p.add_argument("--types", type=_names(MIXES), default=[*TYPES], help=f"of random models ({','.join(TYPES)})")
    p.add_argument("-p", "--n-prompt", type=whole, default=[512], metavar="N", help="tokens of a prompt (512)")
    p.add_argument("-n", "--n-gen", type=whole, default=[128], metavar="N", help="tokens to write (128)")
    p.add_argument("-d", "--n-depth", type=whole, default=[0], metavar="N", help="tokens before those written (0)")
    p.add_argument("-t", "--threads", type=whole, default=[physical_cores()], metavar="N", help="(physical cores)")
    p.add_argument("-r", "--repetitions", type=int, default=5, metavar="N", help="runs of each engine in a test (5)")
    p.add_argument("--first-token", type=int, default=5, metavar="N", help="processes to the first token (5; 0: none)")
    p.add_argument("--flash-attn", choices=("auto", "on", "off"), default="auto", help="of llama.cpp (auto)")
    p.add_argument("--llama-python", metavar="PATH", help="a Python that has llama_cpp (default: this one)")
    p.add_argument(
        "--llama-lib", type=Path, metavar="DIR", help="another build of llama.cpp's libraries for it to load"
    )
    p.add_argument("--folder", type=Path, help="where random models are kept (default: the user's cache directory)")
    p.add_argument("--discard", action="store_true", help="delete each random model after its turn")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there too")
    p.add_argument("--json", type=Path, metavar="FILE", help="write every number there")
    arguments = p.parse_args(argv)
    numbers = {"-p": arguments.n_prompt, "-n": arguments.n_gen, "-d": arguments.n_depth}
    for option, values in numbers.items():
        if min(values) < 0:
            p.error(f"{option} {min(values)}: expected 0 or more")
    if min([*arguments.threads, arguments.repetitions]) < 1 or arguments.first_token < 0:
        p.error("-t and -r: expected 1 or more; --first-token: 0 or more")
    if not any(arguments.n_prompt + arguments.n_gen):
        p.error("-p 0 -n 0 leaves no test")
    return arguments


def _names(known: dict[str, Any]):
    def names(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r}, expected some of {','.join(known)}")
        return text.split(",")

    return names


def _note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
