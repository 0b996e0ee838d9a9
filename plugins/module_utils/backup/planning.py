# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is there, and what is to be done: the facts that the decisions of ``retention`` are taken from."""

from __future__ import annotations

import contextlib
import getpass
import os
import typing as t
from datetime import datetime, timedelta, timezone

from ..errors import MaintenanceError, UnavailableError
from ..options import read_at_least, read_duration, read_size, reading
from ..quantities import human_bytes
from ..result import Part
from .engine import Engine, Order, Source
from .packed.compression import parse_compression
from .remembered import Remembered
from .repository import Backup, Repository
from .retention import Decision, Known, Rules, decide, expirable, reasons_to_stay
from .server import Server
from .stores.registry import all_stores
from .stores.store import Store

CALENDAR = ("keep_daily", "keep_weekly", "keep_monthly")


class Policy(t.NamedTuple):
    """The options, read."""

    interval: timedelta
    full_every: timedelta
    rules: Rules
    max_block: float
    min_free: int
    timeout: float
    dump: bool
    chain_read_within: float
    # All that there are; those that are wanted save something with new backups.
    stores: tuple[Store, ...]
    compression: str
    jobs: int


class State(t.NamedTuple):
    """What was measured."""

    engine: Engine
    policy: Policy
    server: Server
    known: list[Known]
    leftovers: list[str]
    # The stores that are wanted but cannot be had now, each with the reason.
    unavailable: t.Mapping[str, str]


def prepare_stores(policy: Policy, repository: Repository, part: Part) -> dict[str, UnavailableError]:
    """Let each store that is wanted see whether it can be saved; returns those that cannot be had now."""
    found = {}
    for store in policy.stores:
        if store.wanted:
            try:
                store.prepare(repository, part)
            except UnavailableError as error:
                found[store.name] = error
    return found


def measure(
    engine: Engine, server: Server, policy: Policy, part: Part, unavailable: t.Mapping[str, MaintenanceError]
) -> State:
    """Which backups are there, and whether they look sound: the newest chain is looked at, by names and sizes."""
    repository = engine.repository
    ours, damaged = engine.list(), repository.damaged()
    backups = [b for b in ours if b.metadata["system_identifier"] == server.system_identifier]
    strangers = [b.label for b in ours if b not in backups]
    others = {b.label: b.metadata["engine"] for b in repository.backups() if b.metadata["engine"] != engine.name}
    remarks = [f"{entry.label}: {entry.problem}" for entry in damaged]
    remarks += [f"{label} is of another cluster" for label in strangers]
    remarks += [f"{label} was made by the engine {name}" for label, name in others.items()]
    part.check(
        "descriptions of backups",
        "warned" if remarks else "passed",
        expected="every backup described by a backup.json as it was written, of this cluster and engine",
        observed="; ".join(remarks) or f"{len(backups)} backups",
        advice="Such a backup is relied on for nothing, and never removed. Find out what damages the repository, or "
        "give the backups of another cluster or engine a name of their own.",
    )
    _tell_noted_damage(repository, backups, part)
    newest = backups[-1].chain if backups else []
    unsound = {label for label in newest if not engine.verify(label, quick=True).sound}
    every = [known(repository, backup, unsound) for backup in backups]
    reasons = {name: error.in_short() for name, error in unavailable.items()}
    return State(engine, policy, server, every, repository.leftovers(), reasons)


def _tell_noted_damage(repository: Repository, backups: t.Sequence[Backup], part: Part) -> None:
    noted = {backup.label: repository.noted_damage(backup.label) for backup in backups}
    found = [f"{label}: {words}" for label, words in noted.items() if words]
    if found:
        part.check(
            "backups that were found damaged",
            "warned",
            expected="none",
            observed="; ".join(found),
            advice="They are relied on for nothing, and a new full backup takes their place. Find out what damages the "
            "repository; remove them by hand when nobody needs them to find out.",
        )


def known(repository: Repository, backup: Backup, unsound: t.Container[str] = ()) -> Known:
    """What the decisions need to know of *backup*."""
    return Known(
        backup.label,
        backup.type,
        tuple(backup.chain),
        backup.finished,
        sound=backup.label not in unsound and not repository.noted_damage(backup.label),
        proven=repository.proof(backup) is not None,
        in_use=repository.is_in_use(backup.label),
        lacking=bool(backup.lacks),
        absent=backup.absent,
    )


