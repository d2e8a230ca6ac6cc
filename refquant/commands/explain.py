"""`refquant explain`: what the spellings of other frameworks mean in ours."""

import argparse
import json

from refquant import inspection
from refquant.errors import SchemeError
from refquant.pipeline import recipe, recipe_text, spellings


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = (
        "Say what a format means: a preset (W4A16), a name of another framework (nf4, int8, load_in_4bit, qint8), a "
        "file type (Q4_K_M), keywords (load_in_4bit=true bnb_4bit_quant_type=nf4), one of our schemes, or a recipe, a "
        "file of YAML or JSON in our form or in that of llm-compressor."
    )
    parser.add_argument("said", nargs="*", metavar="NAME or KEY=VALUE", help="without it, all known names are listed")


def run(arguments: argparse.Namespace) -> list[str]:
    """The lines of one meaning, or a table. Raises SchemeError."""
    said = arguments.said
    if not said:
        rows = [(name, m.weights, m.activations, m.method, m.layout) for name, m in spellings.NAMES.items()]
        return list(inspection.table(("spelling", "weights", "activations", "method", "layout"), rows))
    if all("=" in word for word in said):
        return str(spellings.explain(dict(_pair(word) for word in said))).splitlines()
    if len(said) > 1:
        raise SchemeError(f"explain: {len(said)} words, expected one name, or KEY=VALUE pairs")
    if said[0].endswith(recipe_text.ENDINGS):
        return _steps(recipe.read(said[0]))
    return str(spellings.explain(said[0])).splitlines()


def _steps(read: recipe.Recipe) -> list[str]:
    """The modifiers of a recipe in order."""
    rows = [
        (
            modifier.method,
            str(modifier.weights or ""),
            str(modifier.activations or ""),
            ", ".join(modifier.targets),
            ", ".join(modifier.ignore),
            ", ".join(f"{name} {value}" for name, value in modifier.options),
        )
        for modifier in read.modifiers
    ]
    head = ("method", "weights", "activations", "targets", "ignore", "options")
    return [f"layout       {read.file_type or read.layout}", *(inspection.table(head, rows) if rows else ())]


def _pair(word: str) -> tuple[str, object]:
    """KEY=VALUE, the value as JSON where it is JSON (True and False as Python writes them, too), else as text."""
    key, _, text = word.partition("=")
    try:
        return key, json.loads({"True": "true", "False": "false", "None": "null"}.get(text, text))
    except ValueError:
        return key, text
