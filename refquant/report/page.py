"""A Comparison as one file of HTML: no script, no network, light and dark, and a `data-` attribute for every number."""

import math
from html import escape

from refquant.memory import human
from refquant.report import figures
from refquant.report.comparison import Comparison, Layer, Size
from refquant.report.style import STYLE

WORST = 6  # histograms that are shown large
_COLUMNS = ("matrix", "out × in", "bits", "SQNR dB", "cosine", "output error", "weights")


def page(found: Comparison) -> str:
    """The HTML."""
    names = found.original.path, found.quantized.path
    title = f"{_base(names[1])} against {_base(names[0])}"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">original <code>{escape(names[0])}</code><br>quantized <code>{escape(names[1])}</code></p>',
        *(f'<p class="note">{escape(note)}</p>' for note in found.notes),
        _tiles(found),
        *_charts(found.layers),
        *_worst(found.layers),
        _table(found.layers),
        _words(found),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
    )
    return head + "\n".join(body) + "\n</body></html>\n"


def _tiles(found: Comparison) -> str:
    p, a, b = found.predictions, found.original, found.quantized
    rise = 100 * (p.perplexity_quantized / p.perplexity - 1)
    tiles = [
        ("size", b.nbytes, human(b.nbytes), f"of {human(a.nbytes)}, {a.nbytes / b.nbytes:.2f} times smaller"),
        ("bits", b.bits, f"{b.bits:.2f}", f"bits a parameter, {_bits(a)} before"),
        (
            "perplexity",
            p.perplexity_quantized,
            f"{p.perplexity_quantized:.4g}",
            f"perplexity, {p.perplexity:.4g} before, {rise:+.2f} %",
        ),
        ("kl-mean", p.kl_mean, f"{p.kl_mean:.4g}", "nats of KL divergence, mean"),
        ("kl-p99", p.kl_p99, f"{p.kl_p99:.4g}", f"its 99th percentile; at most {p.kl_max:.3g}"),
        ("top1", p.top1, f"{100 * p.top1:.2f} %", "same most probable token"),
    ]
    cells = (
        f'<div class="tile" data-{name}="{value!r}"><b>{escape(text)}</b><span>{escape(words)}</span></div>'
        for name, value, text, words in tiles
    )
    return f'<div class="tiles" data-perplexity-original="{p.perplexity!r}">{"".join(cells)}</div>'


def _charts(layers: tuple[Layer, ...]) -> list[str]:
    kinds: dict[str, dict[int, list[Layer]]] = {}
    for layer in layers:
        parts = layer.name.split(".")
        if len(parts) > 3 and parts[2].isdecimal():
            kinds.setdefault(parts[-1], {}).setdefault(int(parts[2]), []).append(layer)
    if not kinds:
        return []
    count = 1 + max(i for blocks in kinds.values() for i in blocks)

    def series(value) -> dict[str, list[float | None]]:
        return {kind: [_mean(map(value, blocks.get(i, ()))) for i in range(count)] for kind, blocks in kinds.items()}

    return [
        "<h2>Signal to noise of the weights, by block</h2>",
        '<p class="soft">decibels, higher is better: 6.02 more is half the error. Experts of a block are averaged.</p>',
        figures.chart(series(lambda layer: layer.sqnr_db), "SQNR in decibels by block"),
        figures.legend(list(kinds)),
        "<h2>Error of the outputs, by block</h2>",
        '<p class="soft">relative squared error of X W<sup>T</sup> on the inputs of this text, which is the error of '
        "the weights under the Hessian X<sup>T</sup>X. Lower is better.</p>",
        figures.chart(series(lambda layer: layer.output_error), "relative output error by block", log=True),
        figures.legend(list(kinds)),
    ]


def _worst(layers: tuple[Layer, ...]) -> list[str]:
    known = [layer for layer in layers if layer.output_error]
    shown = sorted(known, key=lambda layer: -layer.output_error)[:WORST]
    if not shown:
        return []
    cells = "".join(
        f"<figure>{figures.histogram(layer.histogram, layer.histogram_quantized, layer.edge, large=True)}"
        f"<figcaption><code>{escape(layer.name)}</code> output error {layer.output_error:.3g}</figcaption></figure>"
        for layer in shown
    )
    return [
        "<h2>Weights with the largest output errors</h2>",
        '<p class="soft">line: original; bars: quantized. Heights are square roots of counts.</p>',
        f'<div class="worst">{cells}</div>',
    ]


def _table(layers: tuple[Layer, ...]) -> str:
    rows = []
    for layer in layers:
        error = layer.output_error
        cells = [
            f"<code>{escape(layer.name)}</code>",
            " × ".join(map(str, layer.shape)),
            f"{layer.bits:.3g}",
            f"{layer.sqnr_db:.2f}" if math.isfinite(layer.sqnr_db) else "exact",
            f"{layer.cosine:.6f}",
            "–" if error is None else f"{error:.3g}",
            figures.histogram(layer.histogram, layer.histogram_quantized, layer.edge),
        ]
        data = f'data-name="{escape(layer.name)}" data-sqnr="{layer.sqnr_db!r}" data-cosine="{layer.cosine!r}"'
        data += f' data-error="{error!r}" data-bits="{layer.bits!r}"'
        rows.append(f"<tr {data}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h2>Every matrix</h2><div class="scroll">{table}</div>'


def _words(found: Comparison) -> str:
    tokens = found.predictions.tokens
    said = (
        f"Measured on {tokens} predicted tokens of {escape(found.text)}, both models on their own hidden states, in "
        "float32. Size is that of the files of weights; bits of a matrix count its scales. KL divergence is from the "
        "next token's distribution in the original to that in the quantized model."
    )
    return f'<h2>How it was measured</h2><p class="soft" data-tokens="{tokens}">{said}</p>'


def _mean(values) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _bits(size: Size) -> str:
    return f"{size.bits:.2f}"


def _base(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]
