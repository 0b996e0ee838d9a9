#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restore the newest backup into a scratch cluster and prove that it holds what it should."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_test
short_description: Prove that the newest backup of a PostgreSQL cluster can be restored and is complete
version_added: "0.1.0"
description:
  - Verifies the newest backup that the module M(wellkept.maintenance.backup) made, restores it into a scratch cluster
    on the same host, replays its WAL to the restore point at which the content of the live cluster was recorded, and
    compares every table with that record by its count of rows and a fingerprint that does not depend on their order,
    and schema, sequences, extensions, roles and their rights with what was listed.
  - Then lets C(pg_amcheck) look at all tables and indexes, asks the given assertions, restores the dump of every
    database and compares it too.
  - The copies of Redis and Valkey servers in the backup are loaded into scratch servers, one after the other, that have
    no port, save nothing and run as C(nobody). Their keys are counted, the marker is looked for, values of each type
    are read. It takes C(redis-tools) or C(valkey-tools) on this host, and the memory that the server took.
  - Measures how much would be lost now (RPO) and how long the restore took (RTO), and fails when a target is missed.
  - The scratch cluster has no port, its own private socket, its own configuration, and neither archives nor replicates.
    It is always removed, by the next run if this one is killed. Nothing of the live cluster is written to.
  - When the newest backup was proven within O(interval), looking as closely as the options ask, nothing is restored.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.backup_reading
  - wellkept.maintenance.postgresql
  - wellkept.maintenance.pgbackrest_reading
  - wellkept.maintenance.database_host
  - wellkept.maintenance.restored_content
  - wellkept.maintenance.restic
  - wellkept.maintenance.remote_repository
options:
  scratch_dir:
    description:
      - Directory in which the scratch cluster is made. It needs about the size of the cluster as free space, and the
        same again with O(restore_dump).
      - It must belong to the user that the module runs as. It is created when it does not exist.
      - Empty means C(<state_dir>/restore_test/scratch).
    type: str
    default: ""
  run_as:
    description:
      - User that the scratch server runs as when the module runs as root, since PostgreSQL refuses to run as root.
      - The owner of the live data directory comes first, when the live server can be asked for it.
    type: str
    default: postgres
  interval:
    description: A proof of the newest backup that is younger than this is enough.
    type: str
    default: 6d
  rpo_target:
    description: The newest restorable row may not be older than this.
    type: str
    default: 25h
  rto_target:
    description: Restore and replay, until the restored server accepts connections, may not take longer than this.
    type: str
    default: 1h
  timeout:
    description: Longest time to wait for the restored server to replay its WAL.
    type: str
    default: 4h
  amcheck:
    description: Let C(pg_amcheck) look at all tables and indexes of the restored cluster.
    type: bool
    default: true
  heap_all_indexed:
    description: Let C(pg_amcheck) also make sure that every row is in its indexes, which takes several times as long.
    type: bool
    default: false
  restore_dump:
    description: Restore the dump of every database too, and compare its content.
    type: bool
    default: true
  target:
    description:
      - How far to go. V(backup) is the point at which the content of the newest backup was recorded.
      - V(newest) goes on, in a second scratch cluster, to the last commit in the WAL archive, looks for the marker rows
        that must be there, asks the assertions and lets C(pg_amcheck) look again. The RPO is then the age of that
        commit, and the RTO the time of that restore.
      - V(time:2026-11-21T03:00:00+01:00), V(lsn:0/3000060), V(name:before_upgrade) and V(before_xid:1234) go to that
        point instead, from the newest backup before it. V(before_xid) is just before that transaction was committed.
    type: str
    default: backup
  wal_archive:
    description: The WAL archive, as given to M(wellkept.maintenance.backup); needed for any target but V(backup).
    type: path
    default: ""
notes:
  - When the live server cannot be asked, the restore test is still carried out. That the scratch cluster is not the
    live one is then decided by the file system alone, and recorded as unknown.
  - Tables that are unlogged, temporary or foreign cannot be compared; they are named in the evidence of the check.
seealso:
  - module: wellkept.maintenance.backup
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Prove the newest backup, and that the WAL archive leads on to the last commit
  wellkept.maintenance.restore_test:
    repository: /var/backups/wellkept
    login_unix_socket: /run/postgresql
    wal_archive: /var/lib/postgresql/wal_archive
    target: newest
    rpo_target: 15m

