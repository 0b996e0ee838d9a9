"""What is wrong at a mirror, on the way to it, or here, is found, named, and does no further harm."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.memory import save
from support.mirrors import KINDS, SMALL, MirrorSite, Servers, SmallSite, contents, looks, mirror_servers, ssh_mirror
from support.modules import checks_by_name, module_process
from support.ssh import new_key, ssh_server
from support.waiting import wait_until


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with mirror_servers() as servers:
        yield servers


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    site = SmallSite(tmp_path)
    site.add(parent=site.add(age=7200))
    return site


@pytest.fixture(params=KINDS)
def mirror(request: pytest.FixtureRequest, servers: Servers, site: SmallSite) -> MirrorSite:
    """A mirror that holds everything."""
    mirror = servers.mirror(site, request.param)
    passed(mirror.mirror())
    return mirror


# What is always said of an rsync that ended without a word.
NO_ROOM_OR_RIGHT = "no room there or no right to write"


def passed(shown: dict[str, Any]) -> dict[str, Any]:
    assert not shown["failed"], shown["msg"]
    return checks_by_name(shown)


def flip(path: Path) -> None:
    """Change one bit, and neither the size nor the time of writing."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


def link_elsewhere(path: Path) -> None:
    elsewhere = path.with_suffix(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "a bit flipped": flip,
    "cut": cut,
    "empty": empty,
    "grown": grow,
    "missing": Path.unlink,
    "a link in its place": link_elsewhere,
}


def test_damage_there_is_named_and_repaired(mirror: MirrorSite, site: SmallSite) -> None:
    """Each kind of damage on a file of its own, in one run: six files, six names."""
    sound = mirror.files()
    label = site.repository.backups()[0].label
    names = ["base/0", "base/1", "base/2", "base/3", "dump/0.dump", "wal/000000010000000000000001"]
    victims = dict(zip(DAMAGE, names, strict=True))
    for words, damage in DAMAGE.items():
        damage(mirror.there / "repository/main" / label / victims[words])
    shown = mirror.mirror(full=True)
    observed = checks_by_name(shown)["copy at vault"]["observed"]
    assert shown["failed"]
    for name in names:
        assert f"{label}/{name} " in observed
    assert "6 of them sent again" in observed
    strangers = checks_by_name(shown)["nothing strange at vault"]
    assert ".elsewhere" in strangers["observed"]
    stranger = next(mirror.there.rglob("*.elsewhere"))
    stranger.unlink()
    assert mirror.files() == sound
    assert not any(path.is_symlink() for path in mirror.there.rglob("*"))
    passed(mirror.mirror(full=True))


def test_a_flipped_bit_is_found_within_reread_within_though_nothing_else_shows_it(
    servers: Servers, site: SmallSite
) -> None:
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    flip(mirror.file("base/0"))
    passed(mirror.mirror(reread_within="30d"))
    time.sleep(1)  # until its last reading is longer ago than the second that the next run allows
    assert "has another content than was sent" in mirror.mirror(reread_within="1s")["msg"]


def test_an_extra_file_there_is_named_and_left_alone(mirror: MirrorSite) -> None:
    extra = mirror.there / "repository" / "main" / "notes.txt"
    extra.write_text("who was here?")
    shown = mirror.mirror()
    strange = checks_by_name(shown)["nothing strange at vault"]
    assert (strange["status"], strange["observed"]) == ("failed", "repository/main/notes.txt")
    assert extra.exists()
    assert not shown["changed"]


def test_a_file_in_the_way_of_a_new_one_is_not_taken_for_it(mirror: MirrorSite, site: SmallSite) -> None:
    """A name clash: something of the same name and size stands there before it was ever sent."""
    label = site.add(age=10)
    clash = mirror.there / "repository" / "main" / label / "dump" / "0.dump"
    clash.parent.mkdir(parents=True)
    clash.write_bytes(b"x" * 300)
    owner = mirror.there.stat()
    for path in (clash, clash.parent, clash.parent.parent):
        os.chown(path, owner.st_uid, owner.st_gid)
    shown = mirror.mirror()
    assert f"{label}/dump/0.dump has another content than here" in checks_by_name(shown)["copy at vault"]["observed"]
    passed(mirror.mirror(full=True))
    assert clash.read_bytes() == Path(site.root, "main", label, "dump/0.dump").read_bytes()


