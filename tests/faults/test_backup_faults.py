"""Backups when things go wrong: they end with a reason, leave nothing behind, and the next run succeeds."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.consistent_point import consistent_point
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.dump import DumpBlockedError, dump_database
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.database.session import bearable_wait
from support.clients import Client, bystander
from support.halting import halted_when, killed
from support.modules import checks_by_name, module_process, run_module
from support.ports import free_port
from support.postgresql import PostgresServer, postgres_server
from support.waiting import wait_until

KILLS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 60000) g")
        running.sql("CREATE TABLE note (id serial, text text)")
        yield running


@pytest.fixture
def options(server: PostgresServer, tmp_path: Path) -> dict[str, Any]:
    return {
        **server.login(),
        "bin_dir": str(server.bin_dir),
        "repository": str(tmp_path / "repository"),
        "state_dir": str(tmp_path / "state"),
        "min_free_bytes": "1MiB",
        "interval": "0",
    }


def engine(options: dict[str, Any]) -> CoreEngine:
    return CoreEngine(Repository(options["repository"], "main"), options["bin_dir"])


def partials(options: dict[str, Any]) -> list[Path]:
    return list(Path(options["repository"], "main").glob(".partial-*"))


def processes_of(options: dict[str, Any]) -> list[str]:
    """Command lines of processes that work in the repository."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if options["repository"] in line:
                found.append(line)
    return found


def sessions_and_slots(server: PostgresServer) -> list[Any]:
    return [
        *server.sql("SELECT application_name, query FROM pg_stat_activity WHERE application_name LIKE 'wellkept%'"),
        *server.sql("SELECT slot_name FROM pg_replication_slots"),
    ]


def test_without_room_nothing_is_written_and_needed_and_free_are_told(options: dict[str, Any]) -> None:
    shown = run_module("backup", {**options, "min_free_bytes": "1000TiB"})
    assert shown["failed"]
    check = next(check for name, check in checks_by_name(shown).items() if name.startswith("space in "))
    assert "1000.0 TiB left free" in check["expected"]
    assert check["observed"].endswith(" free")
    assert check["evidence"]["needed_bytes"] > 20_000_000
    assert engine(options).list() == []
    assert not partials(options)


