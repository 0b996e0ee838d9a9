"""A real OpenSSH server on a loopback port, for tests: its own host key, one client key, and an account to log in to.

As root, the account is a new one without rights, which goes with the server; otherwise it is one's own. Variants are
made by lines of ``sshd_config`` and by options in front of the key in ``authorized_keys``::

    with ssh_server() as server:                                        # a shell and SFTP
    with ssh_server(config=["ForceCommand internal-sftp"]) as server:   # SFTP only
    with ssh_server(chroot=True, config=["ForceCommand internal-sftp -d /data"]) as server:
    with ssh_server(key_options='restrict,command="/usr/bin/rrsync -wo /srv/backups"') as server:
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import itertools
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from .ports import HOST, free_port
from .waiting import wait_until

_USER_PREFIX = "wk-ssh-"
_numbers = itertools.count()


class SshServer:
    """A running server. ``data`` is a directory of the account, ``path`` how the account calls it."""

    def __init__(self, directory: Path, user: str, config: Sequence[str], key_options: str, *, chroot: bool) -> None:
        self.host = HOST
        self.user = user
        self.directory = directory
        self.key_file = directory / "private" / "client_key"
        self.known_hosts = directory / "private" / "known_hosts"
        self.log = directory / "private" / "sshd.log"
        self.data = directory / "root" / "data"
        self.path = "/data" if chroot else str(self.data)
        self.port = free_port()
        self._host_key = directory / "private" / "host_key"
        self._config = [*config, *([f"ChrootDirectory {directory / 'root'}"] if chroot else [])]
        self._process: subprocess.Popen[bytes] | None = None
        (directory / "private").mkdir(mode=0o700)
        self.data.mkdir(parents=True, mode=0o755)
        account = pwd.getpwnam(user)
        os.chown(self.data, account.pw_uid, account.pw_gid)
        self.new_host_key()
        self.trust()
        self.authorize(new_key(self.key_file), key_options)

    def new_host_key(self) -> None:
        """From its next start on the server has another host key."""
        self._host_key.unlink(missing_ok=True)
        new_key(self._host_key)

    def trust(self) -> None:
        """Write the server's host key of now to ``known_hosts``."""
        kind, key = self._host_key.with_suffix(".pub").read_text().split()[:2]
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {kind} {key}\n")

    def authorize(self, public_key: str, key_options: str = "") -> None:
        """Let in by this key alone; *key_options* stand in front of it, such as ``restrict,command="…"``."""
        # Read by sshd with the rights of the account.
        (self.directory / "authorized_keys").write_text(f"{key_options} {public_key}".strip() + "\n")

    def start(self) -> None:
        config = self.directory / "private" / "sshd_config"
        config.write_text("\n".join(self._lines()) + "\n")
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        command = [sshd_program(), "-D", "-f", str(config), "-E", str(self.log)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        wait_until(self._answers, lambda: f"sshd to start: {self.log.read_text()}")

    def stop(self) -> None:
        """End the server and all sessions."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)  # no new sessions while the old ones are ended
            self.cut()
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def sessions(self) -> list[int]:
        """The processes that serve clients now."""
        return _descendants(self._process.pid) if self._process else []

    def cut(self) -> int:
        """Kill all sessions, as a lost connection would; returns of how many processes they consisted."""
        found = self.sessions()
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(found)

    def ssh(self, *command: str, stdin: bytes = b"", user: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run *command* there by the program ssh; as *user* if it is not to be the server's account."""
        whole = ["ssh", *self._options(), f"{user or self.user}@{self.host}", *command]
        return subprocess.run(whole, input=stdin, capture_output=True, timeout=120, check=False)

    def sftp(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Carry out *commands* of the program sftp until one fails."""
        whole = ["sftp", "-b", "-", *self._options(), f"{self.user}@{self.host}"]
        lines = "\n".join(commands) + "\n"
        return subprocess.run(whole, input=lines, capture_output=True, text=True, timeout=120, check=False)

    def _options(self) -> list[str]:
        options = {
            "Port": self.port, "IdentityFile": self.key_file, "UserKnownHostsFile": self.known_hosts,
            "GlobalKnownHostsFile": "none", "StrictHostKeyChecking": "yes", "BatchMode": "yes",
        }  # fmt: skip
        return ["-F", "none", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]

    def _lines(self) -> list[str]:
        return [
            f"Port {self.port}", f"ListenAddress {self.host}", f"HostKey {self._host_key}",
            # The second is for accounts that a test makes beside ours.
            f"AllowUsers {self.user} {self.user}-*",
            f"PidFile {self.directory / 'private' / 'pid'}",
            f"AuthorizedKeysFile {self.directory / 'authorized_keys'}",
            "UsePAM no", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "StrictModes no",
            "PermitRootLogin prohibit-password", "UseDNS no", "PrintMotd no", "LogLevel VERBOSE",
            "MaxStartups 200", "MaxSessions 100", "Subsystem sftp internal-sftp",
            # Newer servers take sessions that we kill for an attack from our address.
            *(["PerSourcePenalties no"] if _openssh_version() >= (9, 8) else []),
            *self._config,
        ]  # fmt: skip

    def _answers(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise AssertionError(f"sshd ended at once: {self.log.read_text()}")
        try:
            with socket.create_connection((self.host, self.port), timeout=10) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False


@contextlib.contextmanager
def ssh_server(*, config: Sequence[str] = (), key_options: str = "", chroot: bool = False) -> Iterator[SshServer]:
    """A server that runs while the block does; skips the test where there is no sshd, or no root for a *chroot*."""
    if not sshd_program():
        pytest.skip("no sshd here: apt-get install openssh-server")
    if chroot and os.geteuid() != 0:
        pytest.skip("sshd needs root for a chroot")
    # The way to a chroot, and to the account's files, must not be one that others can write to.
    directory = Path(tempfile.mkdtemp(prefix="wellkept-ssh-", dir="/var/lib" if os.geteuid() == 0 else None))
    directory.chmod(0o755)
    try:
        with _account(directory) as user:
            server = SshServer(directory, user, config, key_options, chroot=chroot)
            try:
                server.start()
                yield server
            finally:
                server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def sshd_program() -> str:
    """The absolute path of sshd, which it wants to be started by; empty where there is none."""
    return shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin") or ""


def new_key(path: Path) -> str:
    """Make a key pair in *path* and *path*.pub; returns the public key."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path.with_suffix(".pub").read_text().strip()


@contextlib.contextmanager
def _account(home: Path) -> Iterator[str]:
    """An account to log in to, with a shell: a new one if we may make one, else our own."""
    if os.geteuid() != 0:
        if pwd.getpwuid(os.geteuid()).pw_shell.endswith(("nologin", "false")):
            pytest.skip("our own account has no shell to log in to")
        yield getpass.getuser()
        return
    _remove_leftover_accounts()
    user = f"{_USER_PREFIX}{os.getpid()}-{next(_numbers)}"
    # With the password "*" nobody can log in by one, but the account is not locked: sshd would refuse a locked one.
    _change_accounts("useradd", "--system", "-d", str(home), "-M", "-s", "/bin/sh", "-p", "*", "-U", user)
    try:
        yield user
    finally:
        remove_account(user)


def remove_account(name: str) -> None:
    """Remove an account and end what its sessions left running."""
    _end_all_of(pwd.getpwnam(name).pw_uid)
    # By force, for what nobody waits for counts as running, too.
    _change_accounts("userdel", "--force", name)


def _end_all_of(uid: int) -> None:

    def ended() -> bool:
        running = [pid for pid in Path("/proc").glob("[0-9]*") if _owner(pid) == uid]
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.name), signal.SIGKILL)
        return not running

    wait_until(ended, f"the processes of the account {uid} to end")


