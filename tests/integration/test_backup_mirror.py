"""Backups are mirrored, verified there by hash, follow what expires here, and can be fetched back."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.memory import Records
from support.backups import BackupSite, backup_site
from support.mirrors import KINDS, SMALL, MirrorSite, Servers, SmallSite, contents, looks, mirror_servers
from support.modules import COLLECTIONS, checks_by_name, run_module
from support.waiting import wait_until

# How what was sent is verified there.
HOW = {
    "sftp": "sha256sum there",
    "sftp-only": "read back",
    "rsync": "sha256sum there",
    "directory": "read from its disk",
}


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
    mirror = servers.mirror(site, request.param)
    mirror.kind = request.param
    return mirror


def passed(shown: dict) -> dict:
    assert not shown["failed"], shown["msg"]
    return checks_by_name(shown)


def test_a_mirror_holds_every_byte_and_a_second_run_sends_nothing(mirror: MirrorSite, site: SmallSite) -> None:
    checks = passed(mirror.mirror())
    assert HOW[mirror.kind] in checks["copy at vault"]["observed"]
    here = {name for name in contents(site.root) if not name.endswith(".lock")}
    assert len(mirror.files()) == len(here)
    assert sorted(mirror.files().values()) == sorted(
        content for name, content in contents(site.root).items() if name in here
    )
    before = looks(mirror.there)
    again = mirror.mirror()
    passed(again)
    assert not again["changed"]
    assert again["metrics"]["mirror_vault_sent_bytes"]["value"] == 0
    assert looks(mirror.there) == before


def test_check_mode_says_what_would_be_sent_and_touches_nothing(mirror: MirrorSite, site: SmallSite) -> None:
    before = looks(site.root)
    shown = mirror.mirror(check=True)
    passed(shown)
    assert len(shown["changes"]) == 2
    assert "would be sent" in shown["changes"][0]["after"]
    assert not mirror.there.exists() or not list(mirror.there.iterdir())
    assert looks(site.root) == before


def test_a_repository_is_fetched_as_it_was_with_odd_names_and_empty_directories(
    mirror: MirrorSite, site: SmallSite, tmp_path: Path
) -> None:
    passed(mirror.mirror())
    assert mirror.fetch(tmp_path / "fetched", check=True)["changes"] == []
    shutil.rmtree(mirror.state)
    shutil.move(site.root, tmp_path / "lost")
    shown = mirror.fetch(tmp_path / "fetched")
    passed(shown)
    fetched, lost = tmp_path / "fetched" / "repository", tmp_path / "lost"
    (lost / "main" / ".lock").unlink(missing_ok=True)
    assert contents(fetched) == contents(lost)
    assert {p.relative_to(fetched) for p in fetched.rglob("*")} == {p.relative_to(lost) for p in lost.rglob("*")}
    assert stat.S_IMODE((fetched / "main").stat().st_mode) == 0o700
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in fetched.rglob("*") if p.is_file())


def test_one_backup_is_fetched_with_all_that_it_builds_on(servers: Servers, site: SmallSite, tmp_path: Path) -> None:
    first, second = [backup.label for backup in site.repository.backups()]
    other = site.add(age=100)
    mirror = servers.mirror(site, "sftp")
    passed(mirror.mirror())
    passed(mirror.fetch(tmp_path / "one", label=second))
    assert sorted(os.listdir(tmp_path / "one/repository/main")) == [first, second]
    passed(mirror.fetch(tmp_path / "newest", label="newest"))
    assert os.listdir(tmp_path / "newest/repository/main") == [other]
    assert "it is not there" in mirror.fetch(tmp_path / "none", label="20000101T000000Z-full-0000")["msg"]
    assert "nothing is ever overwritten" in mirror.fetch(tmp_path / "one", label=second)["msg"]


def test_what_expires_here_goes_there_too(mirror: MirrorSite, site: SmallSite) -> None:
    oldest = site.add(age=9000)
    passed(mirror.mirror())
    assert any(oldest in name for name in mirror.files())
    site.expire(oldest)
    plan = mirror.mirror(check=True)
    assert [change["after"] for change in plan["changes"]] == ["would be removed: it expired here"]
    shown = mirror.mirror()
    passed(shown)
    assert not any(oldest in name for name in mirror.files())
    assert len(mirror.files()) == 2 * SMALL
    if mirror.destination["type"] != "rsync":  # which leaves empty directories
        assert not any(oldest in str(path) for path in mirror.there.rglob("*"))
    assert not mirror.mirror()["changed"]


def test_only_complete_backups_are_mirrored(mirror: MirrorSite, site: SmallSite) -> None:
    half = site.root / "main" / ".partial-20261121T090000Z-full-0000"
    shutil.copytree(site.root / "main" / site.repository.backups()[0].label, half)
    shutil.copytree(half, site.root / "main" / ".expired-20261120T090000Z-full-0000")
    passed(mirror.mirror())
    assert not any("partial" in name or "expired" in name for name in mirror.files())
    assert len(mirror.files()) == 2 * SMALL


def test_a_lost_memory_costs_reading_and_sends_nothing_again(mirror: MirrorSite) -> None:
    passed(mirror.mirror())
    shutil.rmtree(mirror.state)
    shown = mirror.mirror()
    passed(shown)
    assert shown["metrics"]["mirror_vault_sent_bytes"]["value"] == 0
    assert shown["metrics"]["mirror_vault_verified_bytes"]["value"] >= shown["metrics"]["mirror_vault_bytes"]["value"]


def test_reading_is_spread_and_a_budget_is_told(servers: Servers, site: SmallSite) -> None:
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())
    shown = mirror.mirror(full=True, read_budget="1KiB")
    assert checks_by_name(shown)["every byte at vault read in time"]["status"] == "warned"
    assert 0 < shown["metrics"]["mirror_vault_verified_bytes"]["value"] < 40000
    rest = mirror.mirror(full=True)
    assert rest["metrics"]["mirror_vault_verified_bytes"]["value"] > shown["metrics"]["mirror_vault_bytes"]["value"]


def test_a_wal_archive_and_a_tree_of_another_program_are_mirrored_too(servers: Servers, tmp_path: Path) -> None:
    wal, tree = tmp_path / "wal", tmp_path / "tree"
    segment = wal / "73" / "00000001" / "000000010000000000000001.gz"
    segment.parent.mkdir(parents=True)
    segment.write_bytes(b"segment")
    (wal / "73" / "incoming").mkdir()
    (wal / "73" / "incoming" / "000000010000000000000002").write_bytes(b"half")
    (wal / "wal_helper.py").write_text("a program")
    for name in ("config", "locks/1", "data/00/aa", "index/i", "snapshots/s"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(name.encode())
    site = SmallSite(tmp_path)
    mirror = servers.mirror(site, "sftp")
    sources = [
        {"name": "wal", "path": str(wal), "kind": "wal"},
        {"name": "uploads", "path": str(tree), "kind": "restic"},
    ]
    passed(mirror.mirror(sources=sources))
    assert set(mirror.files()) == {
        "wal/73/00000001/000000010000000000000001.gz",
        *(f"uploads/{name}" for name in ("config", "data/00/aa", "index/i", "snapshots/s")),
    }
    (tree / "index/j").write_bytes(b"more")
    assert len(mirror.mirror(sources=sources)["changes"]) == 1


def test_several_destinations_are_served_although_one_is_down(servers: Servers, site: SmallSite) -> None:
    good, bad = servers.mirror(site, "sftp"), servers.mirror(site, "rsync")
    down = {**bad.destination, "name": "down", "port": 1}
    shown = good.mirror(destinations=[down, good.destination])
    checks = checks_by_name(shown)
    assert shown["failed"]
    assert checks["work at down"]["status"] == "failed"
    assert checks["copy at vault"]["status"] == "passed"
    assert len(good.files()) == 2 * SMALL


def test_without_a_destination_it_is_skipped_with_the_reason(site: SmallSite, tmp_path: Path) -> None:
    shown = run_module("backup_mirror", {"state_dir": str(tmp_path / "state"), "sources": []})
    assert shown["skipped"]
    assert "no mirror is configured" in shown["msg"]


def test_a_limit_of_the_bandwidth_is_kept(servers: Servers, tmp_path: Path) -> None:
    site = SmallSite(tmp_path)
    site.add(size=40_000)
    for kind in ("sftp", "rsync", "directory"):
        mirror = servers.mirror(site, kind, bwlimit="150KiB")
        began = time.monotonic()
        passed(mirror.mirror())
        assert time.monotonic() - began > 1.2, kind


def test_thousands_of_files_that_have_not_changed_are_looked_at_in_a_moment(servers: Servers, tmp_path: Path) -> None:
    site = SmallSite(tmp_path)
    site.add(files=4000, size=10)
    mirror = servers.mirror(site, "directory")
    passed(mirror.mirror())

    def seconds() -> float:
        idle = mirror.mirror()
        passed(idle)
        return float(idle["metrics"]["mirror_vault_seconds"]["value"])

    # Others may keep the machine busy for a while.
    wait_until(lambda: seconds() < 10, "a look of less than ten seconds")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackupSite]:
    with backup_site(tmp_path_factory.mktemp("mirrored")) as site:
        yield site


def test_a_real_repository_that_was_fetched_is_sound_to_the_last_byte(real: BackupSite, servers: Servers) -> None:
    mirror = servers.mirror(real, "sftp")
    passed(mirror.mirror())
    passed(mirror.fetch(real.directory / "fetched"))
    passed(real.verify(repository=str(real.directory / "fetched" / "repository"), full=True, proof_max_age="0"))


def test_many_manifests_become_one_that_says_the_same(servers: Servers, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    mirror = servers.mirror(SmallSite(tmp_path), "directory")
    sources = [{"name": "tree", "path": str(tree), "kind": "tree"}]
    (tree / "0").write_text("0")
    passed(mirror.mirror(sources=sources))
    manifests = mirror.there / ".wellkept-mirror" / "manifests"
    first = next(manifests.iterdir())
    memory = mirror.state / "mirror" / "at-vault.json"
    records = Records(str(memory))
    for number in range(70):  # as many runs would leave them
        copy = f"20200101T000000000Z-00000000-{number:05d}.json"
        shutil.copy2(first, manifests / copy)
        records.files[f".wellkept-mirror/manifests/{copy}"] = records.files[f".wellkept-mirror/manifests/{first.name}"]
    records.save()
    (tree / "1").write_text("1")
    passed(mirror.mirror(sources=sources))
    assert len(list(manifests.iterdir())) == 1
    shutil.rmtree(mirror.state)
    passed(mirror.fetch(tmp_path / "fetched"))
    assert contents(tmp_path / "fetched" / "tree") == {"0": b"0", "1": b"1"}
    assert (tmp_path / "fetched" / "tree" / "empty").is_dir()


def test_a_missing_library_or_program_skips_and_names_the_package(servers: Servers, site: SmallSite) -> None:
    hidden = site.directory / "hidden" / "paramiko"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").write_text("raise ImportError('hidden')")
    path = {"PYTHONPATH": f"{hidden.parent}:{COLLECTIONS}"}
    shown = run_module("backup_mirror", servers.mirror(site, "sftp").options(), env=path)
    assert shown["skipped"]
    assert "apt-get install python3-paramiko" in shown["msg"]
