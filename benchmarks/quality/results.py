"""The measured rows in one JSON file, which is whole at every moment: a run that is killed goes on where it was.

    {"setup": {...}, "rows": {"tiny-qwen2": {"gptq uint4-g64-f16": {"bits": ..., "perplexity": ..., ...}}}, "facts": {}}

A row belongs to a setup: windows, tokens, and a digest of the token ids. Rows of another setup are not kept.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.quality.text import CALIBRATION, SKIPPED, TOKENS, WINDOWS, Text
from refquant.errors import QuantError

PATH = Path(__file__).resolve().parents[1] / "results" / "quality.json"
Results = dict[str, Any]


def setup_of(texts: Mapping[str, Text]) -> dict[str, Any]:
    """What the numbers of a row depend on besides the row."""
    digests = {}
    for model, text in texts.items():
        content = text.judged.astype("<i8").tobytes() + text.calibration.astype("<i8").tobytes()
        digests[model] = hashlib.sha256(content).hexdigest()[:16]
    scored = WINDOWS * (TOKENS - SKIPPED)
    return {"windows": WINDOWS, "tokens": TOKENS, "scored": scored, "calibration": CALIBRATION, "digests": digests}


def empty(setup: Mapping[str, Any]) -> Results:
    """No rows yet."""
    return {"setup": dict(setup), "rows": {model: {} for model in setup["digests"]}, "facts": {}, "made": {}}


def read(path: Path = PATH) -> Results:
    """What was measured. Raises QuantError where the file is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise QuantError(f"{path}: cannot be read ({error}), expected results: run `make quality`") from error


def resumed(setup: Mapping[str, Any], path: Path = PATH) -> Results:
    """The results of the same setup, or none."""
    found = read(path) if path.is_file() else empty(setup)
    return found if found["setup"] == setup else empty(setup)


def write(results: Results, path: Path = PATH) -> None:
    """Replace the file at once."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)
