"""The benchmarks of backups and restore tests work: on tiny data, on the embedded server, with every figure."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.modules import ROOT
from support.postgresql import embedded_bin_dir


def measured(script: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "bench" / script), *arguments, "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def row(shown: str, name: str) -> list[str]:
    """The cells beside *name*."""
    (line,) = [line for line in shown.splitlines() if line.startswith("|") and cells(line)[0] == name]
    return cells(line)[1:]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def backups() -> str:
    return measured("backup.py", "--rows", "20000", "--bin-dir", str(embedded_bin_dir()))


def test_every_way_to_back_up_is_measured(backups: str) -> None:
    for way in ("pg_basebackup", "backup, no dump", "backup, no dump, zstd", "backup, with dump", "nothing due"):
        seconds, speed, ratio, megabytes = row(backups, way)
        assert float(seconds) > 0
        assert float(speed) > 0
        assert float(ratio) > 0
        assert float(megabytes) > 1
    assert float(row(backups, "backup, no dump, zstd")[3]) < float(row(backups, "backup, no dump")[3])


def test_every_verification_is_measured(backups: str) -> None:
    for place in ("backup_verification", "backup_verification of zstd"):
        assert float(row(backups, f"{place}, first")[1]) > 1
        # Python's start is not in it, so that the unchanged repository costs next to nothing.
        assert float(row(backups, f"{place}, again")[4]) < 1
    assert float(row(backups, "pg_verifybackup")[0]) > 0


def test_every_restore_test_is_measured() -> None:
    shown = measured("restore_test.py", "--scale", "1")
    kinds = ("copy and start alone, nothing synced", "copy and start alone, fsync on",
             "fingerprint queries alone", "restore test, content alone", "its own checks",
             "unpack (zstd) and start alone", "restore test of zstd, content alone",
             "restore test with pg_amcheck and dumps")  # fmt: skip
    for kind in kinds:
        assert min(map(float, row(shown, kind))) > 0
    ratio = "its own checks: seconds, against the fingerprint queries alone"
    assert float(row(shown, ratio)[0]) > 0
