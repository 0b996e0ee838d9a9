"""A database `trouble` on this host, the module that rebuilds its indexes as a process, and what must hold afterwards.

Runs as root on a test host, beside kills.py and stall.py. What the module says of itself is not believed: everything is
asked from the server, over connections of its own. PYTHONPATH holds the collection and Ansible's module_utils.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time

try:
    import psycopg as driver
except ImportError:
    import psycopg2 as driver

SOCKET = "/run/postgresql"
ROWS = 120_000
STARTER = """
import runpy, sys
from ansible.module_utils import basic
basic._ANSIBLE_ARGS = sys.stdin.buffer.read()
basic._ANSIBLE_PROFILE = "legacy"
runpy.run_module("ansible_collections.wellkept.maintenance.plugins.modules." + sys.argv[1], run_name="__main__")
"""
OPTIONS = {
    "login_unix_socket": SOCKET,
    "login_user": "maintenance",
    "databases": ["trouble"],
    "tables": ["public.victim"],
    "max_block": "1s",
    "_ansible_remote_tmp": "/tmp",
    "_ansible_version": "2.19",
}
OF_REBUILDS = {"min_gain": "200kB", "unique_indexes": "always"}


def connect(database="trouble"):
    connection = driver.connect(host=SOCKET, user="maintenance", dbname=database)
    connection.autocommit = True
    return connection


def sql(statement, database="trouble"):
    with contextlib.closing(connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


def wait_until(holds, what, seconds=90):
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(driver.Error):
            if holds():
                return
        assert time.monotonic() < deadline, f"within {seconds} s it has not come true that {what}"
        time.sleep(0.2)


# -- the data ----------------------------------------------------------------------------------------------------------


def make():
    """A table with a primary key, a plain index, and one on an expression and some rows; another that is left alone."""
    sql("DROP DATABASE IF EXISTS trouble WITH (FORCE)", "postgres")
    sql("CREATE DATABASE trouble", "postgres")
    sql("CREATE EXTENSION pgstattuple")
    sql("CREATE EXTENSION amcheck")
    sql("CREATE TABLE victim (id int PRIMARY KEY, word text NOT NULL)")
    sql("CREATE INDEX victim_word ON victim (word, id)")
    sql("CREATE INDEX victim_length ON victim (length(word), id) WHERE id % 2 = 0")
    sql("CREATE TABLE bystander (id int PRIMARY KEY)")
    sql("INSERT INTO bystander SELECT generate_series(1, 1000)")


def bloat():
    """Fill the table and leave every fifth row, so that its indexes are mostly holes."""
    sql(
        "INSERT INTO victim SELECT i, 'word ' || i::bigint * 31 % 977 "
        f"FROM generate_series(1, {ROWS}) i ON CONFLICT DO NOTHING"
    )
    sql("DELETE FROM victim WHERE id % 5 <> 0")
    # Another session's snapshot may keep the rows for an instant.
    wait_until(lambda: sql("VACUUM (ANALYZE) victim") or dead_rows() == 0, "no dead row is left")


def dead_rows():
    return sql("SELECT dead_tuple_count FROM pgstattuple('victim')")[0][0]


def remove():
    sql("DROP DATABASE trouble WITH (FORCE)", "postgres")


# -- the module --------------------------------------------------------------------------------------------------------


def start(directory, module="postgresql_reindex", **options):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    special = OF_REBUILDS if module == "postgresql_reindex" else {}
    arguments = {**OPTIONS, **special, **options, "state_dir": directory}
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def answer(process, seconds=180):
    try:
        output, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return json.loads(output) if output.strip() else {"failed": True, "msg": f"no answer: {errors[-1000:]}"}


REBUILDING = """
    SELECT a.pid, p.phase FROM pg_stat_activity a LEFT JOIN pg_stat_progress_create_index p ON p.pid = a.pid
    WHERE a.application_name LIKE 'wellkept%' AND a.datname = 'trouble' AND a.state = 'active'
        AND a.query LIKE 'REINDEX %'
"""


def rebuilding(connection):
    """The server process that rebuilds, and its phase; None when there is none."""
    with connection.cursor() as cursor:
        cursor.execute(REBUILDING)
        rows = cursor.fetchall()
    return rows[0] if rows else None


# -- what must hold afterwards -----------------------------------------------------------------------------------------


def definitions():
    return sql(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisprimary, indisunique FROM pg_index"
        " WHERE indrelid IN ('victim'::regclass, 'bystander'::regclass) ORDER BY 1"
    )


def content():
    rows = sql(
        "SELECT count(*), sum(hashtextextended(v::text, 0)::numeric) FROM victim v"
        " UNION ALL SELECT count(*), sum(hashtextextended(b::text, 0)::numeric) FROM bystander b"
    )
    return [[str(value) for value in row] for row in rows]


def sizes():
    return dict(
        sql(
            "SELECT indexrelid::regclass::text, pg_relation_size(indexrelid) FROM pg_index"
            " WHERE indrelid = 'victim'::regclass"
        )
    )


def not_valid():
    return sql("SELECT indexrelid::regclass::text FROM pg_index WHERE NOT (indisvalid AND indisready AND indislive)")


def locks():
    """What a rebuild or its claim would have left; vacuum's own do not count, for nobody else is in this database."""
    return sql(
        "SELECT l.pid, l.locktype, l.mode FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
        " WHERE d.datname = 'trouble' AND (locktype = 'advisory' OR mode = 'ShareUpdateExclusiveLock')"
    )


def problems(definitions_before, content_before, fresh):
    """What differs from how it must be, in words; *fresh* are the sizes that a rebuild leaves."""
    found = []
    if definitions() != definitions_before:
        found.append(f"the indexes are {definitions()}")
    if content() != content_before:
        found.append("the content of the tables has changed")
    if not_valid():
        found.append(f"not valid: {not_valid()}")
    bloated = {name: size for name, size in sizes().items() if size > 1.2 * fresh.get(name, 0)}
    if bloated:
        found.append(f"still bloated: {bloated} instead of {fresh}")
    if locks():
        found.append(f"locks are left: {locks()}")
    for name in set(sizes()) - {name for (name,) in not_valid()}:
        sql(f"SELECT bt_index_check('{name}', true)")
    return found
