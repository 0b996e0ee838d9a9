"""WAL beside the backups: its continuity, its segments, and what may be put into the archive."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

ARCHIVE = "unit/test_wal_archive.py"
CONTINUITY = "faults/test_backup_verification_wal.py"
GAPS = "unit/test_wal_continuity.py"
HELPER = "faults/test_wal_helper_faults.py"

_SWITCHES = (
    (
        "gaps in the WAL archive",
        "verification.py",
        "_missing",
        "[]",
        (f"{GAPS}::test_all_from_the_start_to_the_newest_segment_must_be_there",),
    ),
    (
        "gaps where a backup begins",
        "verification.py",
        "_was_archived",
        "False",
        (f"{CONTINUITY}::test_a_gap_where_a_backup_begins_fails",),
    ),
    (
        "an archive that ends before the newest backup",
        "verification.py",
        '*(parse_lsn(b.metadata["stop_lsn"]) for b in backups if _is_on(b, line))',
        "",
        (f"{GAPS}::test_an_archive_that_ends_within_a_backup_has_a_gap",),
    ),
    (
        "an archive without WAL",
        "verification.py",
        "not present",
        "False",
        (f"{CONTINUITY}::test_an_empty_archive_or_none_fails",),
    ),
    (
        "timelines of which nothing is known",
        "verification.py",
        'nothing._replace(problem=f"{error.expected} is not there, which says how timeline {newest} came about")',
        "nothing",
        (f"{CONTINUITY}::test_a_timeline_of_which_nobody_knows_how_it_came_about_fails",),
    ),
    (
        "segments in the WAL archive",
        "archive.py",
        "problem_of",
        '""',
        (f"{CONTINUITY}::test_segments_that_are_not_what_they_were_fail_and_are_named_each_time",),
    ),
    ("segments of another name or cluster", "wal_helper.py", "segment_problem", '""', (ARCHIVE,)),
    (
        "other content under the name of a segment",
        "wal_helper.py",
        "_is_there",
        "os.path.exists('/proc/self/fd/%d/%s' % (timeline, name))",
        (f"{HELPER}::test_the_same_again_succeeds_and_another_content_is_refused_whatever_the_compression",),
    ),
)


def switches() -> Iterator[Switch]:
    for name, file, what, becomes, tests in _SWITCHES:
        yield Switch(name, f"backup/wal/{file}", what, becomes, tests)
