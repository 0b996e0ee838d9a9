"""health_check while things break: it says what is wrong, ends in time, and one broken thing hides no other."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import PostgresServer, postgres_server
from support.standby import standby_of
from support.waiting import wait_until
from support.web import silent_server, web_server

ENDLESS = 100  # seconds: what is asked for takes longer still
QUIET: dict[str, Any] = {"filesystems": {"exclude": ["*"]}, "host": {"clock": "never", "warn_load_per_core": 1000}}


def check(tmp_path: Path, **options: Any) -> dict[str, Any]:
    usual = {"state_dir": str(tmp_path / "state"), "timeout": "150s", **QUIET}
    return run_module("health_check", {**usual, **options})


def check_in_time(
    tmp_path: Path, names: list[str], env: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """As :func:`check`, with more time where the machine is so slow that even the checks *names* were too late."""
    for seconds in (4, 8, 16, 32, 64, 128):
        usual = {"state_dir": str(tmp_path / f"state{seconds}"), "timeout": f"{seconds}s", **QUIET}
        shown = run_module("health_check", {**usual, **options}, env=env or {})
        found = checks_by_name(shown)
        if all(name in found and found[name]["status"] != "unknown" for name in names):
            return shown
    raise AssertionError(f"what does not hang was not finished: {shown}")


def named(shown: dict[str, Any], name: str) -> dict[str, Any]:
    return checks_by_name(shown)[name]


# --- endpoints that hang -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/hang", "/drip"], ids=["no answer", "a byte now and then"])
def test_an_endpoint_that_does_not_finish_fails_at_its_own_time_limit(tmp_path: Path, path: str) -> None:
    with web_server() as port:
        shown = check(tmp_path, http=[{"name": "shop", "url": f"http://127.0.0.1:{port}{path}", "timeout": "1s"}])
    found = named(shown, "HTTP status of shop")
    assert (found["status"], found["observed"]) == ("failed", "no whole answer within the time limit")
    assert shown["module_seconds"] < ENDLESS


def test_a_server_that_never_answers_the_tls_handshake_fails_at_the_time_limit(tmp_path: Path) -> None:
    with silent_server() as port:
        shown = check(tmp_path, http=[{"name": "shop", "url": f"https://127.0.0.1:{port}/", "timeout": "1s"}])
    assert named(shown, "HTTP status of shop")["observed"] == "no whole answer within the time limit"


def test_many_hanging_endpoints_end_with_the_health_check_and_hide_nothing_else(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR\n")
    with silent_server() as silent, web_server() as port:
        hanging = [{"name": str(n), "url": f"http://127.0.0.1:{silent}/", "timeout": "1d"} for n in range(10)]
        good = {"name": "good", "url": f"http://127.0.0.1:{port}/"}
        logs = [{"name": "app", "path": str(log), "pattern": "ERROR"}]
        well = ["HTTP status of good", "error lines in app"]
        shown = check_in_time(tmp_path, well, http=[*hanging, good], logs=logs)
    assert named(shown, "probe HTTP endpoint 3")["status"] == "unknown"
    assert "not finished after" in named(shown, "probe HTTP endpoint 3")["observed"]
    assert named(shown, "HTTP status of good")["status"] == "passed"
    assert named(shown, "error lines in app")["status"] == "warned"


def test_an_answer_that_breaks_off_fails(tmp_path: Path) -> None:
    with web_server() as port:
        shown = check(tmp_path, http=[{"name": "shop", "url": f"http://127.0.0.1:{port}/broken"}])
    assert named(shown, "HTTP status of shop")["observed"] == "an answer that broke off"


# --- PostgreSQL --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    settings = {
        "max_connections": "12",
        "superuser_reserved_connections": "3",
        "max_wal_senders": "2",
        "archive_mode": "on",
        "archive_command": "true",
    }
    with postgres_server(settings) as running:
        running.sql("CREATE ROLE watch LOGIN PASSWORD 'right'")
        running.sql("GRANT pg_monitor TO watch")
        yield running


def watch(server: PostgresServer, **options: Any) -> list[dict[str, Any]]:
    login = {"login_host": "127.0.0.1", "login_port": server.port, "login_user": "watch", "login_password": "right"}
    return [{"name": "main", **login, **options}]


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path, server: PostgresServer) -> None:
    shown = check(tmp_path, postgresql=watch(server, login_password="hunter2"))
    found = named(shown, "connection to PostgreSQL main")
    assert found["status"] == "failed"
    assert "password authentication failed" in found["observed"]
    assert "hunter2" not in str(shown)


def test_connections_that_run_out_warn_fail_and_then_are_refused_in_words(
    tmp_path: Path, server: PostgresServer
) -> None:
    name = "connections used of PostgreSQL main"
    held = []
    try:
        held += [server.connect() for _number in range(7)]
        assert named(check(tmp_path, postgresql=watch(server)), name)["status"] == "warned"
        held.append(server.connect())
        full = named(check(tmp_path, postgresql=watch(server)), name)
        assert (full["status"], full["observed"]) == ("failed", "100%: 9 of the 9 that ordinary roles may use")
        held.append(server.connect())
        refused = named(check(tmp_path, postgresql=watch(server)), "connection to PostgreSQL main")
        # Whoever is a superuser still gets in, and sees it.
        seen = named(check(tmp_path, postgresql=[{"name": "main", **server.login()}]), name)
    finally:
        for connection in held:
            connection.close()
    assert refused["status"] == "failed"
    assert "remaining connection slots are reserved" in refused["observed"]
    assert "max_connections" in refused["advice"]
    assert seen["status"] == "failed"


def test_a_failing_archiver_warns_and_then_fails(tmp_path: Path, server: PostgresServer) -> None:
    name = "archiver of PostgreSQL main"
    assert named(check(tmp_path, postgresql=watch(server)), name)["status"] == "passed"
    server.sql("ALTER SYSTEM SET archive_command = 'false'")
    try:
        server.sql("SELECT pg_reload_conf()")
        server.sql("CREATE TABLE noise AS SELECT 1")
        server.sql("SELECT pg_switch_wal()")
        wait_until(lambda: server.sql("SELECT 1 FROM pg_stat_archiver WHERE failed_count > 0"))
        warned = named(check(tmp_path, postgresql=watch(server)), name)
        failed = named(check(tmp_path, postgresql=watch(server, fail_archiving_seconds=0.01)), name)
        waiting = named(check(tmp_path, postgresql=watch(server, fail_archive_waiting_count=0)), name)
    finally:
        server.sql("ALTER SYSTEM SET archive_command = 'true'")
        server.sql("SELECT pg_reload_conf()")
    assert warned["status"] == "warned"
    assert "failing since the last success" in warned["observed"]
    assert (failed["status"], waiting["status"]) == ("failed", "failed")


def test_a_forgotten_prepared_transaction_is_an_old_transaction(tmp_path: Path) -> None:
    with postgres_server({"max_prepared_transactions": "2"}) as server:
        with server.connect() as connection:
            connection.execute("BEGIN")
            connection.execute("CREATE TABLE t (a int)")
            connection.execute("PREPARE TRANSACTION 'forgotten'")
        time.sleep(0.2)
        options = {"name": "main", **server.login(), "fail_transaction_seconds": 0.1}
        found = named(check(tmp_path, postgresql=[options]), "oldest transaction of PostgreSQL main")
    assert found["status"] == "failed"
    assert "prepared transaction forgotten of postgres" in found["observed"]


def test_a_standby_that_stops_receiving_fails_and_its_primary_misses_it(tmp_path: Path) -> None:
    with postgres_server() as primary, standby_of(primary) as standby:
        streaming = "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        wait_until(lambda: standby.sql(streaming))
        both = [
            {"name": "primary", **primary.login(), "min_standbys": 1},
            {"name": "standby", **standby.login()},
        ]
        healthy = checks_by_name(check(tmp_path, postgresql=both))
        primary.stop()
        wait_until(lambda: not standby.sql(streaming))
        alone = checks_by_name(check(tmp_path, postgresql=both[1:]))
        primary.start()
        standby.stop()
        wait_until(lambda: not primary.sql("SELECT 1 FROM pg_stat_replication"))
        lost = checks_by_name(check(tmp_path, postgresql=both))
    expected = {
        "standbys of PostgreSQL primary",
        "replication lag of PostgreSQL primary to walreceiver",
        "WAL receiver of PostgreSQL standby",
        "replication lag of PostgreSQL standby, replay",
    }
    assert {healthy[name]["status"] for name in expected} == {"passed"}
    assert alone["WAL receiver of PostgreSQL standby"]["status"] == "failed"
    assert lost["standbys of PostgreSQL primary"]["observed"] == "0 connected"
    assert lost["standbys of PostgreSQL primary"]["status"] == "failed"
    assert "Start the server" in lost["connection to PostgreSQL standby"]["advice"]


def test_a_server_that_is_down_fails_and_one_that_is_frozen_ends_in_time(tmp_path: Path) -> None:
    with postgres_server() as server, web_server() as port:
        good = [{"name": "good", "url": f"http://127.0.0.1:{port}/"}]
        options = [{"name": "main", **server.login()}]
        postmaster = int((server.data / "postmaster.pid").read_text().split()[0])
        os.kill(postmaster, signal.SIGSTOP)
        try:
            frozen = check_in_time(tmp_path, ["HTTP status of good"], postgresql=options, http=good)
        finally:
            os.kill(postmaster, signal.SIGCONT)
        server.stop()
        down = check(tmp_path, postgresql=options, http=good)
    assert named(frozen, "probe PostgreSQL main")["status"] == "unknown"
    assert named(frozen, "HTTP status of good")["status"] == "passed"
    assert named(down, "connection to PostgreSQL main")["status"] == "failed"
    assert "Start the server" in named(down, "connection to PostgreSQL main")["advice"]
    assert named(down, "HTTP status of good")["status"] == "passed"


# --- logs --------------------------------------------------------------------------------------------------------


def rule(log: Path, **options: Any) -> list[dict[str, Any]]:
    return [{"name": "app", "path": str(log), "pattern": "ERROR", "warn_count": 1_000_000, **options}]


def test_no_line_is_lost_or_counted_twice_while_the_log_is_written_and_rotated(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    written = 0
    stop = threading.Event()

    def write_and_rotate() -> None:
        nonlocal written
        while not stop.is_set():
            with log.open("a") as stream:
                for _attempt in range(200):
                    stream.write(f"{time.time_ns()} ERROR {written}\n")
                    stream.flush()
                    written += 1
                    time.sleep(0.001)
            rotated = sorted(tmp_path.glob("app.log.*"), key=lambda path: -int(path.suffix[1:]))
            for path in rotated:
                path.rename(tmp_path / f"app.log.{int(path.suffix[1:]) + 1}")
            log.rename(tmp_path / "app.log.1")

    log.touch()
    counted = check(tmp_path, logs=rule(log))["metrics"]["log_lines app"]["value"]
    writer = threading.Thread(target=write_and_rotate)
    writer.start()
    try:
        for _round in range(6):
            counted += check(tmp_path, logs=rule(log))["metrics"]["log_lines app"]["value"]
    finally:
        stop.set()
        writer.join()
    log.touch()
    last = check(tmp_path, logs=rule(log))
    assert counted + last["metrics"]["log_lines app"]["value"] == written
    assert named(last, "error lines in app")["status"] == "passed"


def test_a_pattern_that_takes_for_ever_is_left_behind_with_the_other_logs_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("a" * 60 + "!\nERROR\n")
    deadly = {"name": "deadly", "path": str(log), "pattern": "^(a+)+$"}
    logs, mark = [*rule(log, warn_count=0), deadly], {"WELLKEPT_TEST": str(tmp_path)}
    shown = check_in_time(tmp_path, ["error lines in app"], env=mark, logs=logs)
    assert named(shown, "error lines in app")["status"] == "warned"
    assert named(shown, "error lines in deadly")["status"] == "unknown"
    assert not running_with(tmp_path), "nothing is left behind"


def running_with(directory: Path) -> list[str]:
    """The processes that were started with *directory* in their environment and have not ended."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"WELLKEPT_TEST={directory}".encode() in (process / "environ").read_bytes():
                found.append((process / "stat").read_text())
    return [line for line in found if ") Z " not in line]


