"""Shared parts of all pages: templates and scripts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from finflow.report.theme import Chart

HERE = Path(__file__).resolve().parent
TEMPLATES = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
"""What is missing in a template's context is an error, not a blank."""
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}


def render_page(template: str, charts: Iterable[Chart] = (), /, **context: Any) -> str:
    """HTML text of a page that holds all that it needs; the same inputs give the same bytes.

    charts : every chart of the page, drawn by its script into the element of its key; the template reads `context`.
    """
    data = {chart.key: _plain(chart) for chart in charts}
    return TEMPLATES.get_template(template).render(**context, data=data, asset=_asset, plotly=_plotly)


def _plain(chart: Chart) -> dict[str, Any]:
    """Data and layout of a figure as plain JSON."""
    figure = json.loads(str(chart.figure.to_json(validate=False)))
    layout = {name: value for name, value in figure["layout"].items() if name != "template"}
    return {"data": figure["data"], "layout": layout}


def _asset(name: str) -> Markup:
    """Text of a file of this room, to stand in a page as it is."""
    return Markup((HERE / name).read_text(encoding="utf-8"))


def _plotly() -> Markup:
    return Markup(get_plotlyjs())
