"""The engine ``pgbackrest``: its verdict by its words, what we hold against our own records, and its WAL."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

WORDS = "unit/test_pgbackrest_words.py"
FAULTS = "faults/test_pgbackrest_faults.py"
SETS = "unit/test_pgbackrest_sets.py"

_SWITCHES = (
    ("pgBackRest's word for a set", "verdict.py", 'status != "valid" or checked', "checked", WORDS),
    ("files that pgBackRest found valid", "verdict.py", ' or checked != valid or checked == "0"', ' or checked == "0"',
     WORDS),
    ("a set of which pgBackRest checked nothing", "verdict.py", ' or checked == "0"', "", WORDS),
    ("segments that pgBackRest found valid", "verdict.py", "        if checked != valid:", "        if False:", WORDS),
    ("a verdict at all", "verdict.py", 'general = ["pgbackrest verify gave no verdict"]', "pass", WORDS),
    ("what pgBackRest complains of in general", "verdict.py",
     '[f"pgbackrest verify: {words.strip()}" for words in _NO_FILE.findall(said)]', "[]", WORDS),
    ("a set that the verdict does not name", "verdict.py",
     '[*self.general, f"pgbackrest verify does not say that {label} is valid"]', "self.general", WORDS),
    ("a set that pgBackRest has lost", "sets.py", "return [f\"pgBackRest does not list its set {label} any more\"]",
     "return []", SETS),
    ("pages that pgBackRest found damaged", "sets.py", 'if entry.get("error")', "if False", SETS),
    ("what a set builds on", "sets.py", 'entry["prior"] != remembered["prior"]', "False", SETS),
    ("a set of another backup", "sets.py", '(entry.get("annotation") or {}).get("wellkept") != backup.label', "False",
     SETS),
    ("files of a set", "sets.py", "_file_problems", "[]", SETS),
    ("manifests of a set", "sets.py", "manifest_problems", "[]",
     f"{FAULTS}::test_a_damaged_manifest_that_pgbackrest_is_silent_about_is_found"),
    ("WAL of a set", "sets.py", "_wal_problems", "[]", SETS),
    ("our listing of a set", "sets.py", "sha256_of(path) != expected.get(LISTING)", "False", SETS),
    ("what pgBackRest reads of a set", "engine.py", "self._read_set(sets, backup)", "[]",
     f"{FAULTS}::test_a_damaged_file_of_a_set_is_found_and_named"),
    ("the hash in a segment's name", "wal.py", "found and hashlib.sha1(content).hexdigest() != found.group(2)", "False",
     "unit/test_pgbackrest_wal.py::test_a_segment_of_another_content_than_its_name_says_is_refused"),
    ("segments that pgBackRest archived twice", "wal.py", "duplicates", "[]",
     "unit/test_pgbackrest_wal.py::test_a_segment_that_is_there_twice_is_told"),
    ("empty segments of pgBackRest", "wal.py", "if not listed.bytes", "if False",
     "unit/test_pgbackrest_wal.py::test_an_empty_segment_is_told"),
    ("WAL that arrives end to end", "wal_keeping.py", "not missing,\n        expected=\"a row written now",
     "True,\n        expected=\"a row written now",
     f"{FAULTS}::test_a_failing_archive_command_is_found_before_a_backup_waits_for_it"),
    ("the stanza of another cluster", "wal_keeping.py", "_refuse_other_cluster", "None",
     f"{FAULTS}::test_another_cluster_cannot_use_the_stanza"),
)  # fmt: skip


def switches() -> Iterator[Switch]:
    for name, file, what, becomes, test in _SWITCHES:
        yield Switch(name, f"backup/pgbackrest/{file}", what, becomes, (test,))
