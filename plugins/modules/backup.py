#!/usr/bin/python
# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Back up a PostgreSQL cluster and application directories, verified and with the proof that a restore test needs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup
short_description: Back up a PostgreSQL cluster and application directories
version_added: "0.1.0"
description:
  - Makes a verified backup of a PostgreSQL cluster, its WAL, a dump of every database and of the roles, and listed
    directories, unless the newest one is young enough.
  - Between full backups it makes incremental ones where the server can (PostgreSQL 17 and later with C(summarize_wal)),
    after it has verified the whole chain that they build on, where that was not done lately.
  - For a moment of at most O(max_block) writers wait, so that base, WAL, dumps and recorded fingerprints all show the
    same content; M(wellkept.maintenance.restore_test) compares a restored copy with them.
  - What cannot be had now beside the databases (O(redis), O(restic_repository)) is a failed check, but costs the
    databases nothing. A backup that lacks it says so, is never proven, and takes no other backup's place.
  - A backup appears under its final name only when it is complete and verified. What a killed run left is removed by
    the next one.
  - Expired backups are removed, but never the newest that can be restored, the newest that was proven by a restore
    test, one in use, or anything that a kept one builds on. Check mode lists what would go and why all else stays.
  - PostgreSQL's programs run as the user that the module runs as. Only a primary is backed up.
extends_documentation_fragment:
  - wellkept.maintenance.activity
  - wellkept.maintenance.postgresql
  - wellkept.maintenance.pgbackrest
  - wellkept.maintenance.wal_archive
  - wellkept.maintenance.backup_retention
  - wellkept.maintenance.database_host
  - wellkept.maintenance.redis_copies
  - wellkept.maintenance.restic
options:
  cluster:
    description: Name of the cluster in the repository.
    type: str
    default: main
  repository:
    description:
      - Directory that backups are kept in. It is created, readable by its owner alone, when it does not exist.
      - It must belong to the user that the module runs as.
    type: path
    required: true
  engine:
    description:
      - How backups are made. V(core) needs nothing but PostgreSQL's own programs.
      - V(pgbackrest) leaves base and WAL to pgBackRest, on the server's own host, and keeps all else in O(repository).
    type: str
    choices: [core, pgbackrest]
    default: core
  bin_dir:
    description:
      - Directory of PostgreSQL's programs, of the server's major version.
      - Empty means C(/usr/lib/postgresql/<major>/bin), else the directory of C(pg_basebackup) in PATH.
    type: str
    default: ""
  interval:
    description: A sound backup younger than this is enough; V(0) makes one at each run.
    type: str
    default: 20h
  full_every:
    description: A chain of incremental backups ends, and a new full one begins, when its full one is this old.
    type: str
    default: 7d
  chain_read_within:
    description:
      - What an incremental backup builds on is read in full first, except for files that were read within this time, by
        this module or by M(wellkept.maintenance.backup_verification), and have not changed since.
      - V(0) reads all of it each time.
    type: str
    default: 7d
  files:
    description:
      - Application directories to back up, by absolute paths. Links are recorded, not followed; other file systems
        mounted below are not entered.
    type: list
    elements: path
    default: []
  files_engine:
    description:
      - V(copy) puts plain copies of O(files) into each backup.
      - V(restic) puts a snapshot of them into O(restic_repository), encrypted and deduplicated, and a list of their
        SHA-256 into the backup. The repository is made when there is none. Other people may use it, too; of its
        snapshots only those of expired backups are forgotten. It takes the program of that name.
    type: str
    choices: [copy, restic]
    default: copy
  restic_prune_every:
    description:
      - How often the space of forgotten snapshots is given back, which others have to wait for who use the repository;
        V(0) is never.
    type: str
    default: 7d
  dump:
    description: Dump every database and the roles too, as an independent second format.
    type: bool
    default: true
  max_block:
    description: How long writers may be kept waiting at a time for the point at which content is recorded.
    type: str
    default: 1s
  compression:
    description:
      - How the engine V(core) keeps the base. V(none) keeps it as a directory. V(lz4), V(zstd) and V(gzip) keep it in
        archives, with a level if one is given, as in V(zstd:3); the level is 1 otherwise.
      - The program of that name must be installed. C(gzip) uses C(pigz) where it is.
      - With tablespaces inside of the data directory there must be room for the base as a directory, too.
      - It can be changed at any time; backups of all kinds can build on each other.
      - With the engine V(pgbackrest) it is how base and WAL are compressed in its repository.
    type: str
    default: none
  jobs:
    description:
      - How many processors may compress at a time, and how many archives are unpacked at a time to be checked.
      - V(0) means as many as there are, up to four.
    type: int
    default: 0
  min_free_bytes:
    description: What must be left free in the repository after the backup, as bytes or like V(2GiB).
    type: str
    default: 1GiB
  timeout:
    description: Longest time that the base backup may take.
    type: str
    default: 12h
