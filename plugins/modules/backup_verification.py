#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Verify that the backups of a repository are as they were written, complete, recent and private."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_verification
short_description: Verify that all backups are as they were written
version_added: "0.1.0"
description:
  - Holds every byte of the backups that the module M(wellkept.maintenance.backup) made against its hash, the newest
    chain first, and looks at names, sizes, rights, chains, dates and sizes against earlier backups.
  - It is incremental. A file that was read, and has the device, inode, size and times of change that it had then, was
    not written to since, and is not read again each day.
  - A disk that loses a bit changes none of these. Therefore every file is read again once within O(reread_within), each
    at a moment of its own, so that each day reads its share. Until then, such a loss can stay unseen; O(full) reads
    everything now.
  - What is read comes from the disk, not from memory, as far as the system lets go of what it keeps there.
  - A backup that is found damaged is noted, and M(wellkept.maintenance.backup) makes a new full one in its place. When
    it turns out to be sound again, as after a repair, the note goes.
  - Nothing of a backup is changed, and no server is asked for anything. What was read is remembered in the repository,
    in C(verified/); to lose that costs time, and nothing else.
  - In check mode only names and sizes are looked at.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.backup_reading
  - wellkept.maintenance.pgbackrest_reading
  - wellkept.maintenance.restic
options:
  database_host:
    description:
      - Name of the host that the cluster is on, when the module runs on the backup host, which has the repositories of
        several.
    type: str
    default: ""
  reread_within:
    description: Everything is read again at the latest at the first run after this time.
    type: str
    default: 30d
  full:
    description: Read everything now.
    type: bool
    default: false
  time_budget:
    description: Begin to read nothing more after this time; V(0) is no limit. What was left is told, and read next.
    type: str
    default: "0"
  read_budget:
    description: Begin to read nothing more when this much was read, as bytes or like V(50GiB); V(0) is no limit.
    type: str
    default: "0"
  max_age:
    description: The newest backup that can be restored may not lead back to an older point than this.
    type: str
    default: 25h
  proof_max_age:
    description: Warn when no restore test proved a backup within this time; V(0) never does.
    type: str
    default: 8d
  wal_archive:
    description:
      - The option C(wal_archive) of M(wellkept.maintenance.backup). It must hold all WAL from the start of each backup
        that was made while the server archived, to its newest segment, on the right timeline.
      - Compressed segments are read against their checksums, others as far as their header goes, incrementally too.
        Empty means that there is no archive.
    type: path
    default: ""
seealso:
  - module: wellkept.maintenance.backup
  - module: wellkept.maintenance.restore_test
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Verify the backups, each file at the latest after a month
  wellkept.maintenance.backup_verification:
    repository: /var/backups/wellkept

- name: Verify a large repository for at most two hours a day
  wellkept.maintenance.backup_verification:
    repository: /var/backups/wellkept
    time_budget: 2h

- name: Read every byte now
  wellkept.maintenance.backup_verification:
    repository: /var/backups/wellkept
    full: true
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: bytes of the backups
      status: passed
      expected: every byte as it was written
      observed: 4 backups, 12.4 GiB, 3.1 GiB of it read now and the rest unchanged since it was
      advice: ""
      evidence: {labels: [20261121T093000Z-full-1a2b]}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    verified_bytes: {value: 13314398617, unit: bytes}
    read_bytes: {value: 3328599654, unit: bytes}
    newest_backup_age_seconds: {value: 3624.5, unit: seconds}
changes:
  description: Damage that was noted, or is no more.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: noted damage, name: 20261121T093000Z-full-1a2b, before: none, after: dump/0.dump is missing}
artifacts:
  description: None.
  returned: always
  type: list
  elements: dict
  sample: []
