"""A control node without the ledger's libraries still loads every plugin, and is told what to install."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.plugin_utils import open_ledger
from support.modules import ROOT

KINDS = ("action", "callback", "lookup")
PLUGINS = sorted(plugin for kind in KINDS for plugin in (ROOT / "plugins" / kind).glob("*.py"))


def test_no_plugin_loads_the_libraries_of_the_ledger() -> None:
    package = "ansible_collections.wellkept.maintenance.plugins"
    names = [f"{package}.{plugin.parent.name}.{plugin.stem}" for plugin in PLUGINS]
    assert len(names) >= 8
    code = (
        f"import importlib, sys\nfor name in {names}: importlib.import_module(name)\n"
        "assert not {'sqlalchemy', 'jsonschema'} & set(sys.modules), 'loaded too early'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "collections")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_missing_library_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_ledger, "_LIBRARIES", ("jsonschema", "no_such_library"))
    with pytest.raises(MaintenanceError) as caught:
        open_ledger.open_ledger("/nowhere/ledger.db")
    assert caught.value.observed == "no no_such_library"
    assert f"{sys.executable} -m pip install no_such_library" in caught.value.advice
