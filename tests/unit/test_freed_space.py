"""Space that removed files did not give back: held open by somebody is a warning, written by others is not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils import open_files
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage import freed_space


def checked(directory: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The check when a gibibyte was removed and nothing came back."""
    monkeypatch.setattr(freed_space, "_PATIENCE_SECONDS", 0)
    part = Part()
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        free = freed_space.free_bytes(descriptor)
        freed_space.account(
            part, "space", descriptor, removed_below=f"{directory}/", free_before=free, freed_by_sum=1 << 30
        )
    finally:
        os.close(descriptor)
    return part.checks[0]


def test_other_writers_are_no_reason_to_warn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = checked(tmp_path, monkeypatch)
    assert check["status"] == "passed"
    assert "others wrote meanwhile" in check["observed"]


def test_a_removed_file_that_a_process_holds_open_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    victim = tmp_path / "big"
    victim.write_text("x")
    child = os.fork()
    if child == 0:
        os.open(victim, os.O_RDONLY)
        os.write(write_end, b"1")
        signal.pause()
    try:
        os.read(read_end, 1)
        victim.unlink()
        check = checked(tmp_path, monkeypatch)
        assert check["status"] == "warned"
        assert f"pid {child}" in check["observed"]
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_our_own_open_files_and_those_of_init_are_not_looked_at() -> None:
    with Path(__file__).open():
        assert not any(file.pid in (1, os.getpid()) for file in open_files.open_files())
