"""Where the inputs of tests come from: a module for each subject, with `cases()` that yields Case records.

An expected output is never written here: generate.py asks the oracle, and records who else gave the same answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Case:
    """A test without its expectation.

    words   how outputs are compared where it is not by `bits`: "exact", ("ulp", n), or (metric, max) for a bound
    """

    algorithm: str  # "gguf.Q4_0"
    group: str
    name: str
    op: str
    inputs: Mapping[str, np.ndarray]
    params: Mapping[str, object] = field(default_factory=dict)
    flags: tuple[str, ...] = ()
    result: str = "valid"  # invalid: the backend must refuse
    words: Mapping[str, str | tuple[str, float]] = field(default_factory=dict)  # by output


SUBJECTS = (
    "schemes",
    "blocks",
    "minifloats",
    "layouts",
    "observers",
    "ranges",
    "levels",
    "methods",
    "calibrated",
    "products",
    "layers",
    "tokenizers",
    "templates",
    "samplers",
    "models",
    "variants",
    "rules",
    "steps",
    "checkpoints",
    "edges",
    "number_edges",
    "block_edges",
    "block_searches",
    "observer_edges",
    "bit_streams",
    "words",
    "bitsandbytes",
    "vector_codes",
    "caches",
    "training",
    "rotations",
    "collectives",
    "surgery",
    "method_parts",
    "method_searches",
    "calibrated_edges",
    "method_functions",
    "method_arguments",
)
