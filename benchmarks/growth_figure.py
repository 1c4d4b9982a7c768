"""The figure of `make growth`: a panel for each setting, cost against size, as SVG."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finflow.report.theme import BLUE, GREY

WIDE, HIGH, ACROSS = 285, 200, 3
"""Of a panel, pixels, and panels in a row."""
PLOT = (205, 100)
INK = "#2A2E33"


def draw(found: Mapping[str, Mapping[str, Mapping[str, float]]], path: Path) -> None:
    """Write the figure of {setting: {size: {"ms", "peak_mib"}}}.

    Both axes are logarithmic; dashed is growth in proportion. Below the line stand sizes, above it the cost, beside
    the last one the memory.
    """
    size = (WIDE * ACROSS, HIGH * -(-len(found) // ACROSS) + 10)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size[0]} {size[1]}" width="{size[0]}" '
        f'height="{size[1]}" font-family="system-ui, sans-serif" font-size="10" fill="{INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for at, (name, rows) in enumerate(found.items()):
        parts += _panel(name, rows, 30 + WIDE * (at % ACROSS), 40 + HIGH * (at // ACROSS))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(name: str, rows: Mapping[str, Mapping[str, float]], left: int, top: int) -> list[str]:
    wide, high = PLOT
    x, y = np.log10([float(size) for size in rows]), np.log10([row["ms"] for row in rows.values()])
    straight = y[0] + (x - x[0])
    low, span = min(y.min(), straight.min()), max(float(np.ptp([*y, *straight])), 0.5)
    across = left + wide * (x - x[0]) / np.ptp(x)
    cost, linear = (top + high - high * (line - low) / span for line in (y, straight))
    parts = [
        f'<text x="{left - 10}" y="{top - 22}" font-size="11" font-weight="600">{name}</text>',
        f'<line x1="{left - 10}" x2="{left + wide + 10}" y1="{top + high + 8}" y2="{top + high + 8}" stroke="{GREY}"/>',
        _line(across, linear, f'stroke="{GREY}" stroke-dasharray="4 3"'),
        _line(across, cost, f'stroke="{BLUE}" stroke-width="2"'),
    ]
    for size, row, a, h in zip(rows, rows.values(), across, cost, strict=True):
        parts += [
            f'<circle cx="{a:.1f}" cy="{h:.1f}" r="3" fill="{BLUE}"/>',
            f'<text x="{a:.1f}" y="{h - 7:.1f}" text-anchor="middle">{_time(row["ms"])}</text>',
            f'<text x="{a:.1f}" y="{top + high + 22}" text-anchor="middle">{_count(float(size))}</text>',
        ]
    memory = f"{list(rows.values())[-1]['peak_mib'] / 1024:.1f} GiB"
    parts.append(f'<text x="{left + wide + 10}" y="{top + high + 36}" text-anchor="end" fill="#6B7178">{memory}</text>')
    return parts


def _line(across: NDArray[np.float64], heights: NDArray[np.float64], style: str) -> str:
    points = " ".join(f"{a:.1f},{h:.1f}" for a, h in zip(across, heights, strict=True))
    return f'<polyline points="{points}" fill="none" {style}/>'


def _time(ms: float) -> str:
    return f"{ms:.2g} ms" if ms < 10 else f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def _count(size: float) -> str:
    return f"{size / 1e6:g} million" if size >= 1e6 else f"{size:,.0f}"
