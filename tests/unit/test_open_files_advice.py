"""Who is told what when processes hide their open files: a root without the capability is not told to be root."""

from __future__ import annotations

import os

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.open_files import how_to_see_all


@pytest.mark.parametrize(("euid", "told"), [(1000, "become: true"), (0, "CAP_SYS_PTRACE")])
def test_the_advice_names_what_is_missing(monkeypatch: pytest.MonkeyPatch, euid: int, told: str) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: euid)
    assert told in how_to_see_all()
