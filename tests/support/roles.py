"""Carry out one activity of this checkout by its playbook, on one local host, as an operator would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger

from .modules import ROOT

HOST = "db1"


class ActivityOnHost:
    """*activity* on the host db1 of the group databases, with *variables*, and a ledger of its own in *directory*."""

    def __init__(self, activity: str, directory: Path, **variables: Any) -> None:
        self.activity = activity
        self.directory = directory
        self.variables = variables
        self.ledger = Ledger(f"sqlite:///{directory / 'ledger.db'}")

    def play(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run the playbook to its end, with *variables* beside those that are always set."""
        facts = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.directory / "tmp"),
            "maintenance_ledger": str(self.directory / "ledger.db"),
            "maintenance_report_dir": str(self.directory / "reports"),
            "maintenance_state_dir": str(self.directory / "state"),
            **self.variables,
            **variables,
        }
        inventory = {"all": {"children": {"databases": {"hosts": {HOST: {}}}}, "vars": facts}}
        path = self.directory / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "WELLKEPT_"))}
        return subprocess.run(
            ["ansible-playbook", "-i", str(path), f"playbooks/activities/{self.activity}.yml", *arguments],
            cwd=ROOT,
            env={
                **kept,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_HOME": str(self.directory / "ansible"),
                "LC_ALL": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def result(self) -> dict[str, Any]:
        """What the last run recorded."""
        run = self.ledger.latest_run()
        assert run
        (document,) = self.ledger.results_of(run["id"])
        assert document["subject"] == f"{HOST}/{self.activity}"
        data: dict[str, Any] = document["data"]
        return data
