"""The small parts of a backup: WAL arithmetic, words of pg_verifybackup, copies of files."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.files import copy_tree, tree_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.programs import program_failed
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.reading import base_problems
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.positions import (
    format_lsn,
    parse_lsn,
    segment_name,
    segments_between,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.receiver import keep_only

SEGMENT = 16 << 20


@pytest.mark.parametrize(
    ("lsn", "name"),
    [
        ("0/1000000", "000000010000000000000001"),
        ("0/1FFFFFF", "000000010000000000000001"),
        ("0/FF000000", "0000000100000000000000FF"),
        ("1/0", "000000010000000100000000"),
        ("2A/3B000028", "000000010000002A0000003B"),
    ],
)
def test_segments_are_named_as_the_server_names_them(lsn: str, name: str) -> None:
    assert segment_name(1, parse_lsn(lsn), SEGMENT) == name
    assert format_lsn(parse_lsn(lsn)) == lsn


def test_a_range_needs_every_segment_from_its_first_byte_to_its_last() -> None:
    assert segments_between(1, "0/FE000028", "1/1000100", SEGMENT) == [
        "0000000100000000000000FE",
        "0000000100000000000000FF",
        "000000010000000100000000",
        "000000010000000100000001",
    ]
    assert segments_between(1, "0/1000028", "0/2000000", SEGMENT) == ["000000010000000000000001"]


def test_only_needed_segments_and_histories_are_kept(tmp_path: Path) -> None:
    for name in ("1", "2", "3.partial", "4.partial", "00000002.history"):
        (tmp_path / name).touch()
    keep_only(str(tmp_path), ["2", "3"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002.history", "2", "3"]


@pytest.mark.parametrize(
    ("status", "said", "sound"),
    [
        (0, "backup successfully verified\n", True),
        (0, "", False),
        (1, "backup successfully verified\n", False),
        (0, 'backup successfully verified\npg_verifybackup: error: "x" is missing\n', False),
        (1, 'pg_verifybackup: error: checksum mismatch for file "base/5/1259"\n', False),
    ],
)
def test_pg_verifybackup_is_believed_only_if_words_and_status_agree(status: int, said: str, sound: bool) -> None:
    assert (base_problems(status, said) == []) is sound


def test_a_full_disk_is_recognised_in_the_words_and_in_the_signal() -> None:
    for status, said in ((1, 'could not write file "x": No space left on device'), (-25, "")):
        assert "Free space" in program_failed("copy", status, said).advice


def test_copies_are_hashed_and_links_and_special_files_are_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    (source / "deep").mkdir(parents=True)
    outside.mkdir()
    (outside / "secret").write_text("no")
    (source / "deep" / "a").write_text("content")
    (source / "to_directory").symlink_to(outside)
    (source / "to_file").symlink_to(outside / "secret")
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(source)  # a long path would not fit into a socket's address
        listener.bind("socket")
    copied = copy_tree(str(source), str(tmp_path / "copy"))
    entries = {entry["path"]: entry for entry in copied.entries}
    assert entries["deep/a"]["sha256"] == hashlib.sha256(b"content").hexdigest()
    assert entries["to_directory"]["link"] == str(outside)
    assert sorted(copied.special) == ["pipe", "socket"]
    assert sorted(str(p.relative_to(tmp_path / "copy")) for p in (tmp_path / "copy").rglob("*")) == ["deep", "deep/a"]
    assert tree_bytes(str(source)) == copied.bytes == 7


def test_names_that_are_no_text_are_copied(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    path = os.fsencode(source) + b"/caf\xe9"
    with open(path, "wb") as stream:
        stream.write(b"x")
    copied = copy_tree(str(source), str(tmp_path / "copy"))
    assert copied.files == 1
    assert os.listdir(os.fsencode(tmp_path / "copy")) == [b"caf\xe9"]


def test_a_file_that_keeps_changing_is_reported_and_one_that_settles_is_copied_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    done = threading.Event()

    def grow() -> None:
        with (source / "log").open("ab", buffering=0) as stream:
            while not done.is_set():
                stream.write(b"x" * 100)
                time.sleep(0.0001)

    (source / "log").write_bytes(bytes(30_000_000))
    (source / "quiet").write_text("still")
    writer = threading.Thread(target=grow)
    writer.start()
    try:
        copied = copy_tree(str(source), str(tmp_path / "copy"))
    finally:
        done.set()
        writer.join()
    assert copied.changing == ["log"]
    for entry in copied.entries:
        if entry["kind"] == "file":
            content = (tmp_path / "copy" / entry["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
            assert len(content) == entry["bytes"]
