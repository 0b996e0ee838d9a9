"""health_check against real servers, processes, databases and logs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.ports import free_port
from support.postgresql import PostgresServer
from support.waiting import wait_until
from support.web import make_certificate, web_server

# What the machine that the tests run on is like is not what they are about.
QUIET: dict[str, Any] = {
    "filesystems": {"exclude": ["*"]},
    "host": {
        "clock": "never",
        "warn_load_per_core": 1000,
        "fail_load_per_core": 1000,
        "warn_memory_available_ratio": 0,
        "fail_memory_available_ratio": 0,
        "warn_swap_used_ratio": 1,
    },
}

# How fast the machine answers just now matters to those tests alone that say so.
PATIENT = {"warn_seconds": 100, "fail_seconds": 100}

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="the openssl program makes the certificates")


def check(tmp_path: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    usual = {"state_dir": str(tmp_path / "state"), "timeout": "150s", **QUIET}
    return run_module("health_check", {**usual, **options}, check=check)


def statuses(shown: dict[str, Any], about: str) -> dict[str, str]:
    return {name: found["status"] for name, found in checks_by_name(shown).items() if name.endswith(about)}


def probe_http(tmp_path: Path, url: str, **options: Any) -> dict[str, Any]:
    return check(tmp_path, http=[{"name": "shop", "url": url, **PATIENT, "timeout": "120s", **options}])


# --- HTTP --------------------------------------------------------------------------------------------------------


def test_an_endpoint_that_answers_well_passes_with_its_latency(tmp_path: Path) -> None:
    with web_server() as port:
        shown = probe_http(tmp_path, f"http://127.0.0.1:{port}/", body='"status": "ok"', body_pattern=r"^\{.*\}$")
    assert statuses(shown, "of shop") == {
        "HTTP status of shop": "passed",
        "HTTP body of shop": "passed",
        "HTTP latency of shop": "passed",
    }
    assert 0 < shown["metrics"]["http_seconds shop"]["value"] < 100
    assert (shown["failed"], shown["changed"]) == (False, False)


def test_status_body_and_latency_fail_each_for_itself(tmp_path: Path) -> None:
    with web_server() as port:
        error = probe_http(tmp_path, f"http://127.0.0.1:{port}/error", body="ok")
        slow = probe_http(tmp_path, f"http://127.0.0.1:{port}/slow", warn_seconds=0.1, fail_seconds=0.3)
        warned = probe_http(tmp_path, f"http://127.0.0.1:{port}/slow", warn_seconds=0.1)
    found = checks_by_name(error)
    assert found["HTTP status of shop"]["observed"] == "status 500"
    assert found["HTTP body of shop"]["status"] == "failed"
    assert found["HTTP latency of shop"]["status"] == "passed"
    assert error["failed"] and "status 500 (expected status 200)" in error["msg"]
    assert "hunter2" not in str(error), "a body may hold anything and is not shown"
    assert statuses(slow, "latency of shop") == {"HTTP latency of shop": "failed"}
    assert statuses(warned, "latency of shop") == {"HTTP latency of shop": "warned"}
    assert not warned["failed"]


def test_redirects_are_shown_and_followed_only_when_asked(tmp_path: Path) -> None:
    with web_server() as port:
        url = f"http://127.0.0.1:{port}/to/health"
        shown = probe_http(tmp_path, url)
        followed = probe_http(tmp_path, url, follow_redirects=True, body="ok")
        wanted = probe_http(tmp_path, url, status=[301, 302])
    assert checks_by_name(shown)["HTTP status of shop"]["observed"] == "status 302, a redirect to /health"
    assert shown["failed"]
    assert not followed["failed"]
    assert not wanted["failed"]


def test_a_login_is_sent_but_not_to_another_host_and_never_shown(tmp_path: Path) -> None:
    login = {"bearer_token": "hunter2", "follow_redirects": True, "body_pattern": "Bearer hunter2"}
    with web_server() as other, web_server(away=f"http://localhost:{other}/headers") as port:
        own = probe_http(tmp_path, f"http://127.0.0.1:{port}/headers", **login)
        away = probe_http(tmp_path, f"http://127.0.0.1:{port}/away", **login)
    assert statuses(own, "body of shop") == {"HTTP body of shop": "passed"}
    assert statuses(away, "body of shop") == {"HTTP body of shop": "failed"}
    assert "hunter2" not in str(own["checks"])


def test_a_login_in_the_url_is_refused_and_not_shown(tmp_path: Path) -> None:
    shown = probe_http(tmp_path, "http://bob:hunter2@127.0.0.1/")
    assert shown["failed"]
    assert "login_user" in shown["msg"]
    assert "hunter2" not in str(shown["checks"]) + shown["msg"]


@needs_openssl
@pytest.mark.parametrize(
    ("days", "status"), [(400, "passed"), (20, "warned"), (3, "failed")], ids=["good", "ends soon", "ends this week"]
)
def test_days_of_a_trusted_certificate_are_judged(tmp_path: Path, days: int, status: str) -> None:
    certificate = make_certificate(tmp_path, days)
    with web_server(certificate) as port:
        shown = probe_http(tmp_path, f"https://localhost:{port}/", ca_file=str(certificate), address="127.0.0.1")
    found = checks_by_name(shown)
    assert found["HTTP status of shop"]["status"] == "passed"
    assert found["certificate of shop"]["status"] == status
    assert found["certificate of shop"]["observed"] == f"{days:.1f} days left"


@needs_openssl
@pytest.mark.parametrize(
    ("days", "name", "trusted", "words"),
    [
        (-1, "localhost", True, "certificate has expired"),
        (400, "other.example", True, "Hostname mismatch"),
        (400, "localhost", False, "self-signed certificate|self signed certificate"),
    ],
    ids=["expired", "wrong host", "not trusted"],
)
def test_a_certificate_that_cannot_be_trusted_fails_in_clear_words(
    tmp_path: Path, days: int, name: str, trusted: bool, words: str
) -> None:
    certificate = make_certificate(tmp_path, days, name)
    trust = {"ca_file": str(certificate)} if trusted else {}
    with web_server(certificate) as port:
        shown = probe_http(tmp_path, f"https://localhost:{port}/", address="127.0.0.1", **trust)
        unchecked = probe_http(tmp_path, f"https://127.0.0.1:{port}/", validate_certs=False)
    found = checks_by_name(shown)
    assert found["certificate of shop"]["status"] == "failed"
    assert any(part in found["certificate of shop"]["observed"] for part in words.split("|"))
    assert found["certificate of shop"]["advice"]
    assert found["HTTP status of shop"]["status"] == "unknown", "the application was not asked: that is not passed"
    # Without validation the days count all the same.
    status = checks_by_name(unchecked)["certificate of shop"]["status"]
    assert status == ("failed" if days < 0 else "passed")


def test_https_to_a_port_without_tls_is_told(tmp_path: Path) -> None:
    with web_server() as port:
        shown = probe_http(tmp_path, f"https://127.0.0.1:{port}/")
    assert "no TLS connection: wrong version number" in shown["msg"]


# --- ports, processes, units -------------------------------------------------------------------------------------


def test_ports_that_take_connections_pass_and_closed_ones_fail(tmp_path: Path) -> None:
    closed = free_port()
    with web_server() as port:
        shown = check(tmp_path, tcp=[{"name": "web", "port": port, **PATIENT, "timeout": "120s"}, {"port": closed}])
    found = checks_by_name(shown)
    assert found["TCP connection to web"]["status"] == "passed"
    assert found[f"TCP connection to 127.0.0.1:{closed}"]["observed"] == "connection refused"


def test_processes_are_found_by_command_line_and_pid_file(tmp_path: Path) -> None:
    pid_file = tmp_path / "app.pid"
    command = [sys.executable, "-c", "import time; time.sleep(600)", "wellkept-test-process"]
    options = [
        {"name": "by pattern", "pattern": "wellkept-test-process"},
        {"name": "by pid file", "pid_file": str(pid_file)},
        {"name": "by both", "pid_file": str(pid_file), "pattern": "wellkept-test-process"},
        {"name": "another", "pid_file": str(pid_file), "pattern": "nginx"},
        {"name": "two", "pattern": "wellkept-test-process", "min_count": 2},
    ]
    with subprocess.Popen(command) as process:
        try:
            pid_file.write_text(f"{process.pid}\n")
            found = checks_by_name(check(tmp_path, processes=options))
        finally:
            process.kill()
    assert {name: found[f"process {name}"]["status"] for name in ("by pattern", "by pid file", "by both")} == {
        "by pattern": "passed",
        "by pid file": "passed",
        "by both": "passed",
    }
    assert found["process by pid file"]["evidence"]["pids"] == [process.pid]
    assert found["process another"]["status"] == "failed"
    assert found["process two"]["observed"] == "1"
    gone = checks_by_name(check(tmp_path, processes=options[:2]))
    assert {gone["process by pattern"]["status"], gone["process by pid file"]["status"]} == {"failed"}


def test_a_zombie_does_not_count_as_running(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "0"]) as process:
        wait_until(lambda: " Z " in Path(f"/proc/{process.pid}/stat").read_text(), "the process to have ended")
        pid_file = tmp_path / "pid"
        pid_file.write_text(str(process.pid))
        shown = check(tmp_path, processes=[{"name": "dead", "pid_file": str(pid_file)}])
    assert checks_by_name(shown)["process dead"]["observed"] == "0, 1 dead but not reaped"


@pytest.mark.skipif(os.path.isdir("/run/systemd/system"), reason="systemd runs here")
def test_units_are_unknown_where_systemd_does_not_run(tmp_path: Path) -> None:
    shown = check(tmp_path, units=["nginx"])
    found = checks_by_name(shown)["unit nginx.service"]
    assert (found["status"], found["observed"]) == ("unknown", "systemd does not run on this host")


# --- PostgreSQL --------------------------------------------------------------------------------------------------


def test_a_healthy_server_passes_every_check(tmp_path: Path, postgresql: PostgresServer) -> None:
    shown = check(tmp_path, postgresql=[{"name": "main", **postgresql.login(), **PATIENT}])
    assert statuses(shown, "PostgreSQL main") == {
        "connection to PostgreSQL main": "passed",
        "latency of PostgreSQL main": "passed",
        "connections used of PostgreSQL main": "passed",
        "oldest transaction of PostgreSQL main": "passed",
        "idle transactions of PostgreSQL main": "passed",
        "transaction id age of PostgreSQL main": "passed",
        "multixact id age of PostgreSQL main": "passed",
    }
    assert shown["metrics"]["postgresql_connections_used_ratio main"]["value"] > 0


def test_an_old_and_an_idle_transaction_are_found_with_their_owner(tmp_path: Path, postgresql: PostgresServer) -> None:
    limits = {"warn_transaction_seconds": 0.1, "fail_idle_in_transaction_seconds": 0.1}
    with postgresql.connect(application_name="forgetful") as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT 1")
        time.sleep(0.3)
        shown = check(tmp_path, postgresql=[{"name": "main", **postgresql.login(), **limits}])
    found = checks_by_name(shown)
    assert found["oldest transaction of PostgreSQL main"]["status"] == "warned"
    assert found["idle transactions of PostgreSQL main"]["status"] == "failed"
    assert "(forgetful)" in found["idle transactions of PostgreSQL main"]["observed"]


def test_a_role_without_the_right_to_see_others_is_told_what_to_grant(
    tmp_path: Path, postgresql: PostgresServer
) -> None:
    postgresql.sql('CREATE ROLE "health-watch" LOGIN')
    try:
        login = {**postgresql.login(), "login_user": "health-watch", **PATIENT}
        before = checks_by_name(check(tmp_path, postgresql=[{"name": "main", **login}]))
        postgresql.sql('GRANT pg_monitor TO "health-watch"')
        after = checks_by_name(check(tmp_path, postgresql=[{"name": "main", **login}]))
    finally:
        postgresql.sql('DROP ROLE "health-watch"')
    assert before["oldest transaction of PostgreSQL main"]["status"] == "unknown"
    assert before["oldest transaction of PostgreSQL main"]["advice"] == 'GRANT pg_monitor TO "health-watch";'
    assert before["connections used of PostgreSQL main"]["status"] == "passed"
    assert before["transaction id age of PostgreSQL main"]["status"] == "passed"
    assert {found["status"] for name, found in after.items() if name.endswith("PostgreSQL main")} == {"passed"}


# --- logs, file systems ------------------------------------------------------------------------------------------


def test_new_error_lines_are_counted_once_and_check_mode_does_not_use_them_up(tmp_path: Path) -> None:
    log = tmp_path / "app.log"
    log.write_text("ERROR login failed password=hunter2\nfine\n")
    rule = {"name": "app", "path": str(log), "pattern": "ERROR", "fail_count": 10}
    dry = check(tmp_path, logs=[rule], check=True)
    first = check(tmp_path, logs=[rule])
    second = check(tmp_path, logs=[rule])
    log.write_text(log.read_text() + "ERROR\n" * 11)
    third = check(tmp_path, logs=[rule])
    shown = [checks_by_name(answer)["error lines in app"] for answer in (dry, first, second, third)]
    assert [found["status"] for found in shown] == ["warned", "warned", "passed", "failed"]
    assert shown[1]["evidence"]["samples"] == ["ERROR login failed password=***"]
    assert third["metrics"]["log_lines app"]["value"] == 11
    assert not any(answer["changed"] for answer in (dry, first, second, third))
    state = tmp_path / "state" / "health_check" / "logs.json"
    assert (state.stat().st_mode & 0o777, state.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_a_full_file_system_fails(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system to fill")
    mount = tmp_path / "small"
    mount.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m,nr_inodes=20", "wellkept-test", str(mount)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        with (mount / "fill").open("wb") as stream:
            stream.write(b"x" * (900 << 10))
        for number in range(18):
            (mount / str(number)).touch()
        listed = checks_by_name(check(tmp_path, filesystems={"paths": [str(mount)]}))
        found_by_itself = checks_by_name(check(tmp_path, filesystems={}))
    finally:
        subprocess.run(["umount", str(mount)], check=True)
    for found in (listed, found_by_itself):
        assert found[f"disk use of {mount}"]["status"] == "warned"
        assert found[f"inode use of {mount}"]["status"] == "failed"


def test_without_options_the_host_itself_is_checked(tmp_path: Path) -> None:
    shown = run_module("health_check", {"state_dir": str(tmp_path / "state")})
    names = set(checks_by_name(shown))
    assert {"memory available", "swap use", "load per core"} <= names
    assert any(name.startswith("disk use of /") for name in names)


# --- speed -------------------------------------------------------------------------------------------------------


def test_a_healthy_host_with_many_checks_takes_well_below_a_second(tmp_path: Path, postgresql: PostgresServer) -> None:
    log = tmp_path / "app.log"
    log.write_text("fine\n" * 10_000)

    def seconds() -> float:
        shown = check(
            tmp_path,
            http=[{"name": str(n), "url": f"http://127.0.0.1:{port}/", "body": "ok"} for n in range(3)],
            tcp=[{"port": port}],
            processes=[{"name": "python", "pattern": "python"}],
            postgresql=[{"name": "main", **postgresql.login()}],
            logs=[{"path": str(log), "pattern": "ERROR"}],
            filesystems={},
        )
        assert len(shown["checks"]) >= 15
        return float(shown["module_seconds"])

    with web_server() as port:
        # Others may keep the machine busy for a while.
        wait_until(lambda: seconds() < 1.0, "a run of less than a second")
