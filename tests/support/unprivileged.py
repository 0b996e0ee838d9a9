"""Run a module without the rights of root, also where an ordinary user could not walk to the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .modules import COLLECTIONS

NOBODY = 65534

# Everything is imported while files can still be read; then the rights go for good.
_STARTER = f"""
import importlib, os, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
module = importlib.import_module("ansible_collections.wellkept.maintenance.plugins.modules." + sys.argv[1])
if os.geteuid() == 0:
    os.chdir("/")
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
module.main()
"""


def run_module_without_root(name: str, options: dict[str, Any], *, timeout: float = 300) -> dict[str, Any]:
    """Like ``run_module``, as user nobody if we are root; nobody must be able to walk to all that *options* name."""
    internal = {"_ansible_check_mode": False, "_ansible_remote_tmp": "/tmp", "_ansible_version": "2.19"}
    done = subprocess.run(
        [sys.executable, "-c", _STARTER, name],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**options, **internal}}),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(COLLECTIONS)},
        timeout=timeout,
        check=False,
    )
    try:
        shown: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise AssertionError(f"module {name} printed no JSON: {done.stdout!r} {done.stderr}") from None
    shown.setdefault("failed", False)
    return shown


def give_to_nobody(*paths: Path) -> None:
    """Make *paths* belong to the user that ``run_module_without_root`` runs as."""
    if os.geteuid() == 0:
        for path in paths:
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