def test_a_link_in_place_of_a_directory_is_never_followed(mirror: MirrorSite, site: SmallSite, tmp_path: Path) -> None:
    backup = mirror.there / "repository" / "main" / site.repository.backups()[0].label
    elsewhere = mirror.there / "elsewhere"
    backup.rename(elsewhere)
    backup.symlink_to(elsewhere)
    before = looks(elsewhere)
    shown = mirror.mirror()
    assert "is a link there, and no directory" in checks_by_name(shown)["copy at vault"]["observed"]
    assert looks(elsewhere) == before


def test_a_damaged_or_lost_manifest_is_told_and_written_anew(mirror: MirrorSite, tmp_path: Path) -> None:
    for harm in (flip, Path.unlink):
        harm(min((mirror.there / ".wellkept-mirror" / "manifests").glob("*.json")))
        shown = mirror.mirror(full=True)
        assert ".wellkept-mirror/manifests/" in checks_by_name(shown)["copy at vault"]["observed"], shown
        passed(mirror.mirror(full=True))
    passed(mirror.fetch(tmp_path / "fetched"))
    assert len(contents(tmp_path / "fetched")) == 2 * SMALL


def test_a_fetch_leaves_out_a_damaged_backup_and_says_so(mirror: MirrorSite, site: SmallSite, tmp_path: Path) -> None:
    first, second = [backup.label for backup in site.repository.backups()]
    flip(mirror.there / "repository" / "main" / second / "dump" / "0.dump")
    shown = mirror.fetch(tmp_path / "all")
    assert f"{second}/dump/0.dump has another content" in shown["msg"]
    assert os.listdir(tmp_path / "all" / "repository" / "main") == [first]
    assert mirror.fetch(tmp_path / "one", label=second)["failed"]
    assert not (tmp_path / "one").exists()
    passed(mirror.fetch(tmp_path / "first", label=first))


def test_a_repository_that_was_emptied_takes_nothing_from_the_mirror(mirror: MirrorSite, site: SmallSite) -> None:
    before = mirror.files()
    shutil.rmtree(site.root / "main")
    shown = mirror.mirror()
    removals = checks_by_name(shown)["removals at vault"]
    assert removals["status"] == "failed"
    assert "nothing was removed: no sound backup" in removals["observed"]
    assert mirror.files() == before


def test_a_repository_that_was_encrypted_in_place_changes_nothing_in_the_mirror(
    mirror: MirrorSite, site: SmallSite
) -> None:
    before = mirror.files()
    for path in (site.root / "main").rglob("*"):
        if path.is_file() and not path.name.endswith(".lock"):
            path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))
    shown = mirror.mirror()
    checks = checks_by_name(shown)
    assert checks["source repository"]["status"] == "failed"
    assert "its backup.json" in checks["source repository"]["observed"]
    assert mirror.files() == before


def test_files_that_were_encrypted_under_sound_descriptions_are_not_sent(servers: Servers, site: SmallSite) -> None:
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    before = mirror.files()
    for path in (site.root / "main").rglob("base/?"):
        path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))
    shown = mirror.mirror()
    overwritten = checks_by_name(shown)["nothing was overwritten here that is at vault"]
    assert overwritten["status"] == "failed"
    assert "base/0" in overwritten["observed"]
    assert mirror.files() == before


