# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report says, before it is known how it will look: plain data that the HTML and the Markdown template show."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.quantities import human_seconds

from .text import (
    counted,
    ended,
    enumeration,
    moment,
    one_line,
    quantity,
    seconds_between,
    seconds_taken,
    value_text,
    visible,
)

# The worst first: what needs a person stands at the top.
SEVERITY = ("failed", "unknown", "warned", "skipped", "passed")

_ABBREVIATIONS = {
    **{name: name.upper() for name in ("http", "mxid", "rpo", "rto", "tcp", "wal", "xid")},
    "postgresql": "PostgreSQL",
}

TITLES = {
    "on_demand": "Maintenance on demand",
    "continuous": "Continuous maintenance",
}


def view_of(report: dict[str, Any]) -> dict[str, Any]:
    """Everything a template needs to show *report*."""
    run = report["run"]
    results = [_result(number, event["data"]) for number, event in enumerate(report.get("results", []), 1)]
    status = sorted(report.get("status", []), key=lambda entry: (entry["activity"], entry["host"]))
    outcomes = Counter(result["outcome"] for result in results)
    return {
        "title": TITLES.get(run["cadence"], f"{run['cadence'].capitalize()} maintenance"),
        "run": run,
        "check_mode": bool(run.get("check_mode")),
        "verdict": run["verdict"],
        "headline": headline(run, results, len(report.get("missing", []))),
        "counts": [
            (outcome, outcomes[outcome]) for outcome in ("passed", "warned", "failed", "skipped") if outcomes[outcome]
        ],
        "todo": todo(results),
        "missing": _by_activity(report.get("missing", [])),
        "interrupted": [_interrupted(entry) for entry in report.get("interrupted", [])],
        "overdue": [_status(entry) for entry in status if entry.get("overdue")],
        "grid": grid(results),
        "hosts": by_host(results),
        "skipped": [result for result in results if result["outcome"] == "skipped"],
        "status": [_status(entry) for entry in status],
        "trends": report.get("trends", []),
        "not_applicable": report.get("not_applicable", []),
        "facts": facts(run),
    }


def headline(run: dict[str, Any], results: list[dict[str, Any]], missing: int = 0) -> str:
    """The verdict in one sentence."""
    if run.get("check_mode"):
        would = sum(1 for result in results if result["changes"])
        failed = sum(1 for result in results if result["outcome"] == "failed")
        trouble = f", and {counted(failed, 'would fail', 'would fail')}" if failed else ""
        return (
            f"This was a rehearsal of {counted(len(results), 'activity', 'activities')}: "
            f"{would or 'none'} would change something{trouble}."
        )
    failures: dict[str, list[str]] = {}
    for result in results:
        if result["outcome"] == "failed":
            failures.setdefault(result["activity"], []).append(visible(one_line(result["host"]), 60))
    if failures:
        number = sum(len(hosts) for hosts in failures.values())
        where = [
            f"{words(activity)} on {hosts[0] if len(hosts) == 1 else counted(len(hosts), 'host')}"
            for activity, hosts in failures.items()
        ]
        return f"{number} of {counted(len(results), 'activity', 'activities')} failed: {enumeration(where, 3)}."
    if missing:
        return (
            f"{counted(missing, 'activity', 'activities')} that {'was' if missing == 1 else 'were'} due left no result."
        )
    if run["verdict"] == "failed":
        return "The run failed before it had shown everything that was due."
    if not results:
        return "Nothing was due."
    return _good_headline(results)


def _good_headline(results: list[dict[str, Any]]) -> str:
    skipped = sum(1 for result in results if result["outcome"] == "skipped")
    remarks = sum(1 for result in results for check in result["checks"] if check["status"] in ("warned", "unknown"))
    look = f"{counted(remarks, 'finding deserves', 'findings deserve')} a look" if remarks else ""
    if skipped == len(results):
        return (
            f"Nothing was done: {counted(skipped, 'activity was', 'activities were')} skipped, for the reasons below."
        )
    if skipped:
        rest = f"{counted(skipped, 'activity was', 'activities were')} skipped, for the reasons below"
        return f"Everything else that was due was done and verified, but {rest}{'; ' + look if look else ''}."
    if look:
        return f"Everything that was due was done; {look}."
    return "Everything that was due was done and verified."


