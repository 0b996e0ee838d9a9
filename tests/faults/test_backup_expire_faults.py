"""Backups that expire while something goes wrong: no chain is cut, and the next run ends what was begun."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import EXPIRED
from support.mirrors import SmallSite, contents

# What changes a file system, as the modules call it.
STEPS = ("rename", "replace", "unlink", "rmdir", "link", "mkdir", "open")
FEW = 2


def killed_at_step(number: int, work: Callable[[], object]) -> bool:
    """Do *work* in a child that is killed just before its step *number*; whether it came so far."""
    child = os.fork()
    if not child:
        try:
            steps = itertools.count(1)
            for name in STEPS:
                setattr(os, name, _counted(getattr(os, name), steps, number))
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


def _counted(genuine: Callable[..., Any], steps: itertools.count[int], number: int) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if next(steps) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return genuine(*arguments, **options)

    return call


def site_with_chains(directory: Path) -> tuple[SmallSite, str, list[str]]:
    """A repository; the label of the backup in it that is to expire, and the others, of which two are a chain."""
    directory.mkdir()
    site = SmallSite(directory)
    expiring = site.add(age=9000, files=FEW)
    site.repository.write_proof(site.repository.backup(expiring), {})
    full = site.add(age=7200, files=FEW)
    return site, expiring, [full, site.add(age=3600, parent=full, files=FEW)]


def files_of(site: SmallSite, label: str) -> dict[str, bytes]:
    return contents(site.root / "main" / label)


def test_killed_at_every_step_what_expires_is_whole_or_no_backup_and_the_next_run_removes_it(tmp_path: Path) -> None:
    for number in itertools.count(1):
        directory = tmp_path / str(number)
        site, expiring, others = site_with_chains(directory)
        whole = files_of(site, expiring)
        killed = killed_at_step(number, lambda: site.repository.expire(expiring))  # noqa: B023
        labels = [backup.label for backup in site.repository.backups()]
        assert [label for label in labels if label != expiring] == others
        assert site.repository.damaged() == []
        if expiring in labels:
            assert files_of(site, expiring) == whole, f"it is not whole at step {number}"
            site.repository.expire(expiring)
        for leftover in site.repository.leftovers():
            assert leftover == EXPIRED + expiring
            site.repository.remove_leftover(leftover)
        assert not [path for path in (site.root / "main").iterdir() if expiring in path.name]
        shutil.rmtree(directory)
        if not killed:
            assert number > 10, "it consists of more steps"
            return


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_on_a_full_disk_backups_expire_and_give_room(tmp_path: Path) -> None:
    disk = tmp_path / "small"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(disk)], check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        site, expiring, others = site_with_chains(disk / "site")
        with pytest.raises(OSError, match="No space left"), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        with pytest.raises(OSError, match="No space left"):
            (disk / "more").write_bytes(bytes(4096))
        free = os.statvfs(disk).f_bavail
        assert site.repository.expire(expiring) > 0
        assert os.statvfs(disk).f_bavail > free
        assert [backup.label for backup in site.repository.backups()] == others
        assert site.repository.leftovers() == []
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
