# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rotate what is due, or tell what would be; then look again at what came of it."""

from __future__ import annotations

import os
import time
import typing as t

from ..errors import MaintenanceError
from ..quantities import human_bytes
from ..result import Part
from . import memory, output, proof, runner, state, survey, verification, writers
from .decision import Plan
from .measuring import Seen, add
from .options import Settings


def announce(part: Part, place: runner.Place, seen: Seen, plan: Plan) -> None:
    """Record the changes that *plan* would make."""
    if plan.write_config:
        part.change("file", place.config, seen.config_now or "absent", seen.config_wanted)
    if plan.repair_state:
        part.change("file", place.state, "; ".join(seen.state.problems), f"{len(seen.state.dates)} dates recovered")
    for name, files in plan.rotate.items():
        part.change("logs", name, _in_words(files), f"{len(files)} rotated")
    for name, paths in plan.note.items():
        part.change("schedule", name, f"no date for {proof.some(paths)}", "noted")


def act(part: Part, settings: Settings, program: str, seen: Seen, plan: Plan) -> None:
    place = settings.place
    runner.prepare(place)
    if plan.write_config:
        runner.write_text(place.config, seen.config_wanted)
        part.change("file", place.config, seen.config_now or "absent", seen.config_wanted)
    _repair_state(part, place, seen, plan)
    if not plan.run:
        part.check("logrotate run", "passed", expected="a run when something is due", observed="nothing due")
        return
    done = runner.rotate(program, place, settings.timeout)
    if done.returncode == output.LOCKED:
        raise MaintenanceError(
            "run logrotate",
            where=place.state,
            expected="nobody else at work with this state file",
            observed="another logrotate holds its lock (exit status 3)",
            advice="Wait until it has ended and run again; if this happens often, give each a state file of its own.",
        )
    errors = output.errors(output.with_printed_names(done.stderr, (file.path for file in seen.files)))
    part.require(
        "logrotate run",
        done.returncode == 0 and not errors,
        expected="exit status 0 and no error",
        observed=f"exit status {done.returncode}" + (f": {proof.some(errors, 3)}" if errors else ", no error"),
        advice=output.advice_for(errors),
    )


def _repair_state(part: Part, place: runner.Place, seen: Seen, plan: Plan) -> None:
    """Replace a damaged state file, keeping it under another name; else logrotate would forget all dates."""
    name, expected = "logrotate state file", "a state file that can be read"
    if not plan.repair_state:
        part.check(name, "passed", expected=expected, observed=f"{len(seen.state.dates)} dates")
        return
    problems = "; ".join(seen.state.problems)
    aside = f"{place.state}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime(seen.at))}"
    os.rename(place.state, aside)
    runner.write_text(place.state, state.render(seen.state.dates))
    part.change("file", place.state, problems, f"{len(seen.state.dates)} dates recovered")
    part.check(
        name,
        "warned",
        expected=expected,
        observed=f"damaged ({problems}); moved to {aside}, {len(seen.state.dates)} dates recovered, the run went on",
        advice="Look for a full disk or a crash; remove the damaged file when it is of no more interest.",
    )


def verify(part: Part, settings: Settings, seen: Seen, plan: Plan) -> None:
    """Look at the logs again and record what was proven."""
    logs = survey.survey(settings.policies)
    dates = state.parse(runner.read_text(settings.place.state) or state.HEADING).dates
    unproven: list[str] = []
    rotated = 0
    for policy in settings.policies:
        noted = plan.note.get(policy.name, [])
        result = verification.rotation(policy, plan.rotate.get(policy.name, []), logs[policy.name], noted)
        before = writers.live_writers(seen.logs[policy.name], seen.opened)
        attempted = policy.name in plan.rotate
        trusted = {path: date for path, date in dates.items() if path not in result.unproven}
        add(part, result.findings)
        add(part, verification.condition(policy, settings.place, logs[policy.name], trusted, attempted))
        add(part, verification.writing(policy, settings, before, result.proven, trusted))
        if result.proven:
            size = human_bytes(sum(file.size for file in logs[policy.name]))
            part.change("logs", policy.name, _in_words(result.proven), f"{len(result.proven)} rotated, {size} live")
        if any(path in dates for path in noted):
            part.change("schedule", policy.name, f"no date for {proof.some(noted)}", "noted")
        unproven += result.unproven
        rotated += len(result.proven)
    if unproven:
        runner.set_back(settings.place, unproven, seen.state.dates)
    live = [file for files in logs.values() for file in files]
    part.metric("log_bytes_after", sum(file.size for file in live), "bytes")
    part.metric("rotated_files", rotated, "count")
    kept = {path: date for path, date in dates.items() if path not in unproven}
    memory.save(settings.place.memory, [*seen.audit.uncovered, *live], kept, seen.earlier, seen.at)


def _in_words(files: t.Sequence[survey.LogFile]) -> str:
    total = human_bytes(sum(file.size for file in files))
    return f"{len(files)} due, {total}: {proof.some([file.path for file in files])}"