"""

import os
import typing as t
from datetime import datetime, timedelta, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import audit
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import verification_findings as findings
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.access import exposed
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import VERIFY, Engine, Verification
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engines import Engines
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.options import READING_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remembered import Budget, Remembered
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    READING_REPOSITORY,
    Backup,
    Repository,
    parse_time,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.registry import all_stores
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import verification as wal_verification
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.archive import directory_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError, MissingToolError
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_duration, read_size
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: dict[str, dict[str, t.Any]] = {
    "database_host": {"type": "str", "default": ""},
    **READING_REPOSITORY,
    "reread_within": {"type": "str", "default": "30d"},
    "full": {"type": "bool", "default": False},
    "time_budget": {"type": "str", "default": "0"},
    "read_budget": {"type": "str", "default": "0"},
    "max_age": {"type": "str", "default": "25h"},
    "proof_max_age": {"type": "str", "default": "8d"},
    "wal_archive": {"type": "path", "default": ""},
    **READING_OPTIONS,
    **ResticFiles.reading_options,
}


class Limits(t.NamedTuple):
    """The options, read."""

    reread_within: float
    seconds: float
    bytes: int
    ages: audit.Limits


def work(module: AnsibleModule, part: Part) -> None:
    os.umask(0o077)
    limits = read_limits(module.params)
    repository = Repository(module.params["repository"], module.params["cluster"])
    backups, damaged = repository.backups(), repository.damaged()
    if not backups and not damaged:
        if module.check_mode:
            part.skip("there is no backup yet; a run that is no check makes one first, by the activity backup")
            return
        refuse_empty(repository)
    remembered = Remembered(
        repository,
        within=0 if module.params["full"] else limits.reread_within,
        rotating=True,
        budget=Budget(limits.seconds, limits.bytes),
    )
    engines = Engines(repository, VERIFY, module.params)
    found = verify(module, by_importance(backups), engines, remembered, part)
    verify_stores(module, backups, remembered, found, part)
    findings.report_bytes(found, module.check_mode, part)
    if not module.check_mode:
        note(repository, found, part)
        remembered.clean({wal_verification.MEMORY, *(backup.label for backup in repository.backups())})
        findings.report_reading(found, remembered, limits.reread_within, part)
    if backups:
        verify_archive(module, repository.backups() or backups, engines, remembered, part)
    findings.report_audit(measure(repository, found, limits.ages), part)


def by_importance(backups: t.Sequence[Backup]) -> list[Backup]:
    """What a restore of the newest backup needs comes first, then the others, the newest first."""
    if not backups:
        return []
    chain = backups[-1].chain
    others = [backup for backup in reversed(backups) if backup.label not in chain]
    return [backup for backup in backups if backup.label in chain] + others


def verify(
    module: AnsibleModule, backups: t.Sequence[Backup], engines: Engines, remembered: Remembered, part: Part
) -> dict[str, Verification]:
    """Read what is due of *backups*; those that are gone by then are left out."""
    repository = remembered.repository
    holder = {"run": module.params["run_id"], "activity": "backup_verification"}
    found: dict[str, Verification] = {}
    for backup in backups:
        engine = engine_for(backup, engines, part, newest=not found)
        if engine and module.check_mode:
            found[backup.label] = engine.verify(backup.label, quick=True, remembered=remembered)
        elif engine:
            with repository.in_use(backup.label, holder):
                verification = engine.verify(backup.label, remembered=remembered)
                if os.path.isdir(backup.directory):
                    found[backup.label] = verification
    return found


def verify_stores(
    module: AnsibleModule,
    backups: t.Sequence[Backup],
    remembered: Remembered,
    found: dict[str, Verification],
    part: Part,
) -> None:
    """Look at what *backups* hold outside of the repository; what is wrong with one is added to what was *found*."""
    for store in all_stores(module.params):
        theirs = [backup for backup in backups if backup.label in found and store.facts_of(backup) is not None]
        if not theirs:
            continue
        for label, problems in store.verify(theirs, remembered, part, quick=module.check_mode).items():
            found[label] = found[label]._replace(problems=[*found[label].problems, *problems])


def engine_for(backup: Backup, engines: Engines, part: Part, *, newest: bool) -> t.Optional[Engine]:
    """The engine that made *backup*, with the programs of its version; None, told as unknown, where they are gone."""
    try:
        return engines.of(backup)
    except MissingToolError as missing:
        if newest:
            raise
        part.check(
            f"bytes of {backup.label}",
            "unknown",
            expected="every byte as it was written",
            observed=f"not read: {missing.observed}",
            advice=missing.advice,
        )
        return None


def verify_archive(
    module: AnsibleModule, backups: t.Sequence[Backup], engines: Engines, remembered: Remembered, part: Part
) -> None:
    """Whether the WAL archive goes on from each backup of the newest one's cluster, and its segments are whole."""
    newest, cluster = backups[-1], str(backups[-1].metadata["system_identifier"])
    ours = [backup for backup in backups if str(backup.metadata["system_identifier"]) == cluster]
    engine = engine_for(newest, engines, part, newest=True)
    if engine is None or not (module.params["wal_archive"] or engine.own_archive):
        return
    ours = [backup for backup in ours if backup.metadata["engine"] == engine.name]
    source = engine.wal_of(newest, directory_of(module.params["wal_archive"], cluster), earlier=ours[-2::-1])
    findings.report_archive(wal_verification.continuity(source, ours), part, newest.label)
    if not module.check_mode:
        findings.report_archived_bytes(wal_verification.read_segments(source, cluster, remembered), part)


