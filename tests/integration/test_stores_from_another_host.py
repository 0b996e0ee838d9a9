"""What a backup holds beside its cluster, and a compressed base, restored on a host that has no repository."""

from __future__ import annotations

import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository, write_metadata
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.location import read_location
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.remote_repository import restic_there
from ansible_collections.wellkept.maintenance.plugins.module_utils.ssh.login import Login
from support.modules import checks_by_name, run_module
from support.postgresql import UNPRIVILEGED, PostgresServer, embedded_bin_dir, postgres_server
from support.redis import fill, redis_server
from support.restic import ResticSite
from support.ssh import SshServer, ssh_server


@pytest.fixture(scope="module")
def far() -> Iterator[SshServer]:
    with ssh_server() as running:
        yield running


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as running:
        running.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 1000) g")
        yield running


class Hosts:
    """The host of the cluster, which made the backup; the far one, which alone has it; and this one, which restores."""

    def __init__(self, far: SshServer, server: PostgresServer, directory: Path) -> None:
        self.far = far
        self.directory = directory
        self.repository = far.data / directory.name
        self.common = {**server.login(), "bin_dir": str(embedded_bin_dir())}

    def back_up(self, **others: Any) -> None:
        state = {"state_dir": str(self.directory / "state_there"), "interval": "0", "min_free_bytes": "1MiB"}
        shown = run_module("backup", {**self.common, "repository": str(self.repository), **state, **others})
        assert not shown["failed"], shown["msg"]
        give(self.repository, self.far.user)

    def test(self, **others: Any) -> dict[str, Any]:
        login = {"host": self.far.host, "port": self.far.port, "user": self.far.user}
        keys = {"key_file": str(self.far.key_file), "known_hosts": str(self.far.known_hosts)}
        options = {
            **self.common,
            "repository": f"{self.far.path}/{self.directory.name}",
            "repository_ssh": {**login, **keys},
            "state_dir": str(self.directory / "state"),
            "run_as": UNPRIVILEGED,
            "amcheck": False,
            "restore_dump": False,
        }
        return run_module("restore_test", {**options, **others})


def give(directory: Path, user: str) -> None:
    account = pwd.getpwnam(user)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)


@pytest.fixture
def hosts(far: SshServer, server: PostgresServer, tmp_path: Path) -> Iterator[Hosts]:
    yield Hosts(far, server, tmp_path)
    shutil.rmtree(far.data / tmp_path.name, ignore_errors=True)


def test_a_compressed_base_copied_files_and_redis_come_with_it(hosts: Hosts, tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    (uploads / "letter.txt").write_text("dear")
    with redis_server() as redis:
        fill(redis, 200)
        hosts.back_up(compression="zstd", files=[str(uploads)], redis=[redis.option("shop")])
    shutil.rmtree(uploads)
    shown = hosts.test()
    assert not shown["failed"], shown["msg"]
    found = {name: check["status"] for name, check in checks_by_name(shown).items()}
    wanted = {
        "application files of the backup, from files",
        "keys of the restored Redis shop",
        "content of the restored database postgres",
        f"proofs in the repository on {hosts.far.host}",
    }
    assert wanted <= found.keys(), found
    assert set(found.values()) == {"passed"}, found


def test_files_by_restic_are_had_over_sftp(hosts: Hosts, tmp_path: Path) -> None:
    site = ResticSite(tmp_path, str(hosts.far.data / f"{tmp_path.name}-restic"))
    hosts.back_up(**{**site.params(), "state_dir": str(tmp_path / "state_there")})
    give(Path(site.location), hosts.far.user)
    # Where it restores, there is no such directory.
    moved = Path(site.location).rename(f"{site.location}.there")
    login = {"port": hosts.far.port, "key_file": str(hosts.far.key_file), "known_hosts": str(hosts.far.known_hosts)}
    repository = {"restic_repository": f"sftp:{hosts.far.user}@{hosts.far.host}:{moved}", "restic_ssh": login}
    shown = hosts.test(**repository, restic_key_file=str(site.key))
    assert not shown["failed"], shown["msg"]
    assert checks_by_name(shown)["application files of the backup, from restic"]["status"] == "passed"
    shutil.rmtree(moved)


FAR = Login("backup1", 2222, "wellkept", "/root/key", "/root/hosts")


@pytest.mark.parametrize("given", ["", "/srv/no/restic"])
def test_a_restic_repository_in_a_directory_of_that_host_is_sought_there(given: str) -> None:
    backup = {"stores": {"restic": {"repository": "/srv/no/restic"}}}
    assert restic_there(backup, {"restic_repository": given}, FAR) == {
        "restic_repository": "sftp:wellkept@backup1:/srv/no/restic",
        "restic_ssh": {"port": 2222, "key_file": "/root/key", "known_hosts": "/root/hosts"},
    }
    found = restic_there(backup, {"restic_repository": given}, FAR._replace(host="fd00::1"))
    assert read_location(found["restic_repository"], found["restic_ssh"]).path == "/srv/no/restic"


@pytest.mark.parametrize(
    ("recorded", "given"), [("sftp:a@b:/c", ""), ("/srv/no/restic", "/mnt/moved"), ("/tmp", ""), ("", "")]
)
def test_a_restic_repository_that_is_named_or_is_here_is_left_at_that(recorded: str, given: str) -> None:
    stores = {"stores": {"restic": {"repository": recorded}}} if recorded else {}
    assert restic_there(stores, {"restic_repository": given}, FAR) == {}


def test_backups_of_pgbackrest_are_refused_with_the_way_that_they_are_reached_by(hosts: Hosts) -> None:
    hosts.back_up()
    (backup,) = Repository(str(hosts.repository), "main").backups()
    write_metadata(backup.directory, {**backup.metadata, "engine": "pgbackrest"})
    give(hosts.repository, hosts.far.user)
    shown = hosts.test()
    assert shown["failed"]
    assert "repo1-host" in shown["msg"]