def choose(state: State) -> Decision:
    """Whether a backup is due, and of which type, as far as can be told without reading the chain."""
    refused = state.engine.incremental_refused(state.server)
    newest = state.engine.repository.backup(state.known[-1].label).metadata if state.known else None
    if newest and newest["timeline"] != state.server.timeline:
        refused = refused or f"the server is on timeline {state.server.timeline} by now"
    policy, moment = state.policy, datetime.now(timezone.utc)
    return decide(
        state.known,
        moment,
        interval=policy.interval,
        full_every=policy.full_every,
        incremental_refused=refused,
        unavailable=state.unavailable,
    )


def settle(state: State, part: Part) -> tuple[Decision, State]:
    """Decide what is due; what an incremental backup would build on is read first, unless it was lately."""
    decision = choose(state)
    if decision.type != "incremental" or not decision.due:
        return decision, state
    repository = state.engine.repository
    remembered = Remembered(repository, within=state.policy.chain_read_within)
    verifications = state.engine.verify_chain(decision.parent, remembered=remembered)
    problems = {v.label: v.problems for v in verifications if not v.sound}
    for label, found in problems.items():
        with contextlib.suppress(OSError):  # a full disk: the new full backup will tell
            repository.note_damage(label, found)
    part.check(
        "chain to build on",
        "warned" if problems else "passed",
        expected="every byte of it as it was written",
        observed="; ".join(f"{label}: {problem}" for label in problems for problem in problems[label][:3])
        or f"{len(verifications)} backups, {human_bytes(sum(v.read_bytes for v in verifications))} read now, "
        "the rest unchanged since it was",
        advice="A new full backup is made instead. Find out what damages the repository.",
    )
    if not problems:
        return decision, state
    state = state._replace(known=[b._replace(sound=b.sound and b.label not in problems) for b in state.known])
    return Decision(True, "full", "", f"{', '.join(sorted(problems))} is damaged"), state


def order_for(decision: Decision, state: State) -> Order:
    policy = state.policy
    return Order(
        decision.type,
        decision.parent,
        datetime.now(timezone.utc),
        stores=tuple(store for store in policy.stores if store.wanted and store.name not in state.unavailable),
        lacks=state.unavailable,
        dump=policy.dump,
        max_block=policy.max_block,
        timeout=policy.timeout,
        compression=policy.compression,
        jobs=policy.jobs,
    )


def predicted_bytes(state: State, order: Order) -> int:
    """Bytes that the backup will need."""
    stores_bytes = sum(store.plan() for store in order.stores)
    source = Source(state.server.database_bytes, stores_bytes, state.server.segment_bytes)
    return state.engine.plan(order, source).bytes


class Fates(t.NamedTuple):
    """What may be removed, in this order, and why everything else stays."""

    going: dict[str, str]
    staying: dict[str, list[str]]


def fates(state: State, *, look: bool = True) -> Fates:
    """What becomes of each backup; unless told not to, all that would be relied on afterwards is looked at first."""
    moment, rules, engine = datetime.now(timezone.utc), state.policy.rules, state.engine
    backups = state.known
    if look and expirable(backups, moment, rules):
        backups = [b._replace(sound=b.sound and engine.verify(b.label, quick=True).sound) for b in backups]
    going = expirable(backups, moment, rules)
    reasons = reasons_to_stay(backups, moment, rules)
    return Fates(going, {label: why for label, why in reasons.items() if why})


def read_policy(params: dict[str, t.Any]) -> Policy:
    """What the module's options say; raises MaintenanceError that names the one that cannot be read."""
    with reading("compression", expected="none, or a way to compress"):
        parse_compression(params["compression"])
    return Policy(
        timedelta(seconds=read_duration(params, "interval")),
        timedelta(seconds=read_duration(params, "full_every")),
        Rules(
            read_at_least(params, "keep_full", 1),
            timedelta(seconds=read_duration(params, "keep_within")),
            *(read_at_least(params, name, 0) for name in CALENDAR),
        ),
        read_duration(params, "max_block"),
        read_size(params, "min_free_bytes"),
        read_duration(params, "timeout"),
        params["dump"],
        read_duration(params, "chain_read_within"),
        all_stores(params),
        params["compression"],
        read_at_least(params, "jobs", 0),
    )


def holder(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """What others are told who find our locks."""
    try:
        user = getpass.getuser()
    except KeyError:
        user = str(os.getuid())
    return {"run": params["run_id"], "activity": "backup", "user": user}
