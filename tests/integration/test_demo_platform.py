"""The demo platform, built for real: complete, repeatable, and gone without a trace."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import as_user
from support.modules import ROOT, run_module

APPLICATION = ROOT / "roles" / "demo_platform" / "files" / "learning_app.py"
TABLES = ("courses", "students", "enrolments", "submissions", "sessions")

Shown = dict[str, Any]


class Platform:
    """A demo platform in *directory*, of a test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def ensure(self, state: str = "present", **options: Any) -> Shown:
        check = options.pop("check", False)
        wanted = {"directory": str(self.directory), "application": str(APPLICATION), "state": state, **options}
        return run_module("demo_platform", wanted, check=check)

    @property
    def description(self) -> Shown:
        found: Shown = json.loads((self.directory / "platform.json").read_text())
        return found

    def connect(self, user: str = "postgres", secret: str = "postgresql") -> psycopg.Connection[Any]:
        database = self.description["postgresql"]
        return psycopg.connect(
            host=database["host"],
            port=database["port"],
            dbname=database["database"],
            user=user,
            password=(self.directory / "secrets" / secret).read_text(),
            autocommit=True,
        )

    def rows(self, statement: str) -> list[Any]:
        with self.connect() as connection:
            return connection.execute(statement).fetchall()  # type: ignore[call-overload, no-any-return]

    def get(self, address: str) -> tuple[bytes, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.description["application"]["url"] + address, timeout=60) as answer:
            return answer.read(), answer.headers["X-Cache"]

    def application_pid(self) -> int:
        return int((self.directory / "run" / "app.pid").read_text())

    def server_pid(self) -> int:
        return int((self.directory / "postgresql" / "data" / "postmaster.pid").read_text().splitlines()[0])

    def fingerprints(self) -> dict[str, Any]:
        return {
            table: self.rows(f"SELECT count(*), sum(hashtextextended(r::text, 0)::numeric) FROM {table} r")[0]
            for table in TABLES
        }

    def hashes(self, below: str) -> dict[str, str]:
        """Hash of every file below a directory of the platform."""
        top = self.directory / below
        return {
            str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in top.rglob("*")
            if path.is_file()
        }


@contextlib.contextmanager
def built(directory: Path) -> Iterator[Platform]:
    platform = Platform(directory)
    try:
        shown = platform.ensure()
        assert not shown["failed"], shown
        yield platform
    finally:
        platform.ensure("absent")
    assert not directory.exists()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with built(tmp_path_factory.mktemp("demo") / "a platform") as found:
        yield found


