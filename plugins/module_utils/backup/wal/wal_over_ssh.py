# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What PostgreSQL runs for each WAL segment when the archive is on another host, and what answers it there.

Installed beside ``wal_helper`` on both hosts. The server runs
``push <directory> <account> <port> <seconds> <path> <name>``, and in recovery
``pull <directory> <account> <port> <seconds> <identifier> <name> <path>``. The directory holds its key and the host
keys that it accepts. There, sshd runs ``receive <archive> <compression>`` in place of whatever is asked for.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
import sys
import time
import zlib

if __package__:
    from . import wal_helper
else:
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import wal_helper  # type: ignore[no-redef]

KEY, KNOWN_HOSTS = "id_ed25519", "known_hosts"
ENCODINGS = ("plain", "zlib")

# What the far side begins its answers with: sshd's own exit status could be that of any program.
_KEPT, _SENDS, _NONE = "wellkept keeps", "wellkept sends", "wellkept has no"

_CONNECT_SECONDS = 10
_LARGEST = 1 << 30
_RECEIVING_SECONDS = 600
_LONGEST_LINE = 200

RefusedError = wal_helper.RefusedError


class UnreachableError(RefusedError):
    """The other host did not answer, or not as it should."""


class Far:
    """The account on the archive's host, and our own *directory* with the key for it."""

    def __init__(self, directory: str, account: str, port: str, seconds: str) -> None:
        self.directory = directory
        self.account = account
        self.port = port
        self.seconds = seconds


# -- on the server's host ----------------------------------------------------------------------------------------------


def push(far: Far, path: str, name: str) -> None:
    """Send the file *path* to be kept as *name*; returns when the other host has it for good."""
    if not wal_helper.is_archived_name(name):
        raise RefusedError("%s is no name of WAL" % name)
    source = wal_helper.open_plain(path)
    content = wal_helper.read_all(source)
    os.close(source)
    digest = hashlib.sha256(content).hexdigest()
    request = "push %s %d %s zlib" % (name, len(content), digest)
    answer = _ask(far, request, zlib.compress(content, 1))
    if answer.decode("ascii", "replace").strip() != "%s %s %s" % (_KEPT, name, digest):
        raise UnreachableError("%s has not said that it keeps %s; it said: %s" % (far.account, name, _shown(answer)))


def pull(far: Far, identifier: str, name: str, path: str) -> None:
    """Fetch the file *name* to *path*; raises FileNotFoundError when the archive there does not have it."""
    if not wal_helper.is_archived_name(name):
        raise RefusedError("%s is no name of WAL" % name)
    answer = _ask(far, "pull %s" % name, b"")
    line, _newline, packed = answer.partition(b"\n")
    said = line.decode("ascii", "replace")
    if said == "%s %s" % (_NONE, name):
        raise FileNotFoundError(name)
    words = said[len(_SENDS) :].split()
    if not said.startswith(_SENDS) or len(words) != 3 or words[0] != name or not words[1].isdigit():
        raise UnreachableError("%s has not sent %s; it said: %s" % (far.account, name, _shown(answer)))
    content = _decoded(packed, "zlib", int(words[1]), words[2])
    if wal_helper.is_segment(name):
        problem = wal_helper.segment_problem(content[:64], len(content), name, identifier)
        if problem:
            raise RefusedError("%s from %s %s" % (name, far.account, problem))
    wal_helper.place(path, content)


def ssh_command(far: Far) -> list[str]:
    key, known_hosts = os.path.join(far.directory, KEY), os.path.join(far.directory, KNOWN_HOSTS)
    trusted = settings(key, known_hosts, _CONNECT_SECONDS)
    return [
        "ssh", "-F", "none", "-T", "-x", "-a", "-p", far.port,
        *(word for setting in trusted for word in ("-o", setting)),
        "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3", "--", far.account,
    ]  # fmt: skip


def settings(key: str, known_hosts: str, seconds: int) -> list[str]:
    """How ssh makes a connection that nobody is asked about: by this key, to these hosts, or not at all."""
    words = ["BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=%d" % seconds]
    if key:
        words += ["IdentitiesOnly=yes", 'IdentityFile="%s"' % key]
    if known_hosts:
        words += ['UserKnownHostsFile="%s"' % known_hosts, "GlobalKnownHostsFile=none", "UpdateHostKeys=no"]
    return words


