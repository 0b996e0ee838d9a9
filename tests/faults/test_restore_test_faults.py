"""What a restore test must find, refuse and survive."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import flow, scratch_cluster
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.live_cluster import Live
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_cluster import ScratchCluster
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.halting import halted_when, killed, told
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import postgres_server
from support.restore import RestoreSite, change_page
from support.waiting import wait_until

CONTENT = "content of the restored database postgres"
QUICK = {"restore_dump": False, "amcheck": False}
# Frozen, so that no reader writes hint bits, whose full page images would undo what the tests change in files.
SCHEMA = """
CREATE TABLE mark (id int PRIMARY KEY, student text);
INSERT INTO mark SELECT g, 'student-' || lpad(g::text, 4, '0') FROM generate_series(1, 300) g;
CREATE INDEX mark_student ON mark (student);
CREATE TABLE unseen AS SELECT g AS a FROM generate_series(1, 100) g
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RestoreSite]:
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path_factory.mktemp("restore"))
        with server.connect() as connection:
            connection.execute(SCHEMA)
            connection.execute("VACUUM FREEZE")
        yield site


@pytest.fixture(scope="module")
def good(site: RestoreSite) -> Backup:
    """A good backup that no test changes."""
    return site.back_up()


@pytest.fixture
def spoilt(site: RestoreSite, good: Backup) -> Iterator[Backup]:
    """A copy of the good backup, newer than it, for the test to spoil."""
    label = f"{datetime.now(UTC) + timedelta(hours=1):%Y%m%dT%H%M%SZ}-full-{os.urandom(2).hex()}"
    directory = Path(site.repository.directory) / label
    shutil.copytree(good.directory, directory, symlinks=True)
    copy = Backup(label, str(directory), {**good.metadata, "label": label, "chain": [label]})
    site.rewrite(copy)
    yield site.repository.backup(label)
    shutil.rmtree(directory)


def failed(part: Part | dict[str, Any]) -> dict[str, str]:
    checks = part.checks if isinstance(part, Part) else part["checks"]
    return {check["name"]: check["observed"] for check in checks if check["status"] == "failed"}


def assert_nothing_left(site: RestoreSite) -> None:
    assert site.scratch_names() == []
    assert site.servers() == []


def relation(site: RestoreSite, name: str) -> str:
    return str(site.server.sql(f"SELECT pg_relation_filepath('{name}')")[0][0])


# What the restored content must not hide.


def replace(old: bytes, new: bytes) -> Callable[[bytearray], None]:
    def change(page: bytearray) -> None:
        at = page.index(old)
        page[at : at + len(new)] = new

    return change


def forget_first_row(page: bytearray) -> None:
    page[24:28] = bytes(4)


def repeat_first_row(page: bytearray) -> None:
    page[28:32] = page[24:28]


def exchange_ids(page: bytearray) -> None:
    """Two rows exchange a value, so that every column still holds the same set of values."""
    offsets = [(struct.unpack("<I", page[24 + 4 * n : 28 + 4 * n])[0] & 0x7FFF) + 24 for n in (0, 1)]
    ids = [bytes(page[offset : offset + 4]) for offset in offsets]
    for offset, other in zip(offsets, reversed(ids), strict=True):
        page[offset : offset + 4] = other


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (replace(b"student-0042", b"student-0420"), "300 rows as it should, but not the same content"),
        (forget_first_row, "has 299 rows instead of 300"),
        (repeat_first_row, "300 rows as it should, but not the same content"),
        (exchange_ids, "300 rows as it should, but not the same content"),
    ],
)
def test_a_changed_row_is_found_though_every_checksum_fits(
    site: RestoreSite, good: Backup, change: Callable[[bytearray], None], words: str
) -> None:
    path = relation(site, "mark")
    part = site.prove(good, lambda data: change_page(site.server, data / path, 0, change))
    assert words in failed(part)[CONTENT]
    assert "public.mark" in failed(part)[CONTENT]
    assert_nothing_left(site)


def test_without_tampering_the_same_backup_passes(site: RestoreSite, good: Backup) -> None:
    assert failed(site.prove(good, lambda data: None, amcheck=True, restore_dump=True)) == {}


