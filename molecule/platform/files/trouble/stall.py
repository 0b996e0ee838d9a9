#!/usr/bin/python3
"""Somebody keeps a snapshot that a rebuild has to wait for, somebody else wants the table, others read behind them.

Usage: stall.py SECONDS        how long the snapshot is kept; prints a JSON document with the longest waits
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
import time

import victim


class Scene:
    def __init__(self, hold):
        self.hold = hold
        self.over = threading.Event()
        self.held = threading.Event()
        self.waits = {"alter": [], "select": [], "unconcerned": []}
        self.threads = []

    def run(self, work, *arguments):
        self.threads.append(threading.Thread(target=work, args=arguments))
        self.threads[-1].start()
        return self.threads[-1]

    def write(self, after):
        """Transactions of a second each: a rebuild waits for one at its beginning, but none is old."""
        time.sleep(after)
        with contextlib.closing(victim.connect()) as connection, connection.cursor() as cursor:
            while not (self.over.is_set() or self.held.is_set()):
                cursor.execute("BEGIN")
                cursor.execute("LOCK TABLE victim IN ROW EXCLUSIVE MODE")
                self.held.wait(1.0)
                cursor.execute("COMMIT")

    def keep(self):
        with contextlib.closing(victim.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT count(*) FROM bystander")
            self.held.set()
            self.over.wait(self.hold)
            cursor.execute("COMMIT")

    def time(self, statement, kind):
        with contextlib.closing(victim.connect()) as connection, connection.cursor() as cursor:
            began = time.monotonic()
            cursor.execute(statement)
            self.waits[kind].append(time.monotonic() - began)

    def read_elsewhere(self):
        """What a query takes that no rebuild concerns, on this machine at this time."""
        while not self.over.is_set():
            self.time("SELECT 1 FROM bystander LIMIT 1", "unconcerned")
            self.over.wait(0.1)

    def play(self, process):
        """Bring the snapshot and the ALTER when the rebuild cannot but wait for them; until the module has ended."""
        keeper = altering = None
        with contextlib.closing(victim.connect("postgres")) as watcher:
            while process.poll() is None:
                seen = victim.rebuilding(watcher)
                phase = (seen[1] or "") if seen else ""
                if keeper is None and phase == "waiting for writers before build":
                    keeper = self.run(self.keep)
                waits = keeper is not None and keeper.is_alive() and phase == "waiting for old snapshots"
                if waits and (altering is None or not altering.is_alive()):
                    altering = self.run(self.time, "ALTER TABLE victim ALTER COLUMN word SET DEFAULT ''", "alter")
                    time.sleep(0.1)
                    self.run(self.time, "SELECT 1 FROM victim LIMIT 1", "select")
                time.sleep(0.005)


def main(hold):
    victim.make()
    victim.bloat()
    scene = Scene(hold)
    with tempfile.TemporaryDirectory() as directory:
        for after in (0, 0.5):
            scene.run(scene.write, after)
        scene.run(scene.read_elsewhere)
        process = victim.start(directory)
        try:
            scene.play(process)
        finally:
            scene.over.set()
            for thread in scene.threads:
                thread.join()
        shown = victim.answer(process)
    left = victim.not_valid()
    victim.remove()
    report = {f"longest {kind}": round(max(waits, default=0.0), 3) for kind, waits in scene.waits.items()}
    report |= {"met": len(scene.waits["alter"]), "left": left, "failed": shown.get("failed"), "msg": shown.get("msg")}
    print(json.dumps(report, default=str))


if __name__ == "__main__":
    main(float(sys.argv[1]))
