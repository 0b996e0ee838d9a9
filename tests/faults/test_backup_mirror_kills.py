"""Killed at any instant, a mirror holds nothing half done that looks whole, and the next run goes on."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.decision import is_leftover
from support.mirrors import MirrorSite, Servers, SmallSite, contents, mirror_servers
from support.modules import module_process


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with mirror_servers() as servers:
        yield servers


def assert_nothing_half_done(mirror: MirrorSite, ever: dict[str, bytes]) -> None:
    """What has a name there is whole; a backup whose description is there has all its files."""
    there = {name: body for name, body in mirror.files().items() if not is_leftover(name, ever)}
    for name, body in there.items():
        assert ever[name] == body, f"{name} is half there"
    for described in [name for name in there if name.endswith("/backup.json")]:
        prefix = described.removesuffix("backup.json")
        assert {name for name in ever if name.startswith(prefix)} <= set(there), f"{prefix} is not complete"


def as_in_mirror(site: SmallSite) -> dict[str, bytes]:
    """The files of the repository, by the names that they have there."""
    odd = {"%": "%25", "\udce9": "%E9", "\n": "%0A"}
    found = {}
    for name, body in contents(site.root).items():
        if not name.endswith(".lock"):
            found["repository/" + "".join(odd.get(letter, letter) for letter in name)] = body
    return found


def campaign(servers: Servers, kind: str, site: SmallSite, kills: int, seed: int) -> None:
    mirror = servers.mirror(site, kind)
    chance = random.Random(seed)
    ever: dict[str, bytes] = {}
    killed = 0
    seconds = 3.0
    for round_number in range(20 * kills):
        site.add(files=40, age=1000 - round_number)
        backups = site.repository.backups()
        if len(backups) > 3:
            site.expire(backups[0].label)
        ever |= as_in_mirror(site)
        for _try in range(2):
            began = time.monotonic()
            # Where the kills let nothing arrive for long, more may have expired than is removed by default.
            process = module_process("backup_mirror", mirror.options(remove_at_most=100))
            try:
                time.sleep(chance.random() * seconds)
            finally:
                process.kill()
                output, _errors = process.communicate()
            servers.until_quiet()
            killed += process.returncode < 0
            if process.returncode == 0:
                seconds = max(0.5, time.monotonic() - began)
                assert '"failed"' not in output, output
            assert_nothing_half_done(mirror, ever)
        if round_number % 3 == 2 or killed >= kills:
            shown = mirror.mirror(full=True, remove_at_most=100)
            assert not shown["failed"], shown["msg"]
            assert mirror.files() == as_in_mirror(site)
            work = [path.name for path in Path(mirror.state, "mirror").iterdir() if path.is_dir()]
            assert not work, "nothing is left of killed runs"
        if killed >= kills:
            return
    raise AssertionError(f"only {killed} of {kills} runs were killed")


@pytest.mark.parametrize("kind", ["directory", "sftp"])
def test_a_killed_mirror_is_whole_and_goes_on(servers: Servers, tmp_path: Path, kind: str) -> None:
    site = SmallSite(tmp_path)
    campaign(servers, kind, site, 5, seed=5)


def test_what_rsync_had_begun_is_cleared_away_though_its_file_expired_meanwhile(
    servers: Servers, tmp_path: Path
) -> None:
    site = SmallSite(tmp_path)
    expired = site.add(age=7200)
    site.add(age=3600)
    mirror = servers.mirror(site, "rsync")
    assert not mirror.mirror()["failed"]
    site.expire(expired)
    left = [
        mirror.there / "repository" / "main" / expired / "dump" / ".0.dump.Ab12xY",
        mirror.there / ".wellkept-mirror" / "manifests" / ".20260101T000000000000Z-ab12cd34-00001.json.Ab12xY",
    ]
    for path in left:
        path.write_bytes(b"begun")
    shown = mirror.mirror(remove_at_most=100)
    assert not shown["failed"], shown["msg"]
    assert not [path for path in left if path.exists()]
    assert mirror.files() == as_in_mirror(site)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["directory", "sftp", "sftp-only", "rsync"])
def test_a_mirror_that_is_killed_fifty_times_is_whole_and_goes_on(servers: Servers, tmp_path: Path, kind: str) -> None:
    site = SmallSite(tmp_path)
    campaign(servers, kind, site, 50, seed=50)
