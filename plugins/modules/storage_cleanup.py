#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: storage_cleanup
short_description: Remove files that are too old, too much or too many in listed directories
version_added: "0.1.0"
description:
  - Each rule names one directory and says which of its files go. A file goes when any criterion demands it.
  - Nothing outside of the directory is ever touched. Links are not followed, other file systems are not entered, and a
    directory that is exchanged for a link meanwhile leads nowhere.
  - Refused are relative paths, paths with C(..) or with a link in them, paths that are not at least two levels deep,
    home directories, system directories, the state directory of maintenance, and what looks like a PostgreSQL data
    directory, a backup repository or the root of a git work tree. Subdirectories of such a kind are left alone.
  - Files that a process has open are kept. Who is not root cannot see what the processes of others have open, so then
    only one's own files are removed, and a check says V(unknown) unless the rule is O(rules[].private).
  - Freed space is measured by the file system and by the sum of what was removed.
options:
  rules:
    description: The directories to clean, each with at least one of O(rules[].older_than), O(rules[].max_bytes) and
      O(rules[].max_files). No rule at all means that the activity is skipped.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the rule is called in checks and reports; its path when not given.
        type: str
      path:
        description: Absolute path of the directory.
        type: str
        required: true
      patterns:
        description: Globs that are compared with file names; a file that matches none is left alone. V(*) matches names
          that begin with a dot too.
        type: list
        elements: str
        default: ["*"]
      exclude:
        description: Globs of file names that are left alone although they match O(rules[].patterns).
        type: list
        elements: str
        default: []
      older_than:
        description: Files last modified longer ago than this go, like V(7d) or V(12h).
        type: str
      max_bytes:
        description: The oldest files go until the rest takes up no more than this on disk, like V(500MiB).
        type: str
      max_files:
        description: The oldest files go until no more than this many are left.
        type: int
      min_keep:
        description: As many of the newest files stay whatever the criteria say.
        type: int
        default: 0
      recurse:
        description: Whether files in subdirectories belong to the rule too.
        type: bool
        default: false
      remove_empty_directories:
        description: Whether subdirectories go that are empty and were last modified longer ago than
          O(rules[].older_than), or than one hour without it.
        type: bool
        default: false
      remove_links:
        description: Whether symbolic links themselves, never what they point to, go like files.
        type: bool
        default: false
      private:
        description: Whether nobody but the user that cleans has these files open, so that it is no gap in the proof
          that open files of others cannot be seen. Without effect where they can.
        type: bool
        default: false
      missing_ok:
        description: Whether it is normal that the directory does not exist; otherwise that is a warning.
        type: bool
        default: false
extends_documentation_fragment:
  - wellkept.maintenance.activity
author:
  - The Wellkept team (@wellkept)
seealso:
  - module: wellkept.maintenance.cache_clearing
"""

EXAMPLES = r"""
- name: Remove what is too old, too much or too many
  wellkept.maintenance.storage_cleanup:
    rules:
      - name: temporary uploads
        path: /srv/app/uploads/tmp
        older_than: 7d
        recurse: true
        remove_empty_directories: true
      - name: exports
        path: /srv/app/exports
        patterns: ["*.csv", "*.zip"]
        max_bytes: 500MiB
        min_keep: 3
"""

RETURN = r"""
checks:
  description: For each rule, whether its directory may be cleaned, whether anything is left that should have gone,
    whether open files were known, and whether the freed space agrees with what was removed.
  returned: always
  type: list
  elements: dict
  sample:
    - name: "rule temporary uploads: nothing left that should go"
      status: passed
      expected: no file older than 7 d
      observed: "12 files, 3.1 MiB stay; removed 230 files and 4 directories, 61.0 MiB"
      advice: ""
      evidence: {due_files: 0, removed: ["/srv/app/uploads/tmp/a.part"]}
