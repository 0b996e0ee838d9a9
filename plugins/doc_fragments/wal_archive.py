# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module that makes backups about the archive of WAL."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  wal_archive:
    description:
      - Directory on the host that the module runs on that the server archives its WAL to, so that a restore can go to
        any point in time since the oldest backup. Empty means no archive.
      - It is created for the server's user alone when it does not exist, and gets a program that the server runs as its
        C(archive_command). The WAL of this cluster is in C(<wal_archive>/<system identifier>).
      - At each run a row is written, and must arrive in the archive. What no kept backup needs is removed from there.
      - A C(archive_command) of somebody else is reported, and never replaced. C(archive_mode) takes a restart of the
        server, which this module leaves to you.
    type: path
    default: ""
  wal_compression:
    description: How segments are compressed in the archive. V(lz4) and V(zstd) need the program of that name.
    type: str
    choices: [none, gzip, lz4, zstd]
    default: gzip
  wal_configure:
    description:
      - Set C(archive_command), and C(archive_timeout) where it is 0, by C(ALTER SYSTEM), and reload the server.
      - Otherwise what is to be set is only told.
    type: bool
    default: false
  wal_timeout:
    description: The C(archive_timeout) to set, after which a segment is archived though it is not full.
    type: str
    default: 5m
  wal_ssh:
    description:
      - With O(database_host), how the server sends its WAL to the backup host. Its user there gets a key of its own,
        and this host's keys to know it by. With O(wal_configure) its public key is let in here, to push and pull WAL of
        this cluster and for nothing else; otherwise the line that does so is told.
    type: dict
    default: {}
    suboptions:
      host:
        description: Name or address by which the server's host reaches the backup host.
        type: str
        default: ""
      port:
        description: Port of the sshd of the backup host.
        type: int
        default: 22
      user:
        description: Account on the backup host that receives WAL, and that O(wal_archive) belongs to.
        type: str
        default: postgres
      timeout_seconds:
        description: After so long without success the server keeps a segment, and tries again.
        type: int
        default: 120
      directory:
        description: Directory on the server's host for the key and the program; empty means C(~/.wellkept-wal).
        type: path
        default: ""
      authorized_keys:
        description: File that lets keys in to the account; empty means C(~/.ssh/authorized_keys).
        type: path
        default: ""
      host_keys:
        description: Files with the public host keys of the backup host; empty means those in C(/etc/ssh).
        type: list
        elements: path
        default: []
"""
