# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Probe of PostgreSQL servers: connection, latency, connections used, old transactions, ids, replication, archiver."""

from __future__ import annotations

import functools
import time
import typing as t

from ..errors import MaintenanceError, MissingToolError
from ..postgresql import LOGIN_OPTIONS, connect, driver, query, value
from ..quantities import human_bytes, human_seconds, parse_size
from ..result import Part, limit_status
from . import postgresql_sql as statements
from .redaction import redact
from .running import Probe

OPTIONS: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "default": ""},
    **LOGIN_OPTIONS,
    "warn_seconds": {"type": "float", "default": 0.5},
    "fail_seconds": {"type": "float", "default": 3.0},
    "warn_connections_used_ratio": {"type": "float", "default": 0.80},
    "fail_connections_used_ratio": {"type": "float", "default": 0.95},
    "warn_transaction_seconds": {"type": "float", "default": 3600.0},
    "fail_transaction_seconds": {"type": "float", "default": 21600.0},
    "warn_idle_in_transaction_seconds": {"type": "float", "default": 300.0},
    "fail_idle_in_transaction_seconds": {"type": "float", "default": 3600.0},
    "warn_freeze_age_ratio": {"type": "float", "default": 1.2},
    "fail_freeze_age_ratio": {"type": "float", "default": 2.0},
    "warn_lag_bytes": {"type": "str", "default": "64MiB"},
    "fail_lag_bytes": {"type": "str", "default": "1GiB"},
    "warn_lag_seconds": {"type": "float", "default": 60.0},
    "fail_lag_seconds": {"type": "float", "default": 600.0},
    "min_standbys": {"type": "int", "default": 0},
    "fail_archiving_seconds": {"type": "float", "default": 900.0},
    "warn_archive_waiting_count": {"type": "int", "default": 16},
    "fail_archive_waiting_count": {"type": "int", "default": 128},
}

# Past this age PostgreSQL gives up all restraint to save itself (vacuum_failsafe_age); 2,147,483,648 is the end.
FAILSAFE_AGE = 1_600_000_000
STATEMENT_SECONDS = 10

Options = t.Dict[str, t.Any]
Row = t.Dict[str, t.Any]


class _Server(t.NamedTuple):
    """A connection to a server, its options, its name in checks, and what it said of itself."""

    connection: t.Any
    options: Options
    name: str
    facts: Row


def probes(servers: t.Sequence[Options]) -> list[Probe]:
    if servers:
        # Here, before the threads start: loading the driver in one of them would hold up the others.
        driver()
    return [Probe(f"PostgreSQL {name_of(server)}", functools.partial(probe, server)) for server in servers]


def name_of(server: Options) -> str:
    host = server["login_host"] or server["login_unix_socket"] or "local socket"
    return str(server["name"] or f"{host}:{server['login_port']}")


def probe(options: Options, part: Part) -> None:
    """Connect, and carry out each check by itself: one that fails does not keep the others from being made."""
    name = name_of(options)
    began = time.monotonic()
    try:
        connection = connect(options, application_name="wellkept_health_check")
    except MaintenanceError as error:
        part.check(
            f"connection to PostgreSQL {name}",
            "unknown" if isinstance(error, MissingToolError) else "failed",
            expected=error.expected,
            observed=redact(error.observed, 400),
            advice=error.advice,
        )
        return
    try:
        connected = time.monotonic()
        value(connection, "SELECT 1")
        decide_connection(name, connected - began, time.monotonic() - connected, options, part)
        value(connection, statements.STATEMENT_TIMEOUT, (str(STATEMENT_SECONDS * 1000),))
        server = _Server(connection, options, name, query(connection, statements.FACTS)[0])
        for what, check in _CHECKS:
            if not _carried_out(what, check, server, part):
                break
    finally:
        connection.close()


def _carried_out(what: str, check: t.Callable[[_Server, Part], None], server: _Server, part: Part) -> bool:
    """Make one check; False when the connection is lost, so that nothing more can be asked."""
    try:
        check(server, part)
    except MaintenanceError as error:
        part.check(
            f"{what} of PostgreSQL {server.name}",
            "unknown",
            expected="an answer of the server",
            observed=redact(error.observed),
            advice=error.advice,
        )
    return not server.connection.closed


