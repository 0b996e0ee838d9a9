"""The off-site copy: what is sent, hashes there, an account that can only add, and what a ransom would do."""

from __future__ import annotations

from collections.abc import Iterator

from .switch import Switch

DECISIONS = "unit/test_backup_mirror_decisions.py"
MIRROR = "integration/test_backup_mirror.py"
FAULTS = "faults/test_backup_mirror_faults.py"
APPEND_ONLY = "integration/test_backup_mirror_append_only.py"

_SWITCHES = (
    # What is here.
    ("backups that are damaged here", "sources.py", '(noted or (problems[0] if problems else ""))', '""',
     f"{FAULTS}::test_a_backup_that_is_damaged_here_is_not_sent"),
    ("descriptions that are damaged here", "sources.py", "for damaged in repository.damaged():", "for damaged in ():",
     f"{FAULTS}::test_a_backup_whose_description_is_damaged_here_is_told_and_kept_there"),
    ("files that are not what their manifest says", "flow.py",
     "item.sha256 and item.sha256 != self._wanted[item.name].sha256", "False",
     f"{FAULTS}::test_a_backup_with_damage_that_only_a_hash_shows_is_not_sent"),
    ("files that change while they are sent", "directory.py", "digest.hexdigest() != file.sha256", "False",
     f"{FAULTS}::test_a_file_that_changed_since_it_was_read_is_not_sent[directory]"),
    ("files that changed before rsync sent them", "rsync.py", "sha256_of(os.path.join(base, name)) != file.sha256",
     "False", f"{FAULTS}::test_a_file_that_changed_since_it_was_read_is_not_sent[rsync]"),
    ("files that never change", "decision.py", "changed and not wish.mutable", "False", DECISIONS),
    ("files that changed here, told", "report.py", "_changed", "None",
     f"{FAULTS}::test_files_that_were_encrypted_under_sound_descriptions_are_not_sent"),
    # What is there.
    ("the owner of a mirror", "flow.py", "there != self._owner()", "False",
     f"{FAULTS}::test_a_mirror_of_another_host_is_refused[directory]"),
    ("names and sizes there", "decision.py", "(entry.kind, entry.size) != (FILE, wish.size)", "False", DECISIONS),
    ("what is missing there", "decision.py", 'decision.problems[name] = "is missing"', "pass", DECISIONS),
    ("hashes there", "flow.py", "name in expected and sha256 == expected[name]", "name in expected",
     f"{FAULTS}::test_a_flipped_bit_is_found_within_reread_within_though_nothing_else_shows_it"),
    ("hashes of what was there before", "flow.py", "_adopt", "None",
     f"{FAULTS}::test_a_file_in_the_way_of_a_new_one_is_not_taken_for_it[directory]"),
    ("reading again in time", "memory.py", "counts_no_more", "not read_at", DECISIONS),
    ("what was left unread", "report.py", '"warned" if outcome.left_bytes else "passed"', '"passed"',
     f"{MIRROR}::test_reading_is_spread_and_a_budget_is_told"),
    ("strangers there", "report.py", "not strangers,\n", "True,\n",
     f"{FAULTS}::test_an_extra_file_there_is_named_and_left_alone[directory]"),
    ("manifests there", "flow.py", "_check_manifests", "None",
     f"{FAULTS}::test_a_damaged_or_lost_manifest_is_told_and_written_anew[directory]"),
    ("manifests of a mirror as they were written", "manifests.py", "parse_metadata(contents[name])",
     "__import__('json').loads(contents[name])", DECISIONS),
    ("backups that are not complete there", "flow.py",
     "[item.name for item in unit.items if item.turn == 0 and item.name not in self.records.files]", "[]",
     f"{FAULTS}::test_a_backup_of_which_a_file_cannot_be_sent_gets_no_description_there"),
    ("the age of the newest backup there", "report.py", "age <= max_age", "True",
     f"{FAULTS}::test_an_old_backup_or_one_from_the_future_is_told"),
    ("backups from the future there", "report.py", "not future and ", "",
     f"{FAULTS}::test_an_old_backup_or_one_from_the_future_is_told"),
    # What goes there.
    ("the newest proven backup stays there", "decision.py",
     "if label in proven.get(f\"{name.split('/')[0]}/{cluster}\", ()):", "if False:", DECISIONS),
    ("no removal without a sound backup here", "decision.py", "label and not backups_here.get(where)", "False",
     DECISIONS),
    ("no removal of too much", "decision.py", "share > most_percent", "False", DECISIONS),
    ("no removal after something changed here", "pruning.py", "if decision.changed else []", "if False else []",
     f"{FAULTS}::test_nothing_is_removed_there_while_something_has_changed_here"),
    ("no removal while the newest there is unsound", "pruning.py", "_unsound_newest", '""',
     f"{FAULTS}::test_nothing_is_removed_while_the_newest_backup_there_is_not_sound"),
    ("removals that were refused", "report.py", "not removal.refused,\n", "True,\n",
     f"{FAULTS}::test_a_repository_that_was_emptied_takes_nothing_from_the_mirror[directory]"),
    # An account that can only add.
    ("what an attempt left", "append_only.py", "return not _is_sound(connection, probe)", "return False",
     f"{APPEND_ONLY}::test_an_account_with_a_shell_is_found_out"),
    ("old probes", "append_only.py", "there[probe] != Entry(FILE, len(content_of(probe)))", "False",
     f"{APPEND_ONLY}::test_a_changed_probe_is_told"),
    ("content of old probes", "append_only.py",
     "old and old[0] not in broken and not _is_sound(connection, old[0])", "False",
     f"{APPEND_ONLY}::test_a_changed_probe_is_told"),
    ("attempts on old probes", "append_only.py", "_try_old", "None",
     f"{APPEND_ONLY}::test_an_account_that_may_delete_what_is_old_is_found_out"),
    ("an account that can delete", "report.py", "not proof.broken,\n", "True,\n",
     f"{APPEND_ONLY}::test_an_account_with_a_shell_is_found_out"),
    ("what vanished though nothing can", "decision.py",
     "name not in wanted and name not in there and append_only and not name.startswith(OWN)", "False",
     f"{APPEND_ONLY}::test_the_far_side_may_remove_what_is_old_if_we_were_told"),
    # What is fetched back.
    ("hashes of what is fetched", "fetching.py", "if sha256_of(path) != chosen[name].sha256", "if False",
     f"{FAULTS}::test_a_fetch_leaves_out_a_damaged_backup_and_says_so[directory]"),
    ("names that lead out of a fetch", "names.py", 'any(part in ("", ".", "..") or "/" in part or "\\0" in part for '
     "part in parts)", "False", DECISIONS),
    ("a fetch to what is not empty", "fetching.py", "require_empty", "None",
     f"{MIRROR}::test_one_backup_is_fetched_with_all_that_it_builds_on"),
)  # fmt: skip


def switches() -> Iterator[Switch]:
    for name, file, what, becomes, test in _SWITCHES:
        yield Switch(name, f"mirror/{file}", what, becomes, (test,))
