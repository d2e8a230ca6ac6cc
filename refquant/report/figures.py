"""Charts as inline SVG: text that a browser draws, without scripts or files beside it. Colours are CSS classes.

chart(series, label, log)         lines over the blocks of a model, a series for each kind of matrix
histogram(counts, counts', edge)  the weights of a matrix before (outline) and after (bars)
"""

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 34
KINDS = 8  # colours


def chart(series: Mapping[str, Sequence[float | None]], label: str, log: bool = False) -> str:
    """Lines with a point for every block; None and infinity are left out. A logarithmic axis has powers of ten."""
    values = [v for line in series.values() for v in line if v is not None and math.isfinite(v) and (v > 0 or not log)]
    count = max((len(line) for line in series.values()), default=0)
    if not values:
        return '<p class="none">no finite values</p>'
    scale = math.log10 if log else float
    ticks = _powers(min(values), max(values)) if log else _ticks(min(values), max(values))
    low, high = scale(ticks[0]), scale(ticks[-1])
    high = high if high > low else low + 1

    def x(i: int) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (i + 0.5) / count

    def y(v: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (scale(v) - low) / (high - low)

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    for tick in ticks:
        at = y(tick)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{tick:g}</text>')
    step = max(1, math.ceil(count / 16))
    for i in range(0, count, step):
        parts.append(f'<text class="tick" x="{x(i):.1f}" y="{HEIGHT - 16}" text-anchor="middle">{i}</text>')
    parts.append(f'<text class="tick" x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 2}" text-anchor="middle">block</text>')
    for kind, (name, line) in enumerate(series.items()):
        drawn = [(i, v) for i, v in enumerate(line) if v is not None and math.isfinite(v) and (v > 0 or not log)]
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in drawn)
        parts.append(f'<polyline class="k{kind % KINDS}" points="{points}"/>')
        for i, v in drawn:
            title = f"{escape(name)}, block {i}: {v:.4g}"
            parts.append(
                f'<circle class="k{kind % KINDS}" cx="{x(i):.1f}" cy="{y(v):.1f}" r="3"><title>{title}</title></circle>'
            )
    return "".join([*parts, "</svg>"])


def legend(names: Sequence[str]) -> str:
    """The colours of `chart`."""
    entries = (f'<span><i class="k{i % KINDS}"></i>{escape(name)}</span>' for i, name in enumerate(names))
    return f'<p class="legend">{"".join(entries)}</p>'


def histogram(before: Sequence[int], after: Sequence[int], edge: float, large: bool = False) -> str:
    """Heights are square roots of counts, so that the tails are seen."""
    width, height = (340, 120) if large else (132, 30)
    floor = height - (16 if large else 0)
    top = math.sqrt(max(*before, *after, 1))
    step = width / len(before)
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{floor - floor * math.sqrt(n) / top:.1f}" width="{step * 0.9:.1f}" '
        f'height="{floor * math.sqrt(n) / top:.1f}"/>'
        for i, n in enumerate(after)
        if n
    )
    outline = " ".join(f"{(i + 0.5) * step:.1f},{floor - floor * math.sqrt(n) / top:.1f}" for i, n in enumerate(before))
    axis = ""
    if large:
        places = ((0, "start", -edge), (width / 2, "middle", 0), (width, "end", edge))
        axis = "".join(
            f'<text class="tick" x="{at:g}" y="{height - 3}" text-anchor="{anchor}">{value:.3g}</text>'
            for at, anchor, value in places
        )
    kind = "histogram large" if large else "histogram"
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}">{bars}<polyline points="{outline}"/>{axis}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Four to nine multiples of 1, 2 or 5 times a power of ten that hold all values."""
    span = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / 4))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= 7)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**i for i in range(first, max(last, first + 1) + 1)]
