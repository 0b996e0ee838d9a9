"""Which paths are refused by their name alone."""

from __future__ import annotations

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.guard_rails import (
    home_directories,
    reason_against_path,
)

HOMES = ["/root", "/home/ada", "/var/lib/postgresql", "/srv/people/bob"]
STATE = "/var/lib/wellkept"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/", "root of the file system"),
        ("//", "root of the file system"),
        ("/.", "root of the file system"),
        ("", "not an absolute path"),
        ("srv/app/tmp", "not an absolute path"),
        ("~/tmp/x", "not an absolute path"),
        ("/srv/app/../../etc", "'..'"),
        ("/opt", "at least two levels"),
        ("/tmp", "at least two levels"),
        ("/etc", "/etc"),
        ("/etc/app/cache", "/etc"),
        ("//etc//app", "/etc"),
        ("/usr/share/app", "/usr"),
        ("/bin/x", "/bin"),
        ("/sbin/x", "/sbin"),
        ("/lib/x", "/lib"),
        ("/lib64/x", "/lib64"),
        ("/libx32/x", "/libx32"),
        ("/boot/grub", "/boot"),
        ("/dev/shm", "/dev"),
        ("/proc/1", "/proc"),
        ("/sys/fs", "/sys"),
        ("/run/app", "/run"),
        ("/var", "system directory"),
        ("/var/lib", "system directory"),
        ("/var/log", "system directory"),
        ("/var/log/", "system directory"),
        ("/var/cache", "system directory"),
        ("/var/spool", "system directory"),
        ("/var/lib/dpkg/info", "/var/lib/dpkg"),
        ("/var/lib/postgresql/18/main", "/var/lib/postgresql"),
        ("/home", "home"),
        ("/home/ada", "home"),
        ("/home/nobody-we-know", "home"),
        ("/root", "home"),
        ("/srv/people/bob", "home"),
        ("/srv/people", "holds the home directory /srv/people/bob"),
        ("/home/ada/.ssh", "within .ssh"),
        ("/srv/app/.git/objects", "within .git"),
        ("/srv/backups/main/20261121T020000Z-full-0a1b/data", "within 20261121T020000Z-full-0a1b"),
        ("/var/lib/wellkept", "state directory"),
        ("/var/lib/wellkept/locks", "state directory"),
        ("/srv/a\0b", "null"),
    ],
)
def test_dangerous_paths_are_refused_with_the_reason(path: str, words: str) -> None:
    assert words in reason_against_path(path, HOMES, STATE)


@pytest.mark.parametrize(
    "path",
    [
        "/srv/app/uploads/tmp",
        "/srv/app",
        "/var/log/app",
        "/var/lib/app/sessions",
        "/var/cache/nginx",
        "/var/tmp",
        "/home/ada/app/cache",
        "/opt/library/cache",
        "/srv/app/a..b",
        "/srv/people/bob/cache",
    ],
)
def test_directories_of_applications_are_allowed(path: str) -> None:
    assert reason_against_path(path, HOMES, STATE) == ""


def test_a_directory_above_the_state_directory_is_refused() -> None:
    assert "holds the state directory" in reason_against_path("/srv/app", HOMES, "/srv/app/state")


def test_a_neighbour_whose_name_begins_alike_is_no_relative() -> None:
    assert reason_against_path("/srv/app/state2", HOMES, "/srv/app/state") == ""
    assert reason_against_path("/srv/peo", HOMES, STATE) == ""


def test_home_directories_are_those_of_the_user_database_without_the_root_directory() -> None:
    homes = home_directories()
    assert "/root" in homes
    assert "" not in homes
    assert "/" not in homes
