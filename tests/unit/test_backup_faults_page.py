"""The page of faults that are found names tests that there are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.modules import ROOT

PAGE = ROOT / "docs" / "backup-faults.md"
# Below tests/, or of a scenario on hosts.
NAMED = re.compile(r"`((?:molecule/\w+/tests|[a-z]+)/test_\w+\.py)::(test_\w+)`")


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_each_fault_names_a_test_that_there_is() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| fault")]
    assert len(rows) >= 25
    for row in rows:
        named = NAMED.findall(row)
        assert named, row
        for file, name in named:
            path = ROOT / file if file.startswith("molecule/") else ROOT / "tests" / file
            assert name in functions_of(path), f"{file}::{name}"
