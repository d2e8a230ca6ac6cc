"""The command line: `python -m conformance run|all|diff|list|generate|mutants|report`."""

import argparse
import json
import os
import sys
from pathlib import Path

from conformance import adapters, backend_difference, generate, known, report, results, runner, survey, vectors
from conformance.mutation import command as mutation
from conformance.protocol import Unsupported
from conformance.results import Results
from refquant.errors import QuantError

EPILOG = """\
examples
  python -m conformance list                                      the backends, and which of them can run here
  python -m conformance run --backend gguf_py                     all tests that gguf-py knows
  python -m conformance run --backend gguf_py --only 'gguf.Q4_0*' some of them
  python -m conformance run --backend torch --device cuda         on an accelerator
  python -m conformance run --backend gguf_py --track last.json   what changed since, then the new record is kept
  python -m conformance all --records FOLDER                      every backend that is here, a record each
  python -m conformance diff refquant gguf_py --only 'gguf.Q4_0*' in how many codes two backends part
  python -m conformance generate --check                          fails when a committed byte would change
  python -m conformance mutants --only 'gguf/*'                   which faults of these files no vector notices

exit status
  0 everything as expected; 1 an unexpected outcome, vectors that differ, too many mutants alive; 2 a wrong command line
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.command(arguments)
    except (QuantError, Unsupported) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "conformance", description="Vectors of quantization formats, run against real backends.", epilog=EPILOG,
        formatter_class=plain,
    )  # fmt: skip
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    listing = commands.add_parser("list", help="the backends, and which of them can run here")
    listing.add_argument("--unwitnessed", action="store_true", help="tests that no other backend answered alike")
    listing.set_defaults(command=_list)
    run = commands.add_parser("run", help="run the vectors against a backend")
    run.add_argument(
        "--backend", required=True, metavar="NAME", help=", ".join([*adapters.NAMES, "FILE.py", "jsonl:COMMAND"])
    )
    run.add_argument("--device", default="", metavar="NAME", help="cuda, for backends that compute on an accelerator")
    run.add_argument("--only", default="*", metavar="GLOB", help="tests by full id, algorithm or algorithm:group")
    run.add_argument(
        "--track", type=Path, metavar="FILE", help="say what changed since the record in FILE, and update it"
    )
    run.add_argument("--explain", action="store_true", help="show the known failures too, with their reasons")
    run.add_argument("--json", action="store_true", help="print the record")
    run.set_defaults(command=_run)
    every = commands.add_parser("all", help="run the vectors against every backend that is here")
    every.add_argument("--device", default="", metavar="NAME", help="cuda, for backends that compute on an accelerator")
    every.add_argument("--only", default="*", metavar="GLOB", help="tests by full id, algorithm or algorithm:group")
    every.add_argument("--records", type=Path, metavar="FOLDER", help="where the records of the runs are kept")
    every.set_defaults(command=_all)
    diff = commands.add_parser("diff", help="compare two backends, code by code")
    diff.add_argument("a", metavar="A", help="a backend")
    diff.add_argument("b", metavar="B", help="another one")
    diff.add_argument("--only", default="*", metavar="GLOB", help="tests by full id, algorithm or algorithm:group")
    diff.set_defaults(command=_diff)
    make = commands.add_parser("generate", help="write the vectors anew")
    make.add_argument("--check", action="store_true", help="write nothing; fail if a byte would change")
    make.add_argument(
        "--witness", nargs="*", default=[], type=Path, metavar="RECORD.json", help="records of `run --json`"
    )
    make.set_defaults(command=_generate)
    mutation.add(commands)
    page = commands.add_parser("report", help="records of `run --json` as one HTML page")
    page.add_argument("records", nargs="+", type=Path, metavar="RECORD.json")
    page.add_argument("-o", required=True, type=Path, metavar="FILE.html", dest="output")
    page.set_defaults(command=_report)
    return parser


def _report(arguments: argparse.Namespace) -> int:
    text = report.page(report.read(arguments.records))
    partial = arguments.output.with_name(arguments.output.name + ".partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, arguments.output)
    print(f"{arguments.output}: {len(arguments.records)} backends")
    return 0


def _all(arguments: argparse.Namespace) -> int:
    wrong = False
    for line, unexpected in survey.lines(arguments.only, arguments.records, arguments.device):
        print(line, flush=True)
        wrong |= unexpected
    return int(wrong)


def _diff(arguments: argparse.Namespace) -> int:
    a, b = adapters.load(arguments.a), adapters.load(arguments.b)
    a.version(), b.version()  # says what is not installed, before any work
    found = list(backend_difference.differences(a, b, vectors.select(arguments.only)))
    if not found:
        raise QuantError(f"conformance: --only = {arguments.only!r}, expected tests that both backends know")
    print("\n".join(backend_difference.lines(found)))
    return int(any(isinstance(each, str) or not each.equal for _, each in found))


def _list(arguments: argparse.Namespace) -> int:
    if arguments.unwitnessed:
        return _list_unwitnessed()
    for name in adapters.NAMES:
        adapter = adapters.load(name)
        try:
            state = adapter.version()
        except Unsupported as why:
            state = f"not here: {why}"
        print(f"{name:24}{adapter.NAME} {state}")
    return 0


def _list_unwitnessed() -> int:
    groups = without = tests = alone = 0
    for path in vectors.files():
        content = json.loads(path.read_text("utf-8"))
        for group, names, count in generate.unwitnessed(content):
            groups, without = groups + 1, without + (len(names) == count)
            tests, alone = tests + count, alone + len(names)
            if names:
                which = "all" if len(names) == count else ", ".join(names)
                print(f"{content['algorithm']}:{group}  {which}")
    print(f"no witness: {without} of {groups} groups, {alone} of {tests} tests (refusals are not counted)")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    adapter, tests = adapters.load(arguments.backend, arguments.device), list(vectors.select(arguments.only))
    label = adapters.label(arguments.backend, arguments.device)
    if not tests:
        raise QuantError(f"conformance: --only = {arguments.only!r}, expected a glob that some test matches")
    outcomes = tuple(runner.run(tests, adapter))
    found = Results(label, adapter.NAME, adapter.version(), outcomes, tuple(known.read(label)))
    notes = {flag: note for test in tests for flag, note in test.notes.items()}
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print("\n".join(results.lines(found, notes, arguments.explain)))
    if arguments.track is not None:
        if arguments.track.exists():
            changed = results.changes(found, arguments.track)
            print("\n".join(["", "changed since the record:", *(changed or ["nothing"])]))
        results.write(found, arguments.track)
    return 0 if found.good else 1


def _generate(arguments: argparse.Namespace) -> int:
    records = [generate.witness(record) for record in report.read(arguments.witness)]
    changed = generate.write(vectors.ROOT, records, arguments.check)
    for line in changed:
        print(line)
    print(f"{len(changed)} files {'differ' if arguments.check else 'were written'}")
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
