"""Runs other than from a shell in the checkout: by ansible-runner, with a ledger in PostgreSQL, in batches."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import ansible_runner
import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.ledger import Ledger
from support.frame import Frame
from support.postgresql import PostgresServer

DAILY = {"cadence": "daily", "hosts": "all"}


@pytest.fixture
def frame(tmp_path: Path) -> Frame:
    return Frame(tmp_path, {"sample_first": DAILY, "sample_second": DAILY}, {"h1": {}, "h2": {}})


def test_a_scheduled_ansible_runner_job_records_its_run_and_its_exit_status(
    frame: Frame, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("ANSIBLE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    private = frame.directory / "runner"
    private.mkdir()
    done = ansible_runner.run(
        private_data_dir=str(private),
        project_dir=str(frame.checkout),
        playbook="playbooks/daily.yml",
        inventory=str(frame.directory / "inventory.yml"),
        envvars={"ANSIBLE_HOME": str(frame.directory / "ansible")},
        quiet=True,
    )
    assert (done.status, done.rc) == ("successful", 0), Path(done.stdout.name).read_text()
    assert set(frame.outcomes().values()) == {"passed"}
    assert len(frame.outcomes()) == 4


def test_the_environment_can_move_the_ledger_to_postgresql(frame: Frame, postgresql: PostgresServer) -> None:
    name = f"ledger_of_frame_{os.getpid()}"
    postgresql.sql(f"CREATE DATABASE {name}")
    url = f"postgresql+psycopg://postgres:{postgresql.password}@127.0.0.1:{postgresql.port}/{name}"
    try:
        done = frame.play("daily", env={"WELLKEPT_LEDGER": url})
        assert done.returncode == 0, done.stdout
        assert postgresql.password not in done.stdout + done.stderr
        ledger = Ledger(url)
        run = ledger.latest_run()
        assert run
        assert len(ledger.results_of(run["id"])) == 4
        assert not frame.ledger_path.exists()
    finally:
        postgresql.sql(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_activity_in_rolling_batches_is_recorded_for_every_host_once(frame: Frame) -> None:
    playbook = frame.checkout / "playbooks/activities/sample_first.yml"
    playbook.write_text(playbook.read_text().replace("  gather_facts: false\n", "  gather_facts: false\n  serial: 1\n"))
    assert frame.play("daily").returncode == 0
    assert len(frame.outcomes()) == 4
    assert sorted(frame.executions()).count("sample_first on h1") == 1
