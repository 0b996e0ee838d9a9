# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is measured before anything is done: the logs, and what logrotate says of them."""

from __future__ import annotations

import dataclasses
import re
import time
import typing as t

from ..open_files import OpenFile
from ..result import Part
from . import audit, config, memory, output, proof, runner, state, survey, writers
from .options import Settings


@dataclasses.dataclass(frozen=True)
class Seen:
    """The logs, and what logrotate says of them, before anything is done."""

    logs: survey.Logs
    state: state.State
    config_now: str | None
    config_wanted: str
    errors: list[str]
    due: set[str]
    opened: list[OpenFile]
    audit: audit.Audit
    earlier: memory.Seen
    at: float

    @property
    def files(self) -> list[survey.LogFile]:
        return [file for files in self.logs.values() for file in files]


def measure(settings: Settings, program: str) -> Seen:
    at = time.time()
    place = settings.place
    logs = survey.survey(settings.policies)
    files = [file for found in logs.values() for file in found]
    earlier = memory.load(place.memory)
    text = runner.read_text(place.state)
    read = state.State({}, ()) if text is None else state.parse(text)
    if read.problems:
        remembered = {path: entry["rotated"] for path, entry in earlier.items() if "rotated" in entry}
        read = read._replace(dates=runner.recovered_dates(read.dates, remembered, files))
    wanted = config.render(settings.policies, place.markers)
    said = runner.dry_run(program, wanted, read.dates, place) if settings.policies else ""
    said = output.with_printed_names(said, (file.path for file in files))
    opened = writers.writers_now()
    system = survey.system_rules(settings.system_config)
    return Seen(
        logs=logs,
        state=read,
        config_now=runner.read_text(place.config),
        config_wanted=wanted,
        errors=output.errors(said),
        due=output.due(said),
        opened=opened,
        audit=audit.audit(settings.scope, ours=files, system=system, opened=opened, earlier=earlier, now=at),
        earlier=earlier,
        at=at,
    )


def record(part: Part, settings: Settings, seen: Seen) -> None:
    """The checks and metrics that need no rotation."""
    part.require(
        "logrotate configuration",
        not seen.errors,
        expected="no error in logrotate's dry run",
        observed=proof.some(seen.errors, 3) or f"none; policies: {len(settings.policies)}",
        advice=output.advice_for(seen.errors),
    )
    twice = survey.named_twice(seen.logs)
    for policy in settings.policies:
        files = seen.logs[policy.name]
        shared = [file.path for file in files if file.path in twice]
        add(part, [proof.files_found(policy, files, survey.rotated_again(policy, files), shared)])
        growth = memory.growth_per_day(files, seen.earlier, seen.at)
        if growth is not None:
            name = re.sub(r"\W", "_", policy.name).lower()
            part.metric(f"log_growth_bytes_per_day_{name}", round(growth), "bytes")
    add(part, seen.audit.findings)
    part.metric("log_bytes_before", sum(file.size for file in seen.files), "bytes")


def add(part: Part, findings: t.Sequence[proof.Finding]) -> None:
    for finding in findings:
        part.check(
            finding.name,
            finding.status,
            expected=finding.expected,
            observed=finding.observed,
            advice=finding.advice,
            evidence=finding.evidence,
        )