- name: Prove it with the application's own assertions, within half an hour
  wellkept.maintenance.restore_test:
    repository: /var/backups/wellkept
    rto_target: 30m
    assertions:
      - name: there are students
        database: learning
        query: SELECT count(*) FROM student
        min: 1
      - name: somebody was here today
        database: learning
        query: SELECT max(last_seen_at) FROM student
        max_age: 1d
    named_files:
      - name: submissions
        database: learning
        query: SELECT path, sha256, bytes FROM submission
        root: /srv/app/uploads
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: content of the restored database learning
      status: passed
      expected: 12 tables, 231456 rows as recorded
      observed: 12 tables, 231456 rows, all with the recorded fingerprint
      advice: ""
      evidence: {differences: [], not_compared: []}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    rpo_seconds: {value: 95.2, unit: seconds}
    rto_seconds: {value: 3.4, unit: seconds}
changes:
  description: What is different now. A restore test leaves a proof behind, and nothing else.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: proof, name: 20261121T093000Z-full-1a2b, before: none, after: "proven on 2026-11-21T09:31:00Z"}
artifacts:
  description: The proof that was written.
  returned: always
  type: list
  elements: dict
  sample:
    - {path: /var/backups/wellkept/main/proofs/20261121T093000Z-full-1a2b.json, sha256: 9f86d0…, bytes: 512}
