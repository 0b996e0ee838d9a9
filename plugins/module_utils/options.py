# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read a module's options: each error is a MaintenanceError that names the option and says what it should be."""

from __future__ import annotations

import contextlib
import typing as t

from .errors import MaintenanceError
from .quantities import parse_duration, parse_size

Params = t.Mapping[str, t.Any]


def refuse(option: str, *, expected: str, observed: object, advice: str = "") -> t.NoReturn:
    """Raise the MaintenanceError for an *option* whose value makes no sense."""
    raise MaintenanceError(
        f"read the option {option}", expected=expected, observed=str(observed), advice=advice or f"Correct {option}."
    )


@contextlib.contextmanager
def reading(option: str, *, expected: str) -> t.Iterator[None]:
    """A ValueError in the block says what is wrong with *option*."""
    try:
        yield
    except ValueError as error:
        refuse(option, expected=expected, observed=error)


def read_duration(params: Params, option: str) -> float:
    """Seconds of the *option* in *params*."""
    with reading(option, expected="a duration"):
        return parse_duration(params[option])


def read_size(params: Params, option: str) -> int:
    """Bytes of the *option* in *params*."""
    with reading(option, expected="a size"):
        return parse_size(params[option])


def read_at_least(params: Params, option: str, least: int) -> int:
    """The whole number that the *option* in *params* is, *least* or more."""
    if params[option] < least:
        refuse(option, expected=f"{least} or more", observed=params[option])
    return int(params[option])