def test_a_backup_whose_description_is_damaged_here_is_told_and_kept_there(servers: Servers, site: SmallSite) -> None:
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    before = mirror.files()
    newest = site.repository.backups()[-1]
    flip(Path(newest.path("backup.json")))
    shown = mirror.mirror(remove_at_most=100)
    assert newest.label in checks_by_name(shown)["source repository"]["observed"]
    assert checks_by_name(shown)["source repository"]["status"] == "failed"
    assert mirror.files() == before


def test_a_backup_of_which_a_file_cannot_be_sent_gets_no_description_there(servers: Servers, site: SmallSite) -> None:
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    label = site.add(age=10)
    in_the_way = mirror.there / "repository" / "main" / label / "dump" / "0.dump"
    in_the_way.mkdir(parents=True)
    assert "is not complete there" in mirror.mirror()["msg"]
    assert not (in_the_way.parents[1] / "backup.json").exists()
    in_the_way.rmdir()
    passed(mirror.mirror())
    assert (in_the_way.parents[1] / "backup.json").exists()


@pytest.mark.parametrize("kind", ["directory", "sftp", "rsync"])
def test_a_file_that_changed_since_it_was_read_is_not_sent(servers: Servers, tmp_path: Path, kind: str) -> None:
    """As if it had changed without looking different: what is remembered of it is another content."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "file").write_bytes(b"as it is")
    mirror = servers.mirror(SmallSite(tmp_path), kind)
    status = (tree / "file").stat()
    looks = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    before = hashlib.sha256(b"as it was").hexdigest()
    save(str(mirror.state / "mirror" / "here.json"), {"files": {"tree/file": [*looks, before, True]}})
    shown = mirror.mirror(sources=[{"name": "tree", "path": str(tree), "kind": "tree"}])
    assert "it was not sent" in shown["msg"]
    assert not (mirror.there / "tree" / "file").exists()


def test_nothing_is_removed_there_while_something_has_changed_here(servers: Servers, site: SmallSite) -> None:
    newest = site.add(age=10)
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    before = mirror.files()
    site.expire(site.repository.backups()[1].label)
    path = Path(site.repository.backup(newest).path("base", "0"))
    path.write_bytes(bytes(byte ^ 0x5A for byte in path.read_bytes()))
    shown = mirror.mirror(remove_at_most=100)
    assert "files that never change have changed here" in checks_by_name(shown)["removals at vault"]["observed"]
    assert mirror.files() == before


def test_a_tree_that_was_replaced_by_encrypted_files_loses_nothing(servers: Servers, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        (tree / f"{number}").write_bytes(b"data")
    mirror = servers.mirror(SmallSite(tmp_path), "sftp")
    sources = [{"name": "tree", "path": str(tree), "kind": "tree"}]
    passed(mirror.mirror(sources=sources))
    for path in list(tree.iterdir()):
        path.rename(path.with_suffix(".locked"))
    shown = mirror.mirror(sources=sources)
    assert "would vanish, at most 50 % may" in checks_by_name(shown)["removals at vault"]["observed"]
    assert {f"tree/{number}" for number in range(10)} <= set(mirror.files())
    passed(mirror.mirror(sources=sources, remove_at_most=100))
    assert set(mirror.files()) == {f"tree/{number}.locked" for number in range(10)}


def test_the_newest_proven_backup_is_never_removed_there(servers: Servers, site: SmallSite) -> None:
    first, second = site.repository.backups()
    site.repository.write_proof(first, {})
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    newer = [site.add(age=20), site.add(age=10)]
    for label in (second.label, first.label):
        site.expire(label)
    observed = passed(mirror.mirror(remove_at_most=60))["removals at vault"]["observed"]
    assert first.label in observed
    assert any(first.label in name for name in mirror.files())
    assert not any(second.label in name for name in mirror.files())
    site.repository.write_proof(site.repository.backup(newer[0]), {})
    passed(mirror.mirror())
    assert not any(first.label in name for name in mirror.files())


def test_nothing_is_removed_while_the_newest_backup_there_is_not_sound(servers: Servers, site: SmallSite) -> None:
    newest = site.add(age=10)
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    flip(mirror.there / "repository" / "main" / newest / "dump" / "0.dump")
    full, second = [backup.label for backup in site.repository.backups()[:2]]
    site.expire(second)
    shown = mirror.mirror(full=True)
    assert "the newest backup there is not sound" in checks_by_name(shown)["removals at vault"]["observed"]
    assert any(second in name for name in mirror.files())
    passed(mirror.mirror(full=True))
    assert not any(second in name for name in mirror.files())
    assert any(full in name for name in mirror.files())


def test_a_backup_that_is_damaged_here_is_not_sent(servers: Servers, site: SmallSite) -> None:
    label = site.repository.backups()[-1].label
    flip(site.root / "main" / label / "dump" / "0.dump")
    mirror = servers.mirror(site, "sftp")
    shown = mirror.mirror()
    assert "dump/0.dump is not as it was written" in checks_by_name(shown)["copy at vault"]["observed"]
    assert not any(label in name for name in mirror.files())
    cut(site.root / "main" / label / "dump" / "0.dump")
    assert checks_by_name(mirror.mirror())["source repository"]["status"] == "failed"


def test_a_backup_with_damage_that_only_a_hash_shows_is_not_sent(servers: Servers, site: SmallSite) -> None:
    label = site.add(age=10)
    flip(Path(site.repository.backup(label).path("dump", "0.dump")))
    mirror = servers.mirror(site, "directory")
    shown = mirror.mirror()
    assert "is not as it was written" in checks_by_name(shown)["copy at vault"]["observed"]
    assert not any(label in name for name in mirror.files())


def test_an_old_backup_or_one_from_the_future_is_told(servers: Servers, tmp_path: Path) -> None:
    for age, words in ((3 * 86400.0, "was begun 3 d"), (-86400.0, "from the future")):
        directory = tmp_path / words.replace(" ", "")
        directory.mkdir()
        site = SmallSite(directory)
        site.add(age=age)
        shown = servers.mirror(site, "directory").mirror()
        check = checks_by_name(shown)["age of the newest backup of repository/main at vault"]
        assert check["status"] == "failed"
        assert words in check["observed"]


def test_a_mirror_of_another_host_is_refused(mirror: MirrorSite) -> None:
    before = looks(mirror.there)
    assert "nothing was changed in it" in mirror.mirror(owner="another")["msg"]
    assert looks(mirror.there) == before


def test_a_directory_that_is_not_mounted_is_not_created(site: SmallSite, tmp_path: Path) -> None:
    destination = {"name": "disk", "type": "directory", "path": str(tmp_path / "not-mounted")}
    mirror = MirrorSite(site, destination, tmp_path / "not-mounted")
    assert "not mounted" in mirror.mirror()["msg"]
    assert not mirror.there.exists()


def test_options_that_make_no_sense_are_all_named(site: SmallSite, tmp_path: Path) -> None:
    mirror = MirrorSite(site, {"name": "a/b", "type": "directory", "path": "relative"}, tmp_path)
    shown = mirror.mirror(
        destinations=[mirror.destination, {"name": "x", "type": "sftp", "path": "/m", "host": "-oProxyCommand=x"}]
    )
    assert "letters, digits, dash" in shown["msg"]
    assert "host and user must be given" in shown["msg"]


@pytest.mark.parametrize("kind", ["sftp", "rsync"])
class TestTheWay:
    """What can go wrong between here and there."""

    def test_a_changed_host_key_is_refused_and_nothing_sent(self, site: SmallSite, kind: str) -> None:
        with ssh_server() as server:
            mirror = ssh_mirror(site, server, kind)
            server.new_host_key()
            server.restart()
            shown = mirror.mirror()
            assert "another one: it is another host, or somebody stands in between" in shown["msg"]
            assert not mirror.there.exists()
            server.known_hosts.write_text("")
            assert "there is none, so nothing was sent" in mirror.mirror()["msg"]

    def test_a_key_that_is_not_let_in_is_told(self, site: SmallSite, kind: str, tmp_path: Path) -> None:
        with ssh_server() as server:
            new_key(tmp_path / "other")
            mirror = ssh_mirror(site, server, kind, key_file=str(tmp_path / "other"))
            assert "to be let in" in mirror.mirror()["msg"]
            gone = ssh_mirror(site, server, kind, key_file=str(tmp_path / "none"))
            assert "none" in gone.mirror()["msg"]
            server.stop()
            assert (
                "an SSH server that answers" in mirror.mirror()["msg"] or "onnection refused" in mirror.mirror()["msg"]
            )

    def test_a_directory_that_cannot_be_written_to_is_told(self, site: SmallSite, kind: str) -> None:
        with ssh_server() as server:
            if os.geteuid() != 0:
                pytest.skip("the account is our own")
            os.chown(server.data, 0, 0)
            shown = ssh_mirror(site, server, kind).mirror()
            assert "ermission denied" in shown["msg"] or NO_ROOM_OR_RIGHT in shown["msg"]

    def test_a_connection_that_is_cut_is_told_and_the_next_run_goes_on(self, site: SmallSite, kind: str) -> None:
        site.add(age=60, files=400, size=3000)
        with ssh_server() as server:
            mirror = ssh_mirror(site, server, kind, bwlimit="400KiB")
            process = module_process("backup_mirror", mirror.options())
            try:
                wait_until(lambda: len(list(mirror.there.rglob("base/*"))) > 20, "files are there")
                assert server.cut()
                output, _errors = process.communicate(timeout=300)
            finally:
                process.kill()
            assert '"failed": true' in output
            assert "work on the mirror vault" in output or "log in to the mirror" in output
            sent = len(mirror.files())
            whole = {**mirror.destination, "bwlimit": "0"}
            shown = mirror.mirror(destinations=[whole])
            passed(shown)
            assert sum(change["after"].count("files") for change in shown["changes"]) >= 1
            assert len(mirror.files()) == 2 * SMALL + SMALL - 5 + 400
            assert sent < len(mirror.files())
            assert not [path for path in mirror.there.rglob(".*") if path.is_file() and "mirror" not in path.name]

    def test_no_room_there_is_told_and_the_next_run_goes_on(self, site: SmallSite, kind: str) -> None:
        if os.geteuid() != 0:
            pytest.skip("to mount takes root")
        with ssh_server() as server, small_disk(server.data, "200k"):
            mirror = ssh_mirror(site, server, kind)
            site.add(age=30, size=60_000)
            shown = mirror.mirror()
            assert shown["failed"]
            words = ("a full disk looks like this", "No space left", NO_ROOM_OR_RIGHT)
            assert any(word in shown["msg"] for word in words), shown["msg"]
            subprocess.run(["mount", "-o", "remount,size=20m", str(server.data)], check=True)
            passed(mirror.mirror())


def small_disk(directory: Path, size: str) -> Any:
    import contextlib

    @contextlib.contextmanager
    def mounted() -> Iterator[None]:
        status = directory.stat()
        options = f"size={size},uid={status.st_uid},gid={status.st_gid},mode=755"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=False)
        if done.returncode:
            pytest.skip("no mounting here")
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", str(directory)], check=True)

    return mounted()


def test_two_at_once_do_not_meet(servers: Servers, site: SmallSite) -> None:
    mirror = servers.mirror(site, "directory", bwlimit="20KiB")
    first = module_process("backup_mirror", mirror.options())
    try:
        wait_until(lambda: any(mirror.there.iterdir()), "it has begun")
        assert "held by" in mirror.mirror()["msg"]
        first.send_signal(signal.SIGTERM)
        output, _errors = first.communicate(timeout=300)
        assert "stopped by SIGTERM" in output
    finally:
        first.kill()
    passed(mirror.mirror(destinations=[{**mirror.destination, "bwlimit": "0"}]))