def test_a_backup_that_was_found_damaged_is_replaced_by_the_next_run_of_backup(
    site: RestoreSite, tmp_path: Path
) -> None:
    """Names and sizes, which backup looks at, do not tell it; and the schedule would leave it there for a day."""
    site = RestoreSite(site.server, tmp_path)
    damaged = site.back_up()
    path = Path(damaged.path("base"), "global", "1262")
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    options = {**site.options(), "files": [], "interval": "20h"}
    del options["run_as"]
    assert run_module("backup", options)["changed"] is False, "it is young enough, as far as is known"
    assert damaged.label in failed(site.test())["bytes of the newest backup"]

    shown = run_module("backup", options)
    assert not shown["failed"], shown
    found = checks_by_name(shown)["backups that were found damaged"]
    assert (found["status"], damaged.label in found["observed"]) == ("warned", True)
    assert shown["changed"]
    newest = site.repository.backups()[-1]
    assert (newest.type, newest.label > damaged.label) == ("full", True)
    assert not site.test(**QUICK)["failed"]
    assert run_module("backup", options)["changed"] is False


def test_a_table_that_is_missing_or_too_many_is_named(site: RestoreSite, spoilt: Backup) -> None:
    recorded = json.loads(json.dumps(spoilt.metadata["fingerprints"]))
    recorded["postgres"]["public.gone"] = recorded["postgres"].pop("public.unseen")
    site.rewrite(spoilt, fingerprints=recorded)
    words = failed(site.test(restore_dump=True, amcheck=False))
    for name in (CONTENT, "content of the restored dump of postgres"):
        assert "public.gone is missing" in words[name]
        assert "public.unseen should not be there" in words[name]


def test_a_damaged_page_is_found_by_its_checksum(site: RestoreSite, good: Backup) -> None:
    path = relation(site, "mark")

    def damage(data: Path) -> None:
        with (data / path).open("r+b") as stream:
            stream.seek(5000)
            stream.write(b"damaged")

    part = site.prove(good, damage, amcheck=True)
    assert "invalid page" in failed(part)[CONTENT]
    assert "invalid page" in failed(part)["amcheck of the restored cluster"]
    assert_nothing_left(site)


def test_a_damaged_index_is_found_by_amcheck(site: RestoreSite, good: Backup) -> None:
    path = relation(site, "mark_student")
    order = replace(b"student-0100", b"student-9999")
    part = site.prove(good, lambda data: change_page(site.server, data / path, 1, order), amcheck=True)
    assert list(failed(part)) == ["amcheck of the restored cluster"]
    assert "mark_student" in failed(part)["amcheck of the restored cluster"]


def test_a_dump_that_holds_something_else_is_found(site: RestoreSite, spoilt: Backup) -> None:
    facts = spoilt.metadata["databases"]
    other = {**facts, "postgres": facts["template1"]}
    site.rewrite(spoilt, databases=other)
    assert "content of the restored dump of postgres" in failed(site.test(amcheck=False))


# What a backup must not lack.


def test_bytes_that_changed_are_found_before_anything_is_restored(site: RestoreSite, spoilt: Backup) -> None:
    site.test(**QUICK)
    assert spoilt.label in site.repository.proven()
    page = Path(spoilt.path("base", relation(site, "mark")))
    content = bytearray(page.read_bytes())
    content[6000] ^= 1
    page.write_bytes(content)
    shown = site.test()
    assert list(failed(shown)) == ["bytes of the newest backup"]
    assert "restore_seconds" not in shown["metrics"]
    assert spoilt.label not in site.repository.proven(), "the older proof was disproven"
    assert {"disproven and removed"} == {change["after"] for change in shown["changes"]}


def test_missing_wal_is_found(site: RestoreSite, spoilt: Backup) -> None:
    for segment in sorted(Path(spoilt.path("wal")).iterdir())[-1:]:
        segment.unlink()
    shown = site.test(**QUICK)
    assert "bytes of the newest backup" in failed(shown)


