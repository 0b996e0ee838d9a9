#!/usr/bin/python3
"""Kill the module, its server process or the postmaster in the middle of rebuilds; run once more each time, and look.

Usage: kills.py module|backend|postmaster ROUNDS SEED        prints a JSON document
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter

import victim
from victim import sql


class Users:
    """They write and read all the time, in transactions of 0.1 s, so that a rebuild has somebody to wait for."""

    def __init__(self):
        self.stopping = threading.Event()
        statements = ("LOCK TABLE victim IN ROW EXCLUSIVE MODE", "SELECT count(*) FROM bystander")
        self.threads = [threading.Thread(target=self.work, args=(statement,)) for statement in statements]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_error):
        self.stopping.set()
        for thread in self.threads:
            thread.join()

    def work(self, statement):
        while not self.stopping.is_set():
            # The server is killed under them, too: then they come again.
            with contextlib.suppress(victim.driver.Error), contextlib.closing(victim.connect()) as connection:
                self.transactions(connection, statement)
            self.stopping.wait(0.3)

    def transactions(self, connection, statement):
        with connection.cursor() as cursor:
            while not self.stopping.is_set():
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                cursor.execute(statement)
                self.stopping.wait(0.1)
                cursor.execute("COMMIT")


def undisturbed(directory):
    """How many seconds lie between the first and the last that is seen of rebuilding in an undisturbed run."""
    process = victim.start(directory)
    seen = []
    with contextlib.closing(victim.connect("postgres")) as watcher:
        while process.poll() is None:
            if victim.rebuilding(watcher):
                seen.append(time.monotonic())
            time.sleep(0.002)
    shown = victim.answer(process)
    assert seen and not shown.get("failed"), f"it rebuilt nothing, or failed: {shown}"
    return seen[-1] - seen[0]


def kill_once(kind, directory, delay, service):
    """Start the module, kill when it has been rebuilding for *delay* seconds; returns the phase in which it was hit."""
    [(data,)] = sql("SHOW data_directory", "postgres")
    with open(f"{data}/postmaster.pid", encoding="ascii") as stream:
        postmaster = int(stream.readline())
    process = victim.start(directory)
    began = None
    with contextlib.closing(victim.connect("postgres")) as watcher:
        while process.poll() is None:
            seen = victim.rebuilding(watcher)
            began = began or (time.monotonic() if seen else None)
            due = began is not None and time.monotonic() >= began + delay
            if due and (seen or kind != "backend"):
                os.kill(
                    {"module": process.pid, "backend": seen and seen[0], "postmaster": postmaster}[kind], signal.SIGKILL
                )
                # The module waits for the server to come back, for some minutes.
                up_again(service)
                victim.answer(process)
                return (seen[1] or "beginning") if seen else "between rebuilds"
            time.sleep(0.003)
    victim.answer(process)
    return "it had ended"


def up_again(service):
    """The server answers; a postmaster that was killed is started anew, as whoever runs the host would do."""

    def answers():
        if subprocess.run(["systemctl", "is-active", "--quiet", service], check=False).returncode != 0:
            subprocess.run(["systemctl", "start", service], check=False, stderr=subprocess.DEVNULL)
        return sql("SELECT 1")

    victim.wait_until(answers, "the server answers")


def one_round(kind, directory, delay, fresh, service):
    """The phase that was hit, whether leftovers were seen then, and what was wrong after one more run."""
    victim.bloat()
    before = victim.definitions(), victim.content()
    with Users():
        phase = kill_once(kind, directory, delay, service)
        victim.wait_until(lambda: not sessions(), "the killed module's sessions have ended")
    leftovers = victim.not_valid()
    shown = victim.answer(victim.start(directory))
    victim.wait_until(lambda: not sessions(), "the module's sessions have ended")
    found = victim.problems(*before, fresh)
    if shown.get("failed"):
        found.append(f"the run afterwards failed: {shown.get('msg')}")
    return phase, bool(leftovers), found


def sessions():
    return sql("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'wellkept%'", "postgres")


def main(kind, rounds, seed):
    chance = random.Random(seed)
    [(version,)] = sql("SHOW server_version_num", "postgres")
    service = f"postgresql@{version[:2]}-main"
    victim.make()
    phases, wrong, leftovers = Counter(), [], 0
    with tempfile.TemporaryDirectory() as directory:
        victim.bloat()
        with Users():
            seconds = undisturbed(directory)
        fresh = victim.sizes()
        for number in range(rounds):
            phase, left, found = one_round(kind, directory, chance.uniform(0, seconds), fresh, service)
            phases[phase] += 1
            leftovers += left
            if found:
                wrong.append({"round": number, "phase": phase, "found": found})
    victim.remove()
    print(json.dumps({"rounds": rounds, "phases": phases, "left something": leftovers, "wrong": wrong}, default=str))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
