# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The application's own assertions: queries whose answer in the restored cluster must be what the operator expects."""

from __future__ import annotations

import contextlib
import typing as t
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation

from .. import postgresql
from ..errors import MaintenanceError
from ..options import refuse
from ..quantities import human_seconds, parse_duration
from ..result import Part
from .scratch_cluster import ScratchCluster

_STATEMENT_TIMEOUT = "10min"
_FORMS = ("expected", "min", "max", "max_age")

OPTION: dict[str, t.Any] = {
    "type": "list",
    "elements": "dict",
    "default": [],
    "options": {
        "name": {"type": "str", "required": True},
        "database": {"type": "str", "required": True},
        "query": {"type": "str", "required": True},
        **{form: {"type": "str"} for form in _FORMS},
    },
}

Assertion = t.Mapping[str, t.Any]


class Verdict(t.NamedTuple):
    passed: bool
    expected: str
    observed: str


def refuse_bad(assertions: t.Sequence[Assertion]) -> None:
    """Raise MaintenanceError for an assertion that expects nothing, or what nobody can compare."""
    for one in assertions:
        given = [form for form in _FORMS if one.get(form) is not None]
        option = f"assertions ({one['name']})"
        if not given:
            refuse(option, expected=f"one of {', '.join(_FORMS)}", observed="none of them")
        for form in ("min", "max"):
            if form in given and _number(one[form]) is None:
                refuse(option, expected=f"a number as {form}", observed=one[form])
        try:
            parse_duration(one["max_age"] if "max_age" in given else "0s")
        except ValueError as error:
            refuse(option, expected="a duration as max_age", observed=error)


def check_assertions(
    cluster: ScratchCluster, assertions: t.Sequence[Assertion], moment: datetime, part: Part, where: str = ""
) -> None:
    """Ask each assertion's query; ages count from *moment*, the point that was restored. *where* is added to names."""
    for assertion in assertions:
        try:
            verdict = judge(assertion, _answer(cluster, assertion), moment)
        except MaintenanceError as error:
            verdict = Verdict(False, "an answer", error.observed)
        part.require(
            f"assertion {assertion['name']}{where} in {assertion['database']}",
            verdict.passed,
            expected=verdict.expected,
            observed=verdict.observed,
            advice="Ask the live cluster the same; correct the assertion if its expectation is out of date.",
        )


def judge(assertion: Assertion, value: t.Any, moment: datetime) -> Verdict:
    """Whether *value* is all that the assertion expects of it."""
    found = [
        form(assertion[name], value, moment)
        for name, form in (("expected", _equals), ("min", _at_least), ("max", _at_most), ("max_age", _young_enough))
        if assertion.get(name) is not None
    ]
    observed = dict.fromkeys(one.observed for one in found)
    return Verdict(all(one.passed for one in found), " and ".join(one.expected for one in found), ", ".join(observed))


def normal(value: t.Any) -> str:
    """A value as it is compared: ``True`` → ``true``, None → ``null``, anything else by its text."""
    if value is None:
        return "null"
    text = str(value)
    return text.lower() if text in ("True", "False") else text


def _equals(expected: t.Any, value: t.Any, _moment: datetime) -> Verdict:
    return Verdict(normal(value) == normal(expected), normal(expected), normal(value))


def _at_least(least: t.Any, value: t.Any, _moment: datetime) -> Verdict:
    number, bound = _number(value), _number(least)
    return Verdict(number is not None and bound is not None and number >= bound, f"at least {least}", normal(value))


def _at_most(most: t.Any, value: t.Any, _moment: datetime) -> Verdict:
    number, bound = _number(value), _number(most)
    return Verdict(number is not None and bound is not None and number <= bound, f"at most {most}", normal(value))


def _young_enough(max_age: t.Any, value: t.Any, moment: datetime) -> Verdict:
    expected = f"no older than {human_seconds(parse_duration(max_age))} at {moment.isoformat()}"
    if isinstance(value, datetime):
        newest = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    elif isinstance(value, date):
        newest = datetime(value.year, value.month, value.day, tzinfo=timezone.utc)
    else:
        return Verdict(False, expected, f"{normal(value)}, which is no time")
    age = (moment - newest).total_seconds()
    return Verdict(
        age <= parse_duration(max_age), expected, f"{newest.isoformat()}, {human_seconds(max(age, 0.0))} old"
    )


def _number(value: t.Any) -> Decimal | None:
    """*value* as a number; None where it is none."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _answer(cluster: ScratchCluster, assertion: Assertion) -> t.Any:
    with contextlib.closing(cluster.connect(assertion["database"])) as connection:
        postgresql.query(connection, f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
        postgresql.query(connection, "BEGIN READ ONLY")
        return postgresql.value(connection, assertion["query"])
