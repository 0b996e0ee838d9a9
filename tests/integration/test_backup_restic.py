"""A cluster with its application's files by restic: backed up, verified, restored in a test, and expired."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from support.modules import checks_by_name, run_module
from support.postgresql import UNPRIVILEGED, embedded_bin_dir, postgres_server
from support.restic import ResticSite, flip


class Platform:
    """A server, its uploads, and the options of the three modules for them."""

    def __init__(self, site: ResticSite, login: dict[str, Any]) -> None:
        self.site = site
        self.common = {
            "repository": site.repository.root,
            "state_dir": str(site.directory / "state"),
            "bin_dir": str(embedded_bin_dir()),
        }
        self.login = login

    def back_up(self, check: bool = False, **others: Any) -> dict[str, Any]:
        options = {**self.site.params(), **self.common, **self.login, "interval": "0", "min_free_bytes": "1MiB"}
        return run_module("backup", {**options, **others}, check=check)

    def verify(self, check: bool = False, **others: Any) -> dict[str, Any]:
        options = {**self.common, "restic_key_file": str(self.site.key), **others}
        return run_module("backup_verification", options, check=check)

    def restore_test(self, **others: Any) -> dict[str, Any]:
        options = {**self.common, **self.login, "restic_key_file": str(self.site.key), "run_as": UNPRIVILEGED, **others}
        return run_module("restore_test", {**options, "interval": "0s", "amcheck": False})


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with postgres_server() as server:
        server.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 1000) g")
        yield Platform(ResticSite(tmp_path_factory.mktemp("platform")), server.login())


def test_the_life_of_files_by_restic(platform: Platform) -> None:
    site = platform.site
    # Check mode says what would be done, and does nothing.
    shown = platform.back_up(check=True)
    assert not shown["failed"], shown["msg"]
    assert ("restic repository", "absent", "would be made") in {
        (change["kind"], change["before"], change["after"]) for change in shown["changes"]
    }
    assert not site.path.exists()

    # The files are in the restic repository, and in the backup is nothing of them but their list.
    shown = platform.back_up()
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["restic snapshot"]["status"] == "passed"
    first = site.repository.backups()[-1]
    assert os.listdir(first.path("restic")) == ["files.json"]
    assert not os.path.exists(first.path("files"))
    assert first.metadata["application_files"][0]["count"] == 22
    assert [snapshot["id"] for snapshot in site.snapshots()] == [first.metadata["stores"]["restic"]["snapshot"]]

    # A young backup is enough: nothing is saved again.
    shown = platform.back_up(interval="20h")
    assert not shown["failed"] and not shown["changed"]

    # The daily verification reads the packs; the restore test lays the files down again.
    shown = platform.verify()
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)[f"restic repository {site.location}"]["status"] == "passed"
    shown = platform.restore_test()
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["application files of the backup, from restic"]["observed"].startswith("22 files")

    # A lost key is found by the drill, not by the disaster.
    lost = site.directory / "lost"
    lost.write_text("another password\n")
    lost.chmod(0o600)
    shown = platform.restore_test(restic_key_file=str(lost))
    assert shown["failed"]
    assert "wrong password or no key found" in shown["msg"]

    # When a backup expires, its snapshot goes; what others put there stays.
    assert site.restic("backup", "--tag", "theirs", str(site.key)).returncode == 0
    shown = platform.back_up(keep_full=1, keep_within="0", full_every="0")
    assert not shown["failed"], shown["msg"]
    second = site.repository.backups()[-1]
    left = {tuple(snapshot["tags"][:2]) for snapshot in site.snapshots()}
    if len(site.repository.backups()) == 1:
        assert left == {("wellkept", f"backup={second.label}"), ("theirs",)}
        assert "pruned" in {change["after"] for change in shown["changes"]}
    else:  # the proven one stays
        assert left == {("wellkept", f"backup={b.label}") for b in (first, second)} | {("theirs",)}


def test_damage_of_the_restic_repository_fails_the_verification(platform: Platform) -> None:
    site = platform.site
    if not site.repository.backups():
        assert not platform.back_up()["failed"]
    flip(site.packs()[0], 1000)
    shown = platform.verify(full=True)
    assert shown["failed"]
    assert "Pack ID does not match" in shown["msg"]
    flip(site.packs()[0], 1000)
    assert not platform.verify(full=True)["failed"]
