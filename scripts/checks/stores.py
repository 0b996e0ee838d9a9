"""What is saved beside the databases: files by copy, files by restic, Redis."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

FILES = "unit/test_backup_application_files.py"
RESTIC = "faults/test_restic_faults.py"
RESTIC_RUNS = "faults/test_restic_runs.py"
DAMAGE = f"{RESTIC}::test_damage_is_found"
WORDS = "unit/test_restic_words.py"
REDIS = "faults/test_redis_copy_faults.py"
REDIS_RESTORE = "integration/test_redis_restore.py"

_FILES = (
    ("the list of files as it was written", "application_files.py",
     'expected is None or hashlib.sha256(raw).hexdigest() != expected["sha256"]', "False",
     f"{FILES}::test_a_list_that_is_not_as_it_was_written_is_refused"),
    ("files that were not laid down", "application_files.py",
     'problems += [f"{source[\'source\']}: {shown(path)} is missing" for path in sorted(missing)]', "pass", FILES),
    ("kind, rights and owner of files", "application_files.py", "_compare_status", "iter(())", FILES),
    ("content of files", "application_files.py", "_compare_content", "iter(())", FILES),
    ("paths that lead out", "application_files.py", "_inside", "path", FILES),
    ("files that could not be read", "application_files.py",
     '"failed" if copied.unreadable else "warned" if found else "passed"', '"passed"',
     f"{FILES}::test_what_could_not_be_saved_is_told"),
)  # fmt: skip

_RESTIC = (
    ("snapshots that are gone", "checking.py",
     'one["snapshot"] not in found or label_of(found[one["snapshot"]]) != label', "False",
     f"{RESTIC}::test_a_snapshot_that_somebody_forgot_is_missed"),
    ("snapshots of another backup", "checking.py", ' or label_of(found[one["snapshot"]]) != label', "",
     f"{RESTIC}::test_swapped_snapshots_are_told"),
    ("another restic repository", "checking.py", 'one["repository_id"] != identity', "False",
     f"{RESTIC}::test_another_repository_in_the_place_of_ours_is_not_taken_for_it"),
    ("another restic repository, in a restore", "files.py", "_refuse_another", "None",
     f"{RESTIC}::test_another_repository_in_the_place_of_ours_is_not_taken_for_it"),
    ("a restic repository that vanished", "files.py", "_refuse_to_begin_anew", "None",
     f"{RESTIC}::test_a_repository_that_vanished_is_not_begun_anew"),
    ("a restic repository that cannot be opened", "checking.py", "report_not_opened", "None",
     f"{DAMAGE}[a missing key]"),
    ("snapshots without a backup", "checking.py", "_is_gone", "False",
     f"{RESTIC_RUNS}::test_a_snapshot_of_a_backup_that_is_no_more_is_told_and_left"),
    ("indexes, trees and packs of restic", "checking.py", "structure_problems", "[]",
     f"{RESTIC}::test_a_pack_that_goes_after_all_was_read_is_missed_by_the_next_run"),
    ("content of the packs of restic", "checking.py", "_read_parts", "Looked([], [], 0, 0)",
     f"{DAMAGE}[a flipped bit in a pack of data]"),
    ("packs read within the period", "checking.py",
     'remembered.is_over(f"restic/{name}", memory.read_at.get(name, 0.0))', "name not in memory.read_at",
     f"{RESTIC}::test_a_bit_lost_after_it_was_read_is_found_within_the_period"),
    ("packs left for the next run", "checking.py", '"warned" if looked.left or looked.problems else "passed"',
     '"passed"', f"{RESTIC}::test_a_spent_budget_leaves_parts_for_the_next_run_and_says_so"),
    ("restic's exit status", "checking.py", "done.returncode == 0 and _SUCCESS", "_SUCCESS", WORDS),
    ("restic's word of success", "checking.py", " and _SUCCESS in lines", "", WORDS),
    ("restic's complaints beside its success", "checking.py", "in lines and not complaints", "in lines", WORDS),
    ("rights in the restic repository", "checking.py", '"warned" if reach.writable else "passed"', '"passed"',
     f"{RESTIC}::test_a_repository_that_others_can_write_to_is_told"),
    ("damage told to the next backup", "checking.py", "report_noted_damage", "None",
     f"{RESTIC}::test_a_new_backup_says_that_it_builds_on_what_was_found_damaged"),
    ("the snapshot just made", "files.py", "not self.taken.problems", "True",
     f"{RESTIC}::test_a_missing_pack_is_told_by_the_very_next_backup"),
    ("restored files against their list", "files.py", "compare(manifest, directory)",
     "compare([], directory)", f"{RESTIC}::test_a_damaged_file_is_not_restored_as_if_it_were_sound"),
    ("the exit status of a restore by restic", "files.py", "if done.returncode != 0:", "if False:",
     f"{RESTIC}::test_a_damaged_file_is_not_restored_as_if_it_were_sound"),
    ("a repository inside of what it saves", "../application_files.py", "refuse_to_hold", "None",
     f"{RESTIC}::test_links_and_the_repository_itself_are_refused_as_sources"),
)  # fmt: skip

_REDIS = (
    ("whose and of when an RDB file is", "stores/redis_copies.py",
     'rdb.refuse_unless_of(path, copy["replication_id"], copy["offset"])', "pass",
     f"{REDIS}::test_swapped_files_of_two_servers_are_found"),
    ("whose and of when a copy is that was just made", "stores/redis_copies.py",
     "rdb.refuse_unless_of(path, taken.replication_id, taken.offset)", "pass",
     f"{REDIS}::test_a_file_of_another_moment_than_the_server_announced_makes_no_backup"),
    ("a copy that redis-check-rdb refuses", "stores/redis_copies.py", 'if facts["problem"]:', "if False:",
     f"{REDIS}::test_the_words_of_redis_check_rdb_count"),
    ("words of redis-check-rdb", "../redis/rdb.py", "_SOUND in said and ", "",
     f"{REDIS}::test_the_words_of_redis_check_rdb_count"),
    ("exit status of redis-check-rdb", "../redis/rdb.py", "done.returncode == 0 and ", "",
     f"{REDIS}::test_the_words_of_redis_check_rdb_count"),
    ("numbers that redis-check-rdb counted", "../redis/rdb.py", " and all(counts.values())", "",
     f"{REDIS}::test_the_words_of_redis_check_rdb_count"),
    ("keys in a copy", "stores/redis_copies.py", 'least <= copy["keys"] <= most', "True",
     f"{REDIS}::test_keys_that_the_copy_lacks_are_told_when_it_is_made"),
    ("the checksum of an RDB file", "stores/redis_copies.py", '"passed" if copy["checksum"] else "warned"', '"passed"',
     f"{REDIS}::test_a_checksum_that_is_switched_off_is_warned_about"),
    ("the hash of an RDB file that is laid down", "stores/redis_copies.py",
     'digest.hexdigest() == expected["sha256"]', "True", f"{REDIS}::test_a_damaged_file_is_not_started"),
    ("keys of a restored Redis", "../restore/redis_content.py",
     'keyspace.beyond(found, recorded["bounds"], expired)', "[]", f"{REDIS}::test_lost_keys_are_found"),
    ("keys that were not loaded", "../restore/redis_content.py",
     'recorded["keys"] is not None and loaded + expired != recorded["keys"]', "False",
     f"{REDIS}::test_keys_that_were_not_loaded_are_found"),
    ("the marker in a restored Redis", "../restore/redis_content.py", "_check_marker", "None",
     f"{REDIS}::test_an_older_copy_in_the_place_of_a_newer_one_is_found"),
    ("values of a restored Redis", "../restore/redis_content.py", "_unreadable", '""',
     f"{REDIS}::test_a_value_that_cannot_be_read_is_told"),
    ("the same content in a second test", "../restore/redis_content.py", 'before["sha1"] == now.sha1', "True",
     f"{REDIS_RESTORE}::test_a_second_test_of_a_backup_must_find_the_same_content"),
    ("assertions about Redis", "../restore/redis_content.py", "verdict.passed", "True",
     f"{REDIS_RESTORE}::test_assertions_are_asked"),
    ("servers that are not in the backup", "../restore/redis_test.py", "_check_names", "None",
     f"{REDIS_RESTORE}::test_an_assertion_about_a_server_that_is_not_in_the_backup_fails"),
    ("a scratch server that does not start", "../restore/redis_test.py",
     '"passed" if not problem else "unknown" if rdb.TOO_NEW.search(problem) else "failed"', '"passed"',
     f"{REDIS}::test_a_damaged_file_whose_hash_was_made_to_fit_is_found_by_the_restore[damage]"),
    ("memory for a restored Redis", "../restore/redis_test.py", "memory >= needed and ", "",
     f"{REDIS_RESTORE}::test_memory_that_a_restore_needs_is_looked_for_first"),
)  # fmt: skip


def switches() -> Iterator[Switch]:
    for below, rows in (("backup/stores/", _FILES), ("backup/stores/restic/", _RESTIC), ("backup/", _REDIS)):
        for name, file, what, becomes, test in rows:
            yield Switch(name, below + file, what, becomes, (test,))
