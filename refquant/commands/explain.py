"""`refquant explain`: what the spellings of other frameworks mean in ours."""

import argparse
import json

from refquant import inspection
from refquant.errors import SchemeError
from refquant.pipeline import recipe, recipe_text, spellings

EPILOG = """\
examples
  refquant explain W4A16                                            a preset
  refquant explain nf4                                              a name of another framework; int8, qint8 ...
  refquant explain load_in_4bit=true bnb_4bit_quant_type=nf4        keywords of BitsAndBytesConfig, GPTQConfig ...
  refquant explain bnb_4bit_compute_dtype                           one of them alone
  refquant explain Q4_K_M                                           a file type of GGUF
  refquant explain int4-g64-asym                                    a scheme of ours
  refquant explain recipe.yaml                                      a recipe, ours or llm-compressor's: its steps

The same spellings are what `refquant quantize --recipe` and `refquant.oneshot` take.
"""


def fill(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.description = "Say in our words what a format, a keyword or a recipe of another framework means."
    parser.epilog = EPILOG
    parser.add_argument("said", nargs="*", metavar="NAME or KEY=VALUE", help="without it, all that is known is listed")


def run(arguments: argparse.Namespace) -> list[str]:
    """The lines of one meaning, or tables of all that is known. Raises SchemeError."""
    said = arguments.said
    if not said:
        rows = [(name, m.weights, m.activations, m.method, m.layout) for name, m in spellings.NAMES.items()]
        names = inspection.table(("spelling", "weights", "activations", "method", "layout"), rows)
        return [*names, "", *inspection.table(("keyword", "what it means"), list(spellings.KEYWORDS.items()))]
    if all("=" in word for word in said):
        return str(spellings.explain(dict(_pair(word) for word in said))).splitlines()
    if len(said) > 1:
        raise SchemeError(f"explain: {len(said)} words, expected one name, or KEY=VALUE pairs")
    if said[0] in spellings.KEYWORDS:
        return [f"{said[0]} {spellings.KEYWORDS[said[0]]}"]
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
