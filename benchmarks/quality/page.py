"""docs/quality.md from the results: what was run, the tables, which orderings hold, and what is otherwise than said."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.quality import claims, layers
from benchmarks.quality.claims import Verdict
from benchmarks.quality.layer_claims import CLAIMS, OPEN
from benchmarks.quality.rows import ROWS, Row

PATH = Path(__file__).resolve().parents[2] / "docs" / "quality.md"
FAMILIES = tuple(dict.fromkeys(row.family for row in ROWS))
LABELS = {row.key: f"{row.label} ({row.weights})" if row.weights else row.label for row in ROWS}


def write(results: Mapping[str, Any], verdicts: Sequence[Verdict], path: Path = PATH) -> None:
    """Write the page."""
    path.write_text(page(results, verdicts), encoding="utf-8")


def page(results: Mapping[str, Any], verdicts: Sequence[Verdict]) -> str:
    """The whole text."""
    parts = [_introduction(results), *(_family(family, results) for family in FAMILIES), _absent(results)]
    parts += [_orderings(verdicts), _open(results), *_layers(results["facts"]), NOTES]
    return "\n\n".join(part for part in parts if part)


def _introduction(results: Mapping[str, Any]) -> str:
    setup, made = results["setup"], results["made"]
    known = {model: rows["float"] for model, rows in results["rows"].items() if "float" in rows}
    floats = " and ".join(f"{model} {row['perplexity']:.3f}" for model, row in known.items())
    return f"""# What every method costs a trained model

Two models of about 30 million parameters, trained for tests; text that was held out from their training. The embedding
and the output matrix stay as they are, all matrices of the blocks are quantized. Written by `make quality`: do not
edit.

![perplexity against bits per weight](quality.svg)

- **Text**: {setup["windows"]} windows of {setup["tokens"]} tokens from the first half of docs.txt, {setup["scored"]:,}
  predictions scored in each row, the same in all. Calibration: windows of the second half, 32 of them
  ({32 * setup["tokens"]:,} tokens) for GPTQ, SparseGPT and AutoRound, 16 for the others; each matrix on the outputs of
  all that was quantized before it.
- **Float**: perplexity {floats}.
- **Columns**: perplexity; its ratio to float, and the standard error of that ratio over windows; KL, the mean
  divergence of the predicted distribution from the float model's in nats; layer, the mean over all matrices of
  |Y - Y^|^2 / |Y|^2 for what the float model feeds them; s, processor seconds to calibrate and quantize on one thread.
- **Bits** are those that a file would hold for the matrices, scales, zero points and indices counted.
- **Machine**: {made["machine"]}, shared with other work; {made["versions"]}; {made["date"]}.
- **Arithmetic**: NumPy's, float32. GGUF types are encoded by `runtime.encoders`."""


def _family(family: str, results: Mapping[str, Any]) -> str:
    models = list(results["rows"])
    found = [row for row in ROWS if row.family == family and any(row.key in results["rows"][m] for m in models)]
    if not found:
        return ""
    columns = ["method", "weights", "inputs", "bits"]
    for model in models:
        columns += [f"{model}: perplexity", "ratio", "KL", "layer", "s"]
    lines = [f"## {family}", "", _line(columns), "|---" * 3 + "|--:" * (len(columns) - 3) + "|"]
    lines += [_line(_cells(row, [results["rows"][m].get(row.key) for m in models])) for row in _sorted(found, results)]
    return "\n".join(lines)


def _sorted(rows: Iterable[Row], results: Mapping[str, Any]) -> list[Row]:
    """By bits, the most first; among equals as they are listed."""

    def bits(row: Row) -> float:
        return next(found[row.key]["bits"] for found in results["rows"].values() if row.key in found)

    return sorted(rows, key=lambda row: -round(bits(row), 1))


def _cells(row: Row, measured: Sequence[Mapping[str, float] | None]) -> list[str]:
    bits = next(m["bits"] for m in measured if m)
    cells = [row.label, row.weights or "16 bits", row.activations, f"{bits:.3f}"]
    for m in measured:
        cells += ["", "", "", "", ""] if m is None else _numbers(m)
    return cells


def _numbers(m: Mapping[str, float]) -> list[str]:
    ratio = f"{m['ratio']:.3f} ± {m['ratio'] * m['error']:.3f}" if m["ratio"] < 100 else f"{m['ratio']:.0f}"
    perplexity = f"{m['perplexity']:.3f}" if m["perplexity"] < 1000 else f"{m['perplexity']:.0f}"
    return [perplexity, ratio, f"{m['kl']:.4f}", f"{m['layer_error']:.5f}", f"{m['seconds']:.0f}"]


def _absent(results: Mapping[str, Any]) -> str:
    missing = {row.key: [m for m, rows in results["rows"].items() if row.key not in rows] for row in ROWS}
    keys = [f"`{key}` ({', '.join(models)})" for key, models in missing.items() if models]
    if not keys:
        return ""
    return f"## Not measured yet\n\n`make quality` goes on where it was stopped. {len(keys)} rows: {', '.join(keys)}."