def test_a_file_that_cannot_grow_ends_the_backup_and_leaves_nothing(options: dict[str, Any]) -> None:
    run_module("backup", options)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    shown = run_module("backup", options, preexec_fn=limit)
    assert shown["failed"]
    assert len(engine(options).list()) == 1
    assert not partials(options)
    assert not run_module("backup", options)["failed"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_a_disk_that_fills_up_meanwhile_ends_the_backup_with_that_reason(
    options: dict[str, Any], tmp_path: Path
) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "none", str(disk)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        on_disk = {**options, "repository": str(disk / "repository")}
        assert not run_module("backup", on_disk)["failed"]
        process = module_process("backup", {**on_disk, "full_every": "0"}, start_new_session=True)
        wait_until(lambda: partials(on_disk))
        os.killpg(process.pid, signal.SIGSTOP)
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(1 << 20)):
                pass
        os.killpg(process.pid, signal.SIGCONT)
        shown = json.loads(process.communicate(timeout=300)[0])
        assert shown["failed"]
        assert "No space left on device" in shown["msg"], shown["msg"]
        assert "ree space" in shown["msg"]
        assert not partials(on_disk)
        (disk / "filler").unlink()
        (only,) = engine(on_disk).list()
        assert engine(on_disk).verify(only.label).sound
        assert not run_module("backup", {**on_disk, "full_every": "0"})["failed"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_server_that_is_down_is_told_and_earlier_backups_are_untouched(options: dict[str, Any]) -> None:
    run_module("backup", options)
    down = {**options, "login_unix_socket": "", "login_host": "127.0.0.1", "login_port": free_port()}
    shown = run_module("backup", down)
    assert shown["failed"]
    assert "Start the server" in shown["msg"]
    assert len(engine(options).list()) == 1


def test_a_wrong_password_is_told_and_not_shown(options: dict[str, Any]) -> None:
    wrong = {**options, "login_unix_socket": "", "login_host": "127.0.0.1", "login_password": "not-the-one"}
    shown = run_module("backup", wrong)
    assert shown["failed"]
    assert "Correct login_user and login_password" in shown["msg"]
    assert "not-the-one" not in json.dumps({key: shown[key] for key in ("msg", "checks")})


def timed_run(options: dict[str, Any]) -> tuple[dict[str, Any], float, float]:
    """Run the module to its end: what it says, how long it took, and for how long a partial backup was seen."""
    began = time.monotonic()
    seen: list[float] = []
    process = module_process("backup", options)
    while True:
        try:
            output, _errors = process.communicate(timeout=0.02)
            break
        except subprocess.TimeoutExpired:
            if partials(options):
                seen.append(time.monotonic())
    shown = {"failed": False, **json.loads(output)}
    return shown, time.monotonic() - began, seen[-1] - seen[0] if seen else 0.0


def kill_after(options: dict[str, Any], seconds: float) -> None:
    process = module_process("backup", options)
    time.sleep(seconds)
    process.kill()
    process.communicate()


def kill_in_the_making(options: dict[str, Any], seconds: float) -> None:
    """Kill the module *seconds* after its partial backup is seen; sooner, if a run was done before that."""
    killed(halted_when(lambda: module_process("backup", options), lambda: partials(options), seconds))


def test_killed_at_any_instant_nothing_lives_on_and_the_next_run_cleans_up_and_succeeds(
    options: dict[str, Any], server: PostgresServer
) -> None:
    kinds = ({"full_every": "0"}, {})
    times = {kind: timed_run({**options, **full})[1:] for kind, full in enumerate(kinds)}
    chance = random.Random(2026)
    interrupted = 0
    for number in range(KILLS):
        kind, placed = number % 2, (number // 2) % 2
        whole, making = times[kind]
        share = (number + chance.random()) / KILLS
        if placed:
            kill_in_the_making({**options, **kinds[kind]}, making * share)
        else:
            kill_after({**options, **kinds[kind]}, whole * share)
        left = partials(options)
        interrupted += bool(left)
        wait_until(lambda: not processes_of(options), lambda: processes_of(options))
        wait_until(lambda: not sessions_and_slots(server), lambda: sessions_and_slots(server))
        # Timed anew each time: how fast the machine is now says when the next kill comes.
        shown, *taken = timed_run({**options, **kinds[kind], "keep_full": 1, "keep_within": "0"})
        times[kind] = (taken[0], taken[1])
        assert not shown["failed"], shown["msg"]
        assert not partials(options)
        removed = [change["name"] for change in shown["changes"] if change["kind"] == "leftover"]
        assert removed == [path.name for path in left]
    assert interrupted >= KILLS // 2
    assert all(verification.sound for verification in engine(options).verify_chain(engine(options).list()[-1].label))


def stopped_in_the_making(options: dict[str, Any]) -> subprocess.Popen[str]:
    """A run that stands still while its partial backup is there; one that was faster is followed by another."""
    for _try in range(20):
        process = module_process("backup", options)
        wait_until(lambda: process.poll() is not None or partials(options))  # noqa: B023
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if process.poll() is None and partials(options):
            return process
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=300)
    raise AssertionError("no run was ever seen in the making")


def test_told_to_stop_it_cleans_up_by_itself(options: dict[str, Any], server: PostgresServer) -> None:
    process = stopped_in_the_making(options)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    shown = json.loads(process.communicate(timeout=300)[0])
    assert shown["failed"]
    assert "stopped by SIGTERM" in shown["msg"]
    assert not partials(options)
    wait_until(lambda: not processes_of(options))
    wait_until(lambda: not sessions_and_slots(server))


@pytest.mark.parametrize("state", ["same", "other"])
def test_of_two_at_once_the_second_is_told_who_is_at_work(options: dict[str, Any], tmp_path: Path, state: str) -> None:
    process = stopped_in_the_making({**options, "run_id": "the-first-run"})
    before = len(engine(options).list())
    second = {**options, "state_dir": options["state_dir"] if state == "same" else str(tmp_path / "other")}
    shown = run_module("backup", second)
    process.send_signal(signal.SIGCONT)
    assert shown["failed"]
    assert "the-first-run" in shown["msg"]
    assert f"pid {process.pid}" in shown["msg"]
    assert "since " in shown["msg"]
    assert not json.loads(process.communicate(timeout=300)[0]).get("failed")
    assert len(engine(options).list()) == before + 1


def writer(server: PostgresServer) -> Client:
    return Client(server, "INSERT INTO note (text) VALUES ('a row')")


def test_a_busy_table_costs_no_writer_more_than_the_bound_and_the_point_is_had(
    options: dict[str, Any], server: PostgresServer
) -> None:
    with writer(server).at_work() as busy, bystander(server).at_work() as machine:
        shown = run_module("backup", options)
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["content can be compared"]["status"] == "passed"
    assert busy.errors == []
    assert busy.count > 100
    assert busy.longest < 1 + 0.5 + 4 * machine.longest


def test_a_writer_that_never_ends_costs_the_comparison_and_nobody_else_more_than_the_bound(
    options: dict[str, Any], server: PostgresServer
) -> None:
    with server.connect(application_name="the long one") as holder:
        holder.execute("BEGIN")
        holder.execute("INSERT INTO note (text) VALUES ('not committed')")
        with writer(server).at_work() as busy, bystander(server).at_work() as machine:
            shown = run_module("backup", {**options, "max_block": "0.3"})
    assert not shown["failed"], shown["msg"]
    check = checks_by_name(shown)["content can be compared"]
    assert check["status"] == "unknown"
    assert "the long one" in check["observed"]
    assert "note" in check["observed"]
    assert busy.errors == []
    assert busy.longest < 0.3 + 0.5 + 4 * machine.longest
    (backup,) = engine(options).list()
    assert backup.metadata["fingerprints"] == {}
    assert backup.metadata["restore_point"]["lsn"]
    assert engine(options).verify(backup.label).sound


def test_writers_that_lock_in_the_other_order_are_never_the_victim_of_a_deadlock(
    options: dict[str, Any], server: PostgresServer
) -> None:
    done = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        with server.connect() as connection:
            while not done.is_set():
                try:
                    with connection.transaction():
                        connection.execute("UPDATE student SET name = name WHERE id = 1")
                        time.sleep(0.2)
                        connection.execute("INSERT INTO note (text) VALUES ('after')")
                except psycopg.Error as error:
                    errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        shown = run_module("backup", options)
    finally:
        done.set()
        worker.join()
    assert errors == []
    assert checks_by_name(shown)["content can be compared"]["status"] == "passed"


def test_a_try_ends_before_the_server_would_look_for_deadlocks(server: PostgresServer) -> None:
    """Else a writer that we wait for, and that waits for us, could be the one whom the server makes the victim."""
    with server.connect() as connection:
        connection.execute("SET deadlock_timeout = '10ms'")  # as our own sessions do: what counts is that of the others
        assert bearable_wait(connection, 5.0) == pytest.approx(0.8)
        assert bearable_wait(connection, 0.3) == pytest.approx(0.3)


def test_tables_that_come_and_go_meanwhile_do_no_harm(options: dict[str, Any], server: PostgresServer) -> None:
    done = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        number = 0
        with server.connect() as connection:
            while not done.is_set():
                number += 1
                try:
                    connection.execute(f"CREATE TABLE fleeting_{number} AS SELECT generate_series(1, 10) AS id")
                    time.sleep(0.02)
                    connection.execute(f"DROP TABLE fleeting_{number}")
                    time.sleep(0.15)
                except psycopg.Error as error:
                    errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        shown = run_module("backup", options)
    finally:
        done.set()
        worker.join()
    assert not shown["failed"], shown["msg"]
    assert errors == []
    assert checks_by_name(shown)["content can be compared"]["status"] == "passed"


def test_a_statement_that_waits_for_the_snapshot_does_not_hang_the_dump(server: PostgresServer, tmp_path: Path) -> None:
    params = {"login_host": "", "login_db": "postgres", "login_password": "", **server.login()}
    environment = {"PGHOST": str(server.socket_dir), "PGPORT": str(server.port), "PGUSER": "postgres"}

    def alter() -> None:
        server.sql("ALTER TABLE note ADD COLUMN IF NOT EXISTS more int")

    waiting = threading.Thread(target=alter, daemon=True)
    with consistent_point(params, ["postgres"], "test", max_block=1) as point:
        assert point.reason == ""
        waiting.start()
        blocked = "SELECT 1 FROM pg_locks WHERE NOT granted"
        wait_until(lambda: server.sql(blocked))
        with pytest.raises(DumpBlockedError):
            dump_database(str(server.bin_dir), str(tmp_path / "dump"), "postgres", point.sessions[0], environment)
    waiting.join(300)
    assert not waiting.is_alive()


def test_tables_that_are_truncated_all_the_time_do_no_harm(options: dict[str, Any], server: PostgresServer) -> None:
    server.sql("CREATE TABLE IF NOT EXISTS outbox (id int)")
    done = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        with server.connect() as connection:
            while not done.is_set():
                try:
                    connection.execute("TRUNCATE outbox")
                    connection.execute("INSERT INTO outbox SELECT generate_series(1, 100)")
                    time.sleep(0.05)
                except psycopg.Error as error:
                    errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        shown = run_module("backup", options)
    finally:
        done.set()
        worker.join()
        server.sql("DROP TABLE outbox")
    assert not shown["failed"], shown["msg"]
    assert errors == []
    check = checks_by_name(shown)["content can be compared"]
    (backup,) = engine(options).list()
    assert engine(options).verify(backup.label).sound
    if check["status"] == "passed":
        assert backup.metadata["fingerprints"]["postgres"]["public.outbox"]["rows"] in (0, 100)
    else:
        assert check["status"] == "unknown"
        # Where the machine is slow, its time is over before there is a moment without a truncation.
        assert "truncated" in check["observed"] or "statement timeout" in check["observed"]
        assert backup.metadata["fingerprints"] == {}


def test_a_damaged_parent_is_found_and_a_full_backup_made_instead(options: dict[str, Any]) -> None:
    run_module("backup", options)
    (full,) = engine(options).list()
    victim = max(Path(full.path("base", "base")).rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    shown = run_module("backup", options)
    assert not shown["failed"], shown["msg"]
    checks = checks_by_name(shown)
    assert checks["chain to build on"]["status"] == "warned"
    assert victim.name in checks["chain to build on"]["observed"]
    assert f"{full.label} is damaged" in checks["type of the backup"]["observed"]
    assert engine(options).list()[-1].type == "full"


def test_a_backup_that_lost_its_description_is_reported_kept_and_not_built_on(options: dict[str, Any]) -> None:
    run_module("backup", options)
    (full,) = engine(options).list()
    description = Path(full.path("backup.json"))
    description.write_bytes(description.read_bytes()[:-10])
    shown = run_module("backup", {**options, "interval": "20h", "keep_full": 1, "keep_within": "0"})
    assert checks_by_name(shown)["descriptions of backups"]["status"] == "warned"
    assert full.label in checks_by_name(shown)["descriptions of backups"]["observed"]
    (new,) = engine(options).list()
    assert new.type == "full"
    assert description.exists()


def test_a_standby_and_foreign_tablespaces_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with postgres_server() as server:
        place = server.directory / "elsewhere"
        place.mkdir()
        os.chown(place, server.data.stat().st_uid, server.data.stat().st_gid)
        server.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
        own = {**options, **server.login()}
        shown = run_module("backup", own)
        assert shown["failed"]
        assert f"elsewhere in {place}" in shown["msg"]
        server.sql("DROP TABLESPACE elsewhere")
        server.stop("fast")
        signal_file = server.data / "standby.signal"
        signal_file.touch()
        os.chown(signal_file, server.data.stat().st_uid, server.data.stat().st_gid)
        server.start()
        shown = run_module("backup", own)
        assert shown["failed"]
        assert "a standby" in shown["msg"]


def test_wal_archiving_that_fails_is_told_before_the_backup_would_wait_for_it(options: dict[str, Any]) -> None:
    with postgres_server({"archive_mode": "on", "archive_command": "false"}) as server:
        server.sql("SELECT pg_switch_wal()")
        wait_until(lambda: server.sql("SELECT failed_count FROM pg_stat_archiver")[0][0] > 0)
        shown = run_module("backup", {**options, **server.login()})
    assert shown["failed"]
    assert "archive_command" in shown["msg"]
    assert not partials(options)


def test_a_repository_that_others_can_write_to_is_refused(options: dict[str, Any]) -> None:
    Path(options["repository"]).mkdir()
    Path(options["repository"]).chmod(0o777)
    shown = run_module("backup", options)
    assert shown["failed"]
    assert "no other can write to" in shown["msg"]


def test_a_repository_inside_of_what_is_to_be_copied_is_refused(options: dict[str, Any], tmp_path: Path) -> None:
    shown = run_module("backup", {**options, "files": [str(tmp_path)]})
    assert shown["failed"]
    assert "do not hold the repository itself" in shown["msg"]
