# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let amcheck look at one index or table, and understand what it answers.

What is small is looked at at once, with little time to do so; anything that takes longer runs under the eyes of a
second connection, so that nobody who wants to alter the table waits for long.
"""

from __future__ import annotations

import math
import time
import typing as t

from .. import postgresql
from ..database.extensions import may_execute, schema_of
from ..database.watchdog import QUERY_CANCELED, Pair
from ..errors import MaintenanceError
from ..postgresql import QueryError, identifier, query, value
from .things import GIN, INDEX, TABLE, Thing

FUNCTIONS = {
    INDEX: "bt_index_check(regclass, boolean)",
    TABLE: "verify_heapam(regclass, boolean, boolean, text, bigint, bigint)",
    GIN: "gin_index_check(regclass)",
}
SMALL = 8 * 1024**2
PORTION = 128 * 1024**2  # of a table, for one statement
MOST_MESSAGES = 20
LOCK_SECONDS = 2.0

SOUND, DAMAGED, VANISHED, LOCKED, TOO_LONG, PUT_OFF, CRASHED, NOT_CHECKED = (
    "sound", "damaged", "vanished", "locked", "too long", "put off", "crashed", "not checked",
)  # fmt: skip

_LOCK_NOT_AVAILABLE = "55P03"
_ENDED_BY_ADMINISTRATOR = ("57P01", "57P03", "57P05")
_RECOVERY_CONFLICT = "40001"
_VANISHED = ("42P01", "42704", "42809")
_BLOCK_OUT_OF_RANGE = "22023"  # the table was truncated meanwhile

# A crash ends all processes of the server but the first, and sets its statistics back, which everybody may see.
_AGE = """
SELECT extract(epoch FROM clock_timestamp() - greatest(
    (SELECT max(backend_start) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'checkpointer'),
    (SELECT stats_reset FROM pg_catalog.pg_stat_archiver)))::float8
"""
_CLOCK_TOLERANCE = 5.0
_STILL_THERE = "SELECT count(*) FROM pg_catalog.pg_class WHERE oid = %s::bigint::oid"


class Verdict(t.NamedTuple):
    """What came out: ``state``, the first messages, how many there were, and where to go on with a table."""

    state: str
    messages: t.Tuple[str, ...] = ()
    found: int = 0
    seconds: float = 0.0
    size: int = 0
    next_block: int = 0
    reason: str = ""


class Effort(t.NamedTuple):
    """How closely to look, for how many seconds (infinite: as long as it takes), and how long others may wait on it.

    ``began`` is when the look did (monotonic).
    """

    closely: bool
    seconds: float
    max_block: float
    began: float = 0.0


class Reach(t.NamedTuple):
    """Which of amcheck's functions can be called in a database: kind → schema; and why the others cannot."""

    functions: t.Dict[str, str]
    lacking: t.Dict[str, str]
    grants: t.List[str]


def reach(connection: t.Any) -> t.Optional[Reach]:
    """What of amcheck this role can call here; None when it is not installed."""
    schema = schema_of(connection, "amcheck")
    if schema is None:
        return None
    found = Reach({}, {}, [])
    role = value(connection, "SELECT pg_catalog.quote_ident(current_user)")
    place = value(connection, "SELECT pg_catalog.quote_ident(%s)", [schema])
    for kind, signature in FUNCTIONS.items():
        full = f"{place}.{signature}"
        if not value(connection, "SELECT pg_catalog.to_regprocedure(%s) IS NOT NULL", [full]):
            found.lacking[kind] = "this version of amcheck has no function for it"
        elif may_execute(connection, schema, signature):
            found.functions[kind] = schema
        else:
            found.lacking[kind] = "the role may not call the function for it"
            found.grants.append(f"GRANT EXECUTE ON FUNCTION {full} TO {role}")
    if found.grants and not value(connection, "SELECT pg_catalog.has_schema_privilege(%s, 'USAGE')", [schema]):
        found.grants.insert(0, f"GRANT USAGE ON SCHEMA {place} TO {role}")
    return found


