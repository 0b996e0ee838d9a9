"""The benchmark of the database activities works: on tiny data, on the embedded server, with every figure promised."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.modules import ROOT
from support.postgresql import embedded_bin_dir

QUICK = [
    "--runs",
    "1",
    "--scale",
    "0.01",
    "--rate",
    "60",
    "--warm-up",
    "0.3",
    "--hold",
    "1",
    "--repetitions",
    "1",
    "--warm",
]


@pytest.fixture(scope="module")
def shown() -> str:
    command = [sys.executable, str(ROOT / "bench/database.py"), *QUICK, "--bin-dir", str(embedded_bin_dir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def row(shown: str, way: str, section: int) -> list[str]:
    """The cells of *way* in one of the tables: of first runs, of repeated ones, of stalls."""
    tables = [part for part in shown.split("\n\n") if part.startswith("| ")]
    [line] = [line for line in tables[section].splitlines() if line.startswith(f"| {way} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_every_way_is_measured(shown: str) -> None:
    for way in ("vacuumdb", "postgresql_vacuum", "reindexdb", "postgresql_reindex"):
        seconds, wal, *others = map(float, row(shown, way, 0)[:7])
        assert seconds > 0
        assert wal > 0
        assert min(others) >= 0


def test_the_modules_leave_the_data_as_healthy_as_the_others_do(shown: str) -> None:
    assert row(shown, "postgresql_vacuum", 0)[-1] == "sound"
    assert row(shown, "postgresql_reindex", 0)[-1] == "sound"


def test_a_repeated_run_writes_no_wal(shown: str) -> None:
    for way in ("postgresql_vacuum", "postgresql_reindex"):
        # The server itself notes now and then, in some ten bytes, which transactions run.
        assert float(row(shown, way, 1)[2]) < 500
        assert row(shown, way, 1)[-1] == "false"


def test_the_worst_stall_is_measured(shown: str) -> None:
    for way in ("reindexdb", "postgresql_reindex"):
        assert min(map(float, row(shown, way, 2)[:4])) >= 0