notes:
  - Configuration outside the data directory, as Debian has it in C(/etc/postgresql), is backed up when it is listed in
    O(files).
  - The marker row that a restore test looks for is written to the table C(wellkept.backup_marker) in O(login_db).
  - Until a dump is finished, tables cannot be dropped, truncated or altered, as with every C(pg_dump).
seealso:
  - module: wellkept.maintenance.backup_verification
  - module: wellkept.maintenance.restore_test
author:
  - The Wellkept team (@wellkept)
"""

EXAMPLES = r"""
- name: Back up the cluster and the uploads of the application
  wellkept.maintenance.backup:
    repository: /var/backups/wellkept
    login_unix_socket: /run/postgresql
    files:
      - /srv/learning/uploads
      - /etc/postgresql

- name: Back up the cluster on db1 from the backup host, which comes to its socket by SSH
  wellkept.maintenance.backup:
    database_host: db1
    ssh:
      user: postgres
      key_file: /root/.ssh/wellkept
      known_hosts: /root/.ssh/wellkept_hosts
    repository: /srv/backups
    login_unix_socket: /run/postgresql
    wal_archive: /srv/wal
    wal_ssh:
      host: backup1
  delegate_to: backup1

- name: Make a backup now, and keep two full ones
  wellkept.maintenance.backup:
    repository: /var/backups/wellkept
    interval: "0"
    keep_full: 2
    keep_within: 7d

- name: Keep seven days, four weeks and twelve months
  wellkept.maintenance.backup:
    repository: /var/backups/wellkept
    keep_full: 1
    keep_within: "0"
    keep_daily: 7
    keep_weekly: 4
    keep_monthly: 12
"""

RETURN = r"""
checks:
  description: What was verified.
  returned: always
  type: list
  elements: dict
  sample:
    - name: backup complete
      status: passed
      expected: a backup under its final name
      observed: 20261121T093000Z-full-1a2b, 75.6 MiB in 1.9 s
      advice: ""
      evidence: {chain: [20261121T093000Z-full-1a2b]}
metrics:
  description: What was measured.
  returned: always
  type: dict
  sample:
    backup_bytes: {value: 79272345, unit: bytes}
    writers_blocked_seconds: {value: 0.0063, unit: seconds}
changes:
  description: Backups made and expired, and leftovers removed. In check mode, those that would be.
  returned: always
  type: list
  elements: dict
  sample:
    - {kind: backup, name: 20261121T093000Z-full-1a2b, before: absent, after: "full, 75.6 MiB"}
