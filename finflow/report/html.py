"""Shared parts of all pages: templates and scripts."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from finflow.report.theme import Chart

_HERE = Path(__file__).resolve().parent


def render_page(template: str, charts: Iterable[Chart], /, **context: Any) -> str:
    """HTML text of a page that holds all that it needs; the same inputs give the same bytes.

    Parameters
    ----------
    charts : every chart of the page, drawn by its script into the element of its key.
    context : what the template reads besides.
    """
    return (
        templates()
        .get_template(template)
        .render(
            **context,
            data=_script_json({chart.key: _plain(chart) for chart in charts}),
            css=asset("page.css"),
            script=asset("page.js"),
            plotly=Markup(get_plotlyjs()),
        )
    )


def templates() -> Environment:
    """Templates of this room; what is missing in a view is an error, not a blank."""
    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    return environment


def asset(name: str) -> Markup:
    """Text of a file of this room, to stand in a page as it is."""
    return Markup((_HERE / name).read_text(encoding="utf-8"))


def _plain(chart: Chart) -> dict[str, Any]:
    """Data and layout of a figure as plain JSON; the page draws it by its element id."""
    figure = json.loads(str(chart.figure.to_json(validate=False)))
    layout = {name: value for name, value in figure["layout"].items() if name != "template"}
    return {"data": figure["data"], "layout": layout}


def _script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no `<`, `>` or `&` is left in it."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
