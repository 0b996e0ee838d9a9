# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mirror by the program rsync over ssh: where the far side offers rsync, or ``rrsync``, and no SFTP."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import typing as t

from ..backup.programs import guarded
from ..errors import MaintenanceError
from ..files import sha256_of
from ..processes import last_words, require_program
from ..ssh import errors, openssh
from ..ssh.login import Login
from .destination import DIRECTORY, FILE, LINK, OTHER, Attempt, ChangedError, Connection, Entry, Outgoing
from .hashing import hash_command, parse_hashes

_LISTED = re.compile(rb"^([-dlbcps])\S{9}\S?\s+([\d,.]+) \d{4}/\d\d/\d\d \d\d:\d\d:\d\d (.*)$")
_KINDS = {b"-": FILE, b"d": DIRECTORY, b"l": LINK}
_UNREACHABLE, _SOME_MISSING, _VANISHED = 255, 23, 24
# What is read back at a time: it takes so much room here.
_BATCH_BYTES = 1 << 30
# The words of the far side can get lost when its rsync ends; the status does not.
_MEANINGS = {
    11: "status 11, no room there or no right to write",
    12: "status 12, the connection or the rsync there ended early",
    23: "status 23, some files could not be written or read",
}
# How the host is called in our own configuration of ssh: an address may hold colons, which rsync would misread.
_ALIAS = "mirror"
# Other characters in its path a shell there, or an older rsync, could misread.
PLAIN_PATH = re.compile(r"[A-Za-z0-9._/@+-]+")


