"""What rebuilds of indexes do to a real host's PostgreSQL when they are killed, or when somebody is in their way."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import ansible
import pytest
from conftest import FLEET, connect

PROJECT = Path(__file__).resolve().parents[3]
PLACE = "/opt/trouble"
# A handful in the ordinary run; `make molecule-long` has as many as it takes to meet every phase often.
ROUNDS = int(os.environ.get("HOSTS_KILLS", "3"))
HOLD = int(os.environ.get("HOSTS_SNAPSHOT_SECONDS", "8"))
MAX_BLOCK = 1.0


@pytest.fixture(scope="module")
def program():
    """What runs a script on db1 that has the collection and Ansible's module_utils in its path; returns its answer."""
    send(PROJECT / "molecule/platform/files/trouble", ".", PLACE)
    its_own = "ansible/__init__.py ansible/_vendor ansible/release.py ansible/module_utils"
    send(Path(ansible.__file__).parents[1], its_own, PLACE)
    here = "ansible_collections/wellkept/maintenance/plugins"
    send(PROJECT / "collections", f"{here}/modules {here}/module_utils", PLACE)

    def run(script, *arguments):
        words = " ".join(shlex.quote(str(each)) for each in arguments)
        done = connect("db1").run(f"cd {PLACE} && PYTHONPATH={PLACE} python3 {script} {words}")
        assert done.rc == 0, done.stderr
        return json.loads(done.stdout)

    yield run
    # The server has complained each time that it was killed: the health checks that follow are not about that.
    connect("db1").check_output("rm -r %s && truncate --size 0 /var/log/postgresql/*.log", PLACE)


def send(source, names, target):
    """Copy *names* in the local directory *source* to db1, following links."""
    pack = ["tar", "--create", "--gzip", "--dereference", "--exclude=__pycache__", "--directory", str(source)]
    unpack = f"sudo mkdir -p {target} && sudo tar --extract --gzip --no-same-owner --directory {target}"
    with subprocess.Popen([*pack, *names.split()], stdout=subprocess.PIPE) as packing:
        subprocess.run(["ssh", "-F", str(FLEET / "ssh_config"), "db1", unpack], stdin=packing.stdout, check=True)
    assert packing.returncode == 0


@pytest.mark.parametrize("victim", ["module", "backend", "postmaster"])
def test_a_killed_rebuild_loses_nothing_and_the_next_run_puts_all_in_order(program, victim):
    report = program("kills.py", victim, ROUNDS, 20261121)
    print(victim, json.dumps(report))
    assert report["wrong"] == []
    assert report["rounds"] == ROUNDS
    assert sum(count for phase, count in report["phases"].items() if phase != "it had ended") > 0


def test_nobody_waits_long_for_a_rebuild_that_waits_for_an_old_snapshot(program):
    report = program("stall.py", HOLD)
    print(json.dumps(report))
    assert report["met"] > 0
    bound = MAX_BLOCK + 0.5 + report["longest unconcerned"]
    assert report["longest alter"] <= bound
    assert report["longest select"] <= bound
    assert report["left"] == []
    assert not report["failed"], report["msg"]


def test_a_role_that_owns_nothing_maintains_with_pg_maintain_and_otherwise_says_what_it_lacks(program):
    report = program("rights.py")
    print(json.dumps(report["said"]))
    before, after = report["before"], report["after"]
    assert before["vacuumed"] is False
    if report["version"] >= 170000:
        assert not any(said["failed"] for said in report["said"].values())
        assert all(said["changed"] for said in report["said"].values())
        assert after["bytes"] < before["bytes"] / 2
        assert after["vacuumed"] is True
    else:
        assert after == before
        assert not any(said["changed"] for said in report["said"].values())
        for said in report["said"].values():
            troubles = [check for check in said["checks"] if check["status"] != "passed"]
            assert any("superuser" in check["advice"] + check["observed"] for check in troubles), troubles


def test_the_standby_still_follows_and_the_database_is_gone_again():
    seen = connect("db1").check_output(
        "psql --no-psqlrc --tuples-only --no-align --host /run/postgresql --username maintenance postgres --command %s",
        "SELECT (SELECT count(*) FROM pg_stat_replication),"
        " (SELECT count(*) FROM pg_database WHERE datname = 'trouble')",
    )
    assert seen == "1|0"