def test_wal_that_ends_before_the_restore_point_is_found(site: RestoreSite, spoilt: Backup) -> None:
    site.rewrite(spoilt, restore_point={**spoilt.metadata["restore_point"], "name": "nowhere"})
    shown = site.test(**QUICK)
    words = failed(shown)["recovery to the restore point"]
    assert "recovery ended before configured recovery target was reached" in words
    assert spoilt.label not in site.repository.proven()
    assert_nothing_left(site)


def test_a_marker_that_is_not_there_is_found(site: RestoreSite, spoilt: Backup) -> None:
    marker = {**spoilt.metadata["marker"], "id": "00000000-0000-4000-8000-000000000000"}
    site.rewrite(spoilt, marker=marker)
    assert failed(site.test(**QUICK)) == {"marker row at the restore point": "it is not there"}


def test_another_clusters_backup_is_refused(site: RestoreSite, spoilt: Backup) -> None:
    site.rewrite(spoilt, system_identifier="1234567890")
    shown = site.test(**QUICK)
    assert failed(shown) == {"newest backup is one of the live cluster": "1234567890"}
    assert "restore_seconds" not in shown["metrics"]


def test_another_clusters_files_are_refused_before_they_are_started(site: RestoreSite, spoilt: Backup) -> None:
    site.rewrite(spoilt, system_identifier="1234567890")
    with pytest.raises(MaintenanceError, match="the right cluster"):
        site.prove(site.repository.backup(spoilt.label))
    assert_nothing_left(site)


def test_a_description_that_cannot_be_believed_is_a_failure(site: RestoreSite, spoilt: Backup) -> None:
    path = Path(spoilt.path("backup.json"))
    path.write_bytes(path.read_bytes().replace(b'"full"', b'"fulL"', 1))
    assert spoilt.label in failed(site.test(**QUICK))["newest backup of main"]


def test_no_backup_at_all_is_a_failure(site: RestoreSite, tmp_path: Path) -> None:
    shown = site.test(repository=str(tmp_path))
    assert shown["failed"]
    assert "there is none" in shown["msg"]


def test_a_backup_without_fingerprints_is_never_proven(site: RestoreSite, spoilt: Backup) -> None:
    reason = [{"database": "postgres", "table": "*", "reason": "process 7 holds a lock"}]
    site.rewrite(spoilt, fingerprints={}, not_compared=reason)
    shown = site.test(**QUICK)
    check = checks_by_name(shown)["content of the restored databases"]
    assert check["status"] == "unknown"
    assert "process 7 holds a lock" in check["observed"]
    assert spoilt.label not in site.repository.proven()


def test_missed_targets_fail_though_the_content_is_right(site: RestoreSite, good: Backup) -> None:
    assert "RPO of main" in failed(site.test(rpo_target="0s", **QUICK))
    assert list(failed(site.test(rto_target="0s", **QUICK))) == ["RTO of main"]
    again = site.test(rto_target="0s", interval="6d", **QUICK)
    assert list(failed(again)) == ["RTO of main"], "a proof does not hide that it took too long"


def test_a_backup_from_the_future_is_not_taken_for_a_fresh_one(site: RestoreSite, spoilt: Backup) -> None:
    site.rewrite(spoilt, marker={**spoilt.metadata["marker"], "created": "2999-01-01T00:00:00.000Z"})
    assert "in the future" in failed(site.test(check=True))["RPO of main"]


# Where a scratch cluster must not be, and what it must not reach.


def test_directories_of_the_live_cluster_are_refused(site: RestoreSite, good: Backup, tmp_path: Path) -> None:
    data = site.server.data
    (tmp_path / "bridge").symlink_to(data)
    for place in (data, data / "base", data / "new", data.parent, tmp_path / "bridge" / "new", tmp_path / "bridge"):
        before = sorted(os.listdir(data))
        shown = site.test(scratch_dir=str(place))
        assert shown["failed"], place
        assert "use the scratch directory" in shown["msg"]
        assert sorted(os.listdir(data)) == before