def running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def wait_until_gone(pid: int, seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not running(pid)


def test_a_second_build_changes_nothing(platform: Platform) -> None:
    before = (platform.description, platform.application_pid(), platform.server_pid())
    shown = platform.ensure()
    assert (shown["changed"], shown["steps"]) == (False, [])
    assert (platform.description, platform.application_pid(), platform.server_pid()) == before


def test_it_is_large_enough_to_be_a_trial(platform: Platform) -> None:
    counts = {table: platform.rows(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES}
    assert sum(counts.values()) >= 200_000, counts
    assert (platform.directory / "log" / "app" / "access.log").stat().st_size > 20_000_000
    assert len(platform.hashes("app/cache/pages")) >= 1000
    stale = time.time() - 7 * 86400
    for below in ("app/uploads/tmp", "app/sessions", "app/exports"):
        ages = [path.stat().st_mtime for path in (platform.directory / below).iterdir()]
        assert sum(age < stale for age in ages) > 20, below


def test_submission_rows_and_files_belong_together(platform: Platform) -> None:
    recorded = {
        name: bytes(digest).hex()
        for name, digest in platform.rows(
            "SELECT file_name, file_sha256 FROM submissions WHERE file_name IS NOT NULL ORDER BY 1"
        )
    }
    assert len(recorded) >= 500
    assert recorded == platform.hashes("app/uploads/submissions")


def test_tables_and_indexes_are_truly_bloated(platform: Platform) -> None:
    for table in ("enrolments", "submissions", "sessions"):
        [(free_or_dead,)] = platform.rows(
            f"SELECT (dead_tuple_percent + free_percent)::float FROM pgstattuple('{table}')"
        )
        assert free_or_dead > 25, table
    [(density,)] = platform.rows("SELECT avg_leaf_density::float FROM pgstatindex('sessions_token_key')")
    assert density < 60


def test_the_server_is_what_the_activities_need(platform: Platform) -> None:
    expected = {"summarize_wal": "on", "wal_level": "replica", "data_checksums": "on", "fsync": "on"}
    settings = dict(platform.rows("SELECT name, setting FROM pg_settings"))
    assert {name: settings[name] for name in expected} == expected
    extensions = {name for (name,) in platform.rows("SELECT extname FROM pg_extension")}
    assert extensions >= {"amcheck", "pgstattuple", "pg_visibility", "pg_stat_statements"}


def test_the_application_answers_from_the_database_and_then_from_its_cache(platform: Platform) -> None:
    body, _origin = platform.get("/health")
    assert json.loads(body)["courses"] == 240
    page, origin = platform.get("/courses/99")
    assert (origin, b"Assignment" in page) == ("MISS", True)
    assert platform.get("/courses/99") == (page, "HIT")


def test_the_application_has_no_more_rights_than_it_needs(platform: Platform) -> None:
    with platform.connect("learning_app", "learning_app") as connection:
        assert connection.execute("SELECT count(*) FROM courses").fetchone() == (240,)
        for statement in ("DELETE FROM courses", "CREATE TABLE mine (a int)", "SELECT pg_read_file('/etc/passwd')"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


def test_passwords_are_needed_and_kept_private(platform: Platform) -> None:
    description = (platform.directory / "platform.json").read_text()
    for path in (platform.directory / "secrets").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        secret = path.read_text()
        assert secret not in description
        for pid in (platform.application_pid(), platform.server_pid()):
            assert secret.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert stat.S_IMODE((platform.directory / "app" / "config.json").stat().st_mode) == 0o600
    database = platform.description["postgresql"]
    for host in (database["host"], database["socket_directory"]):
        if host:
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                psycopg.connect(
                    host=host, port=database["port"], user="postgres", dbname="learning", passfile="/nowhere"
                )


def test_no_password_is_in_a_file_but_its_own_and_the_configuration_of_its_user(platform: Platform) -> None:
    """Not in a log, and not among the statements that pg_stat_statements keeps."""
    with platform.connect() as connection:
        connection.execute("SELECT count(*) FROM pg_stat_statements")
    secrets = {path.read_bytes() for path in (platform.directory / "secrets").iterdir()}
    meant_for_it = {platform.directory / "app" / "config.json", *(platform.directory / "secrets").iterdir()}
    found = []
    for path in platform.directory.rglob("*"):
        if path.is_symlink() or not path.is_file() or path in meant_for_it:
            continue
        with contextlib.suppress(FileNotFoundError):
            content = path.read_bytes()
            found += [path for secret in secrets if secret in content]
    assert found == []


def test_the_servers_do_not_run_as_root(platform: Platform) -> None:
    for pid in (platform.application_pid(), platform.server_pid()):
        assert Path(f"/proc/{pid}").stat().st_uid != 0


def test_the_application_opens_its_logs_anew_on_hup(platform: Platform) -> None:
    log = platform.directory / "log" / "app" / "access.log"
    rotated = log.with_name("access.log.1")
    log.rename(rotated)
    os.kill(platform.application_pid(), signal.SIGHUP)
    deadline = time.monotonic() + 60
    while not log.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    platform.get("/courses/5")
    while '"GET /courses/5 ' not in log.read_text():
        assert time.monotonic() < deadline, "the answer is not in the new log"
        time.sleep(0.02)
    held = {os.readlink(entry) for entry in Path(f"/proc/{platform.application_pid()}/fd").iterdir()}
    assert str(rotated) not in held


def test_what_maintenance_removed_is_not_made_again(platform: Platform) -> None:
    upload = next((platform.directory / "app" / "uploads" / "tmp").iterdir())
    upload.unlink()
    shown = platform.ensure()
    assert (shown["changed"], upload.exists()) == (False, False)


def test_it_comes_back_after_its_servers_were_killed(platform: Platform) -> None:
    before = platform.description
    application, server = platform.application_pid(), platform.server_pid()
    os.kill(application, signal.SIGKILL)
    os.kill(server, signal.SIGKILL)
    assert wait_until_gone(server)
    expected = ["start PostgreSQL", "start the application"]
    planned = platform.ensure(check=True)
    assert (planned["steps"], planned["changed"]) == (expected, True)
    assert not running(application)
    assert platform.ensure()["steps"] == expected
    assert platform.description == before
    assert b"ok" in platform.get("/health")[0]


def test_a_database_that_was_left_half_made_is_made_anew(platform: Platform) -> None:
    platform.rows("DELETE FROM platform_build RETURNING 1")
    platform.rows("DELETE FROM sessions RETURNING 1")
    shown = platform.ensure()
    assert shown["steps"] == ["load the database"]
    assert shown["rows"]["sessions"] > 50_000
    assert b"ok" in platform.get("/health")[0]


def test_another_seed_is_refused(platform: Platform) -> None:
    shown = platform.ensure(seed=7)
    assert shown["failed"]
    assert "make demo-clean" in shown["msg"]


def test_the_same_seed_makes_the_same_platform(platform: Platform, tmp_path: Path) -> None:
    with built(tmp_path / "again") as again:
        assert again.fingerprints() == platform.fingerprints()
        for below in ("app/uploads/submissions", "app/exports"):
            assert again.hashes(below) == platform.hashes(below)
        assert again.description["postgresql"]["port"] != platform.description["postgresql"]["port"]


def test_an_ordinary_user_builds_it_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    prefix = as_user("nobody", "/root")
    if not prefix:
        pytest.skip("the other tests show it: they do not run as root")
    top = tmp_path_factory.mktemp("demo-of-nobody")
    shutil.chown(top, "nobody", "nogroup")
    options = {"directory": str(top / "demo"), "application": str(APPLICATION)}
    program = (
        "import json, sys; from support.modules import run_module\n"
        "print(json.dumps([run_module('demo_platform', {**json.loads(sys.argv[1]), 'state': state})"
        " for state in ('present', 'present', 'absent')]))"
    )
    done = subprocess.run(
        [*prefix, sys.executable, "-c", program, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/collections", "HOME": str(top)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second, removed = json.loads(done.stdout)
    assert not first["failed"], first
    assert (first["changed"], second["changed"], removed["changed"]) == (True, False, True), second
    assert list(top.iterdir()) == []


def test_removal_ends_only_its_own_processes(platform: Platform, tmp_path: Path) -> None:
    # After a restart of the machine the numbers in pid files may belong to somebody else.
    directory = tmp_path / "demo"
    (directory / "run").mkdir(parents=True)
    (directory / "postgresql" / "data").mkdir(parents=True)
    shutil.copy(platform.directory / "platform.json", directory)
    with subprocess.Popen(["sleep", "120"]) as stranger:
        try:
            for name in ("run/app.pid", "postgresql/data/postmaster.pid"):
                (directory / name).write_text(f"{stranger.pid}\n")
            shown = Platform(directory).ensure("absent")
            assert not shown["failed"], shown
            assert shown["steps"] == ["remove the directory"]
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert not directory.exists()


def test_an_application_whose_platform_was_deleted_ends_by_itself(platform: Platform) -> None:
    application = platform.application_pid()
    (platform.directory / "run" / "app.pid").unlink()
    assert wait_until_gone(application)
    assert platform.ensure()["steps"] == ["start the application"]


def test_a_directory_of_something_else_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letter.txt").write_text("dear")
    shown = Platform(tmp_path / "theirs").ensure("absent")
    assert shown["failed"]
    assert (tmp_path / "theirs" / "letter.txt").read_text() == "dear"
    (tmp_path / "theirs" / "platform.json").write_text('{"kind": "another"}')
    for state in ("absent", "present"):
        assert Platform(tmp_path / "theirs").ensure(state)["failed"]
    assert (tmp_path / "theirs" / "letter.txt").exists()


def test_check_mode_builds_nothing(tmp_path: Path) -> None:
    shown = Platform(tmp_path / "demo").ensure(check=True)
    assert (shown["changed"], len(shown["steps"])) == (True, 9)
    assert not (tmp_path / "demo").exists()
    assert Platform(tmp_path / "demo").ensure("absent")["changed"] is False
