"""Run a module of the collection as a process of its own, as Ansible does on a host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / "collections"

_STARTER = """
import json, runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.wellkept.maintenance.plugins.modules." + sys.argv[1], run_name="__main__")
"""


def module_process(name: str, options: dict[str, Any], *, check: bool = False, **popen: Any) -> subprocess.Popen[str]:
    """Start module *name* with *options* and return the process, so that a test can kill it; stdin is sent already."""
    internal = {
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        "_ansible_remote_tmp": "/tmp",
        "_ansible_version": "2.19",
    }
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS), **popen.pop("env", {})}
    process = subprocess.Popen(
        [sys.executable, "-c", _STARTER, name],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **popen,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **internal}}))
    process.stdin.close()
    process.stdin = None
    return process


def run_module(
    name: str, options: dict[str, Any], *, check: bool = False, timeout: float = 300, **popen: Any
) -> dict[str, Any]:
    """Run module *name* to its end and return the JSON that it printed; ``failed`` is always present."""
    process = module_process(name, options, check=check, **popen)
    output, errors = process.communicate(timeout=timeout)
    try:
        shown: dict[str, Any] = json.loads(output)
    except ValueError:
        raise AssertionError(f"module {name} printed no JSON: {output!r} {errors}") from None
    shown.setdefault("failed", False)
    return shown


def checks_by_name(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The checks of a module's answer by their names."""
    return {check["name"]: check for check in shown["checks"]}
