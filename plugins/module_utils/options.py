# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read a module's options: each error is a MaintenanceError that names the option and says what it should be."""

from __future__ import annotations

import typing as t

from .errors import MaintenanceError
from .quantities import parse_duration, parse_size

Params = t.Mapping[str, t.Any]


def refuse(option: str, *, expected: str, observed: object, advice: str = "") -> t.NoReturn:
    """Raise the MaintenanceError for an *option* whose value makes no sense."""
    raise MaintenanceError(
        f"read the option {option}", expected=expected, observed=str(observed), advice=advice or f"Correct {option}."
    )


def read_duration(params: Params, option: str) -> float:
    """Seconds of the *option* in *params*."""
    try:
        return parse_duration(params[option])
    except ValueError as error:
        refuse(option, expected="a duration", observed=error)


def read_size(params: Params, option: str) -> int:
    """Bytes of the *option* in *params*."""
    try:
        return parse_size(params[option])
    except ValueError as error:
        refuse(option, expected="a size", observed=error)


def read_at_least(params: Params, option: str, least: int) -> int:
    """The whole number that the *option* in *params* is, *least* or more."""
    if params[option] < least:
        refuse(option, expected=f"{least} or more", observed=params[option])
    return int(params[option])
