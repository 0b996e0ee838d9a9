"""The SSH server that other tests rely on is what it says."""

from __future__ import annotations

import os
import pwd
import subprocess
import threading

import pytest
from support.ssh import ssh_server
from support.waiting import wait_until


def test_it_lets_in_by_its_key_and_is_known_by_its_host_key() -> None:
    with ssh_server() as server:
        done = server.ssh("id", "-un")
        assert done.stdout.decode().strip() == server.user, server.log.read_text()
        server.new_host_key()
        server.restart()
        refused = server.ssh("true")
        assert refused.returncode == 255
        assert b"HOST IDENTIFICATION HAS CHANGED" in refused.stderr
        server.trust()
        assert server.ssh("true").returncode == 0


def test_it_leaves_no_account_and_no_directory_behind() -> None:
    with ssh_server() as server:
        user, directory = server.user, server.directory
    assert not directory.exists()
    if os.geteuid() == 0:
        with pytest.raises(KeyError):
            pwd.getpwnam(user)


def test_a_session_can_be_cut() -> None:
    with ssh_server() as server:
        ended: list[subprocess.CompletedProcess[bytes]] = []
        session = threading.Thread(target=lambda: ended.append(server.ssh("sleep", "300")))
        session.start()
        wait_until(lambda: len(server.sessions()) >= 2)
        server.cut()
        session.join(300)
        assert ended[0].returncode != 0
        assert server.ssh("true").returncode == 0


def test_forced_commands_and_chroots_hold() -> None:
    with ssh_server(key_options='restrict,command="echo forced"') as server:
        assert server.ssh("id").stdout == b"forced\n"
    with ssh_server(chroot=True, config=["ForceCommand internal-sftp"]) as server:
        assert server.user.encode() not in server.ssh("id", "-un").stdout
        listed = server.sftp("ls -1 /")
        assert listed.stdout.split() == ["sftp>", "ls", "-1", "/", "/data"], listed.stderr
