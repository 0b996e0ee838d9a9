"""The activity database_reindex as Ansible carries it out: the playbook, the role's variables, and the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.reindex.settings import REINDEX_OPTIONS
from support.modules import ROOT
from support.postgresql import postgres_server
from support.reindex import ReindexSite
from support.roles import ActivityOnHost

PREFIX = "database_reindex_"


class Site(ActivityOnHost):
    """The activity, and a server with one bloated index."""

    def __init__(self, reindex: ReindexSite, directory: Path) -> None:
        login = {f"database_{name}": value for name, value in reindex.server.login().items()}
        options = {"databases": ["shop"], "min_gain": "64KiB", "min_free_bytes": "1MiB", "retry_for": "0s"}
        super().__init__("database_reindex", directory, **login, **{f"{PREFIX}{n}": v for n, v in options.items()})
        self.reindex = reindex


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with postgres_server({"autovacuum": "off"}) as server:
        server.sql("CREATE DATABASE shop")
        directory = tmp_path_factory.mktemp("role")
        reindex = ReindexSite(server, directory / "state")
        reindex.make(
            """
            CREATE TABLE course (id int PRIMARY KEY, name text);
            INSERT INTO course SELECT g, md5(g::text) FROM generate_series(1, 20000) g;
            CREATE INDEX course_name ON course (name);
            DELETE FROM course WHERE id % 10 <> 0;
            VACUUM (ANALYZE) course
            """
        )
        yield Site(reindex, directory)


def test_the_playbook_rebuilds_and_records_it_and_the_next_run_changes_nothing(site: Site) -> None:
    done = site.play()
    assert done.returncode == 0, done.stdout + done.stderr
    first = site.result()
    assert first["changed"]
    assert first["outcome"] == "warned", "whether upserts go to the table of course_pkey is unknown"
    assert "shop.public.course_name" in [change["name"] for change in first["changes"]]
    assert site.play(database_reindex_unique_indexes="always").returncode == 0
    assert [change["name"] for change in site.result()["changes"]] == ["shop.public.course_pkey"]
    assert site.play().returncode == 0
    again = site.result()
    assert not again["changed"]
    assert again["outcome"] == "passed"


def test_a_variable_that_makes_no_sense_is_refused_before_anything_is_done(site: Site) -> None:
    done = site.play(database_reindex_unique_indexes="perhaps")
    assert done.returncode != 0
    assert "perhaps" in done.stdout


def test_the_role_has_every_option_of_the_module_with_its_default() -> None:
    role = ROOT / "roles/database_reindex"
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    task = yaml.safe_load((role / "tasks/main.yml").read_text())[0]["wellkept.maintenance.postgresql_reindex"]
    options = {**LOGIN_OPTIONS, **REINDEX_OPTIONS}
    assert set(task) == set(options)
    assert set(defaults) == set(specs) == {f"{PREFIX}{name}" for name in options}
    for name, option in options.items():
        assert task[name] == f"{{{{ {PREFIX}{name} }}}}"
        spec = specs[f"{PREFIX}{name}"]
        assert (spec["type"], spec["default"]) == (option["type"], option["default"]), name
        assert spec.get("choices") == option.get("choices"), name
        if name not in LOGIN_OPTIONS:
            assert defaults[f"{PREFIX}{name}"] == option["default"], name
