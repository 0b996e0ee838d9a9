# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Result documents: CloudEvents that say what one activity showed on one host in one run."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.result import PART_KEYS, outcome_of

from .identifiers import new_id

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
RESULT_TYPE = "wellkept.maintenance.result.v1"
RESULT_SCHEMA = "https://wellkept.maintenance/schemas/result.v1.json"


@dataclass
class Gathered:
    """What has been gathered of one activity on one host."""

    host: str
    activity: str
    team: str
    started: str
    parts: list[dict[str, Any]] = field(default_factory=list)
    decided_outcome: str = ""  # by a gate, before anything ran
    reason: str = ""
    changed: bool = False


def is_part(answer: dict[str, Any]) -> bool:
    """Whether a task's answer is a part of a result."""
    return all(key in answer for key in PART_KEYS) and isinstance(answer["checks"], list)


def failed_check(name: str, *, expected: str, observed: str, advice: str) -> dict[str, Any]:
    return {
        "name": name, "status": "failed", "expected": expected, "observed": observed, "advice": advice, "evidence": {},
    }  # fmt: skip


def part_of(check: dict[str, Any]) -> dict[str, Any]:
    """A part that holds nothing but *check*."""
    return {"checks": [check], "metrics": {}, "changes": [], "artifacts": []}


def result_document(gathered: Gathered, run: dict[str, Any], finished: str, source: str) -> dict[str, Any]:
    """The result that follows from what was *gathered* in *run*; always valid: what is not becomes a failed check."""
    document = _compose(gathered, run, finished, source)
    problems = schema_problems("result.v1.json", document)
    if problems:
        broken = failed_check(
            f"the answer of {gathered.activity} can be recorded",
            expected="checks, metrics, changes and artifacts as schemas/result.v1.json describes them",
            observed="; ".join(problems[:5]),
            advice="This is a defect of the module: report it with this text.",
        )
        gathered.parts = [part_of(broken)]
        document = _compose(gathered, run, finished, source)
    return document


def _compose(gathered: Gathered, run: dict[str, Any], finished: str, source: str) -> dict[str, Any]:
    checks = [check for part in gathered.parts for check in part["checks"]]
    reasons = [part["skip_reason"] for part in gathered.parts if part.get("skip_reason")]
    outcome, reason = gathered.decided_outcome, gathered.reason
    if not outcome:
        skipped = bool(reasons) and not checks
        outcome, reason = ("skipped", "; ".join(reasons)) if skipped else (outcome_of(checks), "")
    if not checks and outcome != "skipped":
        checks = [
            failed_check(
                f"{gathered.activity} was checked",
                expected="at least one check",
                observed=reason or "the activity ended without any",
                advice="See the run's output for what happened on this host.",
            )
        ]
    data = {
        "run": {key: run[key] for key in ("id", "cadence", "operator", "check_mode", "approved_by", "change")},
        "activity": gathered.activity,
        "host": gathered.host,
        "team": gathered.team,
        "started": gathered.started,
        "finished": finished,
        "outcome": outcome,
        "reason": reason if outcome == "skipped" else "",
        "changed": gathered.changed,
        "module_seconds": round(sum(part.get("module_seconds", 0) for part in gathered.parts), 4),
        "checks": checks,
        "metrics": {name: value for part in gathered.parts for name, value in part["metrics"].items()},
        "changes": [change for part in gathered.parts for change in part["changes"]],
        "artifacts": [artifact for part in gathered.parts for artifact in part["artifacts"]],
    }
    return {
        "specversion": "1.0",
        "id": new_id(),
        "source": source,
        "type": RESULT_TYPE,
        "subject": f"{gathered.host}/{gathered.activity}",
        "time": finished,
        "datacontenttype": "application/json",
        "dataschema": RESULT_SCHEMA,
        "data": data,
    }


def schema_errors(schema: str, document: Any) -> list[Any]:
    """jsonschema's errors of *document* by the schema file *schema*, in the order of their places."""
    return sorted(_validator(schema).iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))


def schema_problems(schema: str, document: Any) -> list[str]:
    """What is wrong with *document* by the schema file *schema*, as ``place: message``; empty when it is valid."""
    return [
        f"{'.'.join(map(str, error.absolute_path)) or 'document'}: {error.message[:300]}"
        for error in schema_errors(schema, document)
    ]


@functools.cache
def _validator(schema: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads((SCHEMAS / schema).read_text()))


def overall_verdict(outcomes: Sequence[str]) -> str:
    """failed, warned or passed for a whole run: skipped activities neither prove nor fail anything but warn."""
    if "failed" in outcomes:
        return "failed"
    return "warned" if {"warned", "skipped"} & set(outcomes) else "passed"
