"""Each check that ``make test-checks`` switches off is where its table says, and so are the tests that must notice."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from support.modules import ROOT


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return list(importlib.import_module("checks").every().values())


def test_every_check_can_be_switched_off(switches: list[Any]) -> None:
    assert len(switches) > 200
    for switch in switches:
        source = switch.path().read_text()
        assert switch.applied(source) != source, switch.name


def test_every_check_names_tests_that_there_are(switches: list[Any]) -> None:
    for switch in switches:
        assert switch.tests
        for test in switch.tests:
            file, _colons, name = test.partition("::")
            function = re.compile(rf"^def {re.escape(name.partition('[')[0])}\b" if name else "", re.MULTILINE)
            assert function.search(Path(ROOT, "tests", file).read_text()), test


def test_a_check_that_is_not_where_it_was_is_told(switches: list[Any]) -> None:
    with pytest.raises(ValueError, match="stands 0 times"):
        switches[0]._replace(what="a condition that nobody wrote").applied("")
    with pytest.raises(ValueError, match="0 functions"):
        switches[0]._replace(what="nowhere").applied("")
