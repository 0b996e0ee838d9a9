"""The restore test: identity, recovery, markers, content, catalogs, assertions, files and objectives."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

FAULTS = "faults/test_restore_test_faults.py"
CATALOG = "integration/test_restore_test_catalog.py"
NAMED = f"{CATALOG}::test_each_difference_is_named"
FILES = "integration/test_restore_test_files.py"
ROWS = f"{FILES}::test_what_rows_name_and_the_backup_lacks_is_named"
ROW = "unit/test_restore_file_rows.py::test_each_difference_from_its_row_is_named"
JUDGED = "unit/test_restore_judgements.py::test_assertions_are_judged_by_each_form"
SCRATCH = "unit/test_scratch_directory.py"
DECISIONS = "unit/test_restore_test_decisions.py"
LOST = "unit/test_wal_continuity.py::test_newest_does_not_mean_less_than_is_known_to_have_been_written"
MARKERS = "integration/test_restore_markers.py"

_BEFORE = (
    ("bytes before a restore", "flow.py", "problems = [f\"{one.label}: {problem}\" for one in found for problem in "
     "one.problems]", "problems = []",
     f"{FAULTS}::test_bytes_that_changed_are_found_before_anything_is_restored"),
    ("a newer backup that is damaged", "proof.py",
     "[entry for entry in repository.damaged() if entry.label > state.backup.label]", "[]",
     f"{FAULTS}::test_a_description_that_cannot_be_believed_is_a_failure"),
    ("the live cluster's backup", "proof.py", "recorded == state.live.system_identifier", "True",
     f"{FAULTS}::test_another_clusters_backup_is_refused"),
    ("files of the cluster that was backed up", "flow.py", "found != expected", "False",
     f"{FAULTS}::test_another_clusters_files_are_refused_before_they_are_started"),
    ("room for a restore", "flow.py", "free >= needed", "True",
     f"{FAULTS}::test_too_little_room_is_found_before_anything_is_written"),
    ("directories of the live cluster", "scratch_directory.py", "_reason_of_live", '""',
     f"{SCRATCH}::test_directories_of_the_live_cluster_are_refused_whatever_is_in_them"),
    ("data directories of other servers", "scratch_directory.py",
     'os.path.exists(os.path.join(directory, "PG_VERSION"))', "False",
     f"{SCRATCH}::test_data_directories_of_any_server_are_refused"),
    ("directories of somebody else", "scratch_directory.py", "_reason_against_owner", '""', SCRATCH),
    ("links that lead out of a restored cluster", "scratch_cluster.py", "_refuse_ways_out", "None",
     f"{FAULTS}::test_restored_links_that_lead_out_are_refused_before_the_start"),
    ("tablespaces that were made during a backup", "flow.py", "_refuse_new_tablespaces", "None",
     f"{FAULTS}::test_a_tablespace_created_during_the_backup_is_not_replayed"),
    ("a scratch server that is the live one", "scratch_cluster.py", "reason_not_ours", '""',
     f"{FAULTS}::test_a_server_on_the_live_data_directory_is_recognised_behind_its_socket"),
    ("proofs that looked less closely", "proof.py", 'if name not in proof["looked_at"]', "if False", DECISIONS),
    ("proofs from the future", "proof.py", "age < -CLOCK_TOLERANCE", "False", DECISIONS),
    ("old proofs", "proof.py", "if age >= interval", "if False", DECISIONS),
    ("proofs that were disproven", "proof.py", "take_back", "None",
     f"{FAULTS}::test_bytes_that_changed_are_found_before_anything_is_restored"),
)  # fmt: skip

_CONTENT = (
    ("recovery to the restore point", "flow.py", "not refused and f'restore point \"{name}\"' in stopped",
     "not refused", f"{FAULTS}::test_a_server_that_comes_up_without_stopping_at_the_point_is_no_proof"),
    ("a server that came up", "flow.py", "not refused and f'restore", "f'restore",
     f"{FAULTS}::test_a_server_that_ends_after_it_stopped_at_the_point_is_no_proof"),
    ("the marker of a backup", "content.py", "bool(rows),\n", "True,\n",
     f"{FAULTS}::test_a_marker_that_is_not_there_is_found"),
    ("content of tables", "../fingerprint.py", "compare", "[]",
     f"{FAULTS}::test_a_changed_row_is_found_though_every_checksum_fits"),
    ("databases without fingerprints", "content.py", "_not_recorded", "[]",
     f"{CATALOG}::test_a_database_without_fingerprints_is_told"),
    ("backups without fingerprints", "examination.py", "_say_not_compared", "None",
     f"{FAULTS}::test_a_backup_without_fingerprints_is_never_proven"),
    ("amcheck", "content.py", "check_structure", "None", f"{FAULTS}::test_a_damaged_index_is_found_by_amcheck"),
    ("content of dumps", "content.py", "check_dumps", "None",
     f"{FAULTS}::test_a_dump_that_holds_something_else_is_found"),
    ("roles and rights", "catalog_checks.py",
     '_same(part, "roles and rights of the restored cluster", recorded["cluster"], observed, unsure)', "pass", NAMED),
    ("schemas", "catalog_checks.py", '_same(part, f"schema of the restored database {database}", expected, found, '
     "unsure)", "pass", NAMED),
    ("extensions", "catalog_checks.py", "_same_extensions", "None", NAMED),
    ("libraries of extensions", "catalog_checks.py", "_not_loadable", "[]",
     f"{CATALOG}::test_a_library_that_is_not_on_this_host_is_named"),
    ("sequences", "catalog_checks.py", 'comparison.is_behind(values.get(name), least, facts["increment"])', "False",
     NAMED),
    ("columns ahead of their sequences", "catalog_checks.py", "_warn_of_columns_ahead", "None",
     f"{CATALOG}::test_numbers_ahead_of_their_sequence_are_a_warning_and_no_fault_of_the_backup"),
    ("collations", "catalog_checks.py", "_check_collations", "None",
     f"{CATALOG}::test_other_rules_for_sorting_are_a_warning"),
    ("catalogs that were not recorded", "catalog_checks.py", "    if recorded is None:", "    if recorded is None:\n"
     "        return\n    if False:",
     f"{CATALOG}::test_a_backup_from_before_catalogs_were_listed_is_still_tested_and_says_so"),
    ("properties of catalogs", "../catalog/comparison.py", "_changed", "[]",
     "unit/test_restore_judgements.py::test_catalogs_differ_by_name_and_property_and_secrets_are_not_shown"),
    ("assertions", "assertions.py", "verdict.passed", "True",
     f"{FILES}::test_a_source_scrambled_before_the_backup_is_found_by_what_the_application_asserts"),
    ("assertions that expect a value", "assertions.py", "normal(value) == normal(expected)", "True", JUDGED),
    ("assertions that expect at least", "assertions.py", "number >= bound", "True", JUDGED),
    ("assertions that expect at most", "assertions.py", "number <= bound", "True", JUDGED),
    ("assertions that expect a young row", "assertions.py", "age <= parse_duration(max_age)", "True", JUDGED),
    ("every form of an assertion", "assertions.py", "all(one.passed for one in found)",
     "any(one.passed for one in found)", JUDGED),
    ("assertions that expect nothing", "assertions.py", "refuse_bad", "None",
     f"{FILES}::test_an_assertion_that_expects_nothing_or_nonsense_is_refused"),
)  # fmt: skip

_FILES = (
    ("files of a backup as recorded", "file_rows.py", "not problems,\n", "True,\n",
     f"{FILES}::test_files_that_are_not_as_recorded_fail_the_test"),
    ("rows at all", "file_rows.py", "not found.problems and bool(found.rows)", "not found.problems", ROWS),
    ("files that rows name", "file_rows.py",
     "(FileNotFoundError, NotADirectoryError):\n        problem = \"is missing\"",
     "(FileNotFoundError, NotADirectoryError):\n        problem = \"\"", ROW),
    ("content of files that rows name", "file_rows.py", "digest and sha256_of(file) != digest", "False", ROW),
    ("size of files that rows name", "file_rows.py", "size is not None and status.st_size != int(size)", "False", ROW),
    ("rows that lead out", "file_rows.py", 'relative.startswith("../") or relative in ("..", ".")', "False", ROW),
    ("rows that lead through a link", "file_rows.py",
     "os.path.realpath(os.path.dirname(file)) != os.path.dirname(file)", "False", ROW),
    ("rows that name no plain file", "file_rows.py", "not stat.S_ISREG(status.st_mode)", "False", ROW),
    ("a root that no backup holds", "file_rows.py", "_place_of", "next(iter(places.values()), '')",
     "unit/test_restore_judgements.py::test_a_root_is_found_in_the_directory_that_holds_it_and_in_no_other"),
)  # fmt: skip

_TARGETS = (
    ("recovery to the target", "targets.py", "is_reached", "True",
     "unit/test_restore_judgements.py::test_recovery_has_reached_the_target_only_if_the_server_says_so"),
    ("markers before the target", "replay.py",
     "[marker for marker in required if marker.database == database and marker.id not in present]", "[]", MARKERS),
    ("markers after the target", "replay.py",
     "[marker for marker in late if marker.database == database and marker.id in present]", "[]", MARKERS),
    ("a marker at all before the target", "replay.py", "bool(required) and ", "", MARKERS),
    ("a gap before the newest commit", "aim.py", "if not wal.behind_gap and not beyond", "if not beyond",
     LOST),
    ("markers that no WAL leads to", "aim.py", "if not wal.behind_gap and not beyond", "if not wal.behind_gap",
     LOST),
    ("RPO", "objectives.py", "rpo <= target", "True",
     f"{FAULTS}::test_missed_targets_fail_though_the_content_is_right"),
    ("RPO from the future", "objectives.py", "-CLOCK_TOLERANCE <= rpo", "True",
     f"{FAULTS}::test_a_backup_from_the_future_is_not_taken_for_a_fresh_one"),
    ("RTO", "objectives.py", "rto <= target", "True",
     f"{FAULTS}::test_missed_targets_fail_though_the_content_is_right"),
)  # fmt: skip


def switches() -> Iterator[Switch]:
    for name, file, what, becomes, test in (*_BEFORE, *_CONTENT, *_FILES, *_TARGETS):
        yield Switch(name, f"restore/{file}", what, becomes, (test,))
