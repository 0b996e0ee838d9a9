"""A restore into place: the plan before anything is written, the old cluster kept, interrupted and gone on with."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import write_metadata
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import in_place
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place import Place
from support.halting import killed
from support.modules import COLLECTIONS, ROOT, checks_by_name, module_process, run_module
from support.pitr import SETTINGS, PitrSite
from support.postgresql import UNPRIVILEGED, available_majors, bin_dir_of, postgres_server, server_id
from support.waiting import wait_until


@pytest.fixture
def site(tmp_path: Path) -> Iterator[PitrSite]:
    """A cluster with a backup, commits after it in the archive, and a server that is stopped."""
    with stopped_cluster(tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PitrSite]:
    """The same, for tests of what must leave it as it is."""
    with stopped_cluster(tmp_path_factory.mktemp("untouched")) as made:
        before = snapshot(made.server.data)
        yield made
        made.server.stop("fast")
        assert set(snapshot(made.server.data)) >= {name for name in before if name.startswith("base/")}
        assert beside(made) == []


@contextlib.contextmanager
def stopped_cluster(directory: Path, bin_dir: Path | None = None) -> Iterator[PitrSite]:
    with postgres_server(SETTINGS, bin_dir) as server:
        made = PitrSite(server, directory)
        server.sql("CREATE TABLE log (xid bigint, filling text)")
        made.back_up()
        made.write(30)
        made.back_up()
        server.stop("fast")
        try:
            yield made
        finally:
            end_servers(made)


def end_servers(site: PitrSite) -> None:
    place = Place(str(site.server.data))
    in_place.end_server_of(place.new)
    in_place.end_server_of(place.data)


def options(site: PitrSite, **others: Any) -> dict[str, Any]:
    return {**site.options(run_as=UNPRIVILEGED, confirm="main", timeout="2m"), **others}


def restore(site: PitrSite, *, check: bool = False, **others: Any) -> dict[str, Any]:
    return run_module("postgresql_restore", options(site, **others), check=check)


def rows(site: PitrSite) -> set[int]:
    return {xid for (xid,) in site.server.sql("SELECT DISTINCT xid FROM log WHERE xid > 0")}


def beside(site: PitrSite) -> list[str]:
    """What lies beside the data directory, by its kind."""
    names = [path.name for path in site.server.directory.iterdir()]
    return sorted(name.split(".", 1)[1].split("-2")[0] for name in names if name.startswith("data."))


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(directory)): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in directory.rglob("*")
        # The server removes this cache of its catalogs, and makes it again, as it likes.
        if path.is_file() and path.name != "pg_internal.init"
    }


def test_to_the_newest_point_with_the_old_directory_kept_and_the_new_timeline_archived(site: PitrSite) -> None:
    before = snapshot(site.server.data)
    shown = restore(site)
    assert not shown["failed"], shown["msg"]
    assert len(rows(site)) == 30
    assert beside(site) == ["before-restore", "wellkept-restore.lock"]
    (aside,) = site.server.directory.glob("data.before-restore-*")
    assert snapshot(aside) == before
    assert {"fetch_seconds", "replay_seconds", "start_seconds", "service_start_seconds"} <= set(shown["metrics"])
    assert site.server.sql("SHOW archive_mode") == [("on",)]
    # Without its history, nobody could restore along the new timeline.
    wait_until((site.wal / "00000002" / "00000002.history").exists)
    site.back_up()
    site.write(30)
    site.back_up()
    site.server.stop("fast")
    again = restore(site)
    assert not again["failed"], again["msg"]
    assert len(rows(site)) == 60
    # And to a point before the first restore, from the first backup.
    site.server.stop("fast")
    (first, *_others) = site.backups()
    third = restore(site, target=f"name:{first.metadata['restore_point']['name']}", backup=first.label)
    assert not third["failed"], third["msg"]
    assert rows(site) == set()


def test_restored_again_before_the_new_timeline_archived_a_segment_it_comes_to_the_same_point(site: PitrSite) -> None:
    assert not restore(site)["failed"]
    target = f"before_xid:{sorted(rows(site))[20]}"
    site.server.stop("fast")
    assert not restore(site, target=target)["failed"]
    there = rows(site)
    assert 0 < len(there) < 30
    wait_until((site.wal / "00000003" / "00000003.history").exists)
    site.server.stop("immediate")
    for timeline in ("00000002", "00000003"):
        for archived in (site.wal / timeline).glob(f"{timeline}????????????????*"):
            archived.unlink()
    again = restore(site)
    assert not again["failed"], again["msg"]
    assert rows(site) == there


@pytest.mark.parametrize("major", available_majors()[1:], ids=server_id)
def test_an_older_server_comes_back_too_first_paused(major: int, tmp_path: Path) -> None:
    with stopped_cluster(tmp_path, bin_dir_of(major)) as site:
        assert not restore(site, pause=True)["failed"]
        shown = restore(site)
        assert not shown["failed"], shown["msg"]
        assert len(rows(site)) == 30
        assert site.server.sql("SHOW server_version_num")[0][0].startswith(str(major))


def test_without_confirmation_it_shows_the_plan_and_touches_nothing(untouched: PitrSite) -> None:
    before = snapshot(untouched.server.directory)
    shown = restore(untouched, confirm="")
    assert not shown["failed"], shown["msg"]
    assert not shown["changed"]
    found = checks_by_name(shown)
    assert found["confirmation"]["status"] == "warned"
    assert "confirm=main" in found["confirmation"]["advice"]
    assert untouched.backups()[0].label in found["backup"]["observed"]
    assert "segments from" in found["WAL"]["observed"]
    assert found["predicted time"]["observed"].startswith(("about", "roughly"))
    assert any(name.startswith("room in") for name in found)
    checked = restore(untouched, check=True)
    assert checked["changed"]
    assert "would be" in checked["changes"][0]["after"]
    assert snapshot(untouched.server.directory) == before


def test_a_wrong_confirmation_is_refused(untouched: PitrSite) -> None:
    shown = restore(untouched, confirm="production")
    assert shown["failed"]
    assert "Nothing was touched" in shown["msg"]
    assert beside(untouched) == []


def test_a_running_cluster_is_never_restored_over_even_when_its_pid_file_is_gone(untouched: PitrSite) -> None:
    untouched.server.start()
    shown = restore(untouched)
    assert shown["failed"]
    assert "works in it" in shown["msg"]
    plan = restore(untouched, confirm="")
    assert not plan["failed"]
    assert checks_by_name(plan)[f"no server on {untouched.server.data}"]["status"] == "warned"
    pid_file = untouched.server.data / "postmaster.pid"
    content = pid_file.read_text()
    # It looks for its pid file once a minute, and ends without it.
    os.kill(int(content.split()[0]), signal.SIGSTOP)
    pid_file.unlink()
    hidden = restore(untouched, login_port=1)
    pid_file.write_text(content)
    shutil.chown(pid_file, untouched.server.data.stat().st_uid, untouched.server.data.stat().st_gid)
    os.kill(int(content.split()[0]), signal.SIGCONT)
    assert hidden["failed"]
    assert "works in it" in hidden["msg"]
    assert len(rows(untouched)) == 30
    assert beside(untouched) == []
    untouched.server.stop("fast")


def test_another_cluster_in_its_place_is_refused(untouched: PitrSite) -> None:
    with postgres_server() as other:
        other.stop("fast")
        shown = restore(untouched, data_directory=str(other.data))
    assert shown["failed"]
    assert "system identifier" in shown["msg"]


def test_when_all_files_are_lost_the_backup_s_configuration_is_used(site: PitrSite) -> None:
    shutil.rmtree(site.server.data)
    shown = restore(site, target="backup", wal_archive="")
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["configuration"]["observed"].startswith("of the backup")
    assert rows(site) == set()


def test_the_old_configuration_is_kept_or_the_backup_s_is_taken(site: PitrSite) -> None:
    with (site.server.data / "postgresql.auto.conf").open("a") as stream:
        stream.write("work_mem = '7MB'\n")
    assert not restore(site)["failed"]
    assert site.server.sql("SHOW work_mem") == [("7MB",)]
    site.server.stop("fast")
    assert not restore(site, configuration="backup")["failed"]
    assert site.server.sql("SHOW work_mem") == [("4MB",)]


def test_a_pause_lets_the_operator_look_and_the_next_run_goes_on(site: PitrSite) -> None:
    before = snapshot(site.server.data)
    shown = restore(site, pause=True)
    assert not shown["failed"], shown["msg"]
    pause = checks_by_name(shown)["pause at the target"]
    socket = pause["observed"].split("psql -h ")[1].split(" ")[0]
    with psycopg.connect(host=socket, port=5432, user="postgres", dbname="postgres", autocommit=True) as connection:
        assert connection.execute("SELECT count(DISTINCT xid) FROM log WHERE xid > 0").fetchall() == [(30,)]
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE x ()")
    assert snapshot(site.server.data) == before
    plan = restore(site, confirm="")
    assert "has come to 'paused'" in checks_by_name(plan)["earlier restore"]["observed"]
    done = restore(site)
    assert not done["failed"], done["msg"]
    assert len(rows(site)) == 30
    assert "bytes of the backup" not in checks_by_name(done)


def test_too_little_room_is_told_before_anything_is_written(untouched: PitrSite) -> None:
    small = untouched.server.directory / "small"
    # What is needed cannot be had anywhere: a backup that says that its base is larger than all the room there is.
    small.mkdir()
    free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
    (backup,) = untouched.backups()
    parts = backup.metadata["bytes_by_part"]
    write_metadata(backup.directory, {**backup.metadata, "bytes_by_part": {**parts, "base": free + (1 << 30)}})
    shown = restore(untouched)
    write_metadata(backup.directory, backup.metadata)
    assert shown["failed"]
    assert "room in" in shown["msg"]
    assert beside(untouched) == []


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_old_cluster_is_whole(site: PitrSite) -> None:
    """Files can grow to a megabyte and no further: so the first segment of WAL is too much."""
    before = snapshot(site.server.data)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    shown = run_module("postgresql_restore", options(site), preexec_fn=limit)
    assert shown["failed"]
    assert "too large" in shown["msg"], shown["msg"]
    assert snapshot(site.server.data) == before
    done = restore(site)
    assert not done["failed"], done["msg"]
    assert len(rows(site)) == 30


# Stops the module as soon as it has noted the phase in its environment; some last less than a millisecond.
STOPS_AFTER_NOTING = """
import os, signal
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place import Place
note = Place.note

