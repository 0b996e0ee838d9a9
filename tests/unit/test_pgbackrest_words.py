"""What pgBackRest says is read by its words: outputs as the releases 2.45 and 2.55 wrote them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.configuration import (
    configuration,
    plan_setup,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.options import PGBACKREST_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.room import path_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.tool import Access, Tool
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.verdict import read_verdict
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.secret_file import read_secret

FULL, INCREMENTAL = "20261121-162337F", "20261121-162337F_20261121-162343I"

SOUND = f"""stanza: main
status: ok
  archiveId: 15-1, total WAL checked: 5, total valid WAL: 5
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: {FULL}, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: {INCREMENTAL}, status: valid, total files checked: 964, total valid files: 964
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""
FLIPPED = SOUND.replace("status: ok", "status: error").replace(
    "status: valid, total files checked: 964, total valid files: 964",
    "status: invalid, total files checked: 964, total valid files: 963",
)
# It calls this "ok".
WITHOUT_MANIFEST = SOUND.replace(
    f"{FULL}, status: valid, total files checked: 964, total valid files: 964",
    f"{FULL}, status: manifest missing, total files checked: 0, total valid files: 0",
)
WRONG_KEY = "stanza: main\nstatus: error\n  No usable backup.info file\n  No usable archive.info file\n"


def test_a_sound_repository_is_believed_to_be_sound() -> None:
    verdict = read_verdict(SOUND, "")
    assert verdict.of(FULL) == verdict.of(INCREMENTAL) == []
    assert verdict.archive == []
    assert verdict.wal_checked == 5


def test_what_is_damaged_is_named() -> None:
    verdict = read_verdict(FLIPPED, f"INFO: invalid checksum '{FULL}/pg_data/PG_VERSION.zst'\n")
    assert any("PG_VERSION" in words for words in verdict.of(FULL))
    assert any("963 of 964" in words for words in verdict.of(INCREMENTAL))


@pytest.mark.parametrize("said", [WITHOUT_MANIFEST, WRONG_KEY, "", "status: ok\n", "stanza: main\nstatus: ok\n"])
def test_only_what_is_said_to_be_valid_is_sound(said: str) -> None:
    assert read_verdict(said, "").of(FULL)


NUMBERS = "total files checked: 964, total valid files: 964"


@pytest.mark.parametrize(
    "said",
    [
        SOUND.replace(f"{FULL}, status: valid", f"{FULL}, status: invalid"),
        SOUND.replace(NUMBERS, "total files checked: 964, total valid files: 963"),
        SOUND.replace(NUMBERS, "total files checked: 0, total valid files: 0"),
        SOUND + "  No usable archive.info file\n",
        SOUND.replace("status: ok\n", ""),
    ],
    ids=["its word alone", "its numbers alone", "nothing checked", "a complaint beside", "no verdict"],
)
def test_each_sign_of_doubt_is_enough(said: str) -> None:
    assert said != SOUND
    assert read_verdict(said, "").of(FULL)


def test_a_damaged_segment_is_no_fault_of_the_sets() -> None:
    said = SOUND.replace("status: ok", "status: error").replace("total valid WAL: 5", "total valid WAL: 4")
    name = "15-1/0000000100000000/000000010000000000000009-4370a833c50b33b9acb7971b083621fcf6907de3.zst"
    verdict = read_verdict(said, f"INFO: invalid result {name}: [29] raised from local-1 protocol: zst error\n")
    assert verdict.of(FULL) == []
    assert any(name in words for words in verdict.archive)


