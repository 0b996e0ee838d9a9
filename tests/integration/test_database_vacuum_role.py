"""The activity database_vacuum as Ansible carries it out: the playbook, the role's variables, and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.wellkept.maintenance.plugins.modules.postgresql_vacuum import OPTIONS
from support.modules import ROOT
from support.postgresql import postgres_server
from support.roles import ActivityOnHost
from support.vacuum import VacuumSite

PREFIX = "database_vacuum_"


class Site(ActivityOnHost):
    """The activity, and the database that it works in."""

    def __init__(self, database: VacuumSite, directory: Path) -> None:
        login = {f"database_{name}": value for name, value in database.server.login().items()}
        super().__init__("database_vacuum", directory, **login, **{f"{PREFIX}databases": [database.name]})
        self.database = database


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
