"""Compressed bases: when they are made, and when they are laid down."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

FAULTS = "faults/test_packed_base_faults.py"
MUTATIONS = f"{FAULTS}::test_archives_that_hold_anything_but_what_was_sent_are_refused"
RESTORED = f"{FAULTS}::test_a_restore_lays_down_all_files_of_the_manifest_or_fails"
COMPRESSOR = f"{FAULTS}::test_a_compressor_that_lies_makes_no_backup"

_SWITCHES = (
    ("archives that were just made", "core_creation.py", "verifying.problems()", "verifying.problems()[:0]",
     f"{COMPRESSOR}[flips a bit of what it is given]"),
    ("archives by pg_verifybackup", "packed/checking.py",
     'base_problems(done.returncode, done.stdout + "\\n" + done.stderr)', "[]", f"{MUTATIONS}[with_another_content]"),
    ("files in none of the archives", "packed/checking.py", "sorted(set(self._base.sizes).difference(names))", "[]",
     f"{MUTATIONS}[without_a_file]"),
    ("files twice in the archives", "packed/checking.py", "len(names) != len(set(names))", "False",
     f"{FAULTS}::test_a_file_in_two_archives_is_refused"),
    ("files of the manifest alone in archives", "packed/unpacking.py",
     "self.sizes.get(member.name) != member.size or not member.isreg()", "False",
     f"{RESTORED}[a file that grew]"),
    ("plain files alone in archives", "packed/unpacking.py", " or not member.isreg()", "",
     f"{FAULTS}::test_a_link_of_the_size_of_a_file_is_refused"),
    ("all files of the manifest laid down", "packed/unpacking.py", "missing or len(names) != len(self.sizes)", "False",
     f"{RESTORED}[a file less]"),
    ("the end of the decompressor", "packed/unpacking.py", "problem or process.returncode != 0", "problem",
     f"{FAULTS}::test_an_archive_that_is_damaged_behind_its_last_file_is_refused"),
    ("the end of the compressor", "packed/packing.py", "if status != 0:", "if False:",
     f"{COMPRESSOR}[does all and ends with an error]"),
)  # fmt: skip


def switches() -> Iterator[Switch]:
    for name, file, what, becomes, test in _SWITCHES:
        yield Switch(name, f"backup/{file}", what, becomes, (test,))