class Silent(Tool):
    """Its errors, without the program."""

    def __init__(self) -> None:
        self.access = Access("/etc/wellkept/pgbackrest.conf", "main", "postgres", "a secret")


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (50, "ERROR: [050]: unable to acquire lock on file '/x'", "Another pgBackRest"),
        (28, "ERROR: [028]: backup and archive info files exist but do not match the database", "another cluster's"),
        (82, "ERROR: [082]: WAL segment 01 was not archived before the 60000ms timeout", "server's log"),
        (1, "FormatError: key/value found outside of section at line 1: \x00\x9f", "right key"),
        (64, "ERROR: [064]: unable to write '/x': [28] No space left on device", "Free space"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(status: int, said: str, words: str) -> None:
    error = Silent().failed("back up", status, said)
    assert words in error.advice
    assert "a secret" not in str(error)
    assert str(error).isprintable()


def params(tmp_path: Path, **others: Any) -> dict[str, Any]:
    login = {"login_host": "", "login_unix_socket": "/run/postgresql", "login_port": 5432}
    login |= {"login_user": "postgres", "login_db": "postgres"}
    own = {name: option["default"] for name, option in PGBACKREST_OPTIONS.items()}
    own["pgbackrest_spool_path"] = str(tmp_path / "spool")
    return {**login, **own, "compression": "zstd:3", "jobs": 2, **others}


def test_the_configuration_lets_pgbackrest_expire_nothing(tmp_path: Path) -> None:
    lines = configuration(params(tmp_path), Access("/c", "main", "postgres", "key"), "/data").splitlines()
    assert {"expire-auto=n", "repo1-retention-full=9999999", "repo1-cipher-pass=key"} <= set(lines)
    assert {"compress-type=zst", "compress-level=3", "process-max=2", "pg1-path=/data"} <= set(lines)


def test_a_repository_host_has_no_key_and_path_here(tmp_path: Path) -> None:
    text = configuration(params(tmp_path, pgbackrest_repo_host="b1"), Access("/c", "main", "postgres", "key"), "/data")
    assert "repo1-host=b1" in text
    assert "cipher" not in text
    assert "repo1-path" not in text


def test_a_key_cannot_bring_other_settings_in(tmp_path: Path) -> None:
    with pytest.raises(MaintenanceError):
        configuration(params(tmp_path), Access("/c", "main", "postgres", "key\nrepo1-path=/x"), "/data")


def test_what_somebody_else_wrote_is_told_from_what_we_did(tmp_path: Path) -> None:
    path = tmp_path / "c.conf"
    options = params(tmp_path, pgbackrest_repo_path=str(tmp_path / "repo"))
    access = Access(str(path), "main", "postgres")
    setup = plan_setup(options, access, str(tmp_path))
    assert setup.missing
    setup.write()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not plan_setup(options, access, str(tmp_path)).missing
    assert plan_setup({**options, "jobs": 1}, access, str(tmp_path)).missing == [str(path)]
    path.write_text("[global]\n")
    assert plan_setup(options, access, str(tmp_path)).is_foreign


@pytest.mark.parametrize(("content", "mode"), [("", 0o600), ("a\nb\n", 0o600), ("a", 0o640), (" a", 0o600)])
def test_a_file_that_is_no_private_secret_is_refused(tmp_path: Path, content: str, mode: int) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(MaintenanceError):
        read_secret(str(path), "key_file")
    path.write_text("a secret\n")
    path.chmod(0o600)
    assert read_secret(str(path), "key_file") == "a secret"
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(MaintenanceError):
        read_secret(str(tmp_path / "link"), "key_file")


@pytest.mark.parametrize(
    "configuration, path",
    [
        ("[global]\nrepo1-path = /srv/backups \nrepo1-type=posix\n", "/srv/backups"),
        ("[global]\nprocess-max=2\n", "/var/lib/pgbackrest"),
        ("[global]\nrepo1-host=backup1\nrepo1-path=/srv/backups\n", ""),
        ("[global]\nrepo1-type=s3\nrepo1-path=/srv/backups\n", ""),
        ("[global]\n#repo1-host=backup1\nrepo1-path=/srv/backups\n", "/srv/backups"),
    ],
)
def test_room_is_looked_for_only_where_the_repository_is_on_this_host(configuration: str, path: str) -> None:
    assert path_of(configuration) == path


@pytest.mark.parametrize(
    "said",
    [
        "ERROR: [125]: remote-0 process on 'backup1' terminated unexpectedly [255]: ssh: connect to host backup1 port "
        "22: Connection refused",
        "postgres@backup1: Permission denied (publickey).",
        "Host key verification failed.",
    ],
)
def test_when_the_repository_host_is_out_of_reach_it_is_said_what_to_do(said: str) -> None:
    error = Tool(Access("/etc/pgbackrest.conf", "main", "postgres", host="backup1")).failed("list", 125, said)
    assert said.removeprefix("ERROR: ") in error.observed
    assert "its host does not answer or does not let us in" in error.advice


def test_a_crash_over_a_repository_host_is_taken_for_a_wrong_key_only_where_a_key_was_given() -> None:
    """As the release 2.45 does when it cannot decrypt what it is sent."""
    for key, wrong in (("another", True), ("", False)):
        error = Tool(Access("/etc/pgbackrest.conf", "main", "postgres", key, "backup1")).failed("list", -11, "")
        assert ("wrong key" in error.observed) is wrong
