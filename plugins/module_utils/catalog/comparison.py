# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The differences between two listings of a cluster, in words; secrets and hashes by name only."""

from __future__ import annotations

import typing as t

from .listing import Listing

TOO_MANY = "should not be there"
_BY_NAME_ONLY = frozenset(
    ("password", "values", "settings", "definition", "default", "partition bound", "partition key")
)


def differences(expected: Listing, observed: Listing, unsure: t.Container[str] = ()) -> list[str]:
    """One line for each object that is missing, too many or different; those that were *unsure* are left out."""
    found = []
    for name in sorted({*expected, *observed}):
        if name in unsure:
            continue
        if name not in observed:
            found.append(f"{name} is missing")
        elif name not in expected:
            found.append(f"{name} {TOO_MANY}")
        else:
            found += _changed(name, expected[name], observed[name])
    return found


def _changed(name: str, expected: t.Mapping[str, t.Any], observed: t.Mapping[str, t.Any]) -> list[str]:
    changed = [key for key in sorted({*expected, *observed}) if expected.get(key) != observed.get(key)]
    if not changed:
        return []
    words = [
        f"its {key} differs"
        if key in _BY_NAME_ONLY
        else f"its {key} is {observed.get(key, 'none')} instead of {expected.get(key, 'none')}"
        for key in changed
    ]
    return [f"{name}: {', '.join(words)}"]


def is_behind(value: int | None, least: int | None, increment: int) -> bool:
    """Whether a sequence at *value* would give numbers again that it had given when it stood at *least*."""
    if least is None:
        return False
    return value is None or (value < least if increment > 0 else value > least)
