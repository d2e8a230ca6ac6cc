"""`python -m benchmarks.quality`: measure what is not measured yet, then write docs/quality.md and docs/quality.svg.

    --rows TEXT    only rows whose key holds TEXT (results.py); --models NAMES
    --check        measure nothing: assert the orderings of claims.py on the results, exit status 1 if one is broken
    --page         measure nothing: write page and plot from the results

Models and text are found through REFQUANT_TEST_DATA (text.py). Each model has a thread of its own: let BLAS have one,
too (OPENBLAS_NUM_THREADS=1, as `make quality` says), since threads that wait for each other waste a busy machine.
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from refquant.errors import QuantError


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--rows", default="", metavar="TEXT")
    parser.add_argument("--models", default="", metavar="NAMES")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--page", action="store_true")
    chosen = parser.parse_args(arguments)
    try:
        if not (chosen.check or chosen.page):
            measure_all(chosen.rows, [name for name in chosen.models.split(",") if name])
        return finish(chosen.check, write=not chosen.check)
    except QuantError as error:
        print(error, file=sys.stderr)
        return 2


def measure_all(part: str, models: list[str]) -> None:
    """Measure the rows that are missing, each model in a thread of its own, and keep each row at once."""
    from benchmarks.quality import claims, layers, page, results, surroundings, text
    from benchmarks.quality.measure import Judge
    from benchmarks.quality.network import open_network
    from benchmarks.quality.rows import ROWS

    folder = text.data_folder()
    texts = {name: text.read_text(folder / "models" / name, folder / text.TEXT) for name in text.MODELS}
    found, lock = results.resumed(results.setup_of(texts)), Lock()
    wanted = sorted((row for row in ROWS if part in row.key), key=lambda row: row.turn)

    def measure(model: str) -> None:
        todo = [row for row in wanted if row.key not in found["rows"][model]]
        judge = Judge(open_network(folder / "models" / model), texts[model]) if todo else None
        for row in todo:
            start, numbers = time.perf_counter(), judge.measure(row)
            with lock:
                found["rows"][model][row.key] = numbers
                found["made"] = surroundings.made()
                results.write(found)
                page.write(found, claims.verdicts(found))
            print(
                f"{model} {row.key}: {numbers['bits']:.3f} bits, perplexity {numbers['perplexity']:.3f}, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(measure, models or text.MODELS):
            pass
    for model in [] if part else models or text.MODELS:
        if model not in found["facts"]:
            found["facts"][model] = layers.measure(folder / "models" / model, folder / text.TEXT)
            results.write(found)


def finish(check: bool, write: bool) -> int:
    """Page and plot, or the check of the orderings."""
    from benchmarks.quality import claims, page, plot, results

    found = results.read()
    verdicts = claims.verdicts(found)
    if check:
        for verdict in verdicts:
            print(verdict.line)
        return int(any(verdict.broken for verdict in verdicts))
    if write:
        page.write(found, verdicts)
        plot.write(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