metrics:
  description: What was removed and what stays.
  returned: always
  type: dict
  sample:
    removed_files: {value: 230, unit: count}
    freed_bytes: {value: 63963136, unit: bytes}
    bytes_in_temporary_uploads: {value: 3250585, unit: bytes}
changes:
  description: One entry for each rule by which something was removed, or would be in check mode.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: files
      name: rule temporary uploads
      before: 242 files, 64.1 MiB
      after: 12 files, 3.1 MiB
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import contextlib
import functools
import os
import re
import time

from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.open_files import files_in_use, how_to_see_all
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.freed_space import account, free_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.guard_rails import opened_for_cleaning
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.rules import decide, read_rules
from ansible_collections.wellkept.maintenance.plugins.module_utils.storage.sweep import measure, sweep

RULE_OPTIONS = {
    "name": {"type": "str"},
    "path": {"type": "str", "required": True},
    "patterns": {"type": "list", "elements": "str", "default": ["*"]},
    "exclude": {"type": "list", "elements": "str", "default": []},
    "older_than": {"type": "str"},
    "max_bytes": {"type": "str"},
    "max_files": {"type": "int"},
    "min_keep": {"type": "int", "default": 0},
    "recurse": {"type": "bool", "default": False},
    "remove_empty_directories": {"type": "bool", "default": False},
    "remove_links": {"type": "bool", "default": False},
    "private": {"type": "bool", "default": False},
    "missing_ok": {"type": "bool", "default": False},
}


def clean(module, part, rule, in_use):
    """Measure, decide, act and measure again by one rule."""
    with contextlib.ExitStack() as held:
        descriptor = open_directory(part, rule, module.params["state_dir"], held)
        if descriptor is None:
            return
        free_before = free_bytes(descriptor)
        began = time.time()
        limits = decide(rule, began, measure(rule, descriptor))
        done = sweep(rule, limits, descriptor, in_use, remove=not module.check_mode)
        something_went = done.due.count > 0
        left = done
        if something_went and not module.check_mode:
            left = sweep(rule, limits.verifying(began), descriptor, in_use, remove=False)
        record(part, rule, done, left, module.check_mode)
        if something_went or done.in_use:
            record_in_use(part, rule, done, in_use())
        if something_went and not module.check_mode:
            grown = account(
                part,
                f"rule {rule.name}: freed space agrees with what was removed",
                descriptor,
                removed_below=f"{rule.path}/",
                free_before=free_before,
                freed_by_sum=done.due_bytes,
                hard_links=done.hard_links,
            )
            add_to_metric(part, "freed_bytes_by_statvfs", grown, "bytes")


def open_directory(part, rule, state_dir, held):
    """Open the rule's directory for as long as *held* is, past the guard rails; None when that was refused."""
    name = f"rule {rule.name}: directory may be cleaned"
    expected = "a directory that exists and that the guard rails allow"
    try:
        _parent, descriptor = held.enter_context(opened_for_cleaning(rule.path, state_dir))
    except MaintenanceError as error:
        part.check(name, "failed", expected=error.expected, observed=error.observed, advice=error.advice)
    except FileNotFoundError as error:
        status = "passed" if rule.missing_ok else "warned"
        advice = "Create it, correct the rule, or set `missing_ok: true` where that is normal."
        part.check(name, status, expected=expected, observed=f"{error.filename} does not exist", advice=advice)
    except OSError as error:
        advice = "Run with `become: true`, or correct the rule."
        part.check(name, "failed", expected=expected, observed=f"{error.filename}: {error.strerror}", advice=advice)
    else:
        part.check(name, "passed", expected=expected, observed=rule.path)
        return descriptor
    return None


