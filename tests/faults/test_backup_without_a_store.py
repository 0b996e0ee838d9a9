"""A store that cannot be had costs the databases nothing, and what lacks it is never taken for whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import Order
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.point_content import PointContent
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Backup, Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.copied_files import CopiedFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.store import Making, Saved
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import UnavailableError
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.proof import check_whole
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from integration.test_backup_restic import Platform
from support.modules import ROOT, checks_by_name
from support.postgresql import postgres_server
from support.restic import POINT, ResticSite
from support.ssh import SshServer, ssh_server
from support.unprivileged import NOBODY, give_to_nobody

NOTHING_IS_KEPT_LONG = {"keep_full": 1, "keep_within": "0", "full_every": "0"}


@pytest.fixture(scope="module")
def far() -> Iterator[SshServer]:
    with ssh_server(config=["ForceCommand internal-sftp"]) as server:
        yield server


@pytest.fixture(scope="module")
def platform(far: SshServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    ssh = {"port": far.port, "key_file": str(far.key_file), "known_hosts": str(far.known_hosts)}
    location = f"sftp:{far.user}@{far.host}:{far.path}/restic"
    with postgres_server() as server:
        server.sql("CREATE TABLE student AS SELECT g AS id FROM generate_series(1, 1000) g")
        found = Platform(ResticSite(tmp_path_factory.mktemp("platform"), location, ssh), server.login())
        found.common["restic_repository"] = location
        found.common["restic_ssh"] = ssh  # type: ignore[assignment]
        yield found


def status(shown: dict[str, Any], name: str) -> str:
    return str(checks_by_name(shown)[name]["status"])


def test_while_the_host_of_the_files_is_down_databases_are_backed_up_and_no_files_are_lost(
    platform: Platform, far: SshServer
) -> None:
    repository = platform.site.repository
    shown = platform.back_up()
    assert not shown["failed"], shown["msg"]
    (whole,) = repository.backups()
    assert whole.lacks == {}

    far.stop()
    # Check mode says it, and that the databases would be backed up.
    shown = platform.back_up(check=True)
    assert status(shown, "store restic") == "failed"
    assert {change["kind"] for change in shown["changes"]} == {"backup"}

    # It fails, keeps the databases, and removes no backup that has the files.
    shown = platform.back_up(**NOTHING_IS_KEPT_LONG)
    assert shown["failed"]
    assert "store restic" in shown["msg"]
    assert str(far.port) in shown["msg"] or far.host in shown["msg"]
    assert repository.backups()[0].label == whole.label
    lacking = repository.backups()[-1]
    assert lacking.absent == ("restic",)
    assert platform.site.location in lacking.lacks["restic"] or far.host in lacking.lacks["restic"]

    # So say verification and restore test; the databases are restored, but there is no proof.
    shown = platform.verify()
    assert shown["failed"]
    assert status(shown, "stores in the newest backup") == "failed"
    assert f"bytes of {lacking.label}" not in checks_by_name(shown), "what is there is as it was written"
    shown = platform.restore_test()
    assert shown["failed"]
    assert status(shown, "stores in the backup") == "failed"
    assert status(shown, "content of the restored database postgres") == "passed"
    assert repository.proof(lacking) is None

    # Nothing new is made while nothing has changed, and it still fails.
    shown = platform.back_up(interval="20h")
    assert shown["failed"] and not shown["changed"]
    assert status(shown, "store restic") == "failed"

    # Back again, the files are saved at once, though the newest backup is young.
    far.start()
    shown = platform.back_up(interval="20h", **NOTHING_IS_KEPT_LONG)
    assert not shown["failed"], shown["msg"]
    newest = repository.backups()[-1]
    assert newest.lacks == {}
    assert not platform.verify()["failed"]
    shown = platform.restore_test()
    assert not shown["failed"], shown["msg"]
    assert repository.proof(newest) is not None


def test_a_lost_key_costs_the_databases_nothing(platform: Platform, tmp_path: Path) -> None:
    before = len(platform.site.repository.backups())
    shown = platform.back_up(restic_key_file=str(tmp_path / "lost"))
    assert shown["failed"]
    assert "read the key of the restic repository" in checks_by_name(shown)["store restic"]["observed"]
    assert len(platform.site.repository.backups()) == before + 1


def test_options_that_make_no_sense_are_refused_as_ever(platform: Platform) -> None:
    before = [backup.label for backup in platform.site.repository.backups()]
    shown = platform.back_up(files=[str(platform.site.repository.root)])
    assert shown["failed"]
    assert "do not hold the repository itself" in shown["msg"]
    assert [backup.label for backup in platform.site.repository.backups()] == before


# All is imported while it can be read; then the rights go for good.
BY_NOBODY = f"""
import json, os, sys
from pathlib import Path
from support.restic import POINT, ResticSite
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
if os.geteuid() == 0:
    os.chdir("/")
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
part = Part()
backup = ResticSite(Path(sys.argv[1])).back_up(part)
print(json.dumps(part.checks))
"""


def test_files_that_may_not_be_read_are_named_and_the_backup_is_not_taken_for_whole() -> None:
    """As an ordinary user, with a file of somebody else's; restic leaves it out, and ends with 3."""
    directory = Path(tempfile.mkdtemp(prefix="wellkept-unreadable-"))
    try:
        site = ResticSite(directory)
        secret = site.uploads / "7.txt"
        secret.chmod(0)
        give_to_nobody(*(path for path in (directory, *directory.rglob("*")) if path != secret))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/collections"}
        command = [sys.executable, "-c", BY_NOBODY, str(directory)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        checks = {check["name"]: check for check in json.loads(done.stdout)}
        found = checks[f"files of {site.uploads}"]
        assert (found["status"], "1 unreadable: 7.txt" in found["observed"]) == ("failed", True), found
        os.chown(site.key, os.geteuid(), -1)
        # What could be read is there; but that is not all, and it is proven by no restore test.
        (backup,) = site.repository.backups()
        assert (backup.absent, "7.txt" in backup.lacks["restic"]) == ((), True)
        assert site.restore(backup)[0].problems == []
        part = Part()
        check_whole(backup, part)
        assert "7.txt" in part.failures()[0]["observed"]
    finally:
        shutil.rmtree(directory)


def test_what_a_store_could_not_save_stands_in_the_description_of_the_backup(tmp_path: Path) -> None:
    class PartlyUnreadable(CopiedFiles):
        def create(self, making: Making) -> Saved:
            return Saved({}, {}, [], "unreadable were 1 of /srv: a.txt")

    class Away(ResticFiles):
        def create(self, making: Making) -> Saved:
            os.mkdir(os.path.join(making.directory, self.name))
            raise UnavailableError("save the files", where="vault", expected="it", observed="gone", advice="Wait.")

    order = Order("full", "", datetime.now(UTC), stores=(PartlyUnreadable({}), Away({})), lacks={"redis": "down"})
    repository = Repository(str(tmp_path), "main")
    content = PointContent({}, order, bin_dir="", label="l", directory=str(tmp_path), repository=repository)
    content._save(Making("l", repository, str(tmp_path), POINT))
    metadata = content.metadata()
    assert metadata["lacks"] == {
        "redis": "down",
        "restic": "save the files (vault): gone",
        "files": "unreadable were 1 of /srv: a.txt",
    }
    assert Backup("l", str(tmp_path), metadata).absent == ("redis", "restic")
    assert list(tmp_path.iterdir()) == []