def _orderings(verdicts: Sequence[Verdict]) -> str:
    words = {word: sum(v.word == word for v in verdicts) for word in ("holds", "unclear", "exception", "BROKEN")}
    lines = [
        "## Which orderings hold",
        "",
        f"Of {len(verdicts)} orderings {words['holds']} hold by more than two standard errors of the paired",
        f"difference, {words['unclear']} are within two, {words['exception'] + words['BROKEN']} the other way round.",
        "`python -m benchmarks.quality --check` fails on the last kind unless it is explained below. A gap of a few",
        "thousandths is within the error of 4,480 tokens; the last columns are steadier: the divergence and the layer",
        "error of the first over those of the second.",
        "",
        "| less | more | model | nats a token | verdict | KL | layer |",
        "|---|---|---|--:|---|--:|--:|",
    ]
    for v in verdicts:
        gap = f"{v.nats:+.4f} ± {v.error:.4f}"
        shares = [f"{v.kl:.3f}", f"{v.layer:.3f}"]
        lines.append(_line([LABELS[v.less], LABELS[v.more], v.model, gap, v.word, *shares]))
    reasons = {(v.less, v.more): v.exception for v in verdicts if v.word == "exception"}
    notes = [f"- {LABELS[less]} against {LABELS[more]}: {why}" for (less, more), why in reasons.items()]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def _open(results: Mapping[str, Any]) -> str:
    lines = [
        "## What may go either way",
        "",
        "Comparisons that the papers leave open, or promise only where activations have outliers: not asserted.",
        "",
        "| first | second | model | nats a token that the second loses more | |",
        "|---|---|---|--:|---|",
    ]
    said = {"holds": "first is better", "unclear": "no difference seen", "BROKEN": "second is better"}
    for v in claims.verdicts(results, claims.OPEN):
        gap = f"{v.nats:+.4f} ± {v.error:.4f}"
        lines.append(_line([LABELS[v.less], LABELS[v.more], v.model, gap, said[v.word]]))
    return "\n".join(lines)


def _layers(facts: Mapping[str, Any]) -> list[str]:
    """The claims about single layers, and how many tokens GPTQ wants."""
    if not facts:
        return []
    count = sum(len(next(iter(f["ratios"].values()))) for f in facts.values())
    lines = [
        "## One layer",
        "",
        f"Measured on {layers.ROWS} rows of {count} matrices of both models, with the inputs of the float model: the",
        "ratio of the two errors, its geometric mean for each model, and on how many matrices the first is less.",
        "`tests/refquant/test_orderings.py` asserts those that are promised on the bundled model.",
        "",
        _line(["less", "more", "of", *facts, "agree"]),
        "|---" * 3 + "|--:" * (len(facts) + 1) + "|",
    ]
    for claim in (*CLAIMS, *OPEN):
        ratios = [np.array(f["ratios"][f"{claim.less} < {claim.more}"]) for f in facts.values()]
        means = [f"{np.exp(np.log(r).mean()):.4f}" for r in ratios]
        less = claim.less + (" (not promised)" if claim in OPEN else "")
        agree = f"{sum(int((r < 1).sum()) for r in ratios)} of {count}"
        lines.append(_line([less, claim.more, claim.measure, *means, agree]))
    appetite = [
        "## How many tokens GPTQ wants",
        "",
        "Output error on the tokens it was calibrated with, and on the judged ones, beside rounding to nearest.",
        "",
        "| model | layer | bits | tokens | seen | held out | RTN, held out |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for model, f in facts.items():
        for one in f["appetite"]:
            errors = [f"{one[name]:.5f}" for name in ("seen", "held_out", "rtn")]
            appetite.append(_line([model, one["layer"], str(one["bits"]), f"{one['tokens']:,}", *errors]))
    return ["\n".join(lines), "\n".join(appetite)]


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


NOTES = """## What is not as one might read it in the papers

- **GPTQ needs tokens.** It fits the inputs that it sees, and on a few thousand tokens the Hessian of a matrix with 1536
  inputs is mostly noise: the error on the tokens seen is well below that of rounding, the one on other text is not, and
  at 2 bits it is worse than rounding (table above). The papers calibrate with 262,144 tokens. The rows here have 8,192:
  enough for 512 inputs, about the point where down_proj with its 1536 begins to gain.
- **GPTQ is further from the weights than rounding is**: it minimizes the error of the output, and a larger error of the
  weights is the price. Only errors of outputs should be compared.
- **OBQ against GPTQ in activation order** goes either way. Greed takes the cheapest weights first and leaves the
  expensive ones for last, when nothing is left to make up for them (`refquant/obq.py`).
- **A float32 scale is not better than a float16 one.** With the range `half` the largest weight of a group lies exactly
  between two codes, where the error is greatest; rounding the scale moves it off the tie, so float16 scales have
  1e-4 *less* error. With `signedmax` nothing changes for bfloat16 weights, whose scale is a float16 already.
- **NF4 against asymmetric int4**: on these weights, as on Gaussian ones, the even grid with a zero point has less error
  and NF4 no advantage; it beats FP4 and symmetric int4.
- **HQQ** minimizes the 0.7-norm of the error of the weights, not the output's. Its float16 zero point
  costs 0.2 bits more than an integer in groups of 64, and at 2 bits it may lose all the same.
- **Rotation** lowers the kurtosis of inputs and so helps int4 most; MXFP4 where the inputs have outliers (q, k, v and
  down_proj, by a quarter, and not o_proj, gate and up); NVFP4 not at all: a scale for every 16 values has dealt with
  the outlier already, and after the rotation no value is small.
- **SmoothQuant** is made for one scale for a whole tensor. With a scale for every token there is less for it to do.
- **Two bits** in groups of 64 break both models, rounded or by HQQ.
"""
