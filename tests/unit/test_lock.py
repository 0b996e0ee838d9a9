"""A lock names its holder, and frees itself when the holder dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import exclusive, is_free
from support.modules import COLLECTIONS

HOLD = """
import sys, time
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import exclusive
with exclusive(sys.argv[1], {"run": "r1"}, "backup"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_holds_it_since_when_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "locks" / "backup.lock")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
    )
    assert holder.stdout
    holder.stdout.readline()
    with (
        pytest.raises(MaintenanceError, match=f"held by run r1, pid {holder.pid}, since 20"),
        exclusive(path, {}, "backup"),
    ):
        pass
    assert not is_free(path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    assert is_free(path)
    with exclusive(path, {}, "backup"):
        assert not is_free(path)


def test_a_link_in_the_locks_place_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "locks").mkdir()
    (tmp_path / "locks/backup.lock").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"), exclusive(str(tmp_path / "locks/backup.lock"), {}, "backup"):
        pass
    assert target.read_text() == "precious"