def record(part, rule, done, left, check_mode):
    """Record what went by *rule*, and verify with the later pass *left* that nothing more has to go."""
    if done.due:
        after = f"{done.files - done.due_files} files" if check_mode else left.holdings()
        part.change("files", f"rule {rule.name}", done.holdings(), f"{after}; removed {done.departures()}")
    if not check_mode:
        add_to_metric(part, "removed_files", done.due_files, "count")
        add_to_metric(part, "removed_directories", done.due_directories, "count")
        add_to_metric(part, "freed_bytes", done.due_bytes, "bytes")
    slug = re.sub(r"[^a-z0-9]+", "_", rule.name.lower()).strip("_")
    part.metric(f"files_in_{slug}", left.files, "count")
    part.metric(f"bytes_in_{slug}", left.bytes, "bytes")
    if done.left_alone:
        part.check(
            f"rule {rule.name}: no subdirectory has to be left alone",
            "warned",
            expected="nothing but the application's own directories",
            observed=str(done.left_alone),
            advice="Move it elsewhere, or name a deeper directory in the rule. Nothing in it was touched.",
            evidence={"left_alone": done.left_alone.first},
        )
    if check_mode and done.due and not done.problems:
        return
    status, observed, advice = verdict(rule, done, left)
    part.check(
        f"rule {rule.name}: nothing left that should go",
        status,
        expected=str(rule),
        observed=observed,
        advice=advice,
        evidence={
            "due_files": 0 if check_mode else left.due_files if done.due else 0,
            "removed": [] if check_mode else done.due.first,
            "kept_in_use": left.in_use.first,
            "kept_of_others": left.foreign.first,
            "problems": (done.problems or left.problems).first,
        },
    )


def verdict(rule, done, left):
    """Status, observation and advice from the pass that removed (*done*) and the one after it (*left*)."""
    stays = (
        f"{left.holdings()} stay"
        if left is done or not done.due
        else f"{left.holdings()} stay; removed {done.departures()}"
    )
    problems = done.problems or left.problems
    if problems:
        return "failed", f"{problems}; {stays}", "Run with `become: true`, or correct owner and mode of what is named."
    if left is not done and left.due:
        return "failed", f"{left.departures()} still there: {left.due}; {stays}", "See what makes them come back."
    if left.foreign:
        advice = "Run with `become: true`: whether files of other users are open cannot be seen, so they are kept."
        return "warned", f"{left.foreign.count} files of other users kept: {left.foreign}; {stays}", advice
    if left.in_use and (rule.max_bytes is not None and left.bytes > rule.max_bytes):
        return "warned", f"{stays}; kept because open: {left.in_use}", "Restart or fix what holds these files open."
    kept = f"; {left.in_use.count} kept because open" if left.in_use else ""
    return "passed", stays + kept, ""


def record_in_use(part, rule, done, in_use):
    """Say whether it could be known which files were open."""
    blind = os.geteuid() != 0 or in_use.unseen > 0
    unseen = f"; what {in_use.unseen or 'the'} processes of other users have open cannot be seen" if blind else ""
    vouched = ", and need not be as the rule is private" if blind and rule.private else ""
    part.check(
        f"rule {rule.name}: open files are known and kept",
        "unknown" if blind and not rule.private else "passed",
        expected="the open files of all processes, and none of them removed",
        observed=f"{done.in_use.count} open files kept{unseen}{vouched}",
        advice=f"{how_to_see_all()} Or set `private: true` where no other user works with these files.",
        evidence={"kept": done.in_use.first, "processes_unseen": in_use.unseen},
    )
    add_to_metric(part, "kept_open_files", done.in_use.count, "count")


def add_to_metric(part, name, value, unit):
    part.metric(name, part.metrics.get(name, {"value": 0})["value"] + value, unit)


def work(module, part):
    if not module.params["rules"]:
        part.skip("no rule says what to clean; list some in storage_cleanup_rules, or take it out of the plan here")
        return
    in_use = functools.lru_cache(maxsize=None)(files_in_use)
    for rule in read_rules(module.params["rules"]):
        clean(module, part, rule, in_use)


def main():
    carry_out(
        "storage_cleanup", {"rules": {"type": "list", "elements": "dict", "default": [], "options": RULE_OPTIONS}}, work
    )


if __name__ == "__main__":
    main()