def _owner(process: Path) -> int | None:
    """The user of a process on this host; None for one in a container, and one that ended though nobody waited."""
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        here = os.path.samefile(process / "root", "/")
        return None if state in "ZX" or not here else process.stat().st_uid
    except OSError:
        return None


def _remove_leftover_accounts() -> None:
    """Remove the accounts of test runs that were killed."""
    for entry in pwd.getpwall():
        if entry.pw_name.startswith(_USER_PREFIX):
            pid = entry.pw_name[len(_USER_PREFIX) :].partition("-")[0]
            if not Path("/proc", pid).exists():
                with contextlib.suppress(AssertionError, KeyError):  # another run removes it, too
                    remove_account(entry.pw_name)


def _change_accounts(*command: str) -> None:
    """Run useradd or userdel."""
    with accounts_held():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


@contextlib.contextmanager
def accounts_held() -> Iterator[None]:
    """One test at a time changes the accounts, for useradd does not wait for another to be done."""
    with open("/run/lock/wellkept-tests-accounts", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.parent.name))
    found = list(parents.get(pid, []))
    for child in found:
        found += parents.get(child, [])
    return found


def _openssh_version() -> tuple[int, int]:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    found = re.match(r"OpenSSH_(\d+)\.(\d+)", said)
    assert found, said
    return int(found[1]), int(found[2])
