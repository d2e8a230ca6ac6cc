"""docs/quality.svg: perplexity against bits per weight, one panel a model. Needs matplotlib, the extra `quality`.

The height is what a row adds to the float model's perplexity, on a logarithmic axis: the difference of 8 bits to 6 and
that of 3 to 2 fit the same panel. Lines join the widths of one method, linear formats in groups of 64. Bars are the
standard error over windows; what adds less than FLOOR is drawn there. The same results give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.quality.rows import ROWS, Row
from refquant.errors import QuantError, UnsupportedError

PATH = Path(__file__).resolve().parents[2] / "docs" / "quality.svg"
FLOOR, CEILING = 0.0002, 12.0  # of ratio - 1
TICKS = (1.5, 2, 2.5, 3, 4, 5, 6, 8)
SHARES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
STYLE = {  # series: colour, marker, whether its points are joined
    "RTN": ("#7f7f7f", "o", True),
    "GPTQ, act-order": ("#1f77b4", "s", True),
    "AWQ": ("#2ca02c", "^", True),
    "HQQ": ("#9467bd", "v", True),
    "AutoRound": ("#17becf", "D", True),
    "GGUF K-quants, Q8_0": ("#d62728", "P", True),
    "GGUF I-quants, imatrix": ("#ff7f0e", "X", True),
    "small floats": ("#8c564b", "*", False),
    "50 % pruned, 16 bits": ("#000000", "x", False),
}
NAMED = {  # points that carry their name, and where it stands
    "nearest nf4": (6, 2),
    "nearest nvfp4": (6, -8),
    "nearest mxfp4": (-4, 8),
    "nearest mxfp6_e2m3": (6, 3),
    "nearest mxfp8_e4m3": (-10, 7),
    "nearest fp8_e4m3fn-channel": (-10, -12),
}
K_QUANTS = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")
_SMALL = {"fontsize": 7.5, "color": "#8c564b"}


def write(results: Mapping[str, Any], path: Path = PATH) -> None:
    """Draw the file. Raises UnsupportedError without matplotlib."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UnsupportedError("quality: matplotlib is not installed, expected the extra `quality`") from error
    models = [model for model, rows in results["rows"].items() if "float" in rows]
    if not models:
        raise QuantError("quality: the float model is not measured, expected its row to draw the others above it")
    with matplotlib.rc_context({"svg.hashsalt": "refquant", "font.size": 9}):
        figure = Figure(figsize=(12, 7), layout="constrained")
        for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models):
            _panel(axes, model, results["rows"][model])
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})


def _panel(axes: Any, model: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    base = rows["float"]["perplexity"]
    for name, (colour, marker, joined) in STYLE.items():
        points = sorted(_point(rows[r.key]) for r in series(name) if r.key in rows)
        if points:
            x, y, error = zip(*points)
            line = "-" if joined else "none"
            look = {"linestyle": line, "linewidth": 1.1, "marker": marker, "markersize": 6, "color": colour}
            axes.errorbar(x, y, _bars(y, error), elinewidth=0.7, label=name, **look)
    for row in ROWS:
        if row.key in NAMED and row.key in rows:
            x, y, _ = _point(rows[row.key])
            axes.annotate(row.label, (x, y), xytext=NAMED[row.key], textcoords="offset points", **_SMALL)
    axes.set(xscale="log", yscale="log", title=f"{model} (float: {base:.3f})", xlabel="bits per weight, scales counted")
    axes.set(xlim=(1.45, 9.6), ylim=(0.8 * FLOOR, CEILING), ylabel="perplexity, and what it is above the float model's")
    axes.set_xticks(TICKS, [f"{t:g}" for t in TICKS])
    axes.set_yticks(SHARES, [_height(base, share) for share in SHARES])
    axes.minorticks_off()
    axes.grid(color="#dddddd", linewidth=0.6)


def _height(base: float, share: float) -> str:
    """What stands beside a horizontal line."""
    digits = 3 if share < 0.003 else 2
    return f"{base * (1 + share):.{digits}f}\n+{100 * share:g} %"


def _point(row: Mapping[str, float]) -> tuple[float, float, float]:
    """(bits, ratio - 1 within the panel, its standard error)."""
    return row["bits"], min(max(row["ratio"] - 1, FLOOR), CEILING), row["ratio"] * row["error"]


def _bars(y: Sequence[float], error: Sequence[float]) -> list[list[float]]:
    """Bars down and up, which do not reach below FLOOR."""
    return [[min(e, value - FLOOR) for value, e in zip(y, error)], list(error)]


def series(name: str) -> list[Row]:
    """The rows of a line of the legend."""
    in_64 = [row for row in ROWS if "-g64-f16" in row.weights and not row.activations and not row.rotated]
    tests = {
        "RTN": lambda r: r in in_64 and r.method == "nearest" and r.weights.startswith("uint"),
        "GPTQ, act-order": lambda r: r in in_64 and r.method == "gptq" and r.options,
        "AWQ": lambda r: r.method == "awq",
        "HQQ": lambda r: r.method == "hqq",
        "AutoRound": lambda r: r.method == "autoround",
        "GGUF K-quants, Q8_0": lambda r: r.method == "gguf" and r.weights in K_QUANTS and not r.options,
        "GGUF I-quants, imatrix": lambda r: r.method == "gguf" and r.weights.startswith("IQ") and r.options,
        "small floats": lambda r: r.family == "Small floats and codebooks",
        "50 % pruned, 16 bits": lambda r: r.family == "Pruned, 16 bits",
    }
    return [row for row in ROWS if tests[name](row)]
