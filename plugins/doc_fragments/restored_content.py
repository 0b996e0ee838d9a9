# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Documentation of what a restore test asks of restored content."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  assertions:
    description: Queries of the application's own that must give an expected value in the restored cluster.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is asserted, in words.
        type: str
        required: true
      database:
        description: Database to ask.
        type: str
        required: true
      query:
        description: Query whose first column of the first row is compared. It runs in a transaction that cannot write.
        type: str
        required: true
      expected:
        description: The expected value as text; V(true), V(false) and V(null) stand for those.
        type: str
      min:
        description: The value is a number, this or more.
        type: str
      max:
        description: The value is a number, this or less.
        type: str
      max_age:
        description:
          - The value is a time, such as that of the newest row, and at the point that was restored not older than this.
          - A time without its zone is taken for UTC.
        type: str
  restore_files:
    description: Lay down the application files of the backup, too, and hold each against what was recorded of it.
    type: bool
    default: true
  named_files:
    description:
      - Queries that name files. Every file that a row names must be among the restored files, with its content. Files
        that no row names are counted.
      - Files that are written, changed or removed in the moments in which the backup copies them may be missed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What the files are, in words.
        type: str
        required: true
      database:
        description: Database to ask.
        type: str
        required: true
      query:
        description:
          - Query that gives a path, its SHA-256 (as C(bytea), or as hexadecimal text) and, in a third column if there
            is one, its bytes. Rows whose path is null are passed over. It runs in a transaction that cannot write.
        type: str
        required: true
      root:
        description: Directory that the paths are relative to. It is one that the backup holds, or lies below one.
        type: path
        required: true
  redis_assertions:
    description: What scratch servers that have loaded the copies of Redis and Valkey servers must answer.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is asserted, in words.
        type: str
        required: true
      server:
        description: Name of the server, as in the option C(redis) of M(wellkept.maintenance.backup).
        type: str
        required: true
      database:
        description: Number of the database to ask.
        type: int
        default: 0
      command:
        description: The words of a command that only reads, as in V([GET, "shop:orders"]).
        type: list
        elements: str
        required: true
      expected:
        description: The expected answer as text, V(null) for none; a list as JSON.
        type: str
      min:
        description: A number that the answer is not below.
        type: str
      max:
        description: A number that the answer is not above.
        type: str
"""
