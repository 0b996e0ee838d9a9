#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore a PostgreSQL cluster into place, to a point in time: first the plan, then beside the old, then exchanged."""

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_restore
short_description: Restore a PostgreSQL cluster into place, to a point in time
version_added: "0.1.0"
description:
  - Restores a backup of M(wellkept.maintenance.backup) into the data directory of a server that is stopped, and replays
    WAL up to O(target).
  - Without O(confirm) it shows what it would do (backup, WAL, room, time) and ends. Nothing is written then.
  - The cluster is made ready beside the old data directory, in C(<data_directory>.wellkept-restore), by a private
    server without a port. When recovery has stopped at the target, and the marker rows that must be there are
    there, the old directory is renamed to C(<data_directory>.before-restore-<time>), and the new one takes its place.
    The old one is never written to and never removed.
  - Killed at any step, the old directory is in its place, or aside, and whole. The next run says how far it had come,
    and with O(confirm) goes on from there.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.backup_reading
  - wellkept.maintenance.postgresql
  - wellkept.maintenance.pgbackrest_reading
  - wellkept.maintenance.remote_repository
  - wellkept.maintenance.restic
options:
  confirm:
    description: The name of the cluster again, without which nothing is done.
    type: str
    default: ""
  wal_archive:
    description:
      - The WAL archive, as given to M(wellkept.maintenance.backup).
      - Without it only the point of a backup itself can be restored.
    type: path
    default: ""
  target:
    description:
      - V(newest) is the last commit in the archive. V(backup) is the point of the newest backup.
      - V(time:2026-11-21T03:00:00+01:00) is all that was committed by then; a bare time with its zone will do.
      - V(lsn:0/3000060) is the state when the WAL was that long; V(name:before_upgrade) is a named restore point;
        V(before_xid:1234) is just before that transaction was committed.
      - V(immediate) is where the base backup is consistent. It needs O(allow_immediate).
    type: str
    default: newest
  allow_immediate:
    description: Allow O(target=immediate), of which no row shows that it is what it should be.
    type: bool
    default: false
  backup:
    description: Label of the backup to restore. Empty means the newest one from which the target can be reached.
    type: str
    default: ""
  timeline:
    description: Timeline to go along. V(0) means the newest that the backup leads to.
    type: int
    default: 0
  data_directory:
    description: The data directory to restore into. Empty means the one that the backup was made of.
    type: str
    default: ""
  configuration:
    description:
      - C(postgresql.conf), C(postgresql.auto.conf), C(pg_hba.conf) and C(pg_ident.conf) in the data directory are
        V(kept) from the old one, or those of the V(backup). Without an old one they are the backup's.
    type: str
    choices: [kept, backup]
    default: kept
  pause:
    description:
      - Stop at the target with a private server that can be read from, and leave the old directory where it is. Run
        again without O(pause) to go on, or with another O(target) to begin anew.
    type: bool
    default: false
  start_command:
    description:
      - Program and arguments that start the server, for example V([systemctl, start, postgresql@15-main]).
      - Empty means C(pg_ctl), which needs a C(postgresql.conf) in the data directory.
    type: list
    elements: str
    default: []
  run_as:
    description: User of the server when the module runs as root and there is no old data directory that tells.
    type: str
    default: postgres
  timeout:
    description: Longest time to wait for recovery, and for the server afterwards.
    type: str
    default: 4h
  files_to:
    description:
      - Directory that the application files of the backup are restored to, before the cluster is; each source lies
        in it at its own path, as C(<files_to>/srv/uploads). What is there before is moved aside.
      - They are as of the point of the backup, whatever the target is. Empty means that no files are restored.
    type: str
    default: ""
seealso:
  - module: wellkept.maintenance.backup
  - module: wellkept.maintenance.restore_test
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Show what a restore to three o'clock would do
  wellkept.maintenance.postgresql_restore:
    repository: /var/backups/wellkept
    wal_archive: /var/lib/postgresql/wal_archive
    target: time:2026-11-21T03:00:00+01:00

