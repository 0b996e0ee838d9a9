"""Activities that tests carry out on the platform by hand, and what its database says."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from conftest import FLEET, read_runs

PROJECT = Path(__file__).resolve().parents[3]


def play(activity, *arguments):
    """Carry out *activity*: its exit status, and the results by (host, activity)."""
    command = ["ansible-playbook", f"playbooks/activities/{activity}.yml", *arguments]
    for inventory in (PROJECT / "molecule/platform/inventory", FLEET / "inventory"):
        command += ["--inventory", str(inventory)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, read_runs()[-1].results


def check_statuses(activity, host, *arguments):
    """Carry out *activity* and return the checks that did not pass on *host*: {name: (status, observed)}."""
    _status, results = play(activity, *arguments)
    checks = results[host, activity]["checks"]
    return {check["name"]: (check["status"], check["observed"]) for check in checks if check["status"] != "passed"}


def psql(host, statement, database="learning"):
    return host.check_output(
        "psql --no-psqlrc --tuples-only --no-align --host /run/postgresql --username maintenance %s --command %s",
        database,
        statement,
    )
