"""What breaks on the platform is found by the next health check, on the hosts where it shows and on no other."""

from __future__ import annotations

import contextlib
import time

from conftest import connect, play


@contextlib.contextmanager
def stopped(host, unit):
    connect(host).check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        connect(host).check_output("systemctl start %s", unit)


def health_check():
    """Its exit status, and the failed checks by host."""
    status, results = play("health_check")
    failed = {
        host: [check["name"] for check in result["checks"] if check["status"] == "failed"]
        for (host, _activity), result in results.items()
        if result["outcome"] == "failed"
    }
    return status, failed


def postgresql_unit():
    return connect("db2").check_output("systemctl list-units --plain --no-legend 'postgresql@*' | cut -d ' ' -f 1")


def test_a_service_that_is_down_fails_its_host_only():
    with stopped("app1", "redis-server"):
        status, failed = health_check()
    assert status != 0
    assert failed == {"app1": ["TCP connection to redis", "unit redis-server.service"]}


def test_a_lost_standby_is_seen_on_both_sides():
    unit = postgresql_unit()
    with stopped("db2", unit):
        status, failed = health_check()
    assert status != 0
    assert set(failed) == {"db1", "db2"}
    assert failed["db1"] == ["standbys of PostgreSQL learning"]
    assert f"unit {unit}" in failed["db2"]


def test_all_is_well_again_afterwards():
    deadline = time.monotonic() + 60
    while (found := health_check()) != (0, {}):
        assert time.monotonic() < deadline, found