def _ask(far: Far, request: str, content: bytes) -> bytes:
    """What the other host answers to *request*; raises UnreachableError where it does not, in at most *seconds*."""
    command = [*ssh_command(far), request]
    try:
        done = subprocess.run(command, input=content, capture_output=True, timeout=float(far.seconds), check=False)
    except subprocess.TimeoutExpired:
        raise UnreachableError("%s has not answered within %s s" % (far.account, far.seconds)) from None
    except OSError as error:
        raise UnreachableError("ssh: %s; install openssh-client" % error.strerror) from None
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").splitlines()
        words = " | ".join(line.strip() for line in said if line.strip() and not line.startswith("@"))
        raise UnreachableError("%s: %s" % (far.account, words[-600:] or "ssh ended with %d" % done.returncode))
    return done.stdout


def _shown(answer: bytes) -> str:
    return repr(answer[:_LONGEST_LINE].decode("utf-8", "replace")) if answer else "nothing"


# -- on the archive's host ---------------------------------------------------------------------------------------------


def receive(archive: str, compression: str) -> bytes:
    """Do what the client of this SSH session asks for, which may be to keep or to fetch one file, and no more."""
    signal.alarm(_RECEIVING_SECONDS)  # a client that has gone without a word must not leave us behind
    words = shlex.split(os.environ.get("SSH_ORIGINAL_COMMAND", "")[:_LONGEST_LINE])
    if len(words) == 5 and words[0] == "push" and words[2].isdigit() and words[4] in ENCODINGS:
        _command, name, size, digest, encoding = words
        if int(size) > _LARGEST:
            raise RefusedError("%s has %s bytes: more than any segment" % (name, size))
        content = _decoded(_read(int(size)), encoding, int(size), digest)
        wal_helper.archive_content(archive, compression, content, name, "what was sent")
        return ("%s %s %s\n" % (_KEPT, name, digest)).encode()
    if len(words) == 2 and words[0] == "pull":
        return _answer(archive, words[1])
    raise RefusedError("this key may only push and pull WAL")


def _answer(archive: str, name: str) -> bytes:
    try:
        _path, content = wal_helper.find(name, [archive], os.path.basename(archive))
    except FileNotFoundError:
        return ("%s %s\n" % (_NONE, name)).encode()
    digest = hashlib.sha256(content).hexdigest()
    return ("%s %s %d %s\n" % (_SENDS, name, len(content), digest)).encode() + zlib.compress(content, 1)


def _read(size: int) -> bytes:
    """All that is sent, though no more than *size* bytes could take at the worst."""
    return sys.stdin.buffer.read(size + (size >> 8) + 1024)


def _decoded(packed: bytes, encoding: str, size: int, digest: str) -> bytes:
    """What was sent; raises RefusedError where it is not all of it, byte for byte."""
    content = packed
    if encoding == "zlib":
        unpacker = zlib.decompressobj()
        try:
            content = unpacker.decompress(packed, size + 1)
        except zlib.error as error:
            raise RefusedError("what was sent cannot be decompressed: %s" % error) from None
    if len(content) != size:
        raise RefusedError("%d bytes were announced, %d came" % (size, len(content)))
    if hashlib.sha256(content).hexdigest() != digest:
        raise RefusedError("what came is not what was sent: another SHA-256")
    return content


# -- both --------------------------------------------------------------------------------------------------------------


def main(arguments: list[str]) -> int:
    began = time.monotonic()
    kind, rest = (arguments or [""])[0], arguments[1:]
    failed = wal_helper.STOP_RECOVERY if kind == "pull" else 1
    try:
        if kind == "push" and len(rest) == 6:
            push(Far(*rest[:4]), *rest[4:])
            return 0
        if kind == "pull" and len(rest) == 7:
            pull(Far(*rest[:4]), *rest[4:])
            wal_helper.say("fetched %s from %s in %.4f s" % (rest[5], rest[1], time.monotonic() - began))
            return 0
        if kind == "receive" and len(rest) == 2:
            sys.stdout.buffer.write(receive(*rest))
            sys.stdout.buffer.flush()
            return 0
    except FileNotFoundError as error:
        if kind == "pull" and error.filename is None:
            return 1  # how recovery learns that there is no more
        wal_helper.say("%s: %s" % (error.filename, error.strerror))
        return failed
    except OSError as error:
        wal_helper.say("%s: %s" % (error.filename or kind, error.strerror or error))
        return failed
    except RefusedError as error:
        stays = "; it stays here, and the server tries again" if kind == "push" else ""
        wal_helper.say("%s%s" % (error, stays))
        return failed
    wal_helper.say("push, pull or receive; see the head of %s" % os.path.basename(__file__))
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
