# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the health check looks at of PostgreSQL servers."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  postgresql:
    description:
      - PostgreSQL servers (12 and later). The role needs C(pg_monitor); what it may not see is C(unknown).
      - Needs psycopg 3 or psycopg2 on the host (C(apt-get install python3-psycopg2)).
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the server in checks and metrics; host and port when empty.
        type: str
        default: ""
      login_host:
        description: Host of the server; empty for the local socket.
        type: str
        default: ""
      login_port:
        description: Port of the server.
        type: int
        default: 5432
      login_unix_socket:
        description: Directory of the server's socket, used when O(postgresql[].login_host) is empty or V(localhost).
        type: str
        default: ""
      login_user:
        description: Role to log in as.
        type: str
        default: postgres
      login_password:
        description: Password of that role.
        type: str
        default: ""
      login_db:
        description: Database to connect to.
        type: str
        default: postgres
      warn_seconds:
        description: Limit for the time to connect and answer.
        type: float
        default: 0.5
      fail_seconds:
        description: Limit for the time to connect and answer.
        type: float
        default: 3.0
      warn_connections_used_ratio:
        description: Limit for the share of the connections in use that are not reserved.
        type: float
        default: 0.8
      fail_connections_used_ratio:
        description: Limit for the share of the connections in use that are not reserved.
        type: float
        default: 0.95
      warn_transaction_seconds:
        description: Limit for the age of the oldest transaction, prepared ones included.
        type: float
        default: 3600.0
      fail_transaction_seconds:
        description: Limit for the age of the oldest transaction, prepared ones included.
        type: float
        default: 21600.0
      warn_idle_in_transaction_seconds:
        description: Limit for the time that a session is idle within a transaction.
        type: float
        default: 300.0
      fail_idle_in_transaction_seconds:
        description: Limit for the time that a session is idle within a transaction.
        type: float
        default: 3600.0
      warn_freeze_age_ratio:
        description: Limit for the oldest transaction or multixact id ÷ the age at which autovacuum freezes by force.
        type: float
        default: 1.2
      fail_freeze_age_ratio:
        description:
          - Limit for the oldest transaction or multixact id ÷ the age at which autovacuum freezes by force.
          - An age above 1,600,000,000 fails in any case.
        type: float
        default: 2.0
      warn_lag_bytes:
        description: Limit for the WAL that a standby has still to replay.
        type: str
        default: 64MiB
      fail_lag_bytes:
        description: Limit for the WAL that a standby has still to replay.
        type: str
        default: 1GiB
      warn_lag_seconds:
        description: Limit for the time that a standby is behind.
        type: float
        default: 60.0
      fail_lag_seconds:
        description: Limit for the time that a standby is behind.
        type: float
        default: 600.0
      min_standbys:
        description: How many standbys must be connected to a primary.
        type: int
        default: 0
      fail_archiving_seconds:
        description: How long archiving may have been failing; failing for a shorter time is a warning.
        type: float
        default: 900.0
      warn_archive_waiting_count:
        description: Limit for the number of WAL segments that wait to be archived.
        type: int
        default: 16
      fail_archive_waiting_count:
        description: Limit for the number of WAL segments that wait to be archived.
        type: int
        default: 128
"""
