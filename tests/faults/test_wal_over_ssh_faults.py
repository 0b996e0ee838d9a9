"""WAL sent to another host: cut, killed, misled, repeated or refused, the archive never holds a wrong segment."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import random
import shutil
import signal
import subprocess
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import wal_helper, wal_over_ssh
from support.ssh import SshServer, new_key, ssh_server
from support.waiting import wait_until
from support.wal import CLUSTER, SEGMENT_BYTES, segment_content

NAME = "000000010000000000000007"
KILLS = 10


class Site:
    """The two directories that are on two hosts: the sender's, with its key, and the archive, behind sshd."""

    def __init__(self, server: SshServer, directory: Path) -> None:
        self.server = server
        self.sender = directory
        self.archive = server.data / CLUSTER
        self.archive.mkdir(mode=0o700)
        account = pwd.getpwnam(server.user)
        os.chown(self.archive, account.pw_uid, account.pw_gid)
        for place in (self.sender, server.data):
            for module in (wal_helper, wal_over_ssh):
                shutil.copy(str(module.__file__), place)
        words = f"/usr/bin/env python3 -I -S -B {server.data}/wal_over_ssh.py receive {self.archive} gzip"
        key = new_key(self.sender / wal_over_ssh.KEY)
        server.authorize(key, f'restrict,command="{words}"')
        self.trust()

    def trust(self) -> None:
        self.server.trust()
        shutil.copy(self.server.known_hosts, self.sender / wal_over_ssh.KNOWN_HOSTS)

    def command(self, kind: str, *arguments: object, seconds: str = "60") -> list[str]:
        account = f"{self.server.user}@{self.server.host}"
        words = [self.sender, account, self.server.port, seconds, *arguments]
        program = str(self.sender / "wal_over_ssh.py")
        return ["/usr/bin/env", "python3", "-I", "-S", "-B", program, kind, *(str(word) for word in words)]

    def run(self, kind: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = self.command(kind, *arguments, **options)
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def push(self, path: Path, name: str = NAME, **options: Any) -> subprocess.CompletedProcess[str]:
        return self.run("push", path, name, **options)

    def archived(self) -> list[str]:
        return sorted(str(path.relative_to(self.archive)) for path in self.archive.rglob("*") if path.is_file())

    def kept(self, name: str = NAME) -> bytes:
        return wal_helper.find(name, [str(self.archive)], CLUSTER)[1]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    directory = tmp_path / "sender"
    directory.mkdir(mode=0o700)
    with ssh_server() as server:
        yield Site(server, directory)


@pytest.fixture
def segment(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_bytes(segment_content(NAME))
    return path


def received(site: Site, request: str, content: bytes) -> subprocess.CompletedProcess[bytes]:
    """What the far side does with a client that does not keep to the rules."""
    command = ["/usr/bin/env", "python3", "-I", "-S", "-B", str(site.server.data / "wal_over_ssh.py")]
    command += ["receive", str(site.archive), "gzip"]
    environment = {**os.environ, "SSH_ORIGINAL_COMMAND": request}
    user = {"user": site.server.user} if os.geteuid() == 0 else {}
    return subprocess.run(command, input=content, env=environment, capture_output=True, timeout=60, check=False, **user)  # type: ignore[call-overload]


def test_a_segment_is_kept_private_and_compressed_and_comes_back_as_it_was(
    site: Site, segment: Path, tmp_path: Path
) -> None:
    for _again in range(2):
        done = site.push(segment)
        assert (done.returncode, done.stderr) == (0, "")
    assert site.archived() == [f"00000001/{NAME}.gz"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in site.archive.rglob("*"))
    out = tmp_path / "out"
    done = site.run("pull", CLUSTER, NAME, out)
    assert done.returncode == 0, done.stderr
    assert out.read_bytes() == segment.read_bytes()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small file system")
def test_on_a_full_disk_there_nothing_appears_and_the_next_try_succeeds(site: Site, segment: Path) -> None:
    status = site.archive.stat()
    options = f"size=100k,uid={status.st_uid},gid={status.st_gid},mode=700"
    mount = ["mount", "-t", "tmpfs", "-o", options, "none", str(site.archive)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this root may not mount")
    try:
        done = site.push(segment)
        assert done.returncode != 0
        assert "No space left" in done.stderr or "full disk" in done.stderr, done.stderr
        assert not [name for name in site.archived() if not name.startswith("incoming/")]
        subprocess.run(["mount", "-o", "remount,size=20m", str(site.archive)], check=True)
        assert site.push(segment).returncode == 0
        assert site.kept() == segment.read_bytes()
        assert site.archived() == [f"00000001/{NAME}.gz"]
    finally:
        subprocess.run(["umount", "-l", str(site.archive)], check=True)


def test_another_content_under_the_same_name_is_refused_and_nothing_overwritten(site: Site, segment: Path) -> None:
    assert site.push(segment).returncode == 0
    before = site.kept()
    segment.write_bytes(segment_content(NAME, seed=2))
    done = site.push(segment)
    assert done.returncode == 1
    assert "holds another content" in done.stderr
    assert "it stays here, and the server tries again" in done.stderr
    assert site.kept() == before


def test_the_key_is_good_for_wal_alone(site: Site, segment: Path) -> None:
    key = ["-i", str(site.sender / wal_over_ssh.KEY)]
    command = wal_over_ssh.ssh_command(
        wal_over_ssh.Far(str(site.sender), f"{site.server.user}@{site.server.host}", str(site.server.port), "60")
    )
    for words in ("id", "push ../../x 1 00 plain", f"push {NAME}/../x 1 00 plain", "pull ../../etc/passwd", ""):
        done = subprocess.run([*command, words], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1, words
        assert "wellkept: " in done.stderr
        assert done.stdout == ""
    forwarding = [*command[:-2], *key, "-o", "ExitOnForwardFailure=yes", "-R", "0:localhost:1", *command[-2:], "id"]
    done = subprocess.run(forwarding, capture_output=True, text=True, timeout=60, check=False)
    assert "forwarding failed" in done.stderr
    assert site.archived() == []


def test_a_changed_host_key_is_refused_and_said_so_until_the_new_one_is_known(site: Site, segment: Path) -> None:
    site.server.new_host_key()
    site.server.restart()
    done = site.push(segment)
    assert done.returncode == 1
    assert "Host key verification failed" in done.stderr
    assert site.archived() == []
    site.trust()
    assert site.push(segment).returncode == 0


def test_a_host_that_is_down_fails_fast_and_the_next_try_goes_on(site: Site, segment: Path, tmp_path: Path) -> None:
    site.server.stop()
    done = site.push(segment)
    assert done.returncode == 1
    assert "Connection refused" in done.stderr
    # Recovery must not take it for the end of WAL.
    assert site.run("pull", CLUSTER, NAME, tmp_path / "out").returncode == wal_helper.STOP_RECOVERY
    site.server.start()
    assert site.push(segment).returncode == 0


def test_a_host_that_hangs_is_given_up_in_time(site: Site, segment: Path) -> None:
    assert site.server._process is not None
    os.kill(site.server._process.pid, signal.SIGSTOP)
    try:
        done = site.push(segment, seconds="2")
        assert done.returncode == 1
        assert "has not answered within 2 s" in done.stderr
    finally:
        os.kill(site.server._process.pid, signal.SIGCONT)
    assert site.push(segment).returncode == 0


def test_a_far_side_that_only_ends_well_is_not_believed(site: Site, segment: Path) -> None:
    key = (site.sender / f"{wal_over_ssh.KEY}.pub").read_text().strip()
    site.server.authorize(key, 'command="cat >/dev/null"')
    done = site.push(segment)
    assert done.returncode == 1
    assert "has not said that it keeps" in done.stderr


@pytest.mark.parametrize("kept", [0, 1, 1000, -1000])
def test_a_stream_that_is_cut_is_refused(site: Site, segment: Path, kept: int) -> None:
    content = segment.read_bytes()
    packed = zlib.compress(content, 1)
    request = f"push {NAME} {len(content)} {hashlib.sha256(content).hexdigest()} zlib"
    done = received(site, request, packed[:kept])
    assert done.returncode == 1
    assert b"bytes were announced" in done.stderr
    assert site.archived() == []
    assert received(site, request, packed).returncode == 0
    assert site.kept() == content


def test_bytes_that_changed_on_the_way_and_bombs_are_refused(site: Site, segment: Path) -> None:
    content = segment.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    other = segment_content(NAME, seed=2)
    assert b"another SHA-256" in received(site, f"push {NAME} {len(content)} {digest} plain", other).stderr
    bomb = zlib.compress(b"\0" * (SEGMENT_BYTES * 64), 1)
    assert b"bytes were announced" in received(site, f"push {NAME} {len(content)} {digest} zlib", bomb).stderr
    assert b"more than any segment" in received(site, f"push {NAME} {1 << 40} {digest} zlib", b"").stderr
    assert site.archived() == []


def test_what_is_not_there_and_what_is_damaged_are_told_apart(site: Site, segment: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert site.run("pull", CLUSTER, NAME, out).returncode == 1
    assert site.push(segment).returncode == 0
    path = site.archive / f"00000001/{NAME}.gz"
    path.write_bytes(path.read_bytes()[:-9])
    done = site.run("pull", CLUSTER, NAME, out)
    assert done.returncode == wal_helper.STOP_RECOVERY
    assert "cannot be decompressed" in done.stderr
    assert not out.exists()


def seconds_to_push(site: Site, path: Path) -> float:
    began = time.monotonic()
    assert site.push(path, path.name).returncode == 0
    return time.monotonic() - began


def test_killed_on_either_side_at_any_moment_it_leaves_no_wrong_segment(site: Site, tmp_path: Path) -> None:
    chance = random.Random(20261121)
    paths = []
    for number in range(KILLS + 3):
        name = f"0000000100000000000000{number + 16:02X}"
        path = tmp_path / name
        path.write_bytes(segment_content(name, seed=number))
        paths.append(path)
    # The fastest of several: the machine may have stood still in one of them.
    usual = min(seconds_to_push(site, path) for path in paths[KILLS:])
    died = 0
    for number, path in enumerate(paths[:KILLS]):
        process = subprocess.Popen(site.command("push", path, path.name), stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0, usual))
        if number % 2:
            process.kill()
        else:
            site.server.cut()
        if process.wait(timeout=120) != 0:
            died += 1
        else:
            usual *= 0.7  # it was faster than that: sooner, the next time
        # Whatever came in between: what has the final name is whole, and the next try goes on.
        with contextlib.suppress(FileNotFoundError):
            assert site.kept(path.name) == path.read_bytes()
        done = site.push(path, path.name)
        assert done.returncode == 0, done.stderr
        assert site.kept(path.name) == path.read_bytes()
    assert died > KILLS // 4
    # sshd notices that a killed client is gone, and so does what it had started.
    wait_until(lambda: not site.server.sessions())
    assert [name for name in site.archived() if name.startswith("incoming/")] == []


def test_two_at_once_with_different_contents_keep_one_whole(site: Site, tmp_path: Path) -> None:
    paths = [tmp_path / f"{seed}" for seed in range(4)]
    for seed, path in enumerate(paths):
        path.write_bytes(segment_content(NAME, seed=seed % 2))
    with ThreadPoolExecutor(len(paths)) as pool:
        statuses = [done.returncode for done in pool.map(site.push, paths)]
    assert statuses in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert site.kept() == segment_content(NAME, seed=statuses.index(0))
