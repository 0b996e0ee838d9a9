"""Proofs that come from another host: private, whole or not at all, by no link, and of no other backup."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository, write_metadata
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import proof_receiver

PROGRAM = Path(proof_receiver.__file__)
LABEL = "20261121T093000Z-full-1a2b"
NAME = f"{LABEL}.json"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(str(tmp_path / "repository"), "main")
    made.prepare()
    directory = Path(made.directory) / LABEL
    directory.mkdir(mode=0o700)
    write_metadata(str(directory), {"format": 1, "label": LABEL, "engine": "core", "type": "full"})
    return made


def proof(repository: Repository, moment: str = "2026-11-21T10:00:00.000Z", **others: Any) -> dict[str, Any]:
    identity = {"label": LABEL, "backup_sha256": repository.backup(LABEL).metadata["sha256"]}
    return {**identity, "proven_at": moment, **others}


def order(repository: Repository, put: dict[str, Any], withdrawn: dict[str, Any] | None = None) -> str:
    facts = {"repository": repository.root, "cluster": repository.cluster, "put": put, "withdrawn": withdrawn or {}}
    return json.dumps(facts)


def send(repository: Repository, put: dict[str, Any], withdrawn: dict[str, Any] | None = None) -> Any:
    command = [sys.executable, "-I", "-S", str(PROGRAM)]
    done = subprocess.run(command, input=order(repository, put, withdrawn), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def proofs(repository: Repository) -> Path:
    return Path(repository.directory) / "proofs"


def test_a_proof_is_put_there_private_and_known_from_then_on(repository: Repository) -> None:
    assert send(repository, {NAME: proof(repository)}) == {"outcomes": {NAME: "put"}}
    assert repository.proven() == [LABEL]
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (proofs(repository), proofs(repository) / NAME)]
    assert modes == [0o700, 0o600]
    assert send(repository, {NAME: proof(repository)}) == {"outcomes": {NAME: "known"}}
    assert os.listdir(proofs(repository)) == [NAME]


def test_the_newer_of_two_proofs_stays_whichever_comes_first(repository: Repository) -> None:
    old, new = proof(repository), proof(repository, "2026-11-22T10:00:00.000Z")
    assert [send(repository, {NAME: one})["outcomes"][NAME] for one in (old, new, old)] == ["put", "put", "known"]
    assert repository.proof(repository.backup(LABEL)) == new


def test_a_proof_of_another_backup_or_of_one_that_went_is_not_put_there(repository: Repository) -> None:
    other = {**proof(repository), "backup_sha256": "0" * 64}
    gone = {**proof(repository), "label": "20261121T093000Z-full-ffff"}
    outcomes = send(repository, {NAME: other, "20261121T093000Z-full-ffff.json": gone})["outcomes"]
    assert set(outcomes.values()) == {"gone"}
    assert os.listdir(proofs(repository)) == []


def test_only_the_very_proof_that_was_disproven_is_withdrawn(repository: Repository) -> None:
    ours, theirs = proof(repository, host="one"), proof(repository, host="two")
    send(repository, {NAME: theirs})
    send(repository, {}, {NAME: ours})
    assert repository.proven() == [LABEL]
    send(repository, {}, {NAME: theirs})
    assert repository.proven() == []


def test_damage_is_noted_once_and_stands_against_the_backup(repository: Repository) -> None:
    name = f"{LABEL}.damage.json"
    found = {"label": LABEL, "found_at": "2026-11-21T10:00:00.000Z", "problems": ["base/1: another content"]}
    document = {**found, "backup_sha256": proof(repository)["backup_sha256"]}
    assert [send(repository, {name: document})["outcomes"][name] for _again in range(2)] == ["put", "known"]
    assert "another content" in repository.noted_damage(LABEL)


def test_links_lead_nowhere(repository: Repository, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    victim = elsewhere / "victim"
    victim.write_text("precious")
    proofs(repository).mkdir(mode=0o700)
    for name in (NAME, ".returned"):
        (proofs(repository) / name).symlink_to(victim)
    assert send(repository, {NAME: proof(repository)}) == {"outcomes": {NAME: "put"}}
    assert not (proofs(repository) / NAME).is_symlink()
    assert victim.read_text() == "precious"
    (proofs(repository) / NAME).unlink()
    proofs(repository).rmdir()
    proofs(repository).symlink_to(elsewhere)
    command = [sys.executable, "-I", "-S", str(PROGRAM)]
    text = order(repository, {NAME: proof(repository)})
    assert subprocess.run(command, input=text, capture_output=True, text=True, check=False).returncode != 0
    assert os.listdir(elsewhere) == ["victim"]


@pytest.mark.parametrize("name", ["../x.json", "/tmp/x.json", "..", ""])
def test_a_name_that_leads_elsewhere_is_refused(repository: Repository, name: str) -> None:
    assert "is no name of a file" in send(repository, {name: proof(repository)})["refused"]


def test_where_others_can_write_nothing_is_put(repository: Repository) -> None:
    proofs(repository).mkdir()
    proofs(repository).chmod(0o770)
    assert "others can write to proofs" in send(repository, {NAME: proof(repository)})["refused"]
    assert os.listdir(proofs(repository)) == []


def test_many_at_once_leave_the_newest_whole(repository: Repository) -> None:
    sent = [proof(repository, f"2026-11-21T10:00:{number:02}.000Z", filling="x" * 100_000) for number in range(12)]
    with ThreadPoolExecutor(len(sent)) as pool:
        answers = list(pool.map(lambda one: send(repository, {NAME: one}), sent))
    assert all("outcomes" in answer for answer in answers), answers
    assert repository.proof(repository.backup(LABEL)) == sent[-1]
    assert os.listdir(proofs(repository)) == [NAME]


# What is called around the step that it is killed in.
STEPS = ("mkdir", "flock", "fsync", "rename")
KILLS_ITSELF = """
import fcntl, os, signal, sys
step, number = sys.argv[2], [int(sys.argv[3])]

def dying(call):
    def instead(*arguments, **named):
        number[0] -= 1
        if number[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        result = call(*arguments, **named)
        if number[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return instead

module = fcntl if step == "flock" else os
setattr(module, step, dying(getattr(module, step)))
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
"""


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("after", [False, True])
def test_killed_before_or_after_any_step_the_proof_is_whole_or_not_there_and_the_next_try_succeeds(
    repository: Repository, step: str, after: bool
) -> None:
    text = order(repository, {NAME: proof(repository)})
    # A count of nought lets it die after the first such call, of one before it.
    command = [sys.executable, "-c", KILLS_ITSELF, str(PROGRAM), step, "0" if after else "1"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = proofs(repository) / NAME
    assert not found.exists() or json.loads(found.read_text()) == proof(repository)
    assert set(send(repository, {NAME: proof(repository)})["outcomes"].values()) <= {"put", "known"}
    assert os.listdir(proofs(repository)) == [NAME]
    assert repository.proven() == [LABEL]
