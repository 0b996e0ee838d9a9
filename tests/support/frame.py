"""A throwaway copy of the collection in which sample activities, whose behaviour a test chooses, replace the real ones.

So the frame is tested for every way in which an activity can end, and a new activity is shown to need a role, a
playbook and a module, and nothing else.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger

from .modules import ROOT

SAMPLES = Path(__file__).parent / "sample_activities"
TEMPLATE = "health_check"  # whose playbook a sample's is made from


@dataclass
class Frame:
    """The copy, an inventory of local hosts, and a ledger of its own."""

    directory: Path
    activities: dict[str, dict[str, Any]]  # name → default plan entry
    hosts: dict[str, dict[str, Any]]  # name → variables
    variables: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkout = self.directory / "checkout"
        self.journal = self.directory / "journal"
        self.ledger_path = self.directory / "ledger" / "ledger.db"
        self._copy()
        self.write_inventory()

    @property
    def ledger(self) -> Ledger:
        return Ledger(f"sqlite:///{self.ledger_path}")

    def _copy(self) -> None:
        for name in ("plugins", "schemas", "meta", "playbooks", "ansible.cfg", "galaxy.yml"):
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, self.checkout / name)
        shutil.copytree(ROOT / "roles/activity", self.checkout / "roles/activity")
        link = self.checkout / "collections/ansible_collections/wellkept/maintenance"
        link.parent.mkdir(parents=True)
        link.symlink_to("../../..")
        shutil.copy(SAMPLES / "modules/sample.py", self.checkout / "plugins/modules/sample.py")
        self._grant_defaults_to_samples()
        playbooks = self.checkout / "playbooks/activities"
        template = (playbooks / f"{TEMPLATE}.yml").read_text()
        for activity, entry in self.activities.items():
            (playbooks / f"{activity}.yml").write_text(template.replace(TEMPLATE, activity))
            self._write_role(activity, entry)
        imports = [{"ansible.builtin.import_playbook": f"{activity}.yml"} for activity in self.activities]
        (playbooks / "all.yml").write_text(yaml.safe_dump(imports))

    def _grant_defaults_to_samples(self) -> None:
        runtime = self.checkout / "meta/runtime.yml"
        document = yaml.safe_load(runtime.read_text())
        document["action_groups"]["activities"] = ["sample"]
        runtime.write_text(yaml.safe_dump(document))

    def _write_role(self, activity: str, entry: dict[str, Any]) -> None:
        role = self.checkout / "roles" / activity
        for part in ("tasks", "meta"):
            (role / part).mkdir(parents=True)
        (role / "meta/plan.yml").write_text(yaml.safe_dump(entry))
        task = {
            "name": f"Carry out {activity}",
            "wellkept.maintenance.sample": {
                "behaviour": f"{{{{ {activity}_behaviour | default('pass') }}}}",
                "journal": str(self.journal),
                "name": f"{activity} on {{{{ inventory_hostname }}}}",
            },
        }
        (role / "tasks/main.yml").write_text(yaml.safe_dump([task]))

    def write_inventory(self) -> None:
        common = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "maintenance_ledger": str(self.ledger_path),
            "maintenance_report_dir": str(self.directory / "reports"),
            "maintenance_state_dir": f"{self.directory}/state/{{{{ inventory_hostname }}}}",
        }
        document = {"all": {"vars": {**common, **self.variables}, "hosts": self.hosts}}
        (self.directory / "inventory.yml").write_text(yaml.safe_dump(document))

    def command(self, playbook: str, *options: str) -> list[str]:
        program = Path(sys.executable).with_name("ansible-playbook")
        return [str(program), "-i", str(self.directory / "inventory.yml"), f"playbooks/{playbook}.yml", *options]

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "WELLKEPT_"))}
        local = {
            "ANSIBLE_HOME": str(self.directory / "ansible"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
        }
        return {**kept, **local, **(extra or {})}

    def play(self, playbook: str, *options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a playbook of the copy to its end."""
        return subprocess.run(
            self.command(playbook, *options),
            cwd=self.checkout,
            env=self.environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def outcomes(self, run_id: str | None = None) -> dict[tuple[str, str], str]:
        """(host, activity) → outcome of a run, by default the last one that was closed."""
        if run_id is None:
            latest = self.ledger.latest_run()
            assert latest, "no run was closed"
            run_id = latest["id"]
        documents = [document["data"] for document in self.ledger.results_of(run_id)]
        return {(data["host"], data["activity"]): data["outcome"] for data in documents}

    def executions(self) -> list[str]:
        """What the samples wrote: one ``<activity> on <host>`` a module execution."""
        if not self.journal.exists():
            return []
        return [line.rpartition(" ")[0] for line in self.journal.read_text().splitlines()]
