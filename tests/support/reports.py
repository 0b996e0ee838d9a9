"""Reports as the ledger would give them: a small believable one, a large one, and one from hosts that wish us ill."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

RUN_ID = "019a9f00-0000-7000-8000-000000000001"
BEGIN = datetime(2026, 11, 21, 2, 0, 5, tzinfo=UTC)

HOSTILE = (
    "<script>alert('x')</script>\"><img src=x onerror=alert(1)>{{ 7*7 }}{% raw %}|`*_[a](http://e)"
    "\x1b[2J\x00\u202egnp.exe\n# no heading"
)


def at(seconds: float = 0, days: float = 0) -> str:
    moment = BEGIN + timedelta(seconds=seconds, days=days)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check(
    name: str, status: str = "passed", observed: str = "fine", expected: str = "fine", advice: str = "", **evidence: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "status": status,
        "expected": expected,
        "observed": observed,
        "advice": advice,
        "evidence": evidence,
    }


def run(**values: Any) -> dict[str, Any]:
    return {
        "id": RUN_ID,
        "cadence": "daily",
        "playbook": "daily.yml",
        "operator": "nora",
        "controller": {"host": "control1", "boot": "b", "pid": 4242, "started": 1},
        "check_mode": False,
        "started": at(),
        "finished": at(96),
        "verdict": "passed",
        "approved_by": "",
        "change": "",
        "scope": ["all"],
        **values,
    }


def result(host: str, activity: str, checks: list[dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    """A result document; its outcome follows from *checks* unless *values* say otherwise."""
    checks = [check("something")] if checks is None else checks
    statuses = {entry["status"] for entry in checks}
    outcome = "failed" if "failed" in statuses else "warned" if statuses & {"warned", "unknown"} else "passed"
    check_mode = values.pop("check_mode", False)
    data = {
        "run": {
            "id": RUN_ID,
            "cadence": "daily",
            "operator": "nora",
            "check_mode": check_mode,
            "approved_by": "",
            "change": "",
        },
        "activity": activity,
        "host": host,
        "team": "Operations",
        "started": at(1),
        "finished": at(5.1),
        "outcome": outcome,
        "reason": "",
        "changed": bool(values.get("changes")),
        "checks": checks,
        "metrics": {},
        "changes": [],
        "artifacts": [],
        **values,
    }
    return {
        "specversion": "1.0",
        "id": "019a9f00-0000-7000-8000-00000000000a",
        "source": "control1",
        "type": "wellkept.maintenance.result.v1",
        "subject": f"{host}/{activity}",
        "time": data["finished"],
        "datacontenttype": "application/json",
        "dataschema": "https://wellkept.maintenance/schemas/result.v1.json",
        "data": data,
    }


def report(results: list[dict[str, Any]] | None = None, **values: Any) -> dict[str, Any]:
    run_values = values.pop("run", {})
    return {
        "run": run(**run_values),
        "results": results or [],
        "interrupted": [],
        "status": [],
        "trends": [],
        "not_applicable": [],
        **values,
    }


def trend(
    host: str, activity: str, metric: str, unit: str, values: list[float], step_days: float = 1
) -> dict[str, Any]:
    points = [[at(days=(number - len(values) + 1) * step_days), value] for number, value in enumerate(values)]
    return {"host": host, "activity": activity, "metric": metric, "unit": unit, "points": points}


def status(activity: str, host: str, outcome: str = "passed", overdue: bool = False, **values: Any) -> dict[str, Any]:
    return {
        "activity": activity,
        "cadence": "daily",
        "host": host,
        "team": "Operations",
        "outcome": outcome,
        "finished": at(5.1),
        "run": RUN_ID,
        "next_due": at(days=-1 if overdue else 1),
        "overdue": overdue,
        "note": "",
        **values,
    }


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def believable() -> dict[str, Any]:
    """A night on two hosts on which not everything went well."""
    path = "/var/backups/wellkept/learn1/20261121T020031Z"
    results = [
        result(
            "learn1",
            "health_check",
            [
                check("GET http://127.0.0.1:8080/health", observed="200 in 14 ms", expected="200 within 500 ms"),
                check("PostgreSQL accepts connections", observed="in 3 ms", expected="within 1 s"),
                check("connections used", observed="12 of 100", expected="at most 80 %"),
                check("disk use of /", observed="61 %", expected="at most 85 %"),
                check(
                    "clock offset",
                    "unknown",
                    "no time service answers",
                    "at most 500 ms",
                    "Install chrony, or name a time server in health_check_time_server.",
                    tried=["chronyc", "timedatectl"],
                ),
            ],
            metrics={
                "latency_health": {"value": 0.014, "unit": "seconds"},
                "disk_use": {"value": 0.61, "unit": "ratio"},
            },
        ),
        result(
            "learn1",
            "log_rotation",
            [
                check(
                    "rotation of /srv/learn/log/access.log", observed="inode 5213 became 5290", expected="a new inode"
                ),
                check(
                    "rotation of /srv/learn/log/error.log", observed="inode 5214 became 5291", expected="a new inode"
                ),
                check("deleted files held open", observed="none", expected="none"),
            ],
            changes=[
                {"kind": "log", "name": "/srv/learn/log/access.log", "before": "18.2 MiB", "after": "rotated, empty"}
            ],
            metrics={"rotated_bytes": {"value": 19084083, "unit": "bytes"}},
        ),
        result(
            "learn1",
            "backup",
            [
                check("pg_verifybackup", observed="1,284 files verified", expected="every file of the manifest"),
                check("dump is readable", observed="42 tables", expected="every table"),
                check("files manifest", observed="612 files hashed", expected="every file"),
            ],
            started=at(20),
            finished=at(31.4),
            metrics={
                "backup_bytes": {"value": 148_200_000, "unit": "bytes"},
                "backup_seconds": {"value": 9.2, "unit": "seconds"},
            },
            changes=[{"kind": "backup", "name": path, "before": None, "after": "complete and verified"}],
            artifacts=[
                {"path": f"{path}/base/backup_manifest", "sha256": _sha("a"), "bytes": 201_332},
                {"path": f"{path}/learn.dump", "sha256": _sha("b"), "bytes": 31_402_112},
            ],
        ),
        result(
            "learn1",
            "restore_test",
            [
                check(
                    "every table is the same",
                    "failed",
                    "enrolments: 198,211 rows restored, 200,000 in the backup",
                    "the same rows and fingerprints",
                    "Do not rely on this backup: take a full one (ansible-playbook playbooks/activities/backup.yml "
                    "-e backup_type=full) and test it again.",
                    tables={"enrolments": [198211, 200000]},
                ),
                check("pg_amcheck", observed="no corruption", expected="no corruption"),
                check("scratch cluster removed", observed="removed", expected="removed"),
            ],
            started=at(32),
            finished=at(70),
            metrics={"rto_seconds": {"value": 18.4, "unit": "seconds"}},
        ),
        result(
            "web1",
            "storage_cleanup",
            [check("free space gained in /srv/learn/tmp", observed="1.4 GiB", expected="1.4 GiB")],
            changes=[{"kind": "files", "name": "/srv/learn/tmp", "before": "2,310 files", "after": "18 files"}],
            metrics={"freed_bytes": {"value": 1_503_238_553, "unit": "bytes"}},
        ),
        result(
            "web1",
            "health_check",
            [
                check("GET https://learn.example.org/", observed="200 in 210 ms", expected="200 within 1 s"),
                check(
                    "certificate of learn.example.org",
                    "warned",
                    "9 days left",
                    "at least 14 days",
                    "Renew the certificate: see the log of certbot.timer.",
                ),
            ],
        ),
        result(
            "web1",
            "log_rotation",
            [],
            outcome="skipped",
            reason="logrotate is not installed on web1: apt-get install logrotate",
        ),
    ]
    hosts = {
        "health_check": ["learn1", "web1"],
        "backup": ["learn1"],
        "restore_test": ["learn1"],
        "log_rotation": ["learn1", "web1"],
    }
    wave = [148_200_000 + 400_000 * number + 2_500_000 * (number % 7 == 0) for number in range(-59, 1)]
    return report(
        results,
        run={"verdict": "failed", "approved_by": "Ada", "change": "CHG-123"},
        interrupted=[
            {
                "run_id": "019a9e00-0000-7000-8000-000000000009",
                "started": at(days=-1),
                "operator": "cron",
                "recorded": 3,
                "missing": [{"host": "learn1", "activity": "backup"}, {"host": "learn1", "activity": "restore_test"}],
            }
        ],
        status=[
            status(activity, host, "failed" if activity == "restore_test" else "passed")
            for activity, where in hosts.items()
            for host in where
        ]
        + [
            status(
                "database_reindex",
                "learn1",
                "passed",
                overdue=True,
                cadence="monthly",
                finished=at(days=-40),
                note="since 9 days",
            )
        ],
        trends=[
            trend("learn1", "backup", "backup_bytes", "bytes", wave),
            trend(
                "learn1", "backup", "backup_seconds", "seconds", [9.2 + (number * 7 % 5) / 4 for number in range(60)]
            ),
            trend("learn1", "health_check", "disk_use", "ratio", [0.5 + 0.002 * number for number in range(56)]),
            trend("web1", "health_check", "disk_use", "ratio", [0.31 + 0.001 * number for number in range(56)]),
            trend("web1", "storage_cleanup", "freed_bytes", "bytes", [1.2e9, 1_503_238_553]),
            trend("learn1", "restore_test", "rto_seconds", "seconds", [18.4]),
        ],
        not_applicable=[{"activity": "redis_maintenance", "reason": "no host of this inventory runs Redis"}],
    )


def large(hosts: int = 50, activities: int = 15, checks: int = 20) -> dict[str, Any]:
    """A fleet; one host in ten has one failed check."""
    results = [
        result(
            f"host{host:02}.learn.example.org",
            f"activity_number_{activity:02}",
            [
                check(
                    f"check {number} of something on /var/lib/thing",
                    "failed" if (host, activity, number) in broken else "passed",
                    f"{number * 3} %",
                    "at most 80 %",
                    "Look at it.",
                )
                for number in range(checks)
            ],
            metrics={"some_bytes": {"value": host * 1e6, "unit": "bytes"}},
        )
        for broken in [{(host, 3, 4) for host in range(0, hosts, 10)}]
        for host in range(hosts)
        for activity in range(activities)
    ]
    trends = [
        trend(
            f"host{host:02}.learn.example.org",
            f"activity_number_{activity:02}",
            "some_bytes",
            "bytes",
            [1e6 * (host + 1) * (1 + number / 40) for number in range(30)],
        )
        for host in range(hosts)
        for activity in range(activities)
    ]
    entries = [status(entry["data"]["activity"], entry["data"]["host"], entry["data"]["outcome"]) for entry in results]
    return report(results, run={"verdict": "failed"}, trends=trends, status=entries)


def hostile() -> dict[str, Any]:
    """Every text that comes from a host or an operator tries to break out of its place."""
    long = "very-long-" * 500
    entry = result(
        HOSTILE,
        "health_check",
        [
            check(HOSTILE, "failed", HOSTILE, HOSTILE, HOSTILE, **{"key": HOSTILE, "</pre>": long}),
            check(long, "unknown", long, long, long),
        ],
        metrics={"latency": {"value": 1.0, "unit": "$x^{</svg>}$"}},
        changes=[{"kind": HOSTILE, "name": HOSTILE, "before": HOSTILE, "after": {HOSTILE: [HOSTILE]}}],
        artifacts=[{"path": HOSTILE + "\udc80", "sha256": "0" * 64, "bytes": 1}],
        team=HOSTILE,
    )
    skipped = result("مضيف\u202e", "log_rotation", [], outcome="skipped", reason=HOSTILE)
    return report(
        [entry, skipped],
        run={
            "verdict": "failed",
            "operator": HOSTILE,
            "approved_by": HOSTILE,
            "change": HOSTILE,
            "scope": [HOSTILE],
            "playbook": HOSTILE,
        },
        interrupted=[
            {
                "run_id": HOSTILE,
                "started": "no time",
                "operator": HOSTILE,
                "recorded": 0,
                "missing": [{"host": HOSTILE, "activity": "backup"}],
            }
        ],
        status=[status("health_check", HOSTILE, "failed", overdue=True, note=HOSTILE, team=HOSTILE)],
        trends=[trend(HOSTILE, "health_check", "latency", "$x^{</svg>}$", [1.0, float("nan"), 3.0])],
        not_applicable=[{"activity": "backup", "reason": HOSTILE}],
    )
