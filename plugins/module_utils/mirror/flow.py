# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One destination's run: measure, decide, send unit by unit, verify there by hash, prove, and remove what expired."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import tempfile
import time
import typing as t

from ..backup.repository import METADATA
from ..errors import MaintenanceError
from . import pruning
from .append_only import prove
from .decision import Wanted, decide, whole_name
from .destination import ChangedError, Connection, Entry, Outgoing
from .destinations import Destination
from .manifests import MANIFESTS, OWNER, is_manifest, merge, new_prefix, serialise
from .memory import LocalHashes, Record, Records, counts_no_more
from .names import OWN, to_mirror
from .outcome import Outcome, Settings
from .sources import Found, Item, Unit

_BATCH_FILES, _BATCH_BYTES = 2000, 4 << 30


class Mirroring:
    """The run of one destination; a MaintenanceError ends it, and what was done until then is remembered."""

    def __init__(
        self,
        destination: Destination,
        connection: Connection,
        found: t.Sequence[Found],
        hashes: LocalHashes,
        *,
        records: Records,
        settings: Settings,
    ) -> None:
        self.destination = destination
        self.connection = connection
        self.found = found
        self.hashes = hashes
        self.records = records
        self.settings = settings
        self.outcome = Outcome()
        self.there: t.Dict[str, Entry] = {}
        self._items = {item.name: item for source in found for unit in source.units for item in unit.items}
        self._wanted: t.Dict[str, Wanted] = {}
        self.directories: t.Set[str] = set()
        self._manifest_prefix = new_prefix()
        self._manifests = 0
        # What a manifest of this run lists, though it is still to come.
        self._listed: t.Set[str] = set()

    def carry_out(self, *, check_mode: bool) -> Outcome:
        began = time.monotonic()
        try:
            self._measure(check_mode=check_mode)
            if not check_mode:
                self._act()
        finally:
            self.outcome.verifies_by = self.connection.verifies_by
            self.outcome.seconds = time.monotonic() - began
            if not check_mode:
                self.records.save()
        return self.outcome

    # -- measure and decide --

    def _measure(self, *, check_mode: bool) -> None:
        self.there = self.connection.list()
        self._check_owner()
        if not self.records.known:
            self._learn([name for name in self.there if is_manifest(name)])
        elif self.records.pending_manifests:
            prefix = self.records.pending_manifests
            self._learn([name for name in self.there if name.startswith(prefix) and name not in self.records.files])
        for name, item in self._items.items():
            known = self.records.files.get(name)
            remembered = known.sha256 if known else ""
            sha256 = remembered if check_mode else self.hashes.of(item)
            if sha256 or check_mode:
                self._wanted[name] = Wanted(item.status.st_size, sha256, item.mutable)
        if self.destination.keep_within is not None:
            pruning.forget_expired(self, self._wanted, self.destination.keep_within)
        self.outcome.decision = decide(
            self._wanted,
            self.there,
            self.records.files,
            held=[prefix for source in self.found for prefix in source.held],
            pending=set(self.records.pending),
            append_only=self.destination.append_only,
        )
        self._check_manifests()
        self.outcome.problems.update(self.outcome.decision.problems)
        self.outcome.to_send = {name: self._wanted[name].size for name in self.outcome.decision.send}
        if not self.destination.append_only:
            self.outcome.removal = pruning.decide(self)
        self._sum_up()

    def _check_owner(self) -> None:
        if OWNER not in self.there:
            return
        there = self.connection.read(OWNER)
        if there != self._owner():
            raise MaintenanceError(
                f"use the mirror {self.destination.name}",
                where=self.destination.path,
                expected=f"a directory of its own, that belongs to {self.settings.owner}",
                observed=f"it is that of {there[:200].decode('utf-8', 'replace').strip()}; nothing was changed in it",
                advice="Give each host a path of its own. If this is the same host under a new name, set owner.",
            )

    def _owner(self) -> bytes:
        return f"{self.settings.owner}\n".encode()

    def _learn(self, manifests: t.Sequence[str]) -> None:
        """Read *manifests* there: what they list counts as sent, but not as verified."""
        contents = self.read_all(manifests)
        told = merge(contents)
        for name, record in told.files.items():
            self.records.files.setdefault(name, record)
        for name in set(manifests) - set(told.flaws):
            digest = hashlib.sha256(contents[name]).hexdigest()
            self.records.files.setdefault(name, Record(len(contents[name]), digest, 0.0, True))
        for name in told.flaws:
            self.outcome.problems[name] = "is no manifest as it was written"

    def read_all(self, names: t.Sequence[str]) -> t.Dict[str, bytes]:
        """The contents of small files there."""
        contents = {}
        with tempfile.TemporaryDirectory(dir=self.settings.scratch) as directory:
            targets = {name: os.path.join(directory, str(number)) for number, name in enumerate(names)}
            if names:
                self.connection.fetch(targets, {name: self.there[name].size for name in names})
            for name, path in targets.items():
                with open(path, "rb") as stream:
                    contents[name] = stream.read()
        return contents

    def _check_manifests(self) -> None:
        """A manifest that is not there as it was written is replaced by a new one that lists everything."""
        known = [name for name in self.records.files if name.startswith(OWN + "/")]
        bad = [name for name in known if self.there.get(name) != Entry("file", self.records.files[name].size)]
        for name in bad:
            self.outcome.problems[name] = "is not as it was written" if name in self.there else "is missing"
            del self.records.files[name]
        if any(name.startswith(MANIFESTS) for name in [*bad, *self.outcome.problems]):
            self.list_anew()

    def list_anew(self) -> None:
        """Let the next manifest list everything."""
        for name, record in self.records.files.items():
            self.records.files[name] = record._replace(listed=name.startswith(OWN + "/"))
        self.directories.update(d for source in self.found for unit in source.units for d in unit.directories)

    # -- act --

    def _act(self) -> None:
        decision = self.outcome.decision
        self._write_owner()
        # Also what an earlier run was writing when it was killed, until the rest of it is gone.
        self.records.pending = sorted({*decision.send, *filter(None, map(whole_name, decision.leftovers))})
        self.records.pending_manifests = self._manifest_prefix
        self.records.save()
        left = self._clear_away(decision.leftovers)
        self._adopt(decision.adopt)
        for source in self.found:
            for unit in source.units:
                self._send_unit(unit)
        self._verify_due()
        self._repair()
        self.write_manifest(set())
        self._sum_up()
        if self.destination.append_only:
            self.outcome.proof = prove(self.connection, self.there, self.settings.scratch)
        else:
            pruning.remove(self)
            pruning.compact(self)
        self.records.pending, self.records.pending_manifests = left, ""

    def _clear_away(self, leftovers: t.Sequence[str]) -> t.List[str]:
        """Remove what killed runs had begun to write; returns of which files a part stays, for we may not remove it."""
        if not leftovers:
            return []
        try:
            self.connection.remove(leftovers)
        except (OSError, MaintenanceError):
            return sorted(filter(None, map(whole_name, leftovers)))
        return []

    def _write_owner(self) -> None:
        if OWNER not in self.there:
            self._send_content(OWNER, self._owner())

    def _adopt(self, names: t.Sequence[str]) -> None:
        """What is there and nobody remembers to have sent: it is what a killed run sent, or it is not."""
        sound = self._verify(names, {name: self._wanted[name].sha256 for name in names})
        for name in names:
            if name not in sound:
                self.outcome.problems[name] = "has another content than here"
                if not self.destination.append_only:
                    self.outcome.decision.send[name] = "differs there"

    def _send_unit(self, unit: Unit) -> None:
        """Send what is missing of *unit*: what makes it complete goes last, when all else was verified there."""
        items = [item for item in unit.items if item.name in self.outcome.decision.send]
        if not items and not self._new_directories(unit):
            return
        with contextlib.ExitStack() as stack:
            if unit.backup and unit.repository:
                stack.enter_context(unit.repository.in_use(unit.backup.label, self.settings.holder))
                if not os.path.isdir(unit.backup.directory):
                    return  # it has expired meanwhile
            wrong = [item for item in items if item.sha256 and item.sha256 != self._wanted[item.name].sha256]
            if wrong:
                self._refuse(unit, wrong[0])
                return
            self.directories.update(self._new_directories(unit))
            for turn in sorted({item.turn for item in unit.items}):
                self._send_turn(unit, [item for item in items if item.turn == turn], last=turn > 0)

    def _refuse(self, unit: Unit, item: Item) -> None:
        for other in unit.items:
            self.outcome.decision.send.pop(other.name, None)
        self.outcome.problems[unit.name] = f"was not sent: here {item.path} is not as it was written"

    def _send_turn(self, unit: Unit, items: t.Sequence[Item], *, last: bool) -> None:
        if last and unit.backup:
            missing = [item.name for item in unit.items if item.turn == 0 and item.name not in self.records.files]
            if missing:
                self.outcome.problems[unit.name] = f"is not complete there, for want of {missing[0]}"
                return
            # So that whoever finds the backup there finds its manifest, too.
            self.write_manifest({item.name for item in items})
        for batch in _batches(items):
            files = [self._outgoing(item) for item in batch]
            self._send(files)
            if not unit.backup:
                self.write_manifest(set())

    def _outgoing(self, item: Item) -> Outgoing:
        return Outgoing(item.name, item.path, item.status.st_size, self._wanted[item.name].sha256)

    def _send(self, files: t.Sequence[Outgoing]) -> None:
        """Send *files* and verify them there; the records know of those alone that are as they were sent."""

        def arrived(file: Outgoing) -> None:
            self.outcome.sent[file.name] = file.size
            self.there[file.name] = Entry("file", file.size)

        try:
            self.connection.send(files, self.there, arrived)
        except ChangedError as error:
            raise MaintenanceError(
                f"send a file to the mirror {self.destination.name}",
                where=str(error),
                expected="the content that it had when it was read a moment ago",
                observed="another one; it was not sent",
                advice="See what writes to it, and what the disk says; then run this again.",
            ) from None
        sound = self._verify([f.name for f in files], {f.name: f.sha256 for f in files})
        for file in files:
            if file.name not in sound:
                self.outcome.problems[file.name] = "is not there as it was just sent"
                self.records.files.pop(file.name, None)
        self.records.save(now=False)

    def _verify(self, names: t.Sequence[str], expected: t.Mapping[str, str]) -> t.Set[str]:
        """Hash *names* there; those that have the *expected* hash are recorded, and returned."""
        sizes = {name: self.there[name].size for name in names}
        sound = set()
        for name, sha256 in self.connection.hashes(names, sizes):
            if name in expected and sha256 == expected[name]:
                sound.add(name)
                before = self.records.files.get(name)
                listed = (before is not None and before.listed and before.sha256 == sha256) or name in self._listed
                self.records.files[name] = Record(sizes[name], sha256, round(time.time(), 3), listed)
                self.outcome.verified_files += 1
                self.outcome.verified_bytes += sizes[name]
                self.records.save(now=False)
        return sound

    def _verify_due(self) -> None:
        """Read again what was not read for long, as far as the budget goes: the longest unread first."""
        now, within = time.time(), self.settings.reread_within
        records = self.records.files
        candidates = [n for n in self.outcome.decision.in_place if n not in self.outcome.sent]
        candidates += [n for n in records if n.startswith(OWN + "/") and n in self.there and n not in self.outcome.sent]
        going = set(self.outcome.removal.names)
        candidates = [name for name in candidates if name not in going]
        due = [n for n in candidates if n in records and counts_no_more(n, records[n].verified_at, now, within)]
        due.sort(key=lambda name: (records[name].verified_at, name))
        chosen = []
        for name in due:
            if self.settings.budget.take(records[name].size):
                chosen.append(name)
            else:
                self.outcome.left_bytes += records[name].size
        for start in range(0, len(chosen), _BATCH_FILES):
            batch = chosen[start : start + _BATCH_FILES]
            sound = self._verify(batch, {name: records[name].sha256 for name in batch})
            for name in batch:
                if name not in sound:
                    self.outcome.problems[name] = "has another content than was sent"

    def _repair(self) -> None:
        """Send again what was found damaged only now, by its content."""
        damaged = [n for n in self.outcome.problems if n.startswith(MANIFESTS) and n in self.records.files]
        for name in damaged:
            del self.records.files[name]
        if damaged:
            self.list_anew()
        if self.destination.append_only:
            return
        with contextlib.suppress(OSError, MaintenanceError):
            self.connection.remove(damaged)
        decision = self.outcome.decision
        known = {*decision.in_place, *decision.send}
        broken = [n for n in self.outcome.problems if n in known and n in self._wanted and n not in self.outcome.sent]
        again = [n for n in broken if n in self.there and self.there[n].kind != "directory"]
        if again:
            self._send([self._outgoing(self._items[name]) for name in again])
        self.outcome.repaired = sorted(name for name in self.outcome.problems if name in self.outcome.sent)

    def _new_directories(self, unit: Unit) -> t.List[str]:
        """Directories of *unit* of which nothing shows there: empty ones are known by manifests alone."""
        decision = self.outcome.decision
        fresh = {*decision.send, *decision.adopt}
        return unit.directories if any(item.name in fresh for item in unit.items) else []

    def write_manifest(self, coming: t.Set[str], removed: t.Sequence[str] = ()) -> None:
        """List what no manifest lists yet, and what is *coming* next."""
        files = {n: r for n, r in self.records.files.items() if not r.listed and not n.startswith(OWN + "/")}
        listed = dict(files)
        for name in coming:
            listed[name] = Record(self._wanted[name].size, self._wanted[name].sha256)
        if not listed and not removed and not self.directories:
            return
        self._listed |= coming
        self._manifests += 1
        name = f"{self._manifest_prefix}-{self._manifests:05d}.json"
        self._send_content(name, serialise(listed, self.directories, removed))
        self.directories = set()
        for path, record in files.items():
            self.records.files[path] = record._replace(listed=True)

    def _send_content(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=self.settings.scratch) as directory:
            path = os.path.join(directory, "content")
            with open(path, "wb") as stream:
                stream.write(content)
            self._send([Outgoing(name, path, len(content), hashlib.sha256(content).hexdigest())])

    def _sum_up(self) -> None:
        """What is there now: complete backups, and what is still to come."""
        outcome, records = self.outcome, self.records.files
        ours = [n for n in records if not n.startswith(OWN + "/") and n in self.there]
        outcome.files, outcome.bytes = len(ours), sum(records[n].size for n in ours)
        unrepaired = [n for n in outcome.problems if n not in outcome.sent]
        bad = {tuple(name.split("/")[:3]) for name in unrepaired}
        outcome.backups = {}
        for name in ours:
            parts = tuple(name.split("/"))
            if len(parts) == 4 and parts[3] == METADATA and parts[:3] not in bad:
                outcome.backups.setdefault("/".join(parts[:2]), []).append(parts[2])
        outcome.waiting = sorted(n for n in self._wanted if n not in records or n not in self.there)


def _batches(items: t.Sequence[Item]) -> t.Iterator[t.List[Item]]:
    batch: t.List[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) >= _BATCH_FILES or size + item.status.st_size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.status.st_size
    if batch:
        yield batch


def this_host() -> str:
    return to_mirror(socket.gethostname())
