# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has the wrong form in a plan, in words; and the plan without it, so that the rest can be judged as well."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

from .results import schema_errors

_TYPES = {
    "object": "a mapping (name: value)",
    "array": "a list",
    "string": "a text",
    "number": "a number",
    "boolean": "true or false",
}


class Flaw(NamedTuple):
    """One thing of the wrong form: where it is, and what is wrong with it."""

    path: tuple[str | int, ...]
    words: str

    def __str__(self) -> str:
        return f"{'.'.join(map(str, self.path))}: {self.words}"


def flaws_of(document: dict[str, Any]) -> list[Flaw]:
    """Everything in *document* that schemas/plan.v1.json does not allow."""
    return [
        Flaw(tuple(error.absolute_path), words) for error in schema_errors("plan.v1.json", document)
        for words in _words(error)
    ]  # fmt: skip


def without(document: dict[str, Any], flaws: Iterable[Flaw]) -> dict[str, Any]:
    """A copy of *document* that lacks what the *flaws* are about: an option, a whole window, a whole freeze."""
    rest = copy.deepcopy(document)
    for flaw in flaws:
        _take_out(rest, flaw.path)
    for name in ("maintenance_windows", "maintenance_freezes"):
        rest[name] = [one for one in rest[name] if one is not None]
    return rest


def _take_out(rest: dict[str, Any], path: tuple[str | int, ...]) -> None:
    variable, *inner = str(path[0]), *path[1:]
    if not inner:
        rest[variable] = {} if variable == "maintenance_plan" else []
    elif variable != "maintenance_plan":
        rest[variable][inner[0]] = None
    elif len(inner) > 1 and inner[0] in rest[variable]:
        rest[variable][inner[0]].pop(inner[1], None)
    elif not isinstance(rest[variable][inner[0]], dict):
        rest[variable][inner[0]] = {}


def _words(error: Any) -> list[str]:
    """What is wrong, as a person would say it."""
    given = f"{error.instance!r}"[:80]
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        return [f"unknown key {key!r}{nearest(key, known)}" for key in error.instance if key not in known]
    if error.validator == "required":
        return [f"it lacks {error.message.split(chr(39))[1]}"]
    if error.validator == "enum":
        return [f"{given} is none of {', '.join(map(str, error.validator_value))}"]
    if error.validator == "oneOf":
        return [f"{given} is not as it should be: {error.schema['description']}"]
    if error.validator == "pattern" or (error.validator == "type" and "pattern" in error.schema):
        return [f"{given} is not as it should be: {error.schema['description']}"]
    if error.validator == "type":
        wanted = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        return [f"{given} is not {' or '.join(_TYPES[name] for name in wanted)}"]
    return [str(error.message)[:300]]


def nearest(name: Any, names: Iterable[str]) -> str:
    """``; did you mean …?`` when one of *names* is near, else all that are known."""
    close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(sorted(names))}"
