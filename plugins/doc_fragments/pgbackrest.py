# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module that makes backups with the engine pgbackrest."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  pgbackrest_config:
    description:
      - Configuration file of pgBackRest. Where there is none, or one that this module wrote, it is written, for the
        server's user alone, and C(archive_command) names it.
      - One that somebody else wrote is used as it is; the options that begin with C(pgbackrest_repo), O(compression)
        and O(jobs) then say nothing. Its C(repo1-retention-full) must be so large that pgBackRest expires nothing by
        itself.
    type: path
    default: /etc/wellkept/pgbackrest.conf
  key_file:
    description:
      - File with the passphrase of pgBackRest's repository on one line, of mode 0600. Empty means no encryption, or
        that the configuration that somebody else wrote has it.
      - The server needs it for each segment of WAL, so it is in the configuration, too.
    type: path
    default: ""
  pgbackrest_stanza:
    description: Name of the cluster in pgBackRest. Empty means O(cluster).
    type: str
    default: ""
  pgbackrest_stanza_upgrade:
    description:
      - Take over a stanza of another system identifier. Set it for one run, after C(pg_upgrade).
    type: bool
    default: false
  pgbackrest_differential:
    description: Let backups between the full ones build on the full one alone, not on the one before.
    type: bool
    default: false
  pgbackrest_repo_path:
    description: Directory of pgBackRest's repository on this host.
    type: path
    default: /var/lib/pgbackrest
  pgbackrest_repo_host:
    description:
      - Host of the repository, if it is another one, reached over SSH by the server's user. Its own configuration of
        pgBackRest, which names this host as C(pg1-host), is not written by this module.
      - What pgBackRest allows on the repository's host alone is run there over SSH.
    type: str
    default: ""
  pgbackrest_repo_host_user:
    description: User on O(pgbackrest_repo_host).
    type: str
    default: pgbackrest
  pgbackrest_repo_host_config:
    description: Configuration file on O(pgbackrest_repo_host). Empty means pgBackRest's own default.
    type: str
    default: ""
  pgbackrest_archive_async:
    description: Archive WAL by several processes in the background, for servers that write much.
    type: bool
    default: false
  pgbackrest_spool_path:
    description: Directory for locks and for what waits to be archived in the background.
    type: path
    default: /var/spool/pgbackrest
"""
