# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The steps of a restore into place: recover beside, look if asked to, exchange, start, and see that it is right."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import time
import typing as t

from .. import postgresql
from ..backup.engine import Engine
from ..errors import MaintenanceError
from ..postgresql import QueryError
from ..processes import as_user, run
from ..result import Part
from . import in_place, replay
from .aim import Aim
from .in_place import Journal, Place
from .scratch_cluster import PASSIVE_LIBRARIES, ScratchCluster
from .scratch_directory import end_server_of, same_directory

# Settings that the WAL itself depends on: they stay what they were, so that later restores can replay this one.
_AS_BEFORE = {
    "wal_level setting": "wal_level",
    "wal_log_hints setting": "wal_log_hints",
    "max_connections setting": "max_connections",
    "max_wal_senders setting": "max_wal_senders",
    "track_commit_timestamp setting": "track_commit_timestamp",
}


class Wish(t.NamedTuple):
    """What was asked for, and what it takes."""

    engine: Engine
    aim: Aim
    place: Place
    bin_dir: str
    user: str
    params: t.Mapping[str, t.Any]
    configuration: str
    pause: bool
    start_command: t.Sequence[str]
    timeout: float


def recover(wish: Wish, part: Part) -> Journal | None:
    """Make the restored cluster ready beside the old one; None when it did not get there, or waits to be looked at."""
    place = wish.place
    journal = place.begin(str(wish.aim.target), wish.aim.backup.label)
    cluster = ScratchCluster(place.work, wish.bin_dir, wish.user, lasting=wish.pause)
    paused = False
    try:
        seconds = replay.lay_down(wish.engine, wish.aim.backup, wish.aim.wal.source, cluster)
        auto = os.path.join(cluster.data, "postgresql.auto.conf")
        shutil.copyfile(auto, os.path.join(place.work, "auto.conf.of-backup"))
        _configure(wish, cluster)
        replay.refuse_new_tablespaces(wish.aim)
        recovered = replay.start(wish.aim, cluster, wish.timeout, part)
        if recovered is None:
            return None
        journal = journal._replace(socket=cluster.socket_directory, timeline=recovered.timeline)
        _look(wish, cluster, recovered, part)
        replay.record_seconds({**seconds, **recovered.seconds}, part)
        if wish.pause:
            paused = not part.failures()
            return place.note(journal._replace(phase=in_place.PAUSED)) if paused else None
        if part.failures():
            return None
        cluster.stop_cleanly(wish.timeout)
        return _recovered(place, journal)
    finally:
        if not paused:
            cluster.stop()


def _configure(wish: Wish, cluster: ScratchCluster) -> None:
    control = cluster.control_data()
    told = {name: control[key] for key, name in _AS_BEFORE.items() if key in control}
    told["full_page_writes"] = "on"
    if wish.pause:
        told["hot_standby"] = "on"
        told["recovery_target_action"] = "pause"
        told["max_worker_processes"] = control["max_worker_processes setting"]
        # Workers of other libraries would begin to work when the pause ends.
        libraries = str(wish.aim.backup.metadata["settings"].get("shared_preload_libraries") or "").split(",")
        passive = [name.strip() for name in libraries if name.strip() in PASSIVE_LIBRARIES]
        told["shared_preload_libraries"] = ",".join(passive)
    replay.configure(wish.aim, cluster, **told)


def _look(wish: Wish, cluster: ScratchCluster, recovered: replay.Recovered, part: Part) -> None:
    database = wish.aim.backup.metadata["marker"]["database"]
    cluster.find_superuser((wish.params["login_user"], "postgres"), database)
    if wish.aim.target.kind != "immediate":
        replay.check_markers(wish.aim, recovered, cluster, part)


def resume(wish: Wish, journal: Journal, part: Part) -> Journal | None:
    """End the pause of a server that waits to be looked at; None when it does not run any more."""
    place = wish.place
    cluster = ScratchCluster(place.work, wish.bin_dir, wish.user)
    cluster.socket_directory = journal.socket
    if not in_place.reason_running(place.new):
        return None
    try:
        cluster.find_superuser((wish.params["login_user"], "postgres"), wish.aim.backup.metadata["marker"]["database"])
        with contextlib.closing(cluster.connect(wish.aim.backup.metadata["marker"]["database"])) as connection:
            with contextlib.suppress(QueryError):  # an earlier try has ended the pause already
                postgresql.query(connection, "SELECT pg_catalog.pg_wal_replay_resume()")
            deadline = time.monotonic() + wish.timeout
            while postgresql.value(connection, "SELECT pg_catalog.pg_is_in_recovery()"):
                if time.monotonic() > deadline:
                    raise MaintenanceError(
                        "end the pause at the target",
                        where=place.new,
                        expected="the end of recovery",
                        observed="it is still in recovery",
                        advice=f"See {cluster.log}.",
                    )
                time.sleep(0.05)
            timeline = postgresql.value(connection, "SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)")
    except MaintenanceError as error:
        raise MaintenanceError(
            "end the pause at the target", where=place.new, expected=error.expected, observed=error.observed,
            advice=error.advice,
        ) from None  # fmt: skip
    end_server_of(place.new, (signal.SIGINT,))
    part.require("pause at the target", True, expected="its end", observed="ended; recovery has ended")
    return _recovered(place, journal._replace(timeline=str(int(timeline, 16))))


