"""What a mirror decides: what to send, what to call wrong, and what never to remove."""

from __future__ import annotations

import os
import random

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.decision import (
    Wanted,
    decide,
    decide_removal,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destination import Entry
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.hashing import parse_hashes
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.manifests import merge, serialise
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.memory import Record, counts_no_more
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.names import OWN, from_mirror, to_mirror

LABEL = "20261121T093000Z-full-1a2b"
OTHER = "20261120T093000Z-full-3c4d"


def test_any_name_is_written_so_that_it_can_be_read_back_and_is_harmless() -> None:
    chance = random.Random(7)
    for _attempt in range(2000):
        raw = bytes(chance.choice([*range(1, 47), *range(48, 256)]) for _byte in range(chance.randint(1, 20)))
        name = os.fsdecode(raw)
        if name in (".", ".."):
            continue
        written = to_mirror(name)
        assert from_mirror(written) == name
        written.encode("utf-8")
        assert written.isprintable() or not any(ord(letter) < 32 for letter in written)


def test_names_that_look_like_our_own_do_not_pass_for_them() -> None:
    assert to_mirror(".wellkept-mirror/owner.json") == "%2Ewellkept-mirror/owner.json"
    assert to_mirror("a/.incoming-1") == "a/%2Eincoming-1"


@pytest.mark.parametrize("name", ["a/../b", "..", "a//b", "/etc/passwd", "a/%2E%2E/b", "%2F", "a%00"])
def test_a_manifest_cannot_lead_a_fetch_out_of_its_directory(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        from_mirror(name)


def test_what_is_new_missing_or_different_is_sent_and_what_is_in_place_is_not() -> None:
    wanted = {name: Wanted(3, "h") for name in ("new", "lost", "cut", "fine", "adopted")}
    there = {"cut": Entry("file", 2), "fine": Entry("file", 3), "adopted": Entry("file", 3)}
    records = {name: Record(3, "h") for name in ("lost", "cut", "fine")}
    decision = decide(wanted, there, records)
    assert decision.send == {"new": "new", "lost": "missing there", "cut": "differs there"}
    assert (decision.adopt, decision.in_place) == (["adopted"], ["fine"])
    assert set(decision.problems) == {"lost", "cut"}
    kept = decide(wanted, there, records, append_only=True)
    assert "cut" not in kept.send, "nothing can be replaced there"
    assert "cut" in kept.problems


def test_what_a_killed_run_was_about_to_send_is_sent_and_no_problem() -> None:
    decision = decide({"listed": Wanted(3, "h")}, {}, {"listed": Record(3, "h")}, pending={"listed"})
    assert list(decision.send) == ["listed"]
    assert not decision.problems


def test_a_file_that_changed_here_is_not_sent_unless_it_is_said_to_change() -> None:
    there, records = {"a": Entry("file", 3)}, {"a": Record(3, "before")}
    assert decide({"a": Wanted(3, "after")}, there, records).changed == ["a"]
    assert decide({"a": Wanted(3, "after")}, there, records).send == {}
    assert decide({"a": Wanted(3, "after", True)}, there, records).send == {"a": "changed here"}


def test_what_killed_runs_left_is_told_from_strangers() -> None:
    wanted = {"d/file": Wanted(3, "h")}
    there = {name: Entry("file", 1) for name in ("d/.incoming-12", "d/.file.Ab12xY", "d/.other.Ab12xY", "d/x")}
    decision = decide(wanted, there, {})
    assert decision.leftovers == ["d/.file.Ab12xY", "d/.incoming-12"]
    assert decision.strangers == ["d/.other.Ab12xY", "d/x"]


def test_what_killed_runs_left_of_expired_files_and_of_our_own_is_told_from_strangers() -> None:
    own = f"{OWN}/manifests/.20260101T000000000000Z-ab12-00001.json.Ab12xY"
    there = {name: Entry("file", 1) for name in ("d/.sent.Ab12xY", "d/.begun.Ab12xY", own)}
    decision = decide({}, there, {"d/sent": Record(3, "h")}, pending={"d/begun"})
    assert decision.leftovers == sorted(there)
    assert not decision.strangers


def test_a_file_of_ours_that_is_called_like_a_leftover_is_none() -> None:
    name = "d/.file.backup"
    decision = decide({"d/file": Wanted(3, "h")}, {name: Entry("file", 3)}, {name: Record(3, "h")})
    assert (decision.leftovers, decision.gone) == ([], [name])


def removal(going: list[str], staying: int, **others: object):
    records = {name: Record(10, "h") for name in [*going, *(f"repository/main/{LABEL}/{n}" for n in range(staying))]}
    there = {name: Entry("file", 10) for name in records}
    options = {
        "backups_here": {"repository/main": {LABEL}},
        "proven": {},
        "most_percent": 50.0,
        "obstacles": [],
        **others,
    }
    return decide_removal(going, records, there, **options)


def test_a_removal_begins_with_the_description_and_keeps_to_its_limits() -> None:
    going = [f"repository/main/{OTHER}/{name}" for name in ("a", "backup.json", "z")]
    assert removal(going, 10).names[0].endswith("backup.json")
    assert "would vanish" in removal(going, 2).refused
    assert removal(going, 2).names == []
    assert "no sound backup" in removal(going, 10, backups_here={}).refused
    assert removal(going, 10, obstacles=["changed"]).names == []
    kept = removal(going, 10, proven={"repository/main": [OTHER]})
    assert (kept.names, kept.refused, kept.kept) == ([], "", [f"main/{OTHER}"])


def test_manifests_add_up_and_a_changed_one_counts_not_at_all() -> None:
    first = serialise({"a": Record(1, "x"), "b": Record(1, "y")}, ["d"])
    second = serialise({"a": Record(2, "z")}, [], ["b"])
    changed = second.replace(b'"z"', b'"w"')
    assert changed != second
    told = merge({"1.json": first, "2.json": second, "3.json": second[:-3], "4.json": b"{}", "5.json": changed})
    assert told.files == {"a": Record(2, "z", 0.0, True)}
    assert (told.directories, told.flaws) == ({"d"}, ["3.json", "4.json", "5.json"])


def test_each_file_is_read_again_once_in_the_period_and_never_believed_from_the_future() -> None:
    day, within = 86400.0, 30 * 86400.0
    due = 0
    for number in range(300):
        read_at = 1000 * day
        days = [n for n in range(1, 31) if counts_no_more(f"f{number}", read_at, read_at + n * day, within)]
        assert days, "at the latest after the period"
        due += days[0] == 1
    assert 0 < due < 40, "a share each day"
    assert counts_no_more("f", 2000 * day, 1000 * day, within)


def test_only_lines_of_hashes_are_taken_from_what_a_host_says() -> None:
    line = b"a" * 64 + b"  na\nme"
    assert list(parse_hashes(line + b"\0welcome\0" + b"b" * 63 + b"  x\0")) == [("na\nme", "a" * 64)]
