"""The platform as its users see it, and what a day's maintenance has done to it and recorded."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from conftest import FLEET, connect, psql

DUE = {(host, activity) for host in ("app1", "backup1", "db1", "db2") for activity in ("health_check", "log_rotation")}
DUE |= {("app1", "storage_cleanup"), ("app1", "cache_clearing"), ("db1", "backup"), ("db1", "restore_test")}
DUE |= {("db1", "backup_verification")}
DUE |= {(host, activity) for host in ("db1", "db2") for activity in (
    "database_vacuum", "database_reindex", "database_integrity", "query_review")}  # fmt: skip
# A standby has its primary's tables and indexes.
LEFT_TO_THE_PRIMARY = {("db2", "database_vacuum"), ("db2", "database_reindex")}
# There is no other place to mirror to.
NOT_CONFIGURED = {("db1", "backup_mirror"), ("db2", "backup_mirror")}


def address(host):
    return json.loads((FLEET / "inventory" / "addresses.yml").read_text())["all"]["hosts"][host]["ansible_host"]


@pytest.fixture(scope="module")
def db1():
    return connect("db1")


@pytest.fixture(scope="module")
def db2():
    return connect("db2")


@pytest.fixture(scope="module")
def backup1():
    return connect("backup1")


def test_all_hosts_are_well(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"


def test_hosts_find_each_other_by_name(host):
    for name in ("db1", "db2", "app1", "backup1"):
        assert host.addr(name).ipv4_addresses == [address(name)]


@pytest.mark.parametrize(
    "path, text", [("/courses", "Course No. 240"), ("/courses/17", "Mean grade"), ("/health", '"ok"')]
)
def test_users_get_their_pages(path, text):
    with urllib.request.urlopen(f"http://{address('app1')}{path}", timeout=10) as answer:
        assert answer.headers["Server"].startswith("nginx")
        assert text in answer.read().decode()


def test_redis_answers():
    assert connect("app1").check_output("redis-cli ping") == "PONG"


def test_the_standby_follows_the_primary(db1, db2):
    assert psql(db1, "SELECT pg_is_in_recovery()") == "f"
    assert psql(db2, "SELECT pg_is_in_recovery()") == "t"
    psql(db1, "CREATE TABLE IF NOT EXISTS seen_from_outside (at timestamptz)")
    psql(db1, "INSERT INTO seen_from_outside VALUES (now())")
    expected = psql(db1, "SELECT count(*) FROM seen_from_outside")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if psql(db2, "SELECT count(*) FROM seen_from_outside") == expected:
            return
        time.sleep(0.2)
    raise AssertionError("what was written to db1 has not reached db2 within 10 s")


def test_postgresqls_own_tool_finds_the_backup_sound(db1, backup1):
    version = psql(db1, "SHOW server_version_num")[:2]
    [manifest] = backup1.check_output("find /srv/backups -name backup_manifest").split()
    verified = backup1.run(
        "/usr/lib/postgresql/%s/bin/pg_verifybackup --no-parse-wal %s",
        version,
        manifest.removesuffix("/backup_manifest"),
    )
    assert verified.rc == 0, verified.stderr
    assert backup1.check_output("find /srv/backups -name '.partial-*'") == ""


def test_the_files_of_the_database_host_are_on_the_backup_host(db1, backup1):
    [copy] = backup1.check_output("find /srv/backups -name marks.csv").split()
    digests = [host.check_output("sha256sum %s", path).split()[0] for host, path in (
        (backup1, copy), (db1, "/srv/learning/reports/marks.csv"))]  # fmt: skip
    assert digests[0] == digests[1]
    assert not db1.file("/srv/backups").exists


def test_nobody_else_can_read_backups(backup1):
    assert backup1.check_output("find /srv/backups /srv/wal -mindepth 2 -perm /077 -print -quit") == ""


def test_the_restore_left_nothing_behind(db1, backup1):
    servers = db1.check_output("pgrep --exact --parent 1 postgres || pgrep --full bin/postgres").split()
    assert len(servers) == 1
    assert backup1.run("pgrep --full [b]in/postgres").stdout == ""
    assert backup1.check_output("find / -xdev -name PG_VERSION -path '*/wellkept/*' -not -path '/proc/*'") == ""
    assert psql(db1, "SELECT count(*) FROM pg_replication_slots") == "1"
    assert psql(db1, "SELECT count(*) FROM students") == "4000"


def test_every_run_did_all_that_was_due(runs):
    assert [run.check_mode for run in runs] == [True, False, False]
    assert {run.verdict for run in runs} <= {"passed", "warned"}
    for run in runs:
        assert set(run.results) - NOT_CONFIGURED == DUE
    for run in runs[1:]:
        assert set(run.not_passed()) - NOT_CONFIGURED == LEFT_TO_THE_PRIMARY, run.not_passed()
        for skipped in LEFT_TO_THE_PRIMARY:
            assert run.results[skipped]["outcome"] == "skipped"
            assert "standby" in run.results[skipped]["reason"]


def test_before_the_first_backup_check_mode_says_that_there_is_none_to_test(runs):
    assert set(runs[0].not_passed()) >= {("db1", "restore_test"), ("db1", "backup_verification")}
    for activity in ("restore_test", "backup_verification"):
        assert runs[0].results["db1", activity]["outcome"] == "skipped"
        assert "no backup yet" in runs[0].results["db1", activity]["reason"]


def test_the_first_run_changes_what_is_due_and_the_next_nothing(runs):
    due = {("db1", "backup"), ("db1", "restore_test"), ("app1", "log_rotation"), ("app1", "storage_cleanup")}
    due |= {("db1", "database_vacuum"), ("db1", "database_reindex")}
    assert due <= set(runs[1].changed)
    assert runs[2].changed == []


def test_the_health_check_sees_the_standby_and_its_lag(runs):
    primary, standby = (_checks(runs[-1], host, "health_check") for host in ("db1", "db2"))
    assert primary["standbys of PostgreSQL learning"]["observed"] == "1 connected"
    assert [name for name in primary if name.startswith("replication lag of PostgreSQL learning to db2")]
    assert [name for name in standby if name.startswith("replication lag of PostgreSQL learning, replay")]


def test_the_restored_content_was_compared(runs):
    checks = _checks(runs[1], "db1", "restore_test")
    assert checks["content of the restored database learning"]["status"] == "passed"
    assert checks["recovery to the target newest"]["status"] == "passed"
    assert checks["scratch cluster is not the live one"]["status"] == "passed"


def test_bloated_indexes_are_small_again_and_what_they_were(db1, db2):
    sizes = "SELECT pg_relation_size('visits_pkey'), pg_relation_size('visits_page_and_student')"
    first, second = map(int, psql(db1, sizes).split("|"))
    # They had 6.6 and 12 MB for 60,000 rows.
    assert first < 1.5e6
    assert second < 4e6
    definitions = psql(db1, "SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'visits'::regclass")
    assert sorted(definitions.splitlines()) == [
        "CREATE INDEX visits_page_and_student ON public.visits USING btree (page, student_id, id)",
        "CREATE UNIQUE INDEX visits_pkey ON public.visits USING btree (id)",
    ]
    assert psql(db1, "SELECT conname FROM pg_constraint WHERE conrelid = 'visits'::regclass AND contype = 'p'")
    assert psql(db1, "SELECT count(*) FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)") == "0"
    assert psql(db2, sizes) == f"{first}|{second}"


def test_rows_that_nobody_had_vacuumed_are_gone_and_all_others_are_there(db1):
    assert psql(db1, "SELECT tuple_count, dead_tuple_count FROM pgstattuple('sessions')") == "30000|0"
    # Only a vacuum says of a page that all may see it.
    psql(db1, "CREATE EXTENSION IF NOT EXISTS pg_visibility")
    known = "SELECT all_visible * 8192 = pg_relation_size('sessions') FROM pg_visibility_map_summary('sessions')"
    assert psql(db1, known) == "t"
    assert psql(db1, "SELECT count(*), sum(id) FROM visits") == "60000|9000150000"


def test_check_mode_names_what_is_to_be_rebuilt_and_touches_nothing(runs):
    [plan] = [
        check["evidence"]["rebuild"]
        for check in runs[0].results["db1", "database_reindex"]["checks"]
        if check["name"] == "bloated indexes"
    ]
    assert "learning.public.visits_pkey" in [task["index"] for task in plan]
    # Had check mode rebuilt them, nothing would have been left to the run after it.
    assert ("db1", "database_reindex") in runs[1].changed


def test_no_password_is_in_the_ledger_or_the_reports(artifacts):
    secrets = [path.read_text().split()[0] for path in (FLEET / "secrets").iterdir()]
    assert len(secrets) == 2
    for path in artifacts.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], path


def _checks(run, host, activity):
    return {check["name"]: check for check in run.results[host, activity]["checks"]}
