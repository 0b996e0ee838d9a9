"""A login over SSH: what its options may say, what ssh is told, and the words for each way in which it can fail."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.ssh import errors, openssh
from ansible_collections.wellkept.maintenance.plugins.module_utils.ssh.login import Login, read_login_option

GOOD = {"host": "db1.example.org", "port": 2222, "user": "postgres", "key_file": "/k", "known_hosts": "/h"}
LOGIN = Login("db1", user="postgres", key_file="/k", known_hosts="/h", purpose="mirror")


def read(**others: Any) -> Login:
    return read_login_option("repository_ssh", {**GOOD, **others}, "read it")


def test_what_is_given_is_taken_and_what_is_not_is_left_to_ssh() -> None:
    assert read() == Login("db1.example.org", 2222, "postgres", "/k", "/h", "read it")
    assert read(key_file="", known_hosts="", port=22)[1:5] == (22, "postgres", "", "")
    assert str(read()) == "postgres@db1.example.org:2222"
    assert str(read(port=22, host="fe80::1")) == "postgres@fe80::1"


@pytest.mark.parametrize(
    "others",
    [
        {"host": "-oProxyCommand=touch /x"},
        {"host": ""},
        {"host": "db1 other"},
        {"user": "-l"},
        {"user": ""},
        {"key_file": "key"},
        {"key_file": '/k" ProxyCommand="x'},
        {"known_hosts": "/h\nProxyCommand x"},
        {"known_hosts": "hosts"},
    ],
)
def test_what_ssh_could_take_for_something_else_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(MaintenanceError, match="read the option repository_ssh"):
        read(**others)


def test_nobody_is_asked_and_nothing_but_what_is_named_is_trusted() -> None:
    settings = openssh.settings(LOGIN)
    for needed in ("BatchMode=yes", "StrictHostKeyChecking=yes", "IdentitiesOnly=yes", 'IdentityFile="/k"'):
        assert needed in settings
    assert 'UserKnownHostsFile="/h"' in settings
    assert "GlobalKnownHostsFile=none" in settings


@pytest.mark.parametrize(
    ("said", "observed", "advice"),
    [
        (
            "@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@\nHost key verification failed.",
            "another one",
            "find out who answers",
        ),
        (
            "No ED25519 host key is known for db1 and you have requested …\nHost key verification failed.",
            "there is none",
            "add it there",
        ),
        ("postgres@db1: Permission denied (publickey).", "it was refused", "authorized_keys of postgres on db1"),
        ("ssh: connect to host db1 port 22: Connection refused", "Connection refused", "Start db1 or its sshd"),
        ("ssh: connect to host db1 port 22: Connection timed out", "timed out", "Start db1 or its sshd"),
        ("ssh: Could not resolve hostname db1: Name or service not known", "resolve", "correct host and port"),
        ("cat: /etc/shadow: Permission denied", "/etc/shadow", "the server's log"),
    ],
)
def test_each_way_to_fail_has_its_own_words(said: str, observed: str, advice: str) -> None:
    error = errors.from_openssh(LOGIN, said)
    assert error.what == "mirror"
    assert error.where == "postgres@db1"
    assert observed in error.observed
    assert advice in error.advice
    assert "@@@" not in error.observed
