# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as a textfile for the Prometheus node exporter: when each activity last succeeded, and how this run went.

Alert on evidence that grows old, whatever the reason (no run, a failure, a dead scheduler)::

    time() - wellkept_activity_last_success_timestamp_seconds{activity="backup"} > 30 * 3600

A result of check mode is no evidence: it changes no series of an activity.
"""

from __future__ import annotations

from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.result import GOOD_OUTCOMES, OUTCOMES

from .text import ended, parse_time, seconds_between, seconds_taken, visible

Labels = dict[str, str]
Series = dict[tuple[str, str], float]  # by (host, activity)

VERDICTS = ("passed", "warned", "failed")


def render(report: dict[str, Any]) -> str:
    """The exposition in Prometheus' text format."""
    outcomes, successes, durations = _activities(report)
    status = {(entry["host"], entry["activity"]): entry for entry in report.get("status", [])}
    lines = [
        *_family(
            "wellkept_activity_last_success_timestamp_seconds",
            "When the activity last passed (or passed with remarks) on the host, in seconds since 1970.",
            [(_labels(key), value) for key, value in sorted(successes.items())],
        ),
        *_family(
            "wellkept_activity_outcome",
            "Outcome of the activity's last result on the host: 1 for the outcome it had, 0 for the others.",
            [
                ({**_labels(key), "outcome": outcome}, float(outcome == last))
                for key, last in sorted(outcomes.items())
                for outcome in OUTCOMES
            ],
        ),
        *_family(
            "wellkept_activity_duration_seconds",
            "How long the activity took on the host in this run.",
            [(_labels(key), value) for key, value in sorted(durations.items())],
        ),
        *_family(
            "wellkept_activity_overdue",
            "1 where the activity is overdue by the plan, else 0.",
            [(_labels(key), float(bool(entry.get("overdue")))) for key, entry in sorted(status.items())],
        ),
        *_run(report),
    ]
    return "\n".join(lines) + "\n"


def _activities(report: dict[str, Any]) -> tuple[dict[tuple[str, str], str], Series, Series]:
    """Last outcome, last success and duration by (host, activity): from the status, renewed by this run's results."""
    outcomes: dict[tuple[str, str], str] = {}
    successes: Series = {}
    durations: Series = {}
    for entry in report.get("status", []):
        key = (entry["host"], entry["activity"])
        if entry.get("outcome") in OUTCOMES:
            outcomes[key] = entry["outcome"]
        good = entry.get("finished") if entry.get("outcome") in GOOD_OUTCOMES else None
        _renew(successes, key, entry.get("last_good") or good)
    for event in report.get("results", []):
        data = event["data"]
        if data["run"]["check_mode"]:
            continue
        key = (data["host"], data["activity"])
        outcomes[key] = data["outcome"]
        durations[key] = seconds_taken(data)
        if data["outcome"] in GOOD_OUTCOMES:
            _renew(successes, key, data["finished"])
    return outcomes, successes, durations


def _renew(series: Series, key: tuple[str, str], iso: str | None) -> None:
    moment = parse_time(iso)
    if moment:
        series[key] = max(moment.timestamp(), series.get(key, 0.0))


def _run(report: dict[str, Any]) -> list[str]:
    run = report["run"]
    labels = {"cadence": run["cadence"]}
    finished = parse_time(ended(run))
    seconds = seconds_between(run["started"], ended(run))
    outcomes = [event["data"]["outcome"] for event in report.get("results", [])]
    return [
        *_family(
            "wellkept_run_finished_timestamp_seconds",
            "When the run ended, in seconds since 1970.",
            [(labels, finished.timestamp())] if finished else [],
        ),
        *_family(
            "wellkept_run_duration_seconds",
            "How long the run took.",
            [(labels, seconds)] if seconds is not None else [],
        ),
        *_family(
            "wellkept_run_verdict",
            "Verdict of the run: 1 for the verdict it had, 0 for the others.",
            [({**labels, "verdict": verdict}, float(verdict == run["verdict"])) for verdict in VERDICTS],
        ),
        *_family(
            "wellkept_run_results",
            "Number of the run's results by outcome.",
            [({**labels, "outcome": outcome}, float(outcomes.count(outcome))) for outcome in OUTCOMES],
        ),
        *_family(
            "wellkept_run_check_mode",
            "1 when the run changed nothing and is no evidence (check mode), else 0.",
            [(labels, float(bool(run.get("check_mode"))))],
        ),
        *_family(
            "wellkept_run_missing_results",
            "Number of activities on hosts that were due and left no result.",
            [(labels, float(len(report.get("missing", []))))],
        ),
        *_family(
            "wellkept_run_interrupted_runs",
            "Earlier runs that had died and were found by this one.",
            [(labels, float(len(report.get("interrupted", []))))],
        ),
    ]


def _family(name: str, text: str, samples: list[tuple[Labels, float]]) -> list[str]:
    if not samples:
        return []
    return [
        f"# HELP {name} {text}",
        f"# TYPE {name} gauge",
        *(f"{name}{{{_label_text(labels)}}} {_number(value)}" for labels, value in samples),
    ]


def _labels(key: tuple[str, str]) -> Labels:
    return {"host": key[0], "activity": key[1]}


def _label_text(labels: Labels) -> str:
    return ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())


def _escape(value: str) -> str:
    """*value* as the text format wants it between quotes; other control characters are shown, not sent."""
    return visible(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else repr(round(value, 3))