def test_links_and_system_directories_are_refused(site: RestoreSite, good: Backup, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    writable = tmp_path / "writable"
    writable.mkdir()
    writable.chmod(0o777)
    for place, words in (
        (tmp_path / "link", "symbolic link to /etc"),
        (tmp_path / "link" / "wellkept", "system directory /etc"),
        (Path("/etc/wellkept"), "system directory /etc"),
        (Path("/"), "two levels"),
        (writable, "others can write to it"),
        (writable / "below", "others can write to"),
    ):
        shown = site.test(scratch_dir=str(place))
        assert words in shown["msg"], place
        assert "restore_seconds" not in shown["metrics"]
    assert not Path("/etc/wellkept").exists()


def test_restored_links_that_lead_out_are_refused_before_the_start(site: RestoreSite, good: Backup) -> None:
    def link_out(data: Path) -> None:
        (data / "pg_tblspc" / "99999").symlink_to(site.server.data)

    def map_out(data: Path) -> None:
        (data / "tablespace_map").write_text(f"99999 {site.server.data}\n")

    for tamper in (link_out, map_out):
        with pytest.raises(MaintenanceError, match="keep the restored cluster to itself"):
            site.prove(good, tamper)
        assert_nothing_left(site)


def test_a_tablespace_created_during_the_backup_is_not_replayed(tmp_path: Path) -> None:
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path)
        site.server.sql("CREATE TABLE t AS SELECT 1 AS a")
        place = server.directory / "space"
        place.mkdir()
        shutil.chown(place, *(("nobody", None) if os.geteuid() == 0 else (os.geteuid(), None)))
        started = threading_backup(site, lambda: server.sql(f"CREATE TABLESPACE space LOCATION '{place}'"))
        before = sorted(os.listdir(place))
        with pytest.raises(MaintenanceError, match="keep the restored cluster to itself") as caught:
            site.prove(started)
        assert "CREATE" in str(caught.value)
        assert sorted(os.listdir(place)) == before


def threading_backup(site: RestoreSite, meanwhile: Callable[[], object]) -> Backup:
    """A backup whose WAL holds what *meanwhile* did: between the base and the restore point."""
    from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import creation

    genuine = creation.insert_marker

    def insert_marker(*arguments: Any) -> Any:
        meanwhile()
        return genuine(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(creation, "insert_marker", insert_marker)
        return site.back_up()


# Trouble on the way.


def test_a_live_server_that_is_down_does_not_keep_a_backup_from_being_tested(tmp_path: Path) -> None:
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path)
        server.sql("CREATE TABLE t AS SELECT 1 AS a")
        backup = site.back_up()
        server.stop("fast")
        shown = site.test()
        assert not shown["failed"], shown["msg"]
        check = checks_by_name(shown)["scratch cluster is not the live one"]
        assert check["status"] == "unknown"
        assert "could not be asked" in check["observed"]
        assert site.repository.proven() == [backup.label]
        inside = site.test(scratch_dir=str(server.data / "base" / "new"))
        assert "is a PostgreSQL data directory" in inside["msg"]


def test_too_little_room_is_found_before_anything_is_written(
    site: RestoreSite, good: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "bytes_needed", lambda plan: 1 << 60)
    part = site.prove(good)
    assert any(name.startswith("room for the restore in") for name in failed(part))
    assert "restore_seconds" not in part.metrics


def test_a_disk_that_fills_up_leaves_nothing(
    site: RestoreSite, good: Backup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", small], check=False).returncode
    ):
        pytest.skip("a file system that is too small can be mounted by root only, and not in every container")
    try:
        small.chmod(0o700)
        shown = site.test(scratch_dir=str(small), **QUICK)
        assert any(name.startswith("room for the restore in") for name in failed(shown))
        monkeypatch.setattr(flow, "bytes_needed", lambda plan: 0)
        site.scratch_dir = small
        with pytest.raises(MaintenanceError, match="copy the base backup") as caught:
            site.prove(good)
        assert "No space left on device" in str(caught.value)
        assert list(small.iterdir()) == []
    finally:
        site.scratch_dir = site.state_dir / "restore_test" / "scratch"
        subprocess.run(["umount", small], check=True)


