"""The orderings that hold for whole models, asserted on the results: `python -m benchmarks.quality --check`.

    less, more   keys of rows; "less" should lose less
    nats         mean of nll(more) - nll(less) over scored tokens, and its standard error over windows
    verdict      holds      nats > 2 errors
                 unclear    within 2 errors: these models and this text do not tell
                 BROKEN     nats < -2 errors; EXCEPTIONS says why where it is known, and then it is no failure

OPEN are comparisons that are reported and not asserted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.quality.rows import ROWS

SURE = 2.0  # standard errors
_STATIC, _TOKEN = "int8-restricted int8-restricted", "int8-channel-restricted int8-token-restricted"
_FOUR = "int4-channel-f16 int4-token"
_SMALLER = ("uint{b}-g32-f16", "uint{b}-g64-f16", "uint{b}-g128-f16")
_GGUF = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
_I = ("IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")


@dataclass(frozen=True, slots=True)
class Verdict:
    """One ordering on one model."""

    model: str
    less: str
    more: str
    nats: float
    error: float
    kl: float = 1.0  # less / more
    layer: float = 1.0
    exception: str = ""

    @property
    def word(self) -> str:
        """holds, unclear, BROKEN, or exception."""
        if abs(self.nats) <= SURE * self.error:
            return "unclear"
        return "holds" if self.nats > 0 else "exception" if self.exception else "BROKEN"

    @property
    def broken(self) -> bool:
        """Whether nothing excuses it."""
        return self.word == "BROKEN"

    @property
    def line(self) -> str:
        """For the terminal."""
        return f"{self.word:10} {self.model}: {self.less} < {self.more}: {self.nats:+.4f} +- {self.error:.4f} nats"


def _chain(*keys: str) -> list[tuple[str, str]]:
    return list(pairwise(keys))


def _pairs() -> list[tuple[str, str]]:
    found = []
    for bits in (4, 3, 2):
        asym, rtn = f"uint{bits}-g64-f16", f"nearest uint{bits}-g64-f16"
        found += [
            (f"gptq {asym}", rtn),
            (f"gptq {asym} order=activation", f"gptq {asym}"),
            (f"awq {asym}", rtn),
            (f"hqq {asym}@hqq", rtn),
            (f"autoround {asym} iterations=40", rtn),
            (rtn, f"nearest int{bits}-g64-f16"),
        ]
        found += _chain(*(f"nearest {scheme.format(b=bits)}" for scheme in _SMALLER))
    for method in ("nearest", "gptq"):
        found += _chain("float", *(f"{method} uint{bits}-g64-f16" for bits in (8, 4, 3, 2)))
    found += _chain(*(f"gptq {scheme.format(b=2)}" for scheme in _SMALLER))
    found += [("nearest nf4", "nearest bnb_fp4"), ("nearest nf4", "nearest int4-g64-f16")]
    found += [("nearest nvfp4", "nearest mxfp4"), ("nearest mxfp4-even", "nearest mxfp4")]
    found += [("nearest mxfp8_e4m3", "nearest mxfp6_e2m3"), ("nearest mxfp6_e2m3", "nearest mxfp4")]
    found += _chain(*(f"gguf {name}" for name in _GGUF))
    found += [(f"gguf {name} imatrix=True", f"gguf {name}") for name in ("Q4_K", "Q3_K", "Q2_K")]
    found += _chain(*(f"gguf {name} imatrix=True" for name in _I))
    found += [("gguf Q4_K", "gguf Q4_0"), ("gguf IQ4_NL", "gguf Q4_0")]
    for pattern in ("None", "(2, 4)"):
        found += _chain(*(f"{method} pattern={pattern}" for method in ("sparsegpt", "wanda", "magnitude")))
    found += [(f"{method} pattern=None", f"{method} pattern=(2, 4)") for method in ("sparsegpt", "wanda", "magnitude")]
    found += [(f"smoothquant {_STATIC} alpha=0.5 static=True", f"static {_STATIC}")]
    found += [(f"nearest {_TOKEN}", f"static {_STATIC}"), (f"nearest {_TOKEN}", f"nearest {_FOUR}")]
    found += [(f"nearest {_FOUR} rotated", f"nearest {_FOUR}"), (f"gptq {_FOUR} rotated", f"nearest {_FOUR} rotated")]
    found += [("nearest mxfp4 mxfp4 rotated", "nearest mxfp4 mxfp4"), ("nearest nvfp4 nvfp4", "nearest mxfp4 mxfp4")]
    found += [("nearest int4-channel-f16 rotated", "nearest int4-channel-f16")]
    return found


PAIRS = tuple(_pairs())
OPEN = (
    (f"smoothquant {_TOKEN} alpha=0.5", f"nearest {_TOKEN}"),
    ("llm_int8 int8-channel int8-token", f"nearest {_TOKEN}"),
    ("smoothquant uint4-g64-f16", "nearest uint4-g64-f16"),
    ("nearest nf4 rotated", "nearest nf4"),
    ("nearest nvfp4 nvfp4 rotated", "nearest nvfp4 nvfp4"),
    ("nearest uint4-g64-f16", "nearest nf4"),
)  # what the papers leave open, reported and not asserted
EXCEPTIONS: dict[tuple[str, str], str] = {  # (less, more) -> why it is the other way round here
    ("gptq uint3-g64-f16 order=activation", "gptq uint3-g64-f16"): (
        "On tiny-qwen2 activation order lowers the layer error by 1.6 % and leaves the divergence as it is, so that "
        "there is no gain to see; 2.5 standard errors the other way are one such gap among 142, as chance alone would "
        "give. On tiny-llama it lowers the layer error by 6 % and the perplexity with it."
    ),
}


def verdicts(results: Mapping[str, Any], pairs: tuple[tuple[str, str], ...] = PAIRS) -> list[Verdict]:
    """Every ordering whose two rows were measured, for each model."""
    known = {row.key for row in ROWS}
    found = []
    for less, more in pairs:
        assert {less, more} <= known, (less, more)
        for model, rows in results["rows"].items():
            if less in rows and more in rows:
                gaps = np.subtract(rows[more]["windows"], rows[less]["windows"])
                error = float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
                kl, layer = (_share(rows[less][name], rows[more][name]) for name in ("kl", "layer_error"))
                why = EXCEPTIONS.get((less, more), "")
                found.append(Verdict(model, less, more, float(gaps.mean()), error, kl, layer, why))
    return found


def _share(less: float, more: float) -> float:
    return less / more if more else float(less > 0)