def _recovered(place: Place, journal: Journal) -> Journal:
    in_place.announce_history(place)
    in_place.make_durable(place)
    return place.note(journal._replace(phase=in_place.RECOVERED))


def exchange(wish: Wish, journal: Journal, part: Part) -> Journal:
    """Put it into place, with the configuration that was chosen."""
    place = wish.place
    if journal.phase == in_place.RECOVERED:
        old = place.data if wish.configuration == "kept" and os.path.isdir(place.data) else ""
        saved = os.path.join(place.work, "auto.conf.of-backup")
        taken = in_place.take_configuration(old, place, saved)
        if os.path.isdir(place.data):
            os.chmod(place.new, stat.S_IMODE(os.stat(place.data).st_mode) & 0o750)
        part.require(
            "configuration",
            True,
            expected=wish.configuration,
            observed=f"{'kept from the old data directory' if old else 'of the backup'}: {', '.join(taken) or 'none'}",
        )
        in_place.make_durable(place)
    had = os.path.lexists(place.data)
    journal = place.swap(journal)
    if had and os.path.lexists(journal.aside):
        part.change("data directory", place.data, "the old one", f"aside in {journal.aside}, whole")
    part.change("cluster", place.data, "not restored", f"restored to {journal.target} from {journal.label}")
    return journal


def start_and_verify(wish: Wish, journal: Journal, part: Part) -> None:
    """Start the server in its place, and see that it is the restored one; then the working directory may go."""
    if not in_place.reason_running(wish.place.data):
        _start(wish)
    seconds, facts, data = _wait(wish)
    expected = wish.aim.wal.identifier
    right = facts["system_identifier"] == expected and same_directory(data, wish.place.data)
    sound = (
        facts["system_identifier"] == expected and same_directory(data, wish.place.data) and not facts["in_recovery"]
    )
    part.metric("service_start_seconds", round(seconds, 3), "seconds")
    sound = part.require(
        "server in place",
        right and not facts["in_recovery"],
        expected=f"the cluster {expected} in {wish.place.data}, out of recovery",
        observed=f"the cluster {facts['system_identifier']} in {data}, "
        + ("in recovery" if facts["in_recovery"] else "out of recovery"),
        advice="The login options or the start command lead to another server: correct them and run this again.",
    )
    if sound:
        _check_rows(wish, part)
        wish.place.clear()
        if os.path.lexists(journal.aside):
            part.require(
                "old data directory", True, expected="kept", observed=f"{journal.aside}; remove it when nobody needs it"
            )


def _check_rows(wish: Wish, part: Part) -> None:
    wanted = [marker for marker in wish.aim.required() if marker.database == wish.params["login_db"]]
    with contextlib.closing(postgresql.connect(wish.params)) as connection:
        rows = postgresql.query(connection, "SELECT id FROM wellkept.backup_marker") if wanted else []
    there = {str(row["id"]) for row in rows}
    missing = [marker for marker in wanted if marker.id not in there]
    part.require(
        "marker rows in the server in place",
        not missing,
        expected=f"{len(wanted)} rows that were written before the target",
        observed=f"{len(missing)} missing" if missing else "all there",
        advice="This is not what was restored: look which server answers.",
    )


def _start(wish: Wish) -> None:
    data = wish.place.data
    if wish.start_command:
        run(list(wish.start_command), timeout=wish.timeout, what="start the server by start_command")
        return
    log = os.path.join(data, "wellkept-start.log")
    command = [os.path.join(wish.bin_dir, "pg_ctl"), "-D", data, "-w", "-t", str(int(wish.timeout)), "-l", log, "start"]
    prefix = max((as_user(wish.user, place) for place in (wish.bin_dir, data)), key=len)
    run([*prefix, *command], timeout=wish.timeout + 30, what="start the server with pg_ctl", cwd=data)


def _wait(wish: Wish) -> tuple[float, dict[str, t.Any], str]:
    began = time.monotonic()
    while True:
        try:
            with contextlib.closing(postgresql.connect(wish.params)) as connection:
                facts = postgresql.server_facts(connection)
                data = str(postgresql.value(connection, "SHOW data_directory"))
                return time.monotonic() - began, facts, data
        except MaintenanceError:
            if time.monotonic() - began > wish.timeout:
                raise
            time.sleep(0.2)
