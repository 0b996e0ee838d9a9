# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A mirror over SFTP, by paramiko: several streams in one connection, for a single one mostly waits for answers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import secrets
import stat
import threading
import typing as t
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from ..ssh.by_paramiko import connect, import_paramiko
from ..ssh.login import Login
from .destination import DIRECTORY, Attempt, Connection, Entry, HarmedError, Outgoing, Pace, kind_of, parents
from .directory import copy_checked, new_file
from .hashing import hash_command, parse_hashes
from .names import INCOMING

_STREAMS = 6
_TIMEOUT = 120.0
_WINDOW = 1 << 26
_CHUNK = 1 << 20
# What comes in one answer needs no reading ahead, which takes a thread each time.
_SMALL = 1 << 15


class SftpConnection(Connection):
    """A mirror below the directory *root* of the account; it is created when it is missing."""

    def __init__(self, login: Login, root: str, *, append_only: bool, pace: Pace, create: bool = True) -> None:
        self._paramiko = import_paramiko(login.purpose)
        self._root = root.rstrip("/") or "/"
        self.errors = (OSError, EOFError, self._paramiko.SSHException)
        self._append_only = append_only
        self._pace = pace
        self._client = connect(login)
        self._streams: queue.LifoQueue[t.Any] = queue.LifoQueue()
        self._opened = 0
        self._lock = threading.Lock()
        self._hashes_there: t.Optional[bool] = None
        try:
            with self._stream() as sftp:
                if create:
                    self._make_root(sftp)
        except BaseException:
            self.close()
            raise

    def list(self) -> t.Dict[str, Entry]:
        found: t.Dict[str, Entry] = {}

        def look(below: str) -> t.List[t.Tuple[str, Entry]]:
            with self._stream() as sftp:
                prefix = below + "/" if below else ""
                try:
                    entries = sftp.listdir_attr(self._path(below))
                except FileNotFoundError:
                    entries = []
            return [(prefix + e.filename, Entry(kind_of(e.st_mode or 0), e.st_size or 0)) for e in entries]

        with ThreadPoolExecutor(_STREAMS) as pool:
            waiting = [pool.submit(look, "")]
            while waiting:
                fresh = [entry for future in waiting for entry in future.result()]
                found.update(fresh)
                waiting = [pool.submit(look, name) for name, entry in fresh if entry.kind == DIRECTORY]
        return found

    def send(
        self, files: t.Sequence[Outgoing], there: t.Mapping[str, Entry], done: t.Callable[[Outgoing], None]
    ) -> None:
        directories = {parent for file in files for parent in parents(file.name)}
        with self._stream() as sftp:
            for directory in sorted(directories - set(there)):
                self._mkdir(sftp, directory)
        for file in self._at_once(self._send_one, files):
            done(file)

    def _send_one(self, file: Outgoing) -> Outgoing:
        temporary = os.path.join(os.path.dirname(file.name), INCOMING + secrets.token_hex(8))
        with self._stream() as sftp:
            try:
                with sftp.open(self._path(temporary), "wxb", bufsize=0) as target:
                    target.set_pipelined(True)
                    copy_checked(file, target.write, self._pace)
                    # What was written is acknowledged by now; only this brings it to the disk, where it is known.
                    target.set_pipelined(False)
                    with contextlib.suppress(OSError):
                        sftp._request(self._paramiko.sftp.CMD_EXTENDED, "fsync@openssh.com", target.handle)
                    if target.stat().st_size != file.size:
                        raise OSError(f"{file.name}: it did not take {file.size} bytes")
                self._put_in_place(sftp, temporary, file.name)
            except BaseException as error:
                with contextlib.suppress(Exception):
                    sftp.remove(self._path(temporary))
                if isinstance(error, OSError) and not error.errno:
                    raise OSError(
                        f"{file.name}: {error} (the server says no more; a full disk looks like this)"
                    ) from None
                raise
        return file

    def _put_in_place(self, sftp: t.Any, temporary: str, name: str) -> None:
        if self._append_only:
            sftp.rename(self._path(temporary), self._path(name))  # which replaces nothing
            return
        try:
            sftp.posix_rename(self._path(temporary), self._path(name))
        except OSError:  # a server without that extension
            with contextlib.suppress(FileNotFoundError):
                sftp.remove(self._path(name))
            sftp.rename(self._path(temporary), self._path(name))

    def hashes(self, names: t.Sequence[str], sizes: t.Mapping[str, int]) -> t.Iterator[t.Tuple[str, str]]:
        if names and self._hashes_there is not False:
            found = dict(self._hash_there(names))
            if found:
                self._hashes_there, self.verifies_by = True, "sha256sum there"
                yield from found.items()
                return
            self._hashes_there = False

        def read_back(name: str) -> t.Tuple[str, str]:
            return name, self._read_back(name, sizes[name])

        yield from (answer for answer in self._at_once(read_back, names) if answer[1])

    def _hash_there(self, names: t.Sequence[str]) -> t.Iterator[t.Tuple[str, str]]:
        """Let a command there hash *names*, where the account may run any; else there is no answer."""
        channel = self._client.get_transport().open_session(timeout=_TIMEOUT)
        try:
            channel.exec_command(hash_command(self._root))
            feeder = threading.Thread(target=_feed, args=(channel, names), daemon=True)
            feeder.start()
            answer = b"".join(iter(lambda: channel.recv(_CHUNK), b""))
        except self._paramiko.SSHException:
            return
        finally:
            channel.close()
        yield from parse_hashes(answer)

    def _read_back(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        with self._stream() as sftp:
            try:
                with sftp.open(self._path(name), "rb") as source:
                    if size > _SMALL:
                        source.prefetch(size)
                    for block in iter(lambda: source.read(_CHUNK), b""):
                        self._pace.take(len(block))
                        digest.update(block)
            except (FileNotFoundError, PermissionError):
                return ""
        return digest.hexdigest()

    def remove(self, names: t.Sequence[str]) -> None:
        with self._stream() as sftp:
            for name in names:
                try:
                    sftp.remove(self._path(name))
                except FileNotFoundError:
                    continue
                except OSError:
                    if not stat.S_ISDIR(sftp.lstat(self._path(name)).st_mode or 0):
                        raise
                    with contextlib.suppress(OSError):  # it is not empty
                        sftp.rmdir(self._path(name))

    def fetch(self, names: t.Mapping[str, str], sizes: t.Mapping[str, int]) -> None:
        def fetch_one(name: str) -> str:
            with self._stream() as sftp, sftp.open(self._path(name), "rb") as source:
                if sizes[name] > _SMALL:
                    source.prefetch(sizes[name])
                with os.fdopen(new_file(names[name]), "wb") as target:
                    for block in iter(lambda: source.read(_CHUNK), b""):
                        self._pace.take(len(block))
                        target.write(block)
            return name

        for _name in self._at_once(fetch_one, list(names)):
            pass

    def read(self, name: str) -> bytes:
        with self._stream() as sftp, sftp.open(self._path(name), "rb") as source:
            content: bytes = source.read()
            return content

    def attempts(self, name: str) -> t.List[Attempt]:
        path, moved = self._path(name), self._path(name + ".moved")
        directory = os.path.dirname(path)

        def write(mode: str) -> t.Callable[[], None]:
            def carry_out() -> None:
                with self._stream() as sftp, sftp.open(path, mode, bufsize=0) as target:
                    target.write(b"overwritten")

            return carry_out

        def with_sftp(act: t.Callable[[t.Any], object]) -> t.Callable[[], None]:
            def carry_out() -> None:
                with self._stream() as sftp:
                    act(sftp)

            return carry_out

        def replace(sftp: t.Any) -> None:
            other = os.path.join(directory, INCOMING + secrets.token_hex(8))
            try:
                sftp.open(other, "wxb").close()
                sftp.posix_rename(other, path)
            finally:
                with contextlib.suppress(OSError):
                    sftp.remove(other)

        def move_directory(sftp: t.Any) -> None:
            sftp.rename(directory, directory + ".moved")
            try:
                raise HarmedError
            finally:
                sftp.rename(directory + ".moved", directory)

        return [
            Attempt("rename its directory", with_sftp(move_directory)),
            Attempt("rename", with_sftp(lambda sftp: sftp.rename(path, moved))),
            Attempt("rename (posix-rename)", with_sftp(lambda sftp: sftp.posix_rename(path, moved))),
            Attempt("append", write("ab")),
            Attempt("overwrite", write("r+b")),
            Attempt("truncate by opening", write("wb")),
            Attempt("truncate (setstat)", with_sftp(lambda sftp: sftp.truncate(path, 0))),
            Attempt("replace by another file", with_sftp(replace)),
            Attempt("delete", with_sftp(lambda sftp: sftp.remove(path))),
            Attempt("delete by a command", lambda: self._run_rm(name)),
        ]

    def _run_rm(self, name: str) -> None:
        channel = self._client.get_transport().open_session(timeout=_TIMEOUT)
        try:
            channel.settimeout(_TIMEOUT)
            channel.exec_command(f"{hash_command(self._root).partition(' && ')[0]} && rm -f -- {name}")
            channel.shutdown_write()
            while channel.recv(_CHUNK):
                pass
        finally:
            channel.close()

    def close(self) -> None:
        self._client.close()

    @contextlib.contextmanager
    def _stream(self) -> t.Iterator[t.Any]:
        """One of the streams, for us alone; a new one as long as there are not enough."""
        with self._lock:
            fresh = self._streams.empty() and self._opened < _STREAMS
            self._opened += fresh
        sftp = self._open() if fresh else self._streams.get()
        try:
            yield sftp
        finally:
            self._streams.put(sftp)

    def _open(self) -> t.Any:
        try:
            channel = self._client.get_transport().open_session(window_size=_WINDOW, timeout=_TIMEOUT)
            channel.settimeout(_TIMEOUT)
            channel.invoke_subsystem("sftp")
            return self._paramiko.SFTPClient(channel)
        except (self._paramiko.SSHException, EOFError) as error:
            raise ConnectionError(f"no SFTP: {error}") from None

    def _at_once(self, work: t.Callable[[t.Any], t.Any], things: t.Sequence[t.Any]) -> t.Iterator[t.Any]:
        """Do *work* on *things*, several at once; the first error ends it when those that were begun are done."""
        pool = ThreadPoolExecutor(_STREAMS)
        todo = iter(things)
        running: t.Set[Future[t.Any]] = set()
        try:
            while True:
                for thing in todo:
                    running.add(pool.submit(work, thing))
                    if len(running) >= 2 * _STREAMS:
                        break
                if not running:
                    return
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    yield self._result(future)
        finally:
            for future in running:
                future.cancel()
            pool.shutdown()

    def _result(self, future: Future[t.Any]) -> t.Any:
        try:
            return future.result()
        except (self._paramiko.SSHException, EOFError) as error:
            raise ConnectionError(f"the connection was lost: {error or 'its end was closed'}") from None

    def _make_root(self, sftp: t.Any) -> None:
        with contextlib.suppress(OSError):
            if stat.S_ISDIR(sftp.lstat(self._root).st_mode or 0):
                return
        sftp.mkdir(self._root, 0o700)

    def _mkdir(self, sftp: t.Any, name: str) -> None:
        try:
            sftp.mkdir(self._path(name), 0o700)
        except OSError:
            if not stat.S_ISDIR(sftp.lstat(self._path(name)).st_mode or 0):
                raise

    def _path(self, name: str) -> str:
        return os.path.join(self._root, name) if name else self._root


def _feed(channel: t.Any, names: t.Sequence[str]) -> None:
    with contextlib.suppress(OSError):
        channel.sendall(b"".join(os.fsencode(name) + b"\0" for name in names))
        channel.shutdown_write()
