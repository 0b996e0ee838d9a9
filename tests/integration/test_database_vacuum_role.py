"""The activity database_vacuum as Ansible carries it out: the playbook, the role's variables, and the ledger."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.wellkept.maintenance.plugins.modules.postgresql_vacuum import OPTIONS
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger
from support.modules import ROOT
from support.postgresql import postgres_server
from support.vacuum import VacuumSite

PREFIX = "database_vacuum_"


class Site:
    """One host of the group databases, and a ledger."""

    def __init__(self, database: VacuumSite, directory: Path) -> None:
        self.database = database
        self.directory = directory
        self.ledger = Ledger(f"sqlite:///{directory / 'ledger.db'}")

    def play(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        facts = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "ansible_remote_tmp": str(self.directory / "tmp"),
            "maintenance_ledger": str(self.directory / "ledger.db"),
            "maintenance_report_dir": str(self.directory / "reports"),
            "maintenance_state_dir": str(self.directory / "state"),
            **{f"database_{name}": value for name, value in self.database.server.login().items()},
            f"{PREFIX}databases": [self.database.name],
            **variables,
        }
        inventory = {"all": {"children": {"databases": {"hosts": {"db1": {}}}}, "vars": facts}}
        path = self.directory / "inventory.yml"
        path.write_text(yaml.safe_dump(inventory))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "WELLKEPT_"))}
        return subprocess.run(
            ["ansible-playbook", "-i", str(path), "playbooks/activities/database_vacuum.yml", *arguments],
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
        run = self.ledger.latest_run()
        assert run
        (document,) = self.ledger.results_of(run["id"])
        assert document["subject"] == "db1/database_vacuum"
        data: dict[str, Any] = document["data"]
        return data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with postgres_server({"autovacuum": "off"}) as server:
        directory = tmp_path_factory.mktemp("role")
        database = VacuumSite(server, directory / "state")
        database.fill()
        yield Site(database, directory)


def test_the_playbook_vacuums_and_records_it_and_the_next_run_changes_nothing(site: Site) -> None:
    foreseen = site.play("--check")
    assert foreseen.returncode == 0, foreseen.stdout + foreseen.stderr
    assert site.database.dirty("orders") > 0
    done = site.play()
    assert done.returncode == 0, done.stdout + done.stderr
    first = site.result()
    assert first["changed"]
    assert first["outcome"] == "passed"
    names = [change["name"] for change in first["changes"]]
    assert f"public.orders in the database {site.database.name}" in names
    assert site.database.dirty("orders") == 0
    assert site.play().returncode == 0
    again = site.result()
    assert not again["changed"]
    assert again["outcome"] == "passed"
    assert again["metrics"]["wal_bytes"]["value"] == 0


def test_a_variable_that_makes_no_sense_is_refused_before_anything_is_done(site: Site) -> None:
    done = site.play(database_vacuum_vacuum_cost_limit="much")
    assert done.returncode != 0
    assert "much" in done.stdout


def test_the_role_has_every_option_of_the_module_with_its_default() -> None:
    role = ROOT / "roles/database_vacuum"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    task = yaml.safe_load((role / "tasks/main.yml").read_text())[0]["wellkept.maintenance.postgresql_vacuum"]
    assert set(task) == set(OPTIONS)
    assert set(defaults) == set(specs) == {f"{PREFIX}{name}" for name in OPTIONS}
    for name, option in OPTIONS.items():
        assert task[name] == f"{{{{ {PREFIX}{name} }}}}"
        spec = specs[f"{PREFIX}{name}"]
        # A run by the plan has an end, unless the operator says otherwise.
        default = "1h" if name == "time_budget" else option["default"]
        assert (spec["type"], spec["default"]) == (option["type"], default), name
        if not name.startswith("login_"):
            assert defaults[f"{PREFIX}{name}"] == default, name
