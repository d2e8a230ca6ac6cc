"""Every backend that can run here, one after the other, each in a process of its own: `python -m conformance all`.

A line for each says how many tests passed, failed as known, failed, were skipped, in how many seconds; or why not.
With a folder, the records stay there, and `report` makes a page of them.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from conformance import adapters
from conformance.protocol import Unsupported

HEAD = f"{'':20}{'pass':>7}{'known':>7}{'fail':>7}{'skip':>7}{'seconds':>9}  version"


def lines(only: str, folder: Path | None, device: str = "") -> Iterator[tuple[str, bool]]:
    """(a line, whether something unexpected is in it) for each backend."""
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        yield HEAD, False
        for name in adapters.NAMES:
            try:
                adapters.load(name, device).version()
            except Unsupported as why:
                yield f"{name:20}{why}", False
            else:
                yield _one(name, only, place / f"{adapters.label(name, device)}.json", device)


def _one(name: str, only: str, record: Path, device: str) -> tuple[str, bool]:
    begin = time.perf_counter()
    command = [sys.executable, "-m", "conformance", "run", "--backend", name, "--only", only, "--track", str(record)]
    record.unlink(missing_ok=True)
    done = subprocess.run([*command, "--device", device], capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if not record.exists():
        return f"{name:20}{(done.stderr.strip().splitlines() or ['no record'])[-1]}", True
    found = json.loads(record.read_text("utf-8"))
    counts = Counter(_kind(outcome) for outcome in found["outcomes"])
    numbers = "".join(f"{counts[kind]:7}" for kind in ("pass", "known", "fail", "skip"))
    nothing = not counts.keys() - {"skip"}
    return f"{name:20}{numbers}{seconds:9.1f}  {found['version']}", not (found["good"] or nothing)


def _kind(outcome: dict[str, object]) -> str:
    status = "fail" if outcome["status"] == "error" else str(outcome["status"])
    return "known" if status == "fail" and outcome["known"] else status