def todo(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a person should look at: what has not passed, the worst first, one entry for all hosts that share it."""
    found: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for result in results:
        for check in result["checks"]:
            if check["status"] == "passed":
                continue
            key = (check["status"], result["activity"], check["name"], check["advice"])
            entry = found.setdefault(
                key,
                {"status": key[0], "activity": key[1], "name": key[2], "advice": key[3], "where": []},
            )
            entry["where"].append({key: check[key] for key in ("observed", "expected")})
            entry["where"][-1].update(host=result["host"], anchor=result["anchor"])
    return sorted(found.values(), key=lambda entry: SEVERITY.index(entry["status"]))


def grid(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Hosts × activities: ``{"activities", "rows": [{"host", "cells": [result or None, …], "passed": 3}], "size"}``."""
    activities = list(dict.fromkeys(result["activity"] for result in results))
    at = {(result["host"], result["activity"]): result for result in results}
    passed = Counter(result["host"] for result in results if result["outcome"] == "passed")
    rows = [
        {"host": host, "cells": [at.get((host, activity)) for activity in activities], "passed": passed[host]}
        for host in dict.fromkeys(result["host"] for result in results)
    ]
    size = "" if len(activities) <= 8 else "many" if len(activities) <= 18 else "crowd"
    return {"activities": activities, "rows": rows, "size": size}


def by_host(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``[{"host", "outcome": the worst, "anchor", "results": […]}]``, hosts in trouble first."""
    hosts: dict[str, list[dict[str, Any]]] = {}
    for result in results:
        hosts.setdefault(result["host"], []).append(result)
    shown = [
        {"host": host, "outcome": worst([result["outcome"] for result in own]), "results": own}
        for host, own in hosts.items()
    ]
    return sorted(shown, key=lambda entry: SEVERITY.index(str(entry["outcome"])))


def worst(outcomes: list[str]) -> str:
    return min(outcomes, key=SEVERITY.index)


def facts(run: dict[str, Any]) -> list[tuple[str, str]]:
    """The run's facts as (name, value), those that are known."""
    controller = run.get("controller") or ""
    took = seconds_between(run["started"], ended(run))
    known = [
        ("Run", run["id"]),
        ("Started", moment(run["started"])),
        ("Finished", moment(ended(run)) if ended(run) else "not recorded"),
        ("Took", human_seconds(took) if took is not None else ""),
        ("Cadence", words(run["cadence"])),
        ("Playbook", run.get("playbook") or ""),
        ("Carried out by", run.get("operator") or ""),
        ("From", str(controller.get("host", "")) if isinstance(controller, dict) else str(controller)),
        ("Scope", _scope(run)),
        ("Approved by", run.get("approved_by") or ""),
        ("Change", run.get("change") or ""),
        ("Mode", "check mode: nothing was changed" if run.get("check_mode") else ""),
    ]
    return [(name, value) for name, value in known if value]


def _scope(run: dict[str, Any]) -> str:
    if run.get("scope"):
        return ", ".join(map(str, run["scope"]))
    due = run.get("due") or {}
    hosts = {host for where in due.values() for host in where}
    return f"{counted(len(due), 'activity', 'activities')} on {counted(len(hosts), 'host')}" if due else ""


def words(name: str) -> str:
    """An activity's or a cadence's name in prose: ``log_rotation`` → ``log rotation``."""
    return name.replace("_", " ")


def metric_words(name: str) -> str:
    """A metric without its unit: ``disk_used_ratio /var`` → ``disk used: /var``; ``rto_seconds`` → ``RTO``."""
    metric, _space, what = name.partition(" ")
    metric = re.sub(r"_ratio$", "", metric)
    metric = re.sub(r"^(rto|rpo)_seconds$", r"\1", metric)
    metric = re.sub(r"_seconds$", "_time", metric)
    shown = " ".join(_ABBREVIATIONS.get(word, word) for word in metric.split("_"))
    return f"{shown}: {what}" if what else shown


def _result(number: int, data: dict[str, Any]) -> dict[str, Any]:
    statuses = Counter(check["status"] for check in data["checks"])
    return {
        **data,
        "anchor": f"result-{number}",
        "took": human_seconds(seconds_taken(data)),
        "tally": _tally(data, statuses),
        "checks": sorted(data["checks"], key=lambda check: SEVERITY.index(check["status"])),
        "metrics": [
            (metric_words(name), quantity(m["value"], m["unit"])) for name, m in sorted(data["metrics"].items())
        ],
        "changes": [
            {**change, "before": value_text(change["before"]), "after": value_text(change["after"])}
            for change in data["changes"]
        ],
        "artifacts": [{**artifact, "size": quantity(artifact["bytes"], "bytes")} for artifact in data["artifacts"]],
    }


def _tally(data: dict[str, Any], statuses: Counter[str]) -> str:
    """``8 checks, 1 failed, 3 changes``."""
    bad = [f"{statuses[status]} {status}" for status in ("failed", "warned", "unknown") if statuses[status]]
    parts = [counted(len(data["checks"]), "check"), *bad] if data["checks"] else []
    if data["changes"]:
        parts.append(counted(len(data["changes"]), "change"))
    return ", ".join(parts)


def _interrupted(entry: dict[str, Any]) -> dict[str, Any]:
    missing = entry.get("missing", [])
    return {**entry, "missing": _by_activity(missing), "missing_count": len(missing), "detail": entry.get("detail", "")}


def _by_activity(missing: list[dict[str, str]]) -> list[tuple[str, list[str]]]:
    """``[{"host": "a", "activity": "backup"}, …]`` as ``[("backup", ["a", …])]``."""
    hosts: dict[str, list[str]] = {}
    for lost in missing:
        hosts.setdefault(lost["activity"], []).append(lost["host"])
    return list(hosts.items())


def _status(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        **entry,
        "last": moment(entry["finished"]) if entry.get("finished") else "never",
        "next": moment(entry["next_due"]) if entry.get("next_due") else "",
    }
