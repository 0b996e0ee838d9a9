# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation that every module which logs in to PostgreSQL shares."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  login_host:
    description:
      - Host that the PostgreSQL server runs on, by name or address.
      - Empty means the local socket.
    type: str
    default: ""
  login_port:
    description: Port that the server listens on.
    type: int
    default: 5432
  login_unix_socket:
    description:
      - Directory of the server's socket.
      - It is used when O(login_host) is empty or V(localhost).
    type: str
    default: ""
  login_user:
    description: Role to log in as.
    type: str
    default: postgres
  login_password:
    description:
      - Password of that role.
      - Empty means that the server does not ask for one, or that libpq finds it in the password file of the user.
    type: str
    default: ""
  login_db:
    description: Database to connect to.
    type: str
    default: postgres
requirements:
  - psycopg 3 or psycopg2 on the managed host (C(apt-get install python3-psycopg2))
"""
