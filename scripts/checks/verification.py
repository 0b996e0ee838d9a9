"""Verification of backups by the engine ``core``; what is in its lists of checks is found there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .switch import ROOT, UTILS, Switch

AUDIT = "unit/test_backup_audit.py"
PARTS = "unit/test_backup_parts.py"
REPOSITORY = "unit/test_backup_repository.py"
RUNS = "integration/test_backup_verification.py"
FAULTS = "faults/test_backup_verification_faults.py"
MUTILATIONS = f"{FAULTS}::test_every_mutilation_is_found_and_named_by_an_incremental_verification"

FLIPS = f"{FAULTS}::test_each_of_hundreds_of_flipped_bits_is_found_and_no_other_file_is_blamed"

# What shows each step of contents.py.
STEPS = {
    "missing_files": f"{MUTILATIONS}[missing_file]",
    "exchanged_files": f"{MUTILATIONS}[a_link_instead]",
    "cut_or_grown_files": f"{MUTILATIONS}[append]",
    "locked_files": f"{MUTILATIONS}[locked_file]",
    "foreign_files": f"{MUTILATIONS}[extra_file]",
    "missing_directories": f"{MUTILATIONS}[missing_directory]",
    "missing_wal": f"{AUDIT}::test_segments_that_the_description_does_not_name_are_missed",
    "empty_dumps": f"{FAULTS}::test_a_dump_that_was_written_empty_is_found_although_its_hash_fits",
}


def switches() -> Iterator[Switch]:
    yield from _listed()
    for name, file, what, becomes, tests in (
        ("bytes of files", "reading.py", "_read_one", "([], True)", (FLIPS,)),
        ("bytes of the base", "reading.py", "_by_pg_verifybackup", "([], True)", (f"{MUTILATIONS}[replace]",)),
        ("words of pg_verifybackup", "reading.py", "base_problems", "[]", (PARTS,)),
        (
            "records of the WAL",
            "verification.py",
            "_unreadable_wal",
            "[]",
            (f"{FAULTS}::test_wal_whose_records_cannot_be_read_is_found_although_its_hash_fits",),
        ),
        ("changes since a reading", "remembered.py", "is_due", "self.read_at(path) == 0", (f"{MUTILATIONS}[replace]",)),
        (
            "time since a reading",
            "remembered.py",
            "is_over",
            "False",
            (f"{RUNS}::test_within_the_stated_time_everything_is_read_again_some_each_day",),
        ),
        ("rights", "access.py", "exposed", "Exposed([], [])", (AUDIT,)),
        (
            "manifests as they were written",
            "contents.py",
            "hashlib.sha256(raw).hexdigest() != entry.sha256",
            "False",
            (f"{MUTILATIONS}[bad_manifest]",),
        ),
        (
            "descriptions as they were written",
            "repository.py",
            "serialise_metadata(metadata) != raw",
            "False",
            (REPOSITORY,),
        ),
        (
            "a description under its own name",
            "repository.py",
            'metadata.get("label") != label',
            "False",
            (f"{FAULTS}::test_backups_under_each_others_names_are_no_backups",),
        ),
        (
            "memory as it was written",
            "remembered.py",
            r'hashlib.sha256(body.rstrip(b"\n")).hexdigest().encode() != digest',
            "False",
            (f"{RUNS}::test_a_damaged_memory_is_not_believed",),
        ),
        (
            "memory of this backup",
            "remembered.py",
            'document.get("backup_sha256") == identity',
            "True",
            (f"{RUNS}::test_what_is_remembered_counts_only_for_what_the_backup_said_then",),
        ),
        (
            "damage that others noted",
            "remembered.py",
            "memory.repository.noted_damage(backup.label)",
            "False",
            (f"{RUNS}::test_damage_that_somebody_else_noted_has_everything_read_again",),
        ),
        (
            "files just written",
            "remembered.py",
            "self._memory.now - before.st_ctime >= _GRANULARITY",
            "True",
            (f"{FAULTS}::test_readings_from_the_future_or_of_what_was_just_written_do_not_count",),
        ),
    ):
        yield Switch(name, f"backup/{file}", what, becomes, tests)


def _listed() -> Iterator[Switch]:
    directory = ROOT / UTILS / "backup"
    in_audit = re.findall(r'    Check\(\s+"([^"]+)",\s+(\w+),', (directory / "audit.py").read_text())
    steps = re.search(r"\nSTEPS[^=]*= \((.*?)\n\)", (directory / "contents.py").read_text(), re.DOTALL)
    if not in_audit or not steps:
        raise SystemExit("the lists of checks were not found in audit.py and contents.py")
    for name, function in in_audit:
        yield Switch(name, "backup/audit.py", function, "[]", (AUDIT,))
    for function in re.findall(r"\w+", steps.group(1)):
        tests = (STEPS.get(function, MUTILATIONS),)
        yield Switch(function.replace("_", " "), "backup/contents.py", function, "[]", tests)
