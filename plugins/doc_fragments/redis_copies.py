# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The options of the module backup for Redis and Valkey servers."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  redis:
    description:
      - Redis and Valkey servers to back up, each as one RDB file, taken as a replica takes it right after the point of
        the databases. The server needs no room on its disk for it, and is not kept from its work.
      - C(redis-check-rdb) (Debian package C(redis-tools) or C(valkey-tools)) judges each file, if it is installed.
      - A server that cannot be reached, or does not let us in, fails the backup before anything is written.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the server in the backup, of letters, digits, dot, dash and underscore.
        type: str
        required: true
      host:
        description: Host name or address of the server.
        type: str
        default: 127.0.0.1
      port:
        description: Port of the server. The connection is not encrypted.
        type: int
        default: 6379
      unix_socket:
        description: Path of the server's Unix socket, which is used instead of host and port.
        type: path
        default: ""
      username:
        description:
          - User of an ACL; empty means the user C(default).
          - The rights C(~wellkept:marker:* +info +psync +replconf +set) are enough. With C(+config|get), too, the
            scratch directory of a restore test is compared with the server's own.
        type: str
        default: ""
      password:
        description: Password of the user; empty where none is asked for.
        type: str
        default: ""
      marker_for:
        description:
          - How long the key C(wellkept:marker:<label>) lives that is written just before the copy, and that a restore
            test must find. It should live longer than until the backup is tested. V(0) writes none.
        type: str
        default: 35d
"""
