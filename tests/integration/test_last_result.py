"""The lookup that gives an activity what it showed the last time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.frame import Frame
from support.postgresql import PostgresServer

DAILY = {"cadence": "daily", "hosts": "all", "team": "Operations"}
LOOKUP = "{{ lookup('wellkept.maintenance.last_result', 'sample_first') | to_json }}"


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> Frame:
    """h1 was good and then failed, h2 was only rehearsed."""
    frame = Frame(tmp_path_factory.mktemp("frame"), {"sample_first": DAILY}, {"h1": {}, "h2": {}})
    assert frame.play("daily", "--limit", "h1").returncode == 0
    assert frame.play("daily", "--limit", "h2", "--check").returncode == 0
    frame.play("daily", "--limit", "h1", "-e", "sample_first_behaviour=fail")
    return frame


def looked_up(frame: Frame, host: str, expression: str = LOOKUP, **environment: str) -> Any:
    """What the lookup answers in a task for *host*, as JSON."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible")), host, "-i", str(frame.directory / "inventory.yml"), "-m",
         "ansible.builtin.debug", "-a", f'msg="{expression}"'],
        cwd=frame.checkout, env=frame.environment({"ANSIBLE_CALLBACK_RESULT_FORMAT": "json", **environment}),
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    answer = json.loads(done.stdout.partition("=>")[2])["msg"]
    return json.loads(answer) if isinstance(answer, str) else answer


def test_it_gives_the_last_result_that_is_evidence(frame: Frame) -> None:
    data = looked_up(frame, "h1")
    assert (data["activity"], data["host"], data["outcome"]) == ("sample_first", "h1", "passed")
    assert data["metrics"]["samples"] == {"value": 1, "unit": "count"}


def test_a_rehearsal_and_an_activity_that_was_never_carried_out_give_nothing(frame: Frame) -> None:
    assert looked_up(frame, "h2") == {}
    assert looked_up(frame, "h1", LOOKUP.replace("sample_first", "backup")) == {}


def test_it_looks_for_another_host_when_told(frame: Frame) -> None:
    expression = LOOKUP.replace("'sample_first'", "'sample_first', host='h1'")
    assert looked_up(frame, "h2", expression)["host"] == "h1"


def test_it_reads_the_ledger_in_postgresql_that_the_environment_names(frame: Frame, postgresql: PostgresServer) -> None:
    postgresql.sql("CREATE DATABASE last_result")
    try:
        url = f"postgresql+psycopg://postgres:secret@127.0.0.1:{postgresql.port}/last_result"
        assert looked_up(frame, "h1", WELLKEPT_LEDGER=url) == {}
        assert frame.play("daily", "--limit", "h2", env={"WELLKEPT_LEDGER": url}).returncode == 0
        assert looked_up(frame, "h2", WELLKEPT_LEDGER=url)["outcome"] == "passed"
    finally:
        postgresql.sql("DROP DATABASE last_result WITH (FORCE)")


def test_a_ledger_that_cannot_be_read_is_told_without_a_traceback(frame: Frame, tmp_path: Path) -> None:
    broken = tmp_path / "ledger.db"
    broken.write_text("this is no database, whatever its name says" * 100)
    with pytest.raises(AssertionError, match="last_result: use the ledger") as caught:
        looked_up(frame, "h1", WELLKEPT_LEDGER=str(broken))
    assert "Traceback" not in str(caught.value)