def note_and_stop(place, journal):
    noted = note(place, journal)
    if journal.phase == os.environ["WELLKEPT_TEST_PHASE"]:
        os.kill(os.getpid(), signal.SIGSTOP)
    return noted

Place.note = note_and_stop
"""


def kill_in(site: PitrSite, directory: Path, phase: str) -> None:
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(STOPS_AFTER_NOTING)
    environment = {"PYTHONPATH": f"{directory}:{COLLECTIONS}", "WELLKEPT_TEST_PHASE": phase}
    process = module_process("postgresql_restore", options(site), env=environment)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    assert process.poll() is None
    journal = Place(str(site.server.data)).journal()
    assert journal
    assert journal.phase == phase
    killed(process)


@pytest.mark.parametrize("phase", [in_place.LAYING_DOWN, in_place.RECOVERED, in_place.SWAPPING, in_place.SWAPPED])
def test_killed_in_any_phase_the_old_cluster_is_whole_and_the_next_run_goes_on(
    site: PitrSite, tmp_path: Path, phase: str
) -> None:
    before = snapshot(site.server.data)
    kill_in(site, tmp_path / "stops", phase)
    aside = list(site.server.directory.glob("data.before-restore-*"))
    whole = [snapshot(path) == before for path in (*aside, site.server.data) if path.exists()]
    assert any(whole), (phase, aside)
    plan = restore(site, confirm="")
    assert not plan["failed"], plan["msg"]
    assert "has come to" in checks_by_name(plan)["earlier restore"]["observed"]
    done = restore(site)
    assert not done["failed"], done["msg"]
    assert len(rows(site)) == 30
    (aside_now,) = site.server.directory.glob("data.before-restore-*")
    assert snapshot(aside_now) == before
    assert beside(site) == ["before-restore", "wellkept-restore.lock"]


@pytest.mark.parametrize("halfway", [False, True])
def test_interrupted_between_the_renames_it_is_finished(site: PitrSite, tmp_path: Path, halfway: bool) -> None:
    """What lies there when it is killed just before, or between, the two renames."""
    assert not restore(site, pause=True)["failed"]
    place = Place(str(site.server.data))
    journal = place.journal()
    assert journal is not None
    in_place.end_server_of(place.new)
    # Recovered once more, then stopped where the swap has ended.
    kill_in(site, tmp_path / "stops", in_place.SWAPPED)
    found = place.journal()
    assert found is not None
    os.rename(place.data, place.new)
    if not halfway:
        os.rename(found.aside, place.data)
    place.note(found._replace(phase=in_place.SWAPPING))
    other = restore(site, target="backup")
    assert other["failed"]
    assert "half in place" in other["msg"]
    done = restore(site)
    assert not done["failed"], done["msg"]
    assert len(rows(site)) == 30


def test_immediate_is_refused_unless_it_is_asked_for(site: PitrSite) -> None:
    shown = restore(site, target="immediate")
    assert shown["failed"]
    assert "allow_immediate" in shown["msg"]
    assert not restore(site, target="immediate", allow_immediate=True)["failed"]
    assert rows(site) == set()


def test_without_a_way_to_start_the_server_the_plan_says_so(untouched: PitrSite) -> None:
    own, elsewhere = untouched.server.data / "postgresql.conf", untouched.server.directory / "postgresql.conf"
    own.rename(elsewhere)
    shown = restore(untouched)
    elsewhere.rename(own)
    assert shown["failed"]
    assert "start_command" in shown["msg"]
    assert beside(untouched) == []


def test_the_playbook_shows_the_plan_then_restores_when_it_is_confirmed(site: PitrSite, tmp_path: Path) -> None:
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "maintenance_state_dir": str(tmp_path / "state"),
        "backup_repository": str(tmp_path / "repository"),
        "backup_wal_archive": str(site.archive),
        "backup_bin_dir": str(site.server.bin_dir),
        "backup_login_unix_socket": str(site.server.socket_dir),
        "backup_login_port": site.server.port,
        "postgresql_restore_run_as": UNPRIVILEGED,
    }
    inventory = tmp_path / "inventory.json"
    inventory.write_text(json.dumps({"all": {"children": {"databases": {"hosts": {"db1": variables}}}}}))

    def play(*more: str) -> str:
        command = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "playbooks/restore.yml", *more]
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
        environment |= {"ANSIBLE_HOME": str(tmp_path / "ansible"), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default"}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    plan = play()
    assert "confirmation: none: this is the plan, and nothing was touched" in plan
    assert site.backups()[0].label in plan
    assert beside(site) == []
    play("-e", "confirm=main", "-e", "target=newest")
    assert len(rows(site)) == 30
