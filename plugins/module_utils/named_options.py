# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lists of named things in a module's options: rules, caches, policies. All that is wrong with them is told at once."""

from __future__ import annotations

import typing as t

from .errors import MaintenanceError

Thing = t.TypeVar("Thing")
Option = t.Dict[str, t.Any]


def name_of(option: Option) -> str:
    """What it is called in checks and reports: its ``name``, else its ``path``."""
    return str(option["name"] or option["path"])


def read_named(
    kind: str, options: t.Sequence[Option], read: t.Callable[[str, Option], Thing], *, expected: str, advice: str
) -> list[Thing]:
    """What *read* makes of the name and the values of each of *options*, things of one *kind* ("rule").

    *read* raises ValueError for values that make no sense. Raises MaintenanceError that names all problems; two things
    of the same name are one.
    """
    things: list[Thing] = []
    problems: list[str] = []
    names = [name_of(option) for option in options]
    for name, option in zip(names, options):  # noqa: B905 (Python 3.9 has no strict)
        try:
            things.append(read(name, option))
        except ValueError as error:
            problems.append(f"{kind} {name}: {error}")
        if names.count(name) > 1:
            problems.append(f"{kind} {name}: another {kind} has the same name; give each its own `name`")
    if problems:
        observed = "; ".join(dict.fromkeys(problems))
        raise MaintenanceError(f"read each {kind}", expected=expected, observed=observed, advice=advice)
    return things
