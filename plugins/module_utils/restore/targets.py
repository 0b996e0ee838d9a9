# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Points that a restore can go to, as an operator writes them and as PostgreSQL is told them."""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timezone

from ..backup.wal.positions import format_lsn, parse_lsn

KINDS = ("backup", "newest", "time", "lsn", "name", "before_xid", "immediate")
_ALONE = ("backup", "newest", "immediate")
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d)(:\d\d)?(\.\d{1,6})?\s*(Z|[+-]\d\d(?::?\d\d)?)")
_FORMS = (
    "newest, backup, time:2026-11-21T03:00:00+01:00, lsn:0/3000060, name:before_upgrade, before_xid:1234 or immediate"
)

# What the server's log says of where recovery stopped, for each kind.
_STOPS = {
    "backup": 'at restore point "{value}"',
    "newest": "after WAL location (LSN)",
    "time": "before ",
    "lsn": "before WAL location (LSN)",
    "name": 'at restore point "{value}"',
    "before_xid": "before commit of transaction {value},",
    "immediate": "after reaching consistency",
}


class Target(t.NamedTuple):
    """A point to restore to; of some kinds the value follows from the backup or the archive."""

    kind: str
    value: str = ""

    @property
    def time(self) -> datetime:
        return datetime.strptime(self.value, "%Y-%m-%d %H:%M:%S.%f+00").replace(tzinfo=timezone.utc)

    @property
    def lsn(self) -> int:
        return parse_lsn(self.value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}" if self.value else self.kind


def parse(text: str) -> Target:
    """The target that *text* names; raises ValueError that says how one is written."""
    kind, _colon, value = text.strip().partition(":")
    value = value.strip()
    if text.strip() in _ALONE:
        return Target(text.strip())
    if re.match(r"\d{4}-\d\d-\d\d", text.strip()):
        return Target("time", _utc(text.strip()))
    if kind == "time":
        return Target(kind, _utc(value))
    if kind == "lsn" and _LSN.fullmatch(value):
        return Target(kind, format_lsn(parse_lsn(value)))
    if kind == "name" and 0 < len(value) < 64 and value.isprintable():
        return Target(kind, value)
    if kind == "before_xid" and re.fullmatch(r"[1-9]\d{0,9}", value):
        return Target(kind, value)
    raise ValueError(f"{text!r} is no point to restore to; write {_FORMS}")


def _utc(text: str) -> str:
    found = _TIME.fullmatch(text)
    if not found:
        raise ValueError(
            f"{text!r} is no time; write it with its time zone, like 2026-11-21T03:00:00+01:00 or 2026-11-21T02:00:00Z"
        )
    day, minute, second, fraction, zone = found.groups()
    offset = "+0000" if zone == "Z" else (zone.replace(":", "") + "00")[:5]
    form = "%Y-%m-%d %H:%M:%S.%f%z"
    moment = datetime.strptime(f"{day} {minute}{second or ':00'}{fraction or '.0'}{offset}", form)
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M:%S.%f}+00"


def settings(target: Target) -> dict[str, str]:
    """What the server is told, so that it has all that was committed up to *target* and nothing later.

    A position means the state at the moment when the WAL was that long; a time, all that was committed by then.
    ``newest`` and ``backup`` have been given their value before.
    """
    name, inclusive = {
        "backup": ("recovery_target_name", "on"),
        "newest": ("recovery_target_lsn", "on"),
        "time": ("recovery_target_time", "on"),
        "lsn": ("recovery_target_lsn", "off"),
        "name": ("recovery_target_name", "on"),
        "before_xid": ("recovery_target_xid", "off"),
        "immediate": ("recovery_target", "on"),
    }[target.kind]
    return {name: target.value or "immediate", "recovery_target_inclusive": inclusive}


def is_reached(target: Target, stopped: str) -> bool:
    """Whether *stopped*, what the server's log says of where recovery stopped, is this target."""
    return f"recovery stopping {_STOPS[target.kind].format(value=target.value)}" in stopped
