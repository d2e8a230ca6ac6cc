"""Which tokens are read: windows of docs.txt, the first half of it to be judged by, the second to calibrate with.

    WINDOWS windows of TOKENS tokens, evenly spread over the first half; tokens SKIPPED.. of each are predicted
    CALIBRATION windows of TOKENS tokens, evenly spread over the second half

No window overlaps another. A model that begins texts with BOS gets it in place of the first token of a window, as
llama-perplexity does it. The text was held out when the models were trained.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refquant.errors import QuantError, UnsupportedError
from refquant.pipeline.huggingface import read_json

TOKENS, WINDOWS, SKIPPED, CALIBRATION = 256, 20, 32, 64
MODELS = ("tiny-qwen2", "tiny-llama")
TEXT = "text/docs.txt"
VARIABLE = "REFQUANT_TEST_DATA"


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """Token ids, int64 (windows, tokens)."""

    judged: np.ndarray
    calibration: np.ndarray
    skipped: int = SKIPPED

    @property
    def scored(self) -> int:
        """How many predictions are judged."""
        return len(self.judged) * (self.judged.shape[1] - self.skipped)


def data_folder() -> Path:
    """Where models and texts are: REFQUANT_TEST_DATA or ../shared beside the project. Raises QuantError."""
    default = Path(__file__).resolve().parents[3] / "shared"
    folder = Path(os.environ.get(VARIABLE) or default)
    needed = [folder / TEXT, *(folder / "models" / name / "config.json" for name in MODELS)]
    absent = [path for path in needed if not path.is_file()]
    if absent:
        raise QuantError(
            f"quality: {absent[0]} is missing, expected models and text in the folder that {VARIABLE} names "
            f"(now {os.environ.get(VARIABLE) or 'not set'}; without it, {default})"
        )
    return folder


def read_text(model: Path, text: Path) -> Text:
    """The windows, in the tokens of a model. Raises QuantError where the text is too short."""
    ids = token_ids(model, text.read_text(encoding="utf-8"))
    middle, bos = len(ids) // 2, first_token(model)
    return Text(spread(ids[:middle], WINDOWS, TOKENS, bos), spread(ids[middle:], CALIBRATION, TOKENS, bos))


def token_ids(model: Path, text: str) -> np.ndarray:
    """int64 ids without special tokens."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise UnsupportedError("quality: tokenizers is not installed, expected the extra `quality`") from error
    encoded = Tokenizer.from_file(str(model / "tokenizer.json")).encode(text, add_special_tokens=False)
    return np.array(encoded.ids, np.int64)


def first_token(model: Path) -> int | None:
    """The id of BOS where the tokenizer of a folder begins texts with it."""
    adds = read_json(model / "tokenizer_config.json").get("add_bos_token", False)
    return read_json(model / "config.json")["bos_token_id"] if adds else None


def spread(ids: np.ndarray, windows: int, tokens: int, bos: int | None) -> np.ndarray:
    """`windows` windows of ids at equal distances, the first at 0."""
    if len(ids) < windows * tokens:
        raise QuantError(f"quality: {len(ids)} tokens, expected at least {windows} windows of {tokens}")
    starts = np.linspace(0, len(ids) - tokens, windows).astype(np.int64)
    found = np.stack([ids[start : start + tokens] for start in starts])
    if bos is not None:
        found[:, 0] = bos
    return found
