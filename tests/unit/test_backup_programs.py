"""What an engine's programs have in common: none outlives the module that started it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.core import CoreEngine
from ansible_collections.wellkept.maintenance.plugins.module_utils.processes import find_program
from support.waiting import wait_until

pytestmark = pytest.mark.skipif(not find_program("setpriv"), reason="setpriv (util-linux) is not installed")


def test_what_lays_down_a_backup_dies_with_the_module_that_asked_for_it(tmp_path: Path) -> None:
    """A copy of some hundred gigabytes that went on after its module was killed would fill the next run's disk."""
    noted = tmp_path / "pid"
    slow = tmp_path / "pg_combinebackup"
    slow.write_text(f"#!/bin/sh\necho $$ >{noted}.new; mv {noted}.new {noted}\nexec sleep 120\n")
    slow.chmod(0o755)
    chain: dict[str, Any] = {
        "full": SimpleNamespace(path=lambda part: "full", chain=["full"], metadata={}),
        "incr": SimpleNamespace(path=lambda part: "incr", chain=["full", "incr"], metadata={}),
    }
    engine = CoreEngine(cast("Any", SimpleNamespace(backup=chain.__getitem__)), str(tmp_path))
    module = os.fork()
    if module == 0:
        engine.restore("incr", str(tmp_path / "restored"))
        os._exit(0)
    wait_until(noted.exists)
    program = int(noted.read_text())
    os.kill(module, signal.SIGKILL)
    os.waitpid(module, 0)
    wait_until(lambda: not alive(program))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
