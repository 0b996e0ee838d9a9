# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as one HTML file without scripts: for a browser, a phone, paper and an attachment to a mail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from . import pictures
from .text import SIGNS, moment, one_line, visible
from .view import metric_words, view_of, words

TEMPLATES = Path(__file__).parent / "templates"
# With more of them beside one that did not pass, they are folded.
MOST_PASSED = 6


def render(report: dict[str, Any], cache: Path | None = None) -> str:
    """The whole page; what drawing its pictures takes long to find out is kept in *cache*."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["SIGNS"] = SIGNS
    environment.filters.update(
        words=words,
        metric_words=metric_words,
        moment=moment,
        evidence=_evidence,
        breakable=_breakable,
        one_line=lambda text: one_line(str(text)),
    )
    view = view_of(report)
    for entry in view["hosts"]:
        entry["results"] = [_with_trouble_apart(result) for result in entry["results"]]
    drawn = pictures.draw(view["trends"], cache)
    return environment.get_template("report.html.j2").render(**view, drawn=drawn)


def _with_trouble_apart(result: dict[str, Any]) -> dict[str, Any]:
    """*result* with what passed apart, where it would hide what did not."""
    passed = [check for check in result["checks"] if check["status"] == "passed"]
    bad = [check for check in result["checks"] if check["status"] != "passed"]
    apart = bool(bad) and len(passed) > MOST_PASSED
    return {**result, "checks": bad if apart else result["checks"], "more_passed": passed if apart else []}


def _clean(value: Any) -> Any:
    """What the template puts out: markup as it is, texts made harmless (and escaped by Jinja afterwards)."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def _breakable(text: str) -> Markup:
    """A path or name that may be broken after a slash or an underscore, so that it fits a phone."""
    escaped = str(Markup.escape(visible(text)))
    return Markup(escaped.replace("/", "/<wbr>").replace("_", "_<wbr>"))  # noqa: S704 escaped before


def _evidence(evidence: dict[str, Any]) -> str:
    return json.dumps(evidence, indent=1, sort_keys=True, ensure_ascii=False, default=str)
