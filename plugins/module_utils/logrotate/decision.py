# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is to be done about what was measured."""

from __future__ import annotations

import dataclasses
import typing as t

from . import config, output, survey
from .measuring import Seen


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be done: which logs are due, and which have no date yet, by policy."""

    write_config: bool
    repair_state: bool
    rotate: dict[str, list[survey.LogFile]]
    note: dict[str, list[str]]

    @property
    def run(self) -> bool:
        return self.write_config or self.repair_state or bool(self.rotate or self.note)


def decide(policies: t.Sequence[config.Policy], seen: Seen) -> Plan:
    rotate: dict[str, list[survey.LogFile]] = {}
    note: dict[str, list[str]] = {}
    for policy in policies:
        files = [file for file in seen.logs[policy.name] if not file.is_link and file.links == 1]
        due = [file for file in files if output.printed(file.path) in seen.due]
        new = [file.path for file in files if file.path not in seen.state.dates and file not in due]
        if due:
            rotate[policy.name] = due
        if new:
            note[policy.name] = new
    return Plan(
        write_config=bool(policies) and seen.config_now != seen.config_wanted,
        repair_state=bool(policies) and bool(seen.state.problems),
        rotate=rotate,
        note=note,
    )
