"""JSON files of a model's folder: one object each, of a size that is bounded."""

import json
from pathlib import Path
from typing import Any

from refquant.errors import QuantError

MAX_JSON = 256 << 20  # tokenizer.json of large vocabularies has some 30 MiB


def read_json(path: Path) -> dict[str, Any]:
    """An object from a file. Raises QuantError (missing, too large, no JSON, no object)."""
    try:
        if not path.is_file():
            raise QuantError(f"{path.parent}: {path.name} is missing, expected it in the folder of a model")
        if path.stat().st_size > MAX_JSON:
            raise QuantError(f"{path}: {path.stat().st_size} bytes, expected at most {MAX_JSON}")
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, QuantError):
            raise
        raise QuantError(f"{path}: cannot be read as JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise QuantError(f"{path}: holds {type(value).__name__}, expected an object")
    return value