class RsyncConnection(Connection):
    """A mirror below the directory *root* as the account's rsync sees it; *scratch* is a private directory here."""

    def __init__(
        self, login: Login, root: str, scratch: str, *, append_only: bool, bytes_per_second: int, create: bool = True
    ) -> None:
        self._login = login
        self._root = root.rstrip("/") or "/"
        self._append_only = append_only
        self._create = create
        packages = {"rsync": "rsync", "ssh": "openssh-client"}
        self._programs = {
            name: require_program(name, what=login.purpose, package=package) for name, package in packages.items()
        }
        self._limit = [f"--bwlimit={max(1, bytes_per_second // 1024)}"] if bytes_per_second else []
        self._hashes_there: t.Optional[bool] = None
        for path in (login.key_file, login.known_hosts):
            if not os.path.isfile(path):
                raise errors.unreachable(login, f"{path}: there is no such file")
        self._scratch = tempfile.mkdtemp(prefix="rsync-", dir=scratch)
        self._config = os.path.join(self._scratch, "ssh_config")
        with open(self._config, "w", encoding="utf-8") as stream:
            stream.write("\n".join(self._ssh_config()) + "\n")

    def _ssh_config(self) -> t.List[str]:
        login = self._login
        return [
            f"Host {_ALIAS}",
            *(f"HostName={login.host}", f"Port={login.port}", f"User={login.user}"),
            *openssh.settings(login),
            *("IdentityAgent=none", "LogLevel=ERROR"),
        ]

    def list(self) -> t.Dict[str, Entry]:
        missing = () if self._create else (_SOME_MISSING,)
        if self._create:
            self._make_root()
        listed = self._rsync(["-r", "-l", "-8", "--list-only", self._remote("")], accept=(0, *missing))
        found: t.Dict[str, Entry] = {}
        for line in listed.split(b"\n"):
            match = _LISTED.match(line)
            if match:
                kind, size, name = match.groups()
                path = os.fsdecode(name)
                if kind == b"l":
                    path = path.partition(" -> ")[0]
                if path != ".":
                    found[path] = Entry(_KINDS.get(kind, OTHER), int(re.sub(rb"[,.]", b"", size)))
        return found

    def _make_root(self) -> None:
        """Let rsync create the root by sending nothing into it; its parent must be there."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as empty:
            self._rsync(["-d", empty + "/", self._remote("")])

    def send(
        self, files: t.Sequence[Outgoing], there: t.Mapping[str, Entry], done: t.Callable[[Outgoing], None]
    ) -> None:
        """Send all from one place in one go; what rsync names has arrived: it renames each file when it is whole."""
        with tempfile.TemporaryDirectory(dir=self._scratch) as stage:
            for (base, prefix), group in _by_place(files, stage).items():
                self._send_group(base, prefix, group, done)

    def _send_group(
        self, base: str, prefix: str, group: t.Dict[str, Outgoing], done: t.Callable[[Outgoing], None]
    ) -> None:
        """Send files from *base* to *prefix* there, by the names that they have in both."""
        for name, file in group.items():
            # Checked first, for rsync would send whatever is there.
            if sha256_of(os.path.join(base, name)) != file.sha256:
                raise ChangedError(file.path)
        options = ["-r", "--files-from=-", "--from0", "--whole-file", "--ignore-times"]
        options += ["--chmod=D0700,F0600", "--perms", "--fsync", "--out-format=%n", "-8", *self._limit]
        if self._append_only:
            options.append("--ignore-existing")
        names = b"".join(os.fsencode(name) + b"\0" for name in group)
        said = self._rsync([*options, base + "/", self._remote(prefix)], names)
        waiting = dict(group)
        for line in said.split(b"\n"):
            arrived = waiting.pop(os.fsdecode(line), None)
            if arrived:
                done(arrived)
        if waiting:
            first = min(file.name for file in waiting.values())
            raise OSError(f"{first}: rsync did not send it, nor {len(waiting) - 1} others; is something in its place?")

    def hashes(self, names: t.Sequence[str], sizes: t.Mapping[str, int]) -> t.Iterator[t.Tuple[str, str]]:
        if names and self._hashes_there is not False:
            found = dict(self._hash_there(names))
            if found:
                self._hashes_there, self.verifies_by = True, "sha256sum there"
                yield from found.items()
                return
            self._hashes_there = False
        for batch in _batches(names, sizes):
            with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
                self._pull(batch, directory, accept=(0, _SOME_MISSING, _VANISHED))
                for name in batch:
                    with contextlib.suppress(OSError):
                        yield name, sha256_of(os.path.join(directory, name))

    def _hash_there(self, names: t.Sequence[str]) -> t.Iterator[t.Tuple[str, str]]:
        command = [self._programs["ssh"], "-F", self._config, "--", _ALIAS, hash_command(self._root)]
        done = subprocess.run(
            command, input=b"".join(os.fsencode(name) + b"\0" for name in names), capture_output=True, check=False
        )
        if done.returncode == _UNREACHABLE:
            raise self._failed(done)
        return parse_hashes(done.stdout)

    def remove(self, names: t.Sequence[str]) -> None:
        """Remove files, the first of them first. Directories stay."""
        for part in (names[:1], names[1:]):
            if part:
                self._delete(part)

    def _delete(self, names: t.Sequence[str]) -> None:
        """Have rsync delete there what it is asked to send and does not find here, in directories that it does find."""
        listed = b"".join(os.fsencode(name) + b"\0" for name in names)
        with tempfile.TemporaryDirectory(dir=self._scratch) as empty:
            for directory in {os.path.dirname(name) for name in names}:
                os.makedirs(os.path.join(empty, directory), exist_ok=True)
            options = ["-r", "--delete-missing-args", "--files-from=-", "--from0"]
            self._rsync([*options, empty + "/", self._remote("")], listed, (0, _VANISHED))

    def fetch(self, names: t.Mapping[str, str], sizes: t.Mapping[str, int]) -> None:
        for batch in _batches(list(names), sizes):
            first = names[batch[0]]
            with tempfile.TemporaryDirectory(prefix=".incoming-", dir=os.path.dirname(first)) as directory:
                self._pull(batch, directory, accept=(0,))
                for name in batch:
                    os.link(os.path.join(directory, name), names[name], follow_symlinks=False)

    def _pull(self, names: t.Sequence[str], directory: str, accept: t.Container[int]) -> None:
        listed = b"".join(os.fsencode(name) + b"\0" for name in names)
        options = ["-r", "--files-from=-", "--from0", "--whole-file", "--chmod=D0700,F0600", "--perms", *self._limit]
        self._rsync([*options, self._remote(""), directory + "/"], listed, accept)

    def read(self, name: str) -> bytes:
        with tempfile.TemporaryDirectory(dir=self._scratch) as directory:
            self._pull([name], directory, accept=(0, _SOME_MISSING, _VANISHED))
            with open(os.path.join(directory, name), "rb") as stream:
                return stream.read()

    def attempts(self, name: str) -> t.List[Attempt]:
        directory = os.path.dirname(name)

        def send(content: bytes, *options: str) -> None:
            with tempfile.TemporaryDirectory(dir=self._scratch) as stage:
                path = os.path.join(stage, os.path.basename(name))
                with open(path, "wb") as stream:
                    stream.write(content)
                self._rsync([*options, "--ignore-times", path, self._remote(directory)])

        def delete_by_pulling() -> None:
            with tempfile.TemporaryDirectory(dir=self._scratch) as stage:
                self._rsync(["--remove-source-files", self._remote(name, slash=False), stage + "/"])

        def delete_by_command() -> None:
            there = f"cd -- {shlex.quote(self._root)} && rm -f -- {shlex.quote(name)}"
            command = [self._programs["ssh"], "-F", self._config, "--", _ALIAS, there]
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)

        return [
            Attempt("overwrite", lambda: send(b"overwritten")),
            Attempt("overwrite in place", lambda: send(b"overwritten in place", "--inplace")),
            Attempt("append", lambda: send(b"x" * 4096, "--append")),
            Attempt("truncate", lambda: send(b"")),
            Attempt("move aside", lambda: send(b"moved", "--backup", "--suffix=.moved")),
            Attempt("delete", lambda: self._delete([name])),
            Attempt("delete by pulling", delete_by_pulling),
            Attempt("delete by a command", delete_by_command),
        ]

    def close(self) -> None:
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _remote(self, name: str, *, slash: bool = True) -> str:
        path = os.path.join(self._root, name) if name else self._root
        return f"{_ALIAS}:{path}" + ("/" if slash and not path.endswith("/") else "")

    def _rsync(self, arguments: t.List[str], names: bytes = b"", accept: t.Container[int] = (0,)) -> bytes:
        """Run rsync with *names* as its input; its output."""
        # rsync splits this at spaces, but not within quotes.
        shell = f'"{self._programs["ssh"]}" -F "{self._config}"'
        command = guarded([self._programs["rsync"], f"--rsh={shell}", *arguments])
        done = subprocess.run(command, input=names, capture_output=True, env={**os.environ, "LC_ALL": "C"}, check=False)
        if done.returncode not in accept:
            raise self._failed(done)
        return done.stdout

    def _failed(self, done: subprocess.CompletedProcess[bytes]) -> MaintenanceError:
        both = (done.stdout + b"\n" + done.stderr).decode("utf-8", "replace").splitlines()
        # Among the names of files it says what the far side had to say.
        said = "\n".join(line for line in both if "rsync" in line or line.encode() in done.stderr)
        return errors.login_refused(self._login, said) or MaintenanceError(
            f"{self._login.purpose} by rsync",
            where=str(self._login),
            expected="exit status 0",
            observed=f"{_MEANINGS.get(done.returncode, f'status {done.returncode}')}: {last_words(said, 3)}",
            advice="See what is wrong there. The next run goes on where this one was; nothing half written has a name.",
        )


def _by_place(files: t.Sequence[Outgoing], stage: str) -> t.Dict[t.Tuple[str, str], t.Dict[str, Outgoing]]:
    """The files by the directory here and the one there below which they have the same name, with that name.

    What has another name there, for a byte of it is escaped, is sent from a copy in *stage*.
    """
    groups: t.Dict[t.Tuple[str, str], t.Dict[str, Outgoing]] = {}
    for file in files:
        here, there = file.path.split("/"), file.name.split("/")
        same = 0
        while same < min(len(here), len(there)) and here[-1 - same] == there[-1 - same]:
            same += 1
        if same and len(there) - same <= 1:
            place = ("/".join(here[:-same]), "/".join(there[:-same]))
            groups.setdefault(place, {})["/".join(there[-same:])] = file
        else:
            copy = os.path.join(stage, file.name)
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            shutil.copyfile(file.path, copy, follow_symlinks=False)
            groups.setdefault((stage, ""), {})[file.name] = file
    return groups


def _batches(names: t.Sequence[str], sizes: t.Mapping[str, int]) -> t.Iterator[t.List[str]]:
    """*names* in parts of about a gibibyte."""
    batch: t.List[str] = []
    taken = 0
    for name in names:
        if batch and taken + sizes.get(name, 0) > _BATCH_BYTES:
            yield batch
            batch, taken = [], 0
        batch.append(name)
        taken += sizes.get(name, 0)
    if batch:
        yield batch
