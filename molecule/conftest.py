"""What the tests of every scenario share: the hosts as an outsider sees them, and what the ledger has recorded."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sqlite3
import subprocess
from dataclasses import dataclass
from pathlib import Path

import paramiko
import pytest
import testinfra.host
from testinfra.backend.paramiko import ParamikoBackend

PROJECT = Path(__file__).resolve().parents[1]
FLEET = PROJECT / ".cache" / "molecule" / os.environ["MOLECULE_SCENARIO_NAME"]


class StrictParamikoBackend(ParamikoBackend):
    """Testinfra's own backend lets in hosts that it does not know; this one talks to those of known_hosts only."""

    @functools.cached_property
    def client(self) -> paramiko.SSHClient:
        settings = paramiko.SSHConfig.from_path(self.ssh_config).lookup(self.host.name)
        client = paramiko.SSHClient()
        client.load_host_keys(settings["userknownhostsfile"].strip('"'))
        client.set_missing_host_key_policy(paramiko.RejectPolicy())
        client.connect(
            settings["hostname"],
            username=settings["user"],
            key_filename=settings["identityfile"][0].strip('"'),
            allow_agent=False,
            look_for_keys=False,
            timeout=self.timeout,
        )
        return client


@functools.cache
def connect(name: str) -> testinfra.host.Host:
    """The host *name* with root's rights, over one SSH session."""
    return testinfra.host.Host(StrictParamikoBackend(name, ssh_config=str(FLEET / "ssh_config"), sudo=True))


def host_names() -> list[str]:
    return sorted(json.loads((FLEET / "inventory" / "addresses.yml").read_text(encoding="utf-8"))["all"]["hosts"])


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "host" in metafunc.fixturenames:
        metafunc.parametrize("host", host_names(), indirect=True, scope="session")


@pytest.fixture(scope="session")
def host(request: pytest.FixtureRequest) -> testinfra.host.Host:
    return connect(request.param)


@dataclass
class Run:
    """One run, with its results by (host, activity)."""

    cadence: str
    verdict: str
    check_mode: bool
    results: dict[tuple[str, str], dict]

    @property
    def changed(self) -> list[tuple[str, str]]:
        return sorted(key for key, result in self.results.items() if result["changed"])

    def not_passed(self) -> dict[tuple[str, str], list[dict]]:
        """The checks that did not pass, of the results that did not."""
        return {
            key: [check for check in result["checks"] if check["status"] != "passed"] or [result]
            for key, result in self.results.items()
            if result["outcome"] != "passed"
        }


@pytest.fixture(scope="session")
def runs() -> list[Run]:
    """The runs of this scenario, without those that tests have made by hand."""
    return [run for run in read_runs() if run.cadence == "daily"]


def read_runs() -> list[Run]:
    """The runs in their order, as the ledger has them; read without any code of the collection."""
    # Closed at once: reading the file in another way while it is open would free SQLite's locks on it.
    with contextlib.closing(sqlite3.connect(f"file:{FLEET}/artifacts/ledger.db?mode=ro", uri=True)) as ledger:
        found = ledger.execute(
            "SELECT id, document, verdict FROM runs LEFT JOIN run_endings ON run_id = id ORDER BY started"
        ).fetchall()
        return [_run(ledger, key, json.loads(document), verdict) for key, document, verdict in found]


def _run(ledger: sqlite3.Connection, key: str, document: dict, verdict: str) -> Run:
    return Run(document["cadence"], verdict, document["check_mode"], _results(ledger, key))


def _results(ledger: sqlite3.Connection, run: str) -> dict[tuple[str, str], dict]:
    rows = ledger.execute("SELECT host, activity, document FROM results WHERE run_id = ?", (run,))
    return {(host, activity): json.loads(document)["data"] for host, activity, document in rows}


@pytest.fixture(scope="session")
def artifacts() -> Path:
    return FLEET / "artifacts"


def play(activity: str, *arguments: str) -> tuple[int, dict[tuple[str, str], dict]]:
    """Carry out *activity* on the hosts of this scenario: its exit status, and the results by (host, activity)."""
    command = ["ansible-playbook", f"playbooks/activities/{activity}.yml", *arguments]
    for inventory in (PROJECT / "molecule" / FLEET.name / "inventory", FLEET / "inventory"):
        command += ["--inventory", str(inventory)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, read_runs()[-1].results


def check_statuses(activity: str, host: str, *arguments: str) -> dict[str, tuple[str, str]]:
    """Carry out *activity* and return the checks that did not pass on *host*: {name: (status, observed)}."""
    _status, results = play(activity, *arguments)
    checks = results[host, activity]["checks"]
    return {check["name"]: (check["status"], check["observed"]) for check in checks if check["status"] != "passed"}


def psql(host: testinfra.host.Host, statement: str, database: str = "learning") -> str:
    """What *statement* gives on the server of *host*, as rows with | between their columns."""
    return host.check_output(
        "psql --no-psqlrc --tuples-only --no-align --host /run/postgresql --username maintenance %s --command %s",
        database,
        statement,
    )