def look_at(pair: Pair, thing: Thing, schema: str, first_block: int, effort: Effort) -> Verdict:
    """Let amcheck look at *thing*, at a table from *first_block* on.

    Raises MaintenanceError when the server was stopped, or cannot be reached any more.
    """
    began = time.monotonic()
    effort = effort._replace(began=began)
    verdict: t.Optional[Verdict] = None
    try:
        if thing.size_bytes <= SMALL and not first_block:
            verdict = _look_briefly(pair, thing, schema, effort)
            effort = effort._replace(seconds=max(effort.seconds - (time.monotonic() - began), 0.1))
        if verdict is None and thing.kind == TABLE:
            verdict = _look_at_portions(pair, thing, schema, first_block, effort)
        elif verdict is None:
            verdict = _watched(pair, thing, _statement(thing, schema, effort.closely), effort)
    except QueryError as error:
        verdict = judge(pair, thing, error, began)
    return verdict._replace(seconds=time.monotonic() - began)


def _look_briefly(pair: Pair, thing: Thing, schema: str, effort: Effort) -> t.Optional[Verdict]:
    """The verdict on something small; None when it took too long, and so is to be watched."""
    _limit(pair.work, min(effort.max_block, effort.seconds))
    try:
        rows = query(pair.work, _statement(thing, schema, effort.closely))
    except QueryError as error:
        if error.sqlstate == QUERY_CANCELED:
            return None
        return judge(pair, thing, error, effort.began)
    return _verdict_of(thing, rows)


def _look_at_portions(pair: Pair, thing: Thing, schema: str, first_block: int, effort: Effort) -> Verdict:
    """A table in portions, as long as there is time; what was found in earlier portions is kept."""
    began = time.monotonic()
    block_size, size = _sizes(pair, thing, effort)
    blocks, step = size // block_size, PORTION // block_size
    block = first_block if first_block < blocks else 0
    so_far = Verdict(SOUND, size=size)
    while True:
        left = effort.seconds - (time.monotonic() - began)
        last = block + step - 1 if block + step < blocks else None
        verdict = Verdict(TOO_LONG)
        if left > 0:
            statement = _statement(thing, schema, blocks=(block, last))
            verdict = _watched(pair, thing, statement, effort._replace(seconds=left))
        so_far = _joined(so_far, verdict)
        if verdict.state not in (SOUND, DAMAGED):
            return so_far if so_far.found else verdict._replace(size=size, next_block=block)
        if last is None:
            return so_far
        block = last + 1


def _sizes(pair: Pair, thing: Thing, effort: Effort) -> t.Tuple[int, int]:
    _limit(pair.work, min(effort.max_block, effort.seconds))
    statement = (
        "SELECT current_setting('block_size')::int AS block_size, "
        "coalesce(pg_catalog.pg_relation_size(%s::bigint::oid::regclass), 0)::bigint AS size"
    )
    row = query(pair.work, statement, [thing.oid])[0]
    return row["block_size"], row["size"]


def _joined(so_far: Verdict, verdict: Verdict) -> Verdict:
    if verdict.state != DAMAGED:
        return so_far
    messages = (*so_far.messages, *verdict.messages)[:MOST_MESSAGES]
    return so_far._replace(state=DAMAGED, messages=messages, found=so_far.found + verdict.found)


def _watched(pair: Pair, thing: Thing, statement: t.Any, effort: Effort) -> Verdict:
    _limit(pair.work, 0)
    watched = pair.run(statement, max_block=effort.max_block, timeout=effort.seconds)
    if watched.ended == "done":
        return _verdict_of(thing, watched.rows)
    if watched.ended == "failed" and watched.error is not None:
        return judge(pair, thing, watched.error, effort.began)
    if watched.ended == "timeout":
        return Verdict(TOO_LONG, size=thing.size_bytes)
    return Verdict(PUT_OFF, reason=watched.reason)


def _limit(connection: t.Any, seconds: float) -> None:
    """Give the next statement *seconds*, 0 for any time, and a part of it to wait for locks."""
    brief = 0 < seconds < math.inf
    limits = [_setting(seconds if brief else 0), _setting(min(seconds / 2, LOCK_SECONDS) if brief else LOCK_SECONDS)]
    statement = "SELECT pg_catalog.set_config(name, value, false) FROM (VALUES (%s, %s), (%s, %s)) AS s (name, value)"
    query(connection, statement, ["statement_timeout", limits[0], "lock_timeout", limits[1]])


