# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as Markdown: for tickets, chats and terminals."""

from __future__ import annotations

import math
import re
from typing import Any

import jinja2
from markupsafe import Markup

from .html import TEMPLATES
from .text import SIGNS, moment, one_line, quantity, visible
from .trends import charts_of, most_telling
from .view import metric_words, view_of, words

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&$])")
_BARS = "▁▂▃▄▅▆▇█"


def render(report: dict[str, Any]) -> str:
    """The whole document."""
    # Not HTML: every output is escaped for Markdown by finalize.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["SIGNS"] = SIGNS
    environment.filters.update(words=words, metric_words=metric_words, moment=moment, code=_code)
    view = view_of(report)
    charts = charts_of(view["trends"])
    telling = most_telling(charts)
    steady = [chart for chart in charts if chart not in telling]
    text = environment.get_template("report.md.j2").render(**view, measured=_measured(telling), steady=steady)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def escape(text: str) -> str:
    """*text* as Markdown that shows just that text, on one line."""
    return _SPECIAL.sub(r"\\\1", one_line(visible(text)))


def _finalize(value: Any) -> Any:
    return escape(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _code(text: str) -> Markup:
    """*text* in back quotes; where it holds some, or a bar that would end a table's cell, as escaped text."""
    shown = one_line(visible(text))
    if "`" in shown or "|" in shown or not shown:
        return Markup(escape(shown))  # noqa: S704 escaped for Markdown
    return Markup(f"`{shown}`")  # noqa: S704 a code span shows everything as it is


def _measured(charts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each line of *charts* as words and a line of bars."""
    return [
        {
            "activity": chart["activity"],
            "host": host,
            "metric": chart["metric"],
            "latest": quantity(values[-1], chart["unit"]),
            "range": f"{quantity(min(values), chart['unit'])} to {quantity(max(values), chart['unit'])}",
            "bars": bars(values),
        }
        for chart in charts
        for host, points in chart["lines"]
        for values in [[value for _when, value in points]]
    ]


def bars(values: list[float], width: int = 20) -> str:
    """The last *width* values as bars: ``[1, 2, 8]`` → ``▁▂█``."""
    recent = values[-width:]
    low, high = min(recent), max(recent)
    if math.isclose(low, high):
        return _BARS[3] * len(recent)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in recent)
