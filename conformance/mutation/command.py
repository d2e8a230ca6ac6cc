"""`python -m conformance mutants`: make them, try them, say what survived."""

import argparse
import json
import sys
import time
from pathlib import Path

from conformance import vectors
from conformance.adapters import refquant as oracle
from conformance.mutation import coverage, equivalents, mutants, scope, score, session
from refquant.errors import QuantError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The subcommand and its options."""
    parser = commands.add_parser("mutants", help="do the vectors notice when refquant is wrong?")
    parser.add_argument("--only", default="*", metavar="GLOB", help="files, such as gguf/* or nf4")
    parser.add_argument("--sample", type=int, metavar="N", help="N of the mutants instead of all")
    parser.add_argument("--seed", type=int, default=1, help="another sample (1)")
    parser.add_argument("--jobs", type=int, default=2, help="mutants tried at once (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every mutant and what killed it")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 where at least 95 % were killed and the list of equivalents is true."""
    files = scope.files(arguments.only)
    if not files:
        raise QuantError(f"conformance mutants: --only = {arguments.only!r}, expected a glob that some file matches")
    if arguments.jobs < 1 or (arguments.sample is not None and arguments.sample < 1):
        raise QuantError(f"conformance mutants: --jobs, --sample = {arguments.jobs}, {arguments.sample}, expected >= 1")
    begin = time.monotonic()
    chosen = [mutant for file in files for mutant in mutants.of_file(file)]
    whole = arguments.sample is None
    if not whole:
        chosen = score.sample(chosen, arguments.sample, arguments.seed)
    tests = list(vectors.select())
    reach = coverage.measure(tests, oracle)
    outcomes = []
    try:
        for outcome in session.run(chosen, tests, reach, arguments.jobs):
            outcomes.append(outcome)
            if sys.stderr.isatty():
                print(f"\r{len(outcomes)} of {len(chosen)} mutants", end="", file=sys.stderr, flush=True)
    except KeyboardInterrupt:  # what was tried is shown
        print(f"stopped after {len(outcomes)} of {len(chosen)} mutants", file=sys.stderr)
        whole = False
    found = score.Score(outcomes, equivalents.read())
    whole = whole and arguments.only == "*"  # only then can it be told what the list has too much
    print("\n".join(score.lines(found, whole)))
    print(f"{time.monotonic() - begin:.0f} s")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found.to_json(), indent=1) + "\n", "utf-8")
    if len(outcomes) < len(chosen):
        return 130
    return 0 if found.share >= score.LEAST and not (whole and found.idle()) else 1
