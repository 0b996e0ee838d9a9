"""A restore on a host that has no repository: what it needs comes over SSH, and nothing of it stays."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.planning import known
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.scratch_directory import end_server_of
from support.halting import halted_when, killed
from support.modules import checks_by_name, module_process, run_module
from support.pitr import SETTINGS, PitrSite
from support.postgresql import UNPRIVILEGED, postgres_server
from support.ssh import SshServer, ssh_server
from support.waiting import wait_until

QUICK = {"amcheck": False, "restore_dump": False, "interval": "0s"}


@pytest.fixture(scope="module")
def far() -> Iterator[SshServer]:
    with ssh_server() as running:
        yield running


@pytest.fixture(scope="module")
def site(far: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PitrSite]:
    """A cluster whose repository and WAL archive lie on the far host alone."""
    with postgres_server(SETTINGS) as server:
        site = PitrSite(server, tmp_path_factory.mktemp("far"))
        server.sql("CREATE TABLE log (xid bigint, filling text)")
        site.back_up()
        site.write(30)
        site.back_up(interval="0")
        site.write(30)
        site.back_up()
        copy_to(far, site.directory / "repository")
        copy_to(far, site.archive)
        yield site


def copy_to(far: SshServer, directory: Path) -> None:
    target = far.data / directory.name
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", directory, target], check=True)
    give(target, far.user)


def give(directory: Path, user: str) -> None:
    account = pwd.getpwnam(user)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid)


def options(site: PitrSite, far: SshServer, **others: Any) -> dict[str, Any]:
    login = {"host": far.host, "port": far.port, "user": far.user}
    keys = {"key_file": str(far.key_file), "known_hosts": str(far.known_hosts)}
    there = {
        "repository": f"{far.path}/repository",
        "wal_archive": f"{far.path}/archive",
        "state_dir": str(site.directory / "other_state"),
        "run_as": UNPRIVILEGED,
        "repository_ssh": {**login, **keys},
    }
    return {**site.options(**there), **others}


def let_read_only(far: SshServer, directory: Path) -> None:
    """Let the account there read what is in the *directory* of root, and no more."""
    account = pwd.getpwnam(far.user)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, 0, account.pw_gid)
        path.chmod(0o750 if path.is_dir() else 0o640)


def left(site: PitrSite) -> list[str]:
    scratch = site.directory / "other_state" / "restore_test" / "scratch"
    return sorted(path.name for path in scratch.iterdir()) if scratch.exists() else []


def test_the_newest_backup_is_fetched_proven_and_removed(site: PitrSite, far: SshServer) -> None:
    shown = run_module("restore_test", options(site, far, **{**QUICK, "amcheck": True}))
    assert not shown["failed"], shown["msg"]
    found = checks_by_name(shown)
    assert "backup(s)" in found[f"backup fetched from {far.host}"]["observed"]
    assert found["content of the restored database postgres"]["status"] == "passed"
    assert shown["metrics"]["repository_fetch_seconds"]["value"] < shown["metrics"]["rto_seconds"]["value"]
    assert left(site) == []
    assert found[f"proofs in the repository on {far.host}"]["observed"] == "1 put there, 0 known there"
    (artifact,) = shown["artifacts"]
    assert hashlib.sha256(Path(artifact["path"]).read_bytes()).hexdigest() == artifact["sha256"]
    again = run_module("restore_test", options(site, far, **{**QUICK, "interval": "6d"}))
    assert not again["failed"], again["msg"]
    assert not again["changed"], "the proof is remembered here"
    words = checks_by_name(again)[f"proofs in the repository on {far.host}"]["observed"]
    assert words == "0 put there, 1 known there"
    assert "repository_fetch_seconds" not in again["metrics"]
    assert left(site) == []


def test_retention_and_verification_there_heed_what_was_proven_here(site: PitrSite, far: SshServer) -> None:
    shutil.rmtree(far.data / "repository" / "main" / "proofs", ignore_errors=True)
    shown = run_module("restore_test", options(site, far, **QUICK))
    assert not shown["failed"], shown["msg"]
    there = Repository(str(far.data / "repository"), "main")
    newest = there.backups()[-1]
    proof = Path(there.proof_path(newest.label))
    assert (proof.stat().st_uid, stat.S_IMODE(proof.stat().st_mode)) == (pwd.getpwnam(far.user).pw_uid, 0o600)
    assert known(there, newest).proven
    assert there.proof(newest) == json.loads(Path(shown["artifacts"][0]["path"]).read_text())
    give(far.data / "repository", pwd.getpwuid(os.geteuid()).pw_name)  # who would run what verifies it there
    try:
        verification = {"repository": there.root, "bin_dir": site.bin_dir, "state_dir": str(site.directory / "v")}
        found = checks_by_name(run_module("backup_verification", {**verification, "proof_max_age": "1d"}))
        assert newest.label in found["proof by a restore test"]["observed"]
    finally:
        give(far.data / "repository", far.user)


def test_where_the_account_may_only_read_the_proof_stays_and_that_is_told(site: PitrSite, far: SshServer) -> None:
    if os.geteuid() != 0:
        pytest.skip("as an ordinary user, the account there is our own, which owns the repository")
    copy_to(far, site.directory / "repository")
    let_read_only(far, far.data / "repository")
    try:
        shown = run_module("restore_test", options(site, far, **QUICK))
        assert not shown["failed"], shown["msg"]
        check = checks_by_name(shown)[f"proofs in the repository on {far.host}"]
        assert check["status"] == "warned"
        assert "belongs to uid 0" in check["observed"]
        assert far.user in check["advice"]
        assert not (far.data / "repository" / "main" / "proofs").exists()
        meant = options(site, far, **{**QUICK, "interval": "6d"})
        meant["repository_ssh"]["read_only"] = True
        assert f"proofs in the repository on {far.host}" not in checks_by_name(run_module("restore_test", meant))
    finally:
        copy_to(far, site.directory / "repository")
    later = run_module("restore_test", options(site, far, **{**QUICK, "interval": "6d"}))
    assert not later["changed"]
    words = checks_by_name(later)[f"proofs in the repository on {far.host}"]["observed"]
    assert words == "1 put there, 0 known there", "what was kept is brought back as soon as it can be"


def test_wal_is_fetched_from_the_backup_on_and_leads_to_the_last_commit(site: PitrSite, far: SshServer) -> None:
    shown = run_module("restore_test", options(site, far, target="newest", **QUICK))
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["marker rows at the target"]["status"] == "passed"
    assert left(site) == []


def test_in_check_mode_only_descriptions_come(site: PitrSite, far: SshServer) -> None:
    shown = run_module("restore_test", options(site, far, **QUICK), check=True)
    assert not shown["failed"], shown["msg"]
    assert "would be proven" in shown["changes"][0]["after"]
    assert "repository_fetch_seconds" not in shown["metrics"]


def test_what_was_damaged_there_is_found_here(site: PitrSite, far: SshServer) -> None:
    (newest,) = sorted((far.data / "repository" / "main").glob("2*"))[-1:]
    victim = next(path for path in sorted((newest / "wal").iterdir()) if path.is_file())
    content = victim.read_bytes()
    victim.write_bytes(content[:-9] + b"?" + content[-8:])
    shown = run_module("restore_test", options(site, far, **QUICK))
    victim.write_bytes(content)
    assert shown["failed"]
    assert victim.name in checks_by_name(shown)["bytes of the newest backup"]["observed"]
    assert left(site) == []
    there = Repository(str(far.data / "repository"), "main")
    assert victim.name in there.noted_damage(newest.name), "so that the next backup does not build on it"
    assert there.proof(there.backup(newest.name)) is None, "what disproves it is known there, too"
    there.note_damage(newest.name, [])


def test_an_unknown_host_and_a_missing_repository_are_told(site: PitrSite, far: SshServer) -> None:
    wrong = options(site, far, **QUICK)
    wrong["repository_ssh"]["known_hosts"] = "/dev/null"
    assert "Host key verification failed" in run_module("restore_test", wrong)["msg"]
    gone = run_module("restore_test", options(site, far, repository=f"{far.path}/nowhere", **QUICK))
    assert gone["failed"]
    assert "nowhere" in gone["msg"]
    assert left(site) == []


@pytest.mark.parametrize("share", [0.2, 0.6])
def test_killed_while_it_fetches_the_next_run_cleans_up(site: PitrSite, far: SshServer, share: float) -> None:
    scratch = site.directory / "other_state" / "restore_test" / "scratch"
    before = site.server.sql("SELECT count(*), pg_postmaster_start_time() FROM log")

    def fetched() -> bool:
        found = scratch.glob("wellkept-scratch-*/repository/main/2*/base/base/*/*")
        return sum(1 for _path in found) > share * 300

    killed(halted_when(lambda: module_process("restore_test", options(site, far, **QUICK)), fetched))
    assert left(site)
    shown = run_module("restore_test", options(site, far, **QUICK))
    assert not shown["failed"], shown["msg"]
    assert "removed" in checks_by_name(shown)[f"leftovers of earlier restore tests in {scratch}"]["observed"]
    assert left(site) == []
    assert site.server.sql("SELECT count(*), pg_postmaster_start_time() FROM log") == before


@pytest.fixture
def lost(far: SshServer, tmp_path: Path) -> Iterator[PitrSite]:
    """A host that has lost everything but its programs; the far host has its repository and its WAL."""
    uploads = tmp_path / "uploads"
    (uploads / "sub").mkdir(parents=True)
    for number in range(20):
        (uploads / "sub" / f"{number}.txt").write_text(f"submission {number}")
    with postgres_server(SETTINGS) as server:
        site = PitrSite(server, tmp_path)
        server.sql("CREATE TABLE log (xid bigint, filling text)")
        site.back_up(files=[str(uploads)])
        site.write(30)
        site.back_up()
        copy_to(far, tmp_path / "repository")
        copy_to(far, site.archive)
        server.stop("fast")
        for path in (server.data, site.archive, tmp_path / "repository", uploads):
            shutil.rmtree(path)
        yield site
        end_server_of(str(server.data))


def test_a_lost_host_gets_its_cluster_and_its_files_back_over_ssh(
    lost: PitrSite, far: SshServer, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    given = options(lost, far, confirm="main", timeout="2m", files_to=str(back))
    plan = run_module("postgresql_restore", {**given, "confirm": ""})
    assert not plan["failed"], plan["msg"]
    words = checks_by_name(plan)[f"application files to {back}"]["observed"]
    assert words.startswith("20 files")
    assert "there is no log of files" in words
    assert not back.exists()
    assert not lost.server.data.exists()
    back.mkdir()
    (back / "mine").write_text("was there before")
    shown = run_module("postgresql_restore", given)
    assert not shown["failed"], shown["msg"]
    assert lost.server.sql("SELECT count(DISTINCT xid) FROM log WHERE xid > 0") == [(30,)]
    restored = back / str(tmp_path / "uploads" / "sub").lstrip("/")
    assert (restored / "7.txt").read_text() == "submission 7"
    (aside,) = tmp_path.glob("back.before-restore-*")
    assert (aside / "mine").read_text() == "was there before"
    assert shown["metrics"]["restored_files"]["value"] == 20
    assert left_beside(tmp_path) == []


def left_beside(directory: Path) -> list[str]:
    """What a restore must not leave: its working directory, and what it fetched."""
    fetched = directory / "other_state" / "postgresql_restore"
    return [path.name for path in (*directory.glob("back.wellkept-restore"), *fetched.glob("wellkept-scratch-*"))]


def test_files_are_never_restored_into_a_data_directory_or_through_a_link(
    lost: PitrSite, far: SshServer, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("/srv")
    inside = lost.server.data / "files"
    for place, words in ((inside, "is not there"), (tmp_path / "link", "it is a link")):
        shown = run_module("postgresql_restore", options(lost, far, confirm="main", files_to=str(place)))
        assert shown["failed"]
        assert words in shown["msg"]
    assert not lost.server.data.exists()


def test_killed_while_files_are_restored_what_was_there_is_whole_and_the_next_run_goes_on(
    lost: PitrSite, far: SshServer, tmp_path: Path
) -> None:
    back = tmp_path / "back"
    back.mkdir()
    (back / "mine").write_text("was there before")
    given = options(lost, far, confirm="main", timeout="2m", files_to=str(back))
    process = module_process("postgresql_restore", given)
    working = tmp_path / "back.wellkept-restore"
    wait_until(lambda: working.exists() or process.poll() is not None, "files to be laid down")
    process.kill()
    process.communicate()
    assert (back / "mine").exists() or list(tmp_path.glob("back.before-restore-*/mine"))
    done = run_module("postgresql_restore", given)
    assert not done["failed"], done["msg"]
    assert (back / str(tmp_path / "uploads" / "sub" / "7.txt").lstrip("/")).exists()
    # One that was killed after its last step was a whole restore: the second run then put its files aside as well.
    (mine,) = tmp_path.glob("back.before-restore-*/mine")
    assert mine.read_text() == "was there before"
    assert left_beside(tmp_path) == []
