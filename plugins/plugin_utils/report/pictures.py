# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Trends of stored metrics as small pictures: inline SVG in the page's colours, equal for equal data."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from markupsafe import Markup

from .text import day, enumeration, visible
from .trends import MOST_LINES, Line, Points, charts_of, most_telling
from .view import metric_words, words

# A page with more is no longer looked at, and each takes time; the others are told in words.
MOST_PICTURES = 24
DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))

# The part of a picture that the lines have to themselves, as shares of its width and height.
_LEFT, _RIGHT, _BOTTOM, _TOP = 0.2, 0.97, 0.19, 0.95

# Matplotlib writes these colours, the page replaces them by its own, for light, dark and paper.
_INK, _RULE, _BUNDLE = "#0a0101", "#0a0102", "#0a0103"
_LINES = ("#0a0111", "#0a0112", "#0a0113", "#0a0114")
_COLOURS = {
    _INK: "var(--muted)",
    _RULE: "var(--rule)",
    _BUNDLE: "var(--bundle)",
    **{colour: f"var(--line{number})" for number, colour in enumerate(_LINES, 1)},
}

_SCALES = {
    "bytes": ((1024**4, "TiB"), (1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB"), (1, "B")),
    "seconds": ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"), (0.001, "ms")),
}


def draw(trends: list[dict[str, Any]], cache: Path | None = None) -> dict[str, Any]:
    """``{"charts": […], "others": […], "steady": […], "note"}``: *charts* have an *svg*, the rest is told in words.

    *others* change, but there were enough pictures; *steady* stayed the same, or was measured only once. Without
    Matplotlib, or when it fails, *svg* is empty and *note* says why: no report is lost for want of a picture.
    """
    charts = charts_of(trends)
    telling = most_telling(charts)
    chosen = [{**chart, "svg": ""} for chart in telling[:MOST_PICTURES]]
    note = ""
    try:
        if chosen:
            with _files_of_matplotlib(cache):
                for chart in chosen:
                    chart["svg"] = picture(chart)
    except ImportError:
        note = "There are no pictures because Matplotlib is not installed on the control node: pip install matplotlib."
    except Exception as error:
        note = f"The pictures could not be drawn ({type(error).__name__}: {error})."
    return {
        "charts": chosen,
        "others": telling[MOST_PICTURES:],
        "steady": [chart for chart in charts if chart not in telling],
        "once": bool(charts) and all(len(points) == 1 for chart in charts for _host, points in chart["lines"]),
        "note": note,
    }


def picture(chart: dict[str, Any]) -> Markup:
    """*chart* as an SVG element.

    Its lines and labels are set directly on the figure: Matplotlib's axes would take ten times as long.
    """
    matplotlib = _matplotlib()
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{chart['activity']} {chart['metric']} {chart['unit']}",
        "path.simplify": True,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.0, 1.75))
        figure.patch.set_visible(False)
        FigureCanvasSVG(figure)
        _dress(figure, chart["lines"], chart["unit"])
        _plot(figure, chart["lines"])
        stream = io.StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None})
    hosts = enumeration([host for host, _points in chart["lines"]], 3)
    label = f"{metric_words(chart['metric'])} of {words(chart['activity'])} on {hosts}. {chart['summary']}"
    return Markup(_inline(stream.getvalue(), label))  # noqa: S704 made here; its only foreign text is escaped


def _dress(figure: Any, lines: list[Line], unit: str) -> None:
    """What is around the lines says little: two or three values in human units, the first and the last day."""
    from matplotlib.ticker import MaxNLocator

    (first, last), (low, high) = _ranges(lines)
    size, name = _scale(max(abs(low), abs(high)), unit)
    counted = unit == "count" and all(value.is_integer() for _host, points in lines for _when, value in points)
    whole = unit == "bytes" or counted
    for tick in MaxNLocator(3, integer=whole).tick_values(low / size, high / size):
        height = _across(tick * size, low, high, _BOTTOM, _TOP)
        if _BOTTOM <= height <= _TOP:
            _line(figure, [_LEFT, _RIGHT], [height, height], color=_RULE, linewidth=0.6)
            _label(figure, _LEFT - 0.015, height, f"{tick:,.4g}{name}", ha="right", va="center_baseline")
    _line(figure, [_LEFT, _RIGHT], [_BOTTOM, _BOTTOM], color=_RULE, linewidth=0.8)
    labels = _time_labels(first, last)
    _label(figure, _LEFT, 0.03, labels[0], ha="left", va="bottom")
    if len(labels) > 1:
        _label(figure, _RIGHT, 0.03, labels[1], ha="right", va="bottom")