def _setting(seconds: float) -> str:
    return f"{max(1, int(seconds * 1000))}ms" if seconds else "0"


def _statement(
    thing: Thing, schema: str, closely: bool = False, blocks: t.Tuple[int, t.Optional[int]] = (0, None)
) -> t.Any:
    sql = postgresql.driver().sql
    oid = sql.SQL("{}::oid::regclass").format(sql.Literal(thing.oid))
    if thing.kind == INDEX:
        call = sql.SQL("SELECT {}({}, {}::boolean)")
        return call.format(identifier(schema, "bt_index_check"), oid, sql.Literal(closely))
    if thing.kind == GIN:
        return sql.SQL("SELECT {}({})").format(identifier(schema, "gin_index_check"), oid)
    call = sql.SQL(
        "SELECT blkno, offnum, attnum, msg, count(*) OVER () AS total "
        "FROM {}({}, false, false, 'none'::text, {}::bigint, {}::bigint) LIMIT {}"
    )
    first, last = blocks
    begin = sql.Literal(first if first else None)
    return call.format(identifier(schema, "verify_heapam"), oid, begin, sql.Literal(last), sql.Literal(MOST_MESSAGES))


def _verdict_of(thing: Thing, rows: t.Sequence[t.Mapping[str, t.Any]]) -> Verdict:
    """A function for indexes answers nothing that counts; the one for tables a row for each damage."""
    if thing.kind != TABLE or not rows:
        return Verdict(SOUND, size=thing.size_bytes)
    messages = tuple(f"block {row['blkno']}, row {row['offnum']}: {row['msg']}" for row in rows)
    return Verdict(DAMAGED, messages, int(rows[0]["total"]), size=thing.size_bytes)


def judge(pair: Pair, thing: Thing, error: QueryError, began: float) -> Verdict:
    """What the server's refusal, to a look that *began* then, says of *thing*.

    Raises MaintenanceError when the server was stopped, or cannot be reached any more.
    """
    if error.sqlstate in _ENDED_BY_ADMINISTRATOR:
        raise error
    verdict = state_of_refusal(error.sqlstate, error.observed)
    if verdict.state == CRASHED:
        age = _wait_for_server(pair)
        if not has_restarted(age, time.monotonic() - began):
            return Verdict(PUT_OFF, reason=f"the connection was lost: {error.observed}")
        return verdict
    if verdict.state == DAMAGED and not value(pair.work, _STILL_THERE, [thing.oid]):
        return Verdict(VANISHED)
    return verdict


def has_restarted(age: t.Optional[float], elapsed: float) -> bool:
    """Whether the server's processes, *age* seconds old, were begun anew in the *elapsed* seconds; a guess says yes."""
    return age is None or age <= elapsed + _CLOCK_TOLERANCE


def state_of_refusal(sqlstate: str, said: str) -> Verdict:
    """What an error with this code means for what was looked at; no code means that the connection broke."""
    if sqlstate == _LOCK_NOT_AVAILABLE:
        return Verdict(LOCKED, reason=said)
    if sqlstate in (QUERY_CANCELED, _RECOVERY_CONFLICT, _BLOCK_OUT_OF_RANGE):
        return Verdict(PUT_OFF, reason=said)
    if sqlstate in _VANISHED:
        return Verdict(VANISHED)
    if sqlstate[:2] in ("XX", "58"):
        return Verdict(DAMAGED, (said,), 1)
    if sqlstate[:2] in ("", "08") or sqlstate == "57P02":
        return Verdict(CRASHED, (said,), 1)
    return Verdict(NOT_CHECKED, reason=said)


def _wait_for_server(pair: Pair, seconds: float = 60.0) -> t.Optional[float]:
    """Wait until the server answers again; returns how old its processes are, in seconds."""
    deadline = time.monotonic() + seconds
    pair.close()
    while True:
        try:
            age = value(pair.work, _AGE)
            return None if age is None else float(age)
        except MaintenanceError:
            pair.close()
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)