- name: Carry it out
  wellkept.maintenance.postgresql_restore:
    repository: /var/backups/wellkept
    wal_archive: /var/lib/postgresql/wal_archive
    login_unix_socket: /run/postgresql
    target: time:2026-11-21T03:00:00+01:00
    start_command: [systemctl, start, postgresql@15-main]
    confirm: main
"""

RETURN = r"""
checks:
  description: The plan, and what was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: backup
      status: passed
      expected: one that the target can be reached from
      observed: 20261121T020000Z-full-1a2b
      advice: ""
      evidence: {}
metrics:
  description: What was measured; seconds by phase.
  returned: always
  type: dict
  sample:
    replay_seconds: {value: 12.3, unit: seconds}
changes:
  description: What is different now. In check mode, with O(confirm), what would be.
  returned: always
  type: list
  elements: dict
  sample:
    - kind: cluster
      name: /var/lib/postgresql/15/main
      before: not restored
      after: restored to newest:0/5000060 from 20261121T020000Z-full-1a2b
artifacts:
  description: Always empty.
  returned: always
  type: list
  elements: dict
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import RESTORE
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engines import open_engine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.options import READING_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    READING_REPOSITORY,
    Repository,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal.archive import directory_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.lock import exclusive
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_duration, reading
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS, find_bin_dir
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import (
    in_place,
    in_place_flow,
    remote_repository,
    scratch_directory,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.aim import take_aim
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place import Journal, Place
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place_files import (
    restore_application_files,
    show_files,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place_flow import Wish
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.in_place_plan import confirmed, show
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.live_cluster import owner_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.remote_repository import Source
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.targets import Target, parse
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from ansible_collections.wellkept.maintenance.plugins.module_utils.stopping import stopped_in_order

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **READING_REPOSITORY,
    "confirm": {"type": "str", "default": ""},
    "wal_archive": {"type": "path", "default": ""},
    **READING_OPTIONS,
    **ResticFiles.reading_options,
    "target": {"type": "str", "default": "newest"},
    "allow_immediate": {"type": "bool", "default": False},
    "backup": {"type": "str", "default": ""},
    "timeline": {"type": "int", "default": 0},
    "data_directory": {"type": "str", "default": ""},
    "configuration": {"type": "str", "choices": ["kept", "backup"], "default": "kept"},
    "pause": {"type": "bool", "default": False},
    "start_command": {"type": "list", "elements": "str", "default": []},
    "run_as": {"type": "str", "default": "postgres"},
    "timeout": {"type": "str", "default": "4h"},
    "files_to": {"type": "str", "default": ""},
    "repository_ssh": remote_repository.OPTION,
}
PROGRAMS = ("postgres", "pg_ctl", "pg_controldata", "pg_waldump", "pg_verifybackup")


def read_options(params: t.Dict[str, t.Any]) -> t.Tuple[Target, float]:
    """The target and the time limit; raises MaintenanceError where they make no sense."""
    with reading("target", expected="a point to restore to"):
        target = parse(params["target"])
        if target.kind == "immediate" and not params["allow_immediate"]:
            raise ValueError(
                "immediate leaves out what was written while the backup was made and after, and no row can show that "
                "it is right; set allow_immediate: true if nothing else is left"
            )
    return target, read_duration(params, "timeout")


def measure(params: t.Dict[str, t.Any]) -> Wish:
    """Find the backup and the WAL that lead to the target, and where to."""
    target, timeout = read_options(params)
    repository = Repository(params["repository"], params["cluster"])
    backups = [one for one in repository.backups() if params["backup"] in ("", one.label)]
    if not backups:
        raise MaintenanceError(
            f"find a backup of {params['cluster']}",
            where=repository.directory,
            expected=params["backup"] or "a complete backup",
            observed="there is none",
            advice="Correct repository, cluster and backup.",
        )
    newest = backups[-1].metadata
    identifier, version = str(newest["system_identifier"]), int(newest["server_version"])
    backups = [
        one
        for one in backups
        if str(one.metadata["system_identifier"]) == identifier and one.metadata["engine"] == newest["engine"]
    ]
    chained = any(one.type != "full" and one.holds_base for one in backups)
    programs = (*PROGRAMS, "pg_combinebackup") if chained else PROGRAMS
    bin_dir = find_bin_dir(params["bin_dir"], version, programs)
    archive = directory_of(params["wal_archive"], identifier) if params["wal_archive"] else ""
    engine = open_engine(newest["engine"], repository, task=RESTORE, version=version, params=params, bin_dir=bin_dir)
    aim = take_aim(target, backups, engine, archive=archive, bin_dir=bin_dir, timeline=params["timeline"])
    place = Place(params["data_directory"] or newest["settings"]["data_directory"])
    user = owner_of(place.data) or params["run_as"]
    return Wish(
        engine,
        aim,
        place,
        bin_dir,
        user,
        params,
        params["configuration"],
        params["pause"],
        params["start_command"],
        timeout,
    )


def act(wish: Wish, found: t.Optional[Journal], source: Source, part: Part) -> None:
    """Go on from where an earlier restore to the same target had come, or begin."""
    journal = found if found and found.target == str(wish.aim.target) else None
    if found and found.phase in (in_place.SWAPPING, in_place.SWAPPED) and journal is None:
        raise MaintenanceError(
            f"restore to {wish.aim.target}",
            where=wish.place.work,
            expected="no other restore that is half in place",
            observed=wish.place.words(found),
            advice=f"Run the restore to {found.target} again, so that it is finished; then this one.",
        )
    if journal and journal.phase == in_place.PAUSED:
        journal = None if wish.pause else in_place_flow.resume(wish, journal, part)
    begins = journal is None or journal.phase == in_place.LAYING_DOWN
    if (begins or wish.params["files_to"]) and source.fetch(wish.aim.backup, part) is None:
        return
    if begins:
        journal = begin(wish, part)
    if journal is None or part.failures():
        return
    if journal.phase == in_place.PAUSED:
        report_pause(wish, journal, part)
        return
    if journal.phase == in_place.RECOVERED and not restore_application_files(wish, part):
        return
    if journal.phase != in_place.SWAPPED:
        journal = in_place_flow.exchange(wish, journal, part)
    in_place_flow.start_and_verify(wish, journal, part)


def begin(wish: Wish, part: Part) -> t.Optional[Journal]:
    label = wish.aim.backup.label
    with wish.engine.repository.in_use(label, {"activity": "postgresql_restore", "run": wish.params["run_id"]}):
        problems = [p for one in wish.engine.verify_chain(label) for p in one.problems]
        sound = part.require(
            "bytes of the backup",
            not problems,
            expected="every file as it was written",
            observed="; ".join(problems[:5]) or "as written",
            advice="Name another backup.",
        )
        return in_place_flow.recover(wish, part) if sound else None


def report_pause(wish: Wish, journal: Journal, part: Part) -> None:
    part.change("private server", wish.place.new, "none", f"paused at {journal.target}")
    part.require(
        "pause at the target",
        True,
        expected="a server that can be read from",
        observed=f"psql -h {journal.socket} -p 5432; the old data directory is untouched",
        advice="",
        next="Run again without pause to go on, or with another target to begin anew.",
    )


def work(module: AnsibleModule, part: Part) -> None:
    os.umask(0o077)
    params = module.params
    target, _timeout = read_options(params)
    base = os.path.join(params["state_dir"], "postgresql_restore")
    with stopped_in_order("the restore"), remote_repository.opened(params, base, target, params["backup"]) as source:
        if params["repository_ssh"]:
            scratch_directory.clean_up(base, scratch_directory.leftovers(base), module.check_mode, part)
        carry_out_from(source, module.check_mode, part)


def carry_out_from(source: Source, check_mode: bool, part: Part) -> None:
    wish = measure(source.params)
    in_place.refuse_place(wish.place)
    found = wish.place.journal()
    show(wish, found, part)
    show_files(wish, part)
    if not confirmed(wish, check_mode, part) or part.failures() or check_mode:
        return
    holder = {"run": wish.params["run_id"], "activity": "postgresql_restore"}
    with exclusive(wish.place.lock, holder, f"a restore into {wish.place.data}"):
        act(wish, wish.place.journal(), source, part)


def main() -> None:
    carry_out("postgresql_restore", OPTIONS, work)


if __name__ == "__main__":
    main()
