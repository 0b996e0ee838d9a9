# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A proof that an account can add files there, and neither change nor remove one: by trying it each time."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import typing as t

from ..backup.repository import now
from .destination import FILE, Connection, Entry, HarmedError, Outgoing
from .manifests import PROBES


class Proof(t.NamedTuple):
    """``held``: the ways that were refused; ``broken``: those by which a file was harmed; ``probes`` that are there."""

    held: t.List[str]
    broken: t.List[str]
    probes: int


def prove(connection: Connection, there: t.Mapping[str, Entry], scratch: str) -> Proof:
    """Write a new probe, and try everything on it and on the oldest; what counts is what is there afterwards."""
    old = sorted(name for name in there if name.startswith(PROBES + "/probe-") and name.count("/") == 2)
    proof = Proof([], [], len(old) + 1)
    broken = [probe for probe in old if there[probe] != Entry(FILE, len(content_of(probe)))]
    if old and old[0] not in broken and not _is_sound(connection, old[0]):
        broken.append(old[0])
    proof.broken.extend(f"{probe} was changed since it was written" for probe in broken)
    new = _write_probe(connection, there, scratch)
    for number in range(len(connection.attempts(new))):
        attempt = connection.attempts(new)[number]
        if _harms(connection, attempt.carry_out, new):
            proof.broken.append(attempt.what)
            if not _is_sound(connection, new):
                new = _write_probe(connection, there, scratch)
        else:
            proof.held.append(attempt.what)
    if old and old[0] not in broken:
        _try_old(connection, old[0], proof)
    return proof


def _try_old(connection: Connection, probe: str, proof: Proof) -> None:
    """The same on a probe of an earlier run: what is new and what is old may be treated differently there."""
    for attempt in connection.attempts(probe):
        if _harms(connection, attempt.carry_out, probe):
            proof.broken.append(f"{attempt.what} (an old file)")
            if not _is_sound(connection, probe):
                return


def _write_probe(connection: Connection, there: t.Mapping[str, Entry], scratch: str) -> str:
    stamp = now().translate(str.maketrans("", "", "-:."))
    name = f"{PROBES}/probe-{stamp}-{secrets.token_hex(4)}"
    content = content_of(name)
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path = os.path.join(directory, "probe")
        with open(path, "wb") as stream:
            stream.write(content)
        file = Outgoing(name, path, len(content), hashlib.sha256(content).hexdigest())
        connection.send([file], there, lambda _file: None)
    return name


def _harms(connection: Connection, carry_out: t.Callable[[], object], probe: str) -> bool:
    """Whether the attempt went well. That it was refused is believed only if the file is there as it was."""
    try:
        carry_out()
    except HarmedError:
        return True
    except Exception as refusal:  # whatever the library makes of a refusal
        del refusal
    return not _is_sound(connection, probe)


def _is_sound(connection: Connection, probe: str) -> bool:
    try:
        return connection.read(probe) == content_of(probe)
    except OSError:
        return False


def content_of(probe: str) -> bytes:
    return f"{probe}\nThis file proves that the account which wrote it cannot change it.\n".encode()