def note(repository: Repository, found: t.Mapping[str, Verification], part: Part) -> None:
    """Note what is damaged, so that no backup builds on it; take back the note of what is sound again."""
    for label, verification in found.items():
        before = repository.noted_damage(label)
        try:
            if verification.problems:
                repository.note_damage(label, verification.problems)
                if not before:
                    part.change("noted damage", label, "none", verification.problems[0])
            elif before and not verification.left_bytes:
                repository.note_damage(label, [])
                part.change("noted damage", label, before, "none: all was read again and is as it was written")
        except OSError as error:
            part.check(
                f"note of the damage of {label}",
                "failed",
                expected="a note, so that no backup builds on it",
                observed=error.strerror or str(error),
                advice="Give the repository space, and run this again before the next backup.",
            )


def measure(repository: Repository, found: t.Mapping[str, Verification], limits: audit.Limits) -> audit.Facts:
    """What is there now, and what is known of it."""
    backups = repository.backups()
    bad = {label for label, verification in found.items() if not verification.sound}
    bad |= {backup.label for backup in backups if repository.noted_damage(backup.label)}
    there = {backup.label for backup in backups}
    unsound = {backup.label for backup in backups if bad & set(backup.chain) or not there.issuperset(backup.chain)}
    proofs = {backup.label: repository.proof(backup) for backup in backups}
    reach = exposed(repository.root, repository.directory)
    return audit.Facts(
        backups,
        repository.damaged(),
        frozenset(unsound),
        {label: parse_time(proof["proven_at"]) for label, proof in proofs.items() if proof},
        repository.leftovers(),
        repository.strangers(),
        reach.readable,
        reach.writable,
        limits,
        datetime.now(timezone.utc),
    )


def refuse_empty(repository: Repository) -> t.NoReturn:
    raise MaintenanceError(
        f"find the backups of {repository.cluster}",
        where=repository.directory,
        expected="at least one backup",
        observed="there is none",
        advice="Run the activity backup, or correct repository and cluster.",
    )


def read_limits(params: dict[str, t.Any]) -> Limits:
    ages = {name: timedelta(seconds=read_duration(params, name)) for name in ("max_age", "proof_max_age")}
    return Limits(
        read_duration(params, "reread_within"),
        read_duration(params, "time_budget"),
        read_size(params, "read_budget"),
        audit.Limits(**ages),
    )


def main() -> None:
    carry_out("backup_verification", OPTIONS, work, stops="backup_verification")


if __name__ == "__main__":
    main()