def decide_connection(name: str, connecting: float, answering: float, options: Options, part: Part) -> None:
    part.check(
        f"connection to PostgreSQL {name}",
        "passed",
        expected=f"a connection as {options['login_user']} to the database {options['login_db']}",
        observed="connected",
    )
    seconds = connecting + answering
    warn, fail = options["warn_seconds"], options["fail_seconds"]
    part.metric(f"postgresql_connect_seconds {name}", round(connecting, 4), "seconds")
    part.metric(f"postgresql_query_seconds {name}", round(answering, 5), "seconds")
    part.check(
        f"latency of PostgreSQL {name}",
        limit_status(seconds, warn, fail),
        expected=f"an answer within {human_seconds(warn)} (fails beyond {human_seconds(fail)})",
        observed=f"{human_seconds(seconds)}, of which {human_seconds(connecting)} to connect",
        advice="See the load of the server and the network to it.",
    )


def lacks_rights(what: str, server: _Server, part: Part) -> bool:
    """Whether our role cannot see what others do; then the check is unknown, and says what to grant."""
    if server.facts["sees_all"]:
        return False
    part.check(
        f"{what} of PostgreSQL {server.name}",
        "unknown",
        expected="the right to see what other roles do",
        observed=f"the role {server.facts['role']} lacks it",
        advice=f"GRANT pg_monitor TO {server.facts['quoted_role']};",
    )
    return True


def check_connections(server: _Server, part: Part) -> None:
    facts = server.facts
    # A role without the right sees that there are others, but not which of them are clients.
    used = value(server.connection, statements.CLIENTS if facts["sees_all"] else statements.ALL_BACKENDS)
    for_all = facts["max_connections"] - facts["superuser_reserved"] - facts["reserved"]
    ratio = used / max(for_all, 1)
    warn, fail = server.options["warn_connections_used_ratio"], server.options["fail_connections_used_ratio"]
    part.metric(f"postgresql_connections_used_ratio {server.name}", round(ratio, 4), "ratio")
    part.check(
        f"connections used of PostgreSQL {server.name}",
        limit_status(ratio, warn, fail),
        expected=f"at most {warn:.0%} (fails above {fail:.0%})",
        observed=f"{ratio:.0%}: {used} of the {for_all} that ordinary roles may use",
        advice="See pg_stat_activity for who holds them; use a connection pool, or raise max_connections.",
    )


def check_transactions(server: _Server, part: Part) -> None:
    """The oldest transaction (prepared ones too: they hold back vacuum like others) and the longest idle one."""
    for what, statement, option, metric, advice in (
        (
            "oldest transaction",
            statements.OLDEST_TRANSACTION,
            "transaction_seconds",
            "postgresql_oldest_transaction_seconds",
            "See whether it is still wanted: it keeps vacuum from removing dead rows.",
        ),
        (
            "idle transactions",
            statements.OLDEST_IDLE,
            "idle_in_transaction_seconds",
            "postgresql_idle_in_transaction_seconds",
            "Correct the application, which forgot to end it, and set idle_in_transaction_session_timeout.",
        ),
    ):
        if lacks_rights(what, server, part):
            continue
        rows = query(server.connection, statement)
        seconds = max(float(rows[0]["seconds"]), 0.0) if rows else 0.0
        warn, fail = server.options[f"warn_{option}"], server.options[f"fail_{option}"]
        part.metric(f"{metric} {server.name}", round(seconds, 1), "seconds")
        part.check(
            f"{what} of PostgreSQL {server.name}",
            limit_status(seconds, warn, fail),
            expected=f"at most {human_seconds(warn)} (fails beyond {human_seconds(fail)})",
            observed=f"{human_seconds(seconds)}: {redact(rows[0]['who'])}" if rows else "none",
            advice=advice,
        )


def check_freeze_ages(server: _Server, part: Part) -> None:
    """Ages of transaction ids against the age at which autovacuum freezes by force."""
    for what, metric, statement, freeze_max in (
        ("transaction id age", "xid", statements.XID_AGE, server.facts["freeze_max"]),
        ("multixact id age", "mxid", statements.MXID_AGE, server.facts["multixact_freeze_max"]),
    ):
        row = query(server.connection, statement)[0]
        ratio = row["age"] / freeze_max
        warn = server.options["warn_freeze_age_ratio"]
        fail = min(server.options["fail_freeze_age_ratio"], FAILSAFE_AGE / freeze_max)
        part.metric(f"postgresql_{metric}_age_ratio {server.name}", round(ratio, 4), "ratio")
        part.check(
            f"{what} of PostgreSQL {server.name}",
            limit_status(ratio, warn, fail),
            expected=f"at most {warn:g} times the forced freeze age (fails above {fail:.2g} times)",
            observed=f"{ratio:.2f} times {freeze_max:,} in the database {redact(row['datname'])}",
            advice="See what holds vacuum back (old transactions, slots, standbys), then VACUUM FREEZE that database.",
        )


