# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore test must know of the live cluster, so that it never touches it."""

from __future__ import annotations

import contextlib
import os
import pwd
import typing as t

from .. import postgresql
from ..backup import database_host
from ..errors import MaintenanceError, MissingToolError

_TABLESPACES = "SELECT pg_catalog.pg_tablespace_location(oid) AS place FROM pg_catalog.pg_tablespace"


class Live(t.NamedTuple):
    """The live cluster as far as it could be asked; ``problem`` says why it could not, and is empty when it could.

    Of one on another host there are no ``directories`` to keep away from, and no ``owner``.
    """

    data_directory: str = ""
    directories: t.Tuple[str, ...] = ()
    system_identifier: str = ""
    owner: str = ""
    problem: str = ""


def ask(params: t.Mapping[str, t.Any]) -> Live:
    """Ask the server that the login options lead to where its files are and who it is.

    A server that cannot be asked is no reason to stop: backups are most wanted when it is down.
    """
    try:
        with database_host.reached(params) as login, contextlib.closing(postgresql.connect(login)) as connection:
            facts = postgresql.server_facts(connection)
            data = str(postgresql.value(connection, "SHOW data_directory"))
            places = [row["place"] for row in postgresql.query(connection, _TABLESPACES) if row["place"]]
    except MissingToolError:
        raise
    except MaintenanceError as error:
        return Live(problem=f"{error.what}: {error.observed}")
    if params.get("database_host"):
        return Live(data, (), facts["system_identifier"])
    directories = (data, os.path.realpath(os.path.join(data, "pg_wal")), *places)
    return Live(data, directories, facts["system_identifier"], owner_of(data))


def owner_of(directory: str) -> str:
    """Name of the user that owns *directory*; empty when that cannot be told (it may be on another host)."""
    try:
        return pwd.getpwuid(os.stat(directory).st_uid).pw_name
    except (OSError, KeyError):
        return ""