artifacts:
  description: The description of the new backup, with the bytes of all of it.
  returned: always
  type: list
  elements: dict
  sample:
    - {path: /var/backups/wellkept/main/20261121T093000Z-full-1a2b/backup.json, sha256: 9f86d0…, bytes: 79272345}
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.wellkept.maintenance.plugins.module_utils.activity import carry_out
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup import database_host
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.acting import (
    act,
    announce,
    report_newest,
    tell_unavailable,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engine import CREATE
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.engines import ENGINES, open_engine
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.pgbackrest.options import PGBACKREST_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.planning import (
    holder,
    known,
    measure,
    prepare_stores,
    read_policy,
    settle,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.removal import expire, remove_leftovers
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.server import (
    measure_server,
    refuse_failing_archiver,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.redis_copies import RedisCopies
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.restic.files import ResticFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import remote as wal_remote
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

OPTIONS: dict[str, dict[str, t.Any]] = {
    **LOGIN_OPTIONS,
    **PGBACKREST_OPTIONS,
    **database_host.OPTIONS,
    "cluster": {"type": "str", "default": "main"},
    "repository": {"type": "path", "required": True},
    "engine": {"type": "str", "choices": [*ENGINES], "default": "core"},
    "bin_dir": {"type": "str", "default": ""},
    "interval": {"type": "str", "default": "20h"},
    "full_every": {"type": "str", "default": "7d"},
    "chain_read_within": {"type": "str", "default": "7d"},
    "keep_full": {"type": "int", "default": 3},
    "keep_within": {"type": "str", "default": "30d"},
    "keep_daily": {"type": "int", "default": 0},
    "keep_weekly": {"type": "int", "default": 0},
    "keep_monthly": {"type": "int", "default": 0},
    "files": {"type": "list", "elements": "path", "default": []},
    **RedisCopies.options,
    **ResticFiles.options,
    "dump": {"type": "bool", "default": True},
    "max_block": {"type": "str", "default": "1s"},
    "compression": {"type": "str", "default": "none"},
    "jobs": {"type": "int", "default": 0},
    "min_free_bytes": {"type": "str", "default": "1GiB"},
    "timeout": {"type": "str", "default": "12h"},
    "wal_archive": {"type": "path", "default": ""},
    "wal_compression": {"type": "str", "choices": ["none", "gzip", "lz4", "zstd"], "default": "gzip"},
    "wal_configure": {"type": "bool", "default": False},
    "wal_timeout": {"type": "str", "default": "5m"},
    "wal_ssh": {"type": "dict", "default": {}, "apply_defaults": True, "options": wal_remote.OPTIONS},
}


def work(module: AnsibleModule, part: Part) -> None:
    os.umask(0o077)
    with database_host.reached(module.params) as params:
        module.params = params
        back_up(module, part)


def back_up(module: AnsibleModule, part: Part) -> None:
    policy = read_policy(module.params)
    repository = Repository(module.params["repository"], module.params["cluster"])
    unavailable = prepare_stores(policy, repository, part)
    server = measure_server(module.params, part)
    params = module.params
    engine = open_engine(
        params["engine"],
        repository,
        task=CREATE,
        version=server.version,
        params=params,
        bin_dir=params["bin_dir"],
    )
    if not params["wal_archive"] and not engine.own_archive:
        refuse_failing_archiver(params)
    if module.check_mode:
        engine.keep_wal(part, check_mode=True)
        tell_unavailable(unavailable, part)
        announce(measure(engine, server, policy, part, unavailable), part)
        return
    repository.prepare()
    with repository.locked(holder(module.params)):
        remove_leftovers(engine, policy, part)
        engine.keep_wal(part, check_mode=False)
        if engine.own_archive and part.failures():
            return  # without its archive it could make no backup, and what is there stays
        refuse_failing_archiver(params)
        tell_unavailable(unavailable, part)
        state = measure(engine, server, policy, part, unavailable)
        decision, state = settle(state, part)
        if decision.due:
            backup = act(params, state, decision, part)
            if backup is None:
                return  # without a new backup, no old one goes
            state = state._replace(known=[*state.known, known(repository, backup)])
        else:
            report_newest(state, part)
        expire(state, part)
        engine.thin_out_wal(server.system_identifier, part)


def main() -> None:
    carry_out("backup", OPTIONS, work, stops="backup")


if __name__ == "__main__":
    main()