"""

import os
import typing as t
from datetime import datetime, timezone

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import database_host
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import RESTORE, Engine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engines import open_engine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.options import READING_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import (
    READING_REPOSITORY,
    Repository,
    parse_time,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.registry import stores_of
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.options import read_duration, refuse
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS, find_bin_dir
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore import (
    assertions,
    file_rows,
    live_cluster,
    objectives,
    proof,
    redis_test,
    remote_repository,
    scratch_directory,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.flow import Plan, prove
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.point_test import Beyond, read_target
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.proof import State
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.remote_repository import Source
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: t.Dict[str, t.Dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **database_host.OPTIONS,
    **READING_REPOSITORY,
    "scratch_dir": {"type": "str", "default": ""},
    "run_as": {"type": "str", "default": "postgres"},
    "interval": {"type": "str", "default": "6d"},
    "rpo_target": {"type": "str", "default": "25h"},
    "rto_target": {"type": "str", "default": "1h"},
    "timeout": {"type": "str", "default": "4h"},
    "amcheck": {"type": "bool", "default": True},
    "heap_all_indexed": {"type": "bool", "default": False},
    "restore_dump": {"type": "bool", "default": True},
    "target": {"type": "str", "default": "backup"},
    "wal_archive": {"type": "path", "default": ""},
    **READING_OPTIONS,
    "repository_ssh": remote_repository.OPTION,
    "assertions": assertions.OPTION,
    "restore_files": {"type": "bool", "default": True},
    "named_files": file_rows.OPTION,
    "redis_assertions": redis_test.OPTION,
    **ResticFiles.reading_options,
}
DURATIONS = ("interval", "rpo_target", "rto_target", "timeout")
PROGRAMS = ("postgres", "pg_controldata", "pg_waldump", "pg_verifybackup", "pg_amcheck", "pg_restore")


def measure(params: t.Dict[str, t.Any], repository: Repository, base: str) -> State:
    """Find the newest backup, its proof, the live cluster, and what a killed run left."""
    backups = repository.backups()
    if not backups:
        raise MaintenanceError(
            f"find the newest backup of {repository.cluster}",
            where=repository.directory,
            expected="a complete backup",
            observed="there is none",
            advice="Run the activity backup, or correct repository and cluster.",
        )
    newest = backups[-1]
    live = live_cluster.ask(params)
    return State(newest, repository.proof(newest), live, scratch_directory.leftovers(base))


def wanted(state: State, params: t.Mapping[str, t.Any]) -> t.List[str]:
    """What there is to look at beyond what is always looked at, in the words of the proof."""
    return [*proof.closeness(params), *redis_test.wanted(state.backup, params["redis_assertions"])]


def decide(state: State, params: t.Dict[str, t.Any]) -> str:
    """Why the newest backup is to be proven now; empty when its proof is enough."""
    names = wanted(state, params)
    return proof.why_due(state.proof, names, read_duration(params, "interval"), datetime.now(timezone.utc))


def act(plan: Plan, state: State, source: Source, beyond: Beyond, part: Part) -> t.Optional[float]:
    """Carry out the restore test, and keep its proof, or take back an older one; returns the seconds of the restore.

    A target beyond the backup that cannot be reached does not disprove the backup.
    """
    repository = plan.engine.repository
    with repository.in_use(state.backup.label, dict(plan.holder)):
        fetched = source.fetch(state.backup, part)
        rto = prove(plan, part) if fetched is not None else None
        proof.check_whole(state.backup, part)
        redis = redis_test.NOTHING
        if rto is not None:
            redis = redis_test.prove(plan_redis(plan, state, source.params["redis_assertions"]), part)
        compared = bool(state.backup.metadata["fingerprints"])
        if rto is None or fetched is None or not compared or part.failures():
            proof.take_back(state, repository, part)
            return rto
        reached = beyond.prove(plan, part)
        missed = [name for name in plan.wanted if reached is None and name.startswith(proof.TARGET)] + redis.missed
        looked_at = [name for name in plan.wanted if name not in missed]
        rto = fetched + (reached if reached is not None else rto) + redis.seconds
        facts = {"rto_seconds": rto, "looked_at": looked_at, "run": plan.holder["run"], "redis": redis.digests}
        proof.keep(state, repository, facts, part)
    return rto


def engine_of(params: t.Dict[str, t.Any], state: State, repository: Repository, bin_dir: str) -> Engine:
    metadata = state.backup.metadata
    version = int(metadata["server_version"])
    engine = open_engine(metadata["engine"], repository, task=RESTORE, version=version, params=params, bin_dir=bin_dir)
    target = read_target(params["target"])
    if target.kind != "backup" and not params["wal_archive"] and not engine.own_archive:
        raise MaintenanceError(
            f"restore to {target}",
            expected="a WAL archive",
            observed="wal_archive is empty",
            advice="Set wal_archive to what the activity backup archives to, or target to backup.",
        )
    return engine


def make_plan(params: t.Dict[str, t.Any], state: State, engine: Engine, base: str, bin_dir: str) -> Plan:
    return Plan(
        engine,
        state.backup,
        base,
        bin_dir,
        user=state.live.owner or params["run_as"],
        live=state.live,
        login_user=params["login_user"],
        timeout=read_duration(params, "timeout"),
        amcheck=params["amcheck"],
        heap_all_indexed=params["heap_all_indexed"],
        restore_dump=params["restore_dump"],
        assertions=params["assertions"],
        stores=[one for one in stores_of(state.backup, params) if one.holds_directories and params["restore_files"]],
        files=params["named_files"],
        wanted=wanted(state, params),
        holder={"run": params["run_id"], "activity": "restore_test"},
    )


def plan_redis(plan: Plan, state: State, asserted: t.Sequence[t.Mapping[str, t.Any]]) -> redis_test.Plan:
    """The same for the copies of Redis servers in the backup."""
    before = (state.proof or {}).get("redis", {})
    return redis_test.Plan(state.backup, plan.base, plan.timeout, asserted, before, plan.holder)


def work(module: AnsibleModule, part: Part) -> None:
    refuse_bad_options(module)
    params = module.params
    base = params["scratch_dir"] or os.path.join(params["state_dir"], "restore_test", "scratch")
    with remote_repository.opened(params, base, read_target(params["target"])) as source:
        carry_out_from(source, base, module.check_mode, part)
        if not module.check_mode:
            source.bring_back_proofs(part)


def carry_out_from(source: Source, base: str, check_mode: bool, part: Part) -> None:
    params = source.params
    repository = Repository(params["repository"], params["cluster"])
    if check_mode and not repository.backups():
        part.skip("there is no backup yet; a run that is no check makes one first, by the activity backup")
        return
    state = measure(params, repository, base)
    chained = state.backup.type != "full" and state.backup.holds_base
    programs = (*PROGRAMS, "pg_combinebackup") if chained else PROGRAMS
    bin_dir = find_bin_dir(params["bin_dir"], int(state.backup.metadata["server_version"]), programs)
    scratch_directory.prepare_base(base, state.live.directories, create=not check_mode)
    scratch_directory.clean_up(base, state.leftovers, check_mode, part)
    proof.check_newest(state, repository, part)
    why = decide(state, params)
    engine = engine_of(params, state, repository, bin_dir)
    beyond = Beyond(params, engine, state)
    rto = state.proof["rto_seconds"] if state.proof else None
    if not why:
        part.require("proof of the newest backup", True, expected="one that is recent enough", observed=state.proven)
    elif check_mode:
        part.change("proof", state.backup.label, state.proven, f"would be proven by a restore: {why}")
    elif not part.failures():
        plan = make_plan(params, state, engine, base, bin_dir)
        rto = act(plan, state, source, beyond, part)
    newest = beyond.newest_commit(bin_dir) or parse_time(state.backup.metadata["marker"]["created"])
    objectives.check_rpo(params["cluster"], newest, read_duration(params, "rpo_target"), part)
    if rto is not None:
        objectives.check_rto(params["cluster"], rto, read_duration(params, "rto_target"), part)


def refuse_bad_options(module: AnsibleModule) -> None:
    read_target(module.params["target"])
    for name in DURATIONS:
        read_duration(module.params, name)
    for option in ("assertions", "redis_assertions"):
        assertions.refuse_bad(module.params[option])
    if module.params["named_files"] and not module.params["restore_files"]:
        refuse(
            "named_files",
            expected="restore_files: true, for files to compare rows with",
            observed="restore_files: false",
        )


def main() -> None:
    carry_out("restore_test", OPTIONS, work, stops="the restore test")


if __name__ == "__main__":
    main()