def _plot(figure: Any, lines: list[Line]) -> None:
    times, values = _ranges(lines)

    def add(points: Points, **style: Any) -> None:
        across = [_across(when, *times, _LEFT + 0.015, _RIGHT - 0.015) for when, _value in points]
        up = [_across(value, *values, _BOTTOM, _TOP) for _when, value in points]
        _line(figure, across, up, **style)

    if len(lines) > MOST_LINES:
        for _host, points in reversed(lines[1:]):
            add(points, color=_BUNDLE, linewidth=0.8, marker="o" if len(points) == 1 else "", markersize=2.5)
        lines = lines[:1]
    for number, (_host, points) in enumerate(lines):
        add(points, color=_LINES[number], linestyle=DASHES[number], linewidth=1.6)
        shown = points if len(points) <= 12 else points[-1:]
        add(shown, color=_LINES[number], linestyle="none", marker="o", markersize=3.2)


def _line(figure: Any, across: list[float], up: list[float], **style: Any) -> None:
    from matplotlib.lines import Line2D

    figure.add_artist(Line2D(across, up, transform=figure.transFigure, **style))


def _label(figure: Any, across: float, up: float, text: str, **place: str) -> None:
    figure.text(across, up, text, fontsize=10, color=_INK, **place)


def _ranges(lines: list[Line]) -> tuple[tuple[float, float], tuple[float, float]]:
    """From when to when, and from which value to which, the picture reaches."""
    times = [when for _host, points in lines for when, _value in points]
    values = [value for _host, points in lines for _when, value in points]
    return (min(times), max(times)), _limits(min(values), max(values))


def _across(value: float, low: float, high: float, start: float, end: float) -> float:
    """Where between *start* and *end* *value* lies, as between *low* and *high*."""
    return start + (end - start) * (value - low) / (high - low) if high > low else (start + end) / 2


def _limits(low: float, high: float) -> tuple[float, float]:
    """The vertical range: from zero where that does not flatten the line, never empty."""
    if (low >= 0 and low < 0.7 * high) or low == high >= 0:
        return 0.0, high * 1.12 or 1.0
    margin = (high - low or abs(high)) * 0.15
    return low - margin, high + margin


def _scale(largest: float, unit: str) -> tuple[float, str]:
    """The factor and the name of the human unit for values up to *largest*."""
    if unit == "ratio":
        return 0.01, " %"
    for size, name in _SCALES.get(unit, ()):
        if largest >= size:
            return size, f" {name}"
    if unit == "seconds":
        return 0.001, " ms"
    # Matplotlib would set a unit with $ as mathematics.
    return 1.0, f" {unit}" if unit not in ("count", "bytes") and unit.isalnum() else ""


def _time_labels(first: float, last: float) -> list[str]:
    from datetime import UTC, datetime

    begin, end = (datetime.fromtimestamp(when, UTC) for when in (first, last))
    if first == last:
        return [day(begin.isoformat())]
    if begin.date() == end.date():
        return [f"{begin.day} {begin:%b, %H:%M}", f"{end:%H:%M}"]
    return [day(begin.isoformat()), day(end.isoformat())]


def _inline(svg: str, label: str) -> str:
    """Matplotlib's *svg* fit to stand in a page beside others: no prolog, no style, only the identifiers it needs."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"#0a01[01][0-9]", lambda match: _COLOURS[match.group()], svg)
    view_box = re.search(r'viewBox="[^"]*"', svg)
    opening = f'<svg {view_box.group() if view_box else ""} role="img" aria-label="{Markup.escape(visible(label))}">'
    return opening + re.sub(r"\n\s*", "\n", svg[svg.index(">") + 1 :]).strip()


def _matplotlib() -> Any:
    import matplotlib

    return matplotlib


@contextlib.contextmanager
def _files_of_matplotlib(cache: Path | None) -> Iterator[None]:
    """Let Matplotlib keep what it knows of fonts in *cache*, or nowhere: a home may be read-only, or not ours.

    Finding the fonts takes it a second, and it writes where it likes unless it is told. An operator's own
    MPLCONFIGDIR is respected.
    """
    if "MPLCONFIGDIR" in os.environ:
        yield
        return
    # Removed here and not at exit: Ansible's workers end without it.
    with contextlib.ExitStack() as cleaning:
        if cache and _is_private(cache):
            os.environ["MPLCONFIGDIR"] = str(cache)
        else:
            os.environ["MPLCONFIGDIR"] = cleaning.enter_context(
                tempfile.TemporaryDirectory(prefix="wellkept-matplotlib-", ignore_cleanup_errors=True)
            )
        try:
            yield
        finally:
            del os.environ["MPLCONFIGDIR"]


def _is_private(directory: Path) -> bool:
    """Whether *directory* is there, or can be made, and nobody else can write to it."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