def test_a_library_that_is_not_installed_here_is_told_in_the_servers_words(site: RestoreSite, spoilt: Backup) -> None:
    site.rewrite(spoilt, settings={**spoilt.metadata["settings"], "shared_preload_libraries": "no_such_library"})
    assert "no_such_library" in failed(site.test(**QUICK))["recovery to the restore point"]


def test_a_server_that_never_gets_ready_is_given_up(site: RestoreSite, good: Backup) -> None:
    part = site.prove(good, timeout=0.0)
    assert "still in recovery when the time was up" in failed(part)["recovery to the restore point"]
    assert_nothing_left(site)


def test_a_server_that_comes_up_without_stopping_at_the_point_is_no_proof(
    site: RestoreSite, good: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the server had not been told where to stop, and had gone on to the end of the WAL that it found."""
    genuine = ScratchCluster.configure

    def configure(cluster: ScratchCluster, version: int, libraries: str, target: Mapping[str, str]) -> None:
        kept = {name: value for name, value in target.items() if not name.startswith("recovery_target")}
        genuine(cluster, version, libraries, kept)

    monkeypatch.setattr(ScratchCluster, "configure", configure)
    part = site.prove(good)
    assert list(failed(part)) == ["recovery to the restore point"]
    assert_nothing_left(site)


def test_a_server_that_ends_after_it_stopped_at_the_point_is_no_proof(
    site: RestoreSite, good: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = ScratchCluster.start

    def start(cluster: ScratchCluster, timeout: float) -> None:
        genuine(cluster, timeout)
        cluster.stop()
        raise MaintenanceError("start it", expected="a server", observed="it ended", advice="")

    monkeypatch.setattr(ScratchCluster, "start", start)
    part = site.prove(good)
    assert failed(part) == {"recovery to the restore point": "it ended"}
    assert_nothing_left(site)


def test_missing_programs_are_a_reason_to_skip(site: RestoreSite, good: Backup, tmp_path: Path) -> None:
    shown = site.test(bin_dir=str(tmp_path))
    assert shown["skipped"]
    assert "apt-get install postgresql-" in shown["msg"]


def test_a_server_on_the_live_data_directory_is_recognised_behind_its_socket(
    site: RestoreSite, good: Backup, tmp_path: Path
) -> None:
    """As if what was restored to and the live data directory had turned out to be one, by another name."""
    other_name = tmp_path / "live"
    with pytest.raises(MaintenanceError, match="scratch cluster is not the live one") as caught:
        site.prove(good, other_name.symlink_to, live=Live(data_directory=str(other_name)))
    assert f"the server works on the live data directory {other_name}" in str(caught.value)
    assert_nothing_left(site)


# Being killed.


def kill_in_the_making(site: RestoreSite, seconds: float) -> None:
    """Kill a run *seconds* after it made a scratch directory; sooner, if it was done before that."""
    before: set[str] = set()

    def begin() -> subprocess.Popen[str]:
        before.update(site.scratch_names())
        return module_process("restore_test", site.options())

    killed(halted_when(begin, lambda: set(site.scratch_names()) - before, seconds))


def test_killed_at_any_moment_nothing_runs_on_and_the_next_run_cleans_up(site: RestoreSite, good: Backup) -> None:
    live = site.server.sql("SELECT pg_postmaster_start_time(), (SELECT count(*) FROM mark)")
    left = 0
    for number in range(8):
        if number % 4 == 0:  # how fast the machine is now says when the next kills come
            began = time.monotonic()
            shown = site.test()
            seconds = time.monotonic() - began
            assert not shown["failed"], shown["msg"]
        if number % 2:
            kill_in_the_making(site, seconds * number / 10)
        else:
            process = module_process("restore_test", site.options())
            time.sleep(seconds * number / 8)
            process.kill()
            process.communicate()
        wait_until(lambda: not site.servers())
        assert site.servers() == [], "the server dies with the module"
        left += bool(site.scratch_names())
    assert left >= 4
    shown = site.test(**QUICK)
    assert not shown["failed"], shown["msg"]
    assert_nothing_left(site)
    assert live == site.server.sql("SELECT pg_postmaster_start_time(), (SELECT count(*) FROM mark)")


def test_a_server_that_outlived_its_run_is_ended_by_the_next(
    site: RestoreSite, good: Backup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the kernel's signal at the death of the parent had not come."""
    child = os.fork()
    if child == 0:
        monkeypatch.setattr(scratch_cluster, "dying_with_us", lambda prefix, by_signal="": prefix)
        monkeypatch.setattr(flow, "examine", lambda plan, cluster, part: os.kill(os.getpid(), signal.SIGKILL))
        site.prove(good)
        os._exit(1)
    os.waitpid(child, 0)
    assert site.servers()
    assert len(site.scratch_names()) == 2
    shown = site.test(check=True)
    assert (
        "would be removed"
        in checks_by_name(shown)[f"leftovers of earlier restore tests in {site.scratch_dir}"]["observed"]
    )
    assert site.servers(), "check mode changes nothing"
    shown = site.test(**QUICK)
    assert not shown["failed"], shown["msg"]
    assert (
        "ended its server"
        in checks_by_name(shown)[f"leftovers of earlier restore tests in {site.scratch_dir}"]["observed"]
    )
    assert_nothing_left(site)


def test_a_process_number_that_means_somebody_else_is_left_alone(site: RestoreSite, good: Backup) -> None:
    bystander = subprocess.Popen(["sleep", "60"])
    leftover = site.scratch_dir / "wellkept-scratch-0123456789ab"
    (leftover / "data").mkdir(parents=True)
    (leftover / "data" / "postmaster.pid").write_text(f"{bystander.pid}\n{leftover}/data\n")
    live = site.scratch_dir / "wellkept-scratch-ba9876543210"
    (live / "data").mkdir(parents=True)
    shutil.copy(site.server.data / "postmaster.pid", live / "data" / "postmaster.pid")
    try:
        shown = site.test(**QUICK)
        assert not shown["failed"], shown["msg"]
        assert bystander.poll() is None
        assert site.server.sql("SELECT 1") == [(1,)]
        assert_nothing_left(site)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_told_to_stop_it_cleans_up_and_says_so(site: RestoreSite, good: Backup, number: signal.Signals) -> None:
    process = halted_when(lambda: module_process("restore_test", site.options()), site.servers)
    shown = json.loads(told(process, number))
    assert shown["failed"]
    assert f"stopped by {number.name}" in shown["msg"]
    assert_nothing_left(site)


def test_two_at_once_are_kept_apart(site: RestoreSite, good: Backup) -> None:
    first = halted_when(lambda: module_process("restore_test", site.options(run_id="first")), site.scratch_names)
    second = site.test()
    first.send_signal(signal.SIGCONT)
    assert second["failed"]
    assert "held by run first" in second["msg"]
    output, _errors = first.communicate(timeout=300)
    assert not json.loads(output).get("failed")


@pytest.mark.long
def test_flipped_bits_past_verification_are_found_or_proven_harmless(site: RestoreSite, good: Backup) -> None:
    """200 bits in the restored files: each one in a table or index is found; where one elsewhere passes, all that is
    compared was read and was right."""
    rng = random.Random(20261121)
    ours = [relation(site, name) for name in ("mark", "mark_pkey", "mark_student", "unseen")]
    missed = []
    for number in range(200):
        flipped: list[str] = []

        def flip(data: Path, number: int = number, note: Callable[[str], None] = flipped.append) -> None:
            anywhere = sorted(str(path.relative_to(data)) for path in data.rglob("*") if path.is_file())
            note(flip_bit(data, ours if number % 2 else anywhere, rng))

        try:
            found = bool(failed(site.prove(good, flip, amcheck=True)))
        except MaintenanceError:
            found = True
        if number % 2 and not found:
            missed.append(flipped[0])
    assert missed == []
    assert_nothing_left(site)


def flip_bit(data: Path, names: list[str], rng: random.Random) -> str:
    path = data / rng.choice([name for name in names if (data / name).stat().st_size])
    content = bytearray(path.read_bytes())
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)
    path.write_bytes(content)
    return f"{path.name} at {at}"