def check_replication(server: _Server, part: Part) -> None:
    """On a primary the lag of each standby; on a standby its own."""
    if server.facts["standby"]:
        check_own_lag(server, part)
    else:
        check_standbys(server, part)


def check_standbys(server: _Server, part: Part) -> None:
    options = server.options
    if lacks_rights("replication", server, part):
        return
    standbys = query(server.connection, statements.STANDBYS)
    if options["min_standbys"]:
        part.require(
            f"standbys of PostgreSQL {server.name}",
            len(standbys) >= options["min_standbys"],
            expected=f"at least {options['min_standbys']} connected",
            observed=f"{len(standbys)} connected",
            advice="See the log of the standby that is missing.",
        )
    for row in standbys:
        decide_lag(f"{server.name} to {redact(row['standby'])}", row["bytes"], row["seconds"], options, part)


def check_own_lag(server: _Server, part: Part) -> None:
    row = query(server.connection, statements.OWN_LAG)[0]
    part.require(
        f"WAL receiver of PostgreSQL {server.name}",
        bool(row["receiving"]),
        expected="connected to the primary",
        observed="connected" if row["receiving"] else "not connected: the standby falls behind unseen",
        advice="See the standby's log, primary_conninfo, and whether the primary still has the WAL.",
    )
    decide_lag(f"{server.name}, replay", row["bytes"], row["seconds"], server.options, part)


def decide_lag(name: str, lag_bytes: t.Any, lag_seconds: t.Any, options: Options, part: Part) -> None:
    size, seconds = max(float(lag_bytes or 0), 0.0), max(float(lag_seconds or 0), 0.0)
    warn_bytes, fail_bytes = parse_size(options["warn_lag_bytes"]), parse_size(options["fail_lag_bytes"])
    warn, fail = options["warn_lag_seconds"], options["fail_lag_seconds"]
    statuses = {limit_status(size, warn_bytes, fail_bytes), limit_status(seconds, warn, fail)}
    part.metric(f"postgresql_lag_bytes {name}", size, "bytes")
    part.metric(f"postgresql_lag_seconds {name}", round(seconds, 2), "seconds")
    part.check(
        f"replication lag of PostgreSQL {name}",
        next(status for status in ("failed", "warned", "passed") if status in statuses),
        expected=f"at most {human_bytes(warn_bytes)} and {human_seconds(warn)}"
        f" (fails above {human_bytes(fail_bytes)} or {human_seconds(fail)})",
        observed=f"{human_bytes(size)} and {human_seconds(seconds)}",
        advice="See the load of the standby, the network, and long queries that hold up replay.",
    )


def check_archiver(server: _Server, part: Part) -> None:
    """Whether WAL is archived: failures since the last success, and segments that wait."""
    facts, options = server.facts, server.options
    if facts["archive_mode"] == "off" or (facts["standby"] and facts["archive_mode"] != "always"):
        return
    if lacks_rights("archiver", server, part):
        return
    row = query(server.connection, statements.ARCHIVER)[0]
    waiting = query(server.connection, statements.ARCHIVE_WAITING)[0]["count"]
    part.metric(f"postgresql_archive_waiting {server.name}", waiting, "count")
    part.metric(f"postgresql_archive_failures {server.name}", row["failed_count"], "count")
    status = limit_status(waiting, options["warn_archive_waiting_count"], options["fail_archive_waiting_count"])
    observed = f"{waiting} segments wait"
    if row["failing"]:
        seconds = float(row["seconds_without_success"])
        too_long = seconds > options["fail_archiving_seconds"] or status == "failed"
        status = "failed" if too_long else "warned"
        observed = (
            f"failing since the last success {human_seconds(seconds)} ago, last at {row['last_failed_wal']}; {observed}"
        )
    part.check(
        f"archiver of PostgreSQL {server.name}",
        status,
        expected=f"no failure since the last success, at most {options['warn_archive_waiting_count']} segments waiting"
        f" (fails after {human_seconds(options['fail_archiving_seconds'])} of failures"
        f" or above {options['fail_archive_waiting_count']} segments)",
        observed=observed,
        advice="See the server's log for what archive_command says, and the space where it archives to.",
    )


_CHECKS: tuple[tuple[str, t.Callable[[_Server, Part], None]], ...] = (
    ("connections used", check_connections),
    ("transactions", check_transactions),
    ("freeze ages", check_freeze_ages),
    ("replication", check_replication),
    ("archiver", check_archiver),
)