def test_wrong_patterns_paths_and_rights_are_unknown_checks_and_the_others_are_read(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR\n")
    others = [
        {"name": "bad pattern", "path": str(log), "pattern": "("},
        {"name": "no file", "path": str(tmp_path / "none.log"), "pattern": "ERROR"},
        {"name": "a directory", "path": str(tmp_path / "state"), "pattern": "ERROR"},
    ]
    shown = check(tmp_path, logs=[*others, *rule(log, warn_count=0)])
    assert {named(shown, f"error lines in {other['name']}")["status"] for other in others} == {"unknown"}
    assert named(shown, "error lines in app")["status"] == "warned"


def test_a_damaged_memory_of_positions_is_told_and_healed(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR\n")
    check(tmp_path, logs=rule(log))
    state = tmp_path / "state" / "health_check" / "logs.json"
    for damage in (
        '{"format": 1, "rules": {"app": [{"log"',
        '{"format": 9}',
        "[]",
        '{"format": 1, "rules": {"app": [3]}}',
    ):
        state.write_text(damage)
        shown = check(tmp_path, logs=rule(log))
        assert named(shown, "memory of the logs read")["status"] == "warned"
        assert named(shown, "error lines in app")["observed"].startswith("1 in")
        healed = check(tmp_path, logs=rule(log))
        assert "memory of the logs read" not in checks_by_name(healed)
        assert named(healed, "error lines in app")["observed"].startswith("0 in")


def test_a_run_that_was_killed_uses_up_no_lines_and_keeps_no_lock(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR\n")
    with silent_server() as silent:
        hanging = [{"name": "shop", "url": f"http://127.0.0.1:{silent}/", "timeout": "1h"}]
        options = {"state_dir": str(tmp_path / "state"), "timeout": "1h", **QUIET, "http": hanging, "logs": rule(log)}
        process = module_process("health_check", options)
        lock = tmp_path / "state" / "locks" / "health_check.lock"
        wait_until(lambda: lock.exists() and str(process.pid) in lock.read_text())
        second = check(tmp_path, logs=rule(log))
        process.kill()
        process.wait()
    assert second["failed"]
    assert "take the lock for health_check" in second["msg"]
    after = check(tmp_path, logs=rule(log))
    assert named(after, "error lines in app")["observed"].startswith("1 in")


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tcp": [{"port": 1, "name": "x"}, {"port": 2, "name": "x"}]}, "2 entries named x"),
        ({"timeout": "soon"}, "a duration like 10s"),
        ({"tcp": [{"port": 1, "timeout": "1 fortnight"}]}, "tcp[127.0.0.1:1].timeout"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_name(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    shown = check(tmp_path, **options)
    assert shown["failed"]
    assert words in shown["msg"]


def test_a_probe_with_wrong_options_is_unknown_and_the_others_go_on(tmp_path: Path) -> None:
    with web_server() as port:
        url = f"http://127.0.0.1:{port}/"
        bad = [
            {"name": "pattern", "url": url, "body_pattern": "("},
            {"name": "authority", "url": url.replace("http:", "https:"), "ca_file": str(tmp_path / "none.pem")},
        ]
        shown = check(tmp_path, http=[*bad, {"name": "good", "url": url}], processes=[{"name": "neither"}])
    for name in ("HTTP endpoint pattern", "HTTP endpoint authority", "process neither"):
        assert named(shown, f"probe {name}")["status"] == "unknown"
    assert named(shown, "HTTP status of good")["status"] == "passed"
