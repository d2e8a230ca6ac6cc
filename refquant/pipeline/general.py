"""The part `general.*` of the metadata of GGUF that a folder's name and generation_config.json decide.

    title("Qwen2.5-0.5B-instruct")    "Qwen2.5 0.5B Instruct": hyphens become spaces, words of small letters get a
                                      capital, but not those that begin with a digit or are a version (v2, v0.3)
    sampling({"top_k": 20})           general.sampling.top_k, and the other settings of a sampler

Source    gguf-py 0.19, metadata.py (id_to_title, Metadata.load). What it guesses of the name's parts (basename,
          finetune, version) and takes from README.md (license, tags, datasets) is left out: nothing is computed of it.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

_SAMPLING = {
    "top_k": ("top_k", "i32"),
    "top_p": ("top_p", "f32"),
    "min_p": ("min_p", "f32"),
    "temperature": ("temp", "f32"),
    "repetition_penalty": ("penalty_repeat", "f32"),
}


def title(name: str) -> str:
    """A folder's name as general.name."""
    words = name.replace("-", " ").split()
    return " ".join(w if not w.islower() or re.match(r"v\d+(\.\d+)*$|\d", w) else w.title() for w in words)


def sampling(settings: Mapping[str, Any]) -> dict[str, tuple[str, float]]:
    """{key: (type, value)} of generation_config.json; what is no number is left out."""
    found = {}
    for name, (ours, kind) in _SAMPLING.items():
        value = settings.get(name)
        if type(value) in (int, float) and math.isfinite(value) and abs(value) < 1 << 31:
            found[f"general.sampling.{ours}"] = kind, int(value) if kind == "i32" else float(value)
    return found
