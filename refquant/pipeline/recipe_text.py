"""Recipes as text: JSON, or YAML where PyYAML is installed (the extra `recipes`).

YAML is read by PyYAML's safe loader: plain values only. Anchors and aliases are refused, since a few lines of them can
stand for more than any memory holds.
"""

import json
from pathlib import Path
from typing import Any

from refquant.errors import SchemeError, UnsupportedError

MAX_BYTES = 1 << 20
ENDINGS = (".json", ".yaml", ".yml")


def read_file(path: Path) -> Any:
    """What a file of one of ENDINGS holds; by its first character where the ending is another.

    Raises SchemeError (missing, no such text), UnsupportedError (YAML without PyYAML).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        kind = "JSON" if path.suffix == ".json" else "text"
        raise SchemeError(f"{path}: cannot be read as {kind}: {str(error)[:160]}") from error
    if len(data) > MAX_BYTES:
        raise SchemeError(f"{path}: expected a recipe of at most {MAX_BYTES} bytes")
    json_only = path.suffix == ".json" or (path.suffix not in ENDINGS and text.lstrip()[:1] in "{[")
    return from_json(text, str(path)) if json_only else from_yaml(text, str(path))


def from_json(text: str, where: str) -> Any:
    """The value of a JSON text. Raises SchemeError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SchemeError(f"{where}: cannot be read as JSON: {str(error)[:160]}") from error


def from_yaml(text: str, where: str) -> Any:
    """The value of a YAML text. Raises SchemeError, UnsupportedError (PyYAML is missing)."""
    try:
        import yaml
    except ImportError as error:
        wanted = "expected the extra `recipes` (pip install pyyaml), or the recipe as JSON"
        raise UnsupportedError(f"{where}: PyYAML is not installed, {wanted}") from error

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: object, index: object) -> object:
            if self.check_event(yaml.AliasEvent):
                raise SchemeError(f"{where}: has an alias (*name), expected plain YAML without")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, SchemeError):
            raise
        said = " ".join(str(error).split())[:200]
        raise SchemeError(f"{where}: cannot be read as YAML: {said}") from error
