"""A backup host and the host of a cluster, as far as one machine can be both: two accounts, each behind its sshd."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.repository import Repository
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.wal import archive as wal_archive

from support.modules import module_process, run_module
from support.postgresql import PostgresServer, postgres_server
from support.ssh import SshServer, ssh_server


class BackupHost:
    """The modules run here, as on the backup host; ``db1`` is the account of the server, ``here`` the one for WAL."""

    def __init__(self, db1: SshServer, here: SshServer, server: PostgresServer, directory: Path) -> None:
        self.db1 = db1
        self.here = here
        self.server = server
        self.directory = directory
        self.uploads = db1.data / "uploads"
        self.archive = here.data / "wal"
        self.authorized_keys = here.directory / "authorized_keys"
        self.repository = Repository(str(directory / "repository"), "main")

    def options(self, **others: Any) -> dict[str, Any]:
        return {
            **self.server.login(),
            "database_host": "db1",
            "ssh": {
                "host": self.db1.host,
                "port": self.db1.port,
                "user": self.db1.user,
                "key_file": str(self.db1.key_file),
                "known_hosts": str(self.db1.known_hosts),
            },
            "bin_dir": str(self.server.bin_dir),
            "repository": self.repository.root,
            "state_dir": str(self.directory / "state"),
            "min_free_bytes": "1MiB",
            "interval": "0",
            "dump": False,
            "files": [str(self.uploads)],
            "wal_archive": str(self.archive),
            "wal_configure": True,
            "wal_ssh": {
                "host": self.here.host,
                "port": self.here.port,
                "user": self.here.user,
                "timeout_seconds": 30,
                "directory": str(self.db1.data / "wal key"),
                "authorized_keys": str(self.authorized_keys),
                "host_keys": [str(self.here.directory / "private" / "host_key.pub")],
            },
            **others,
        }

    def back_up(self, check: bool = False, **others: Any) -> dict[str, Any]:
        return run_module("backup", self.options(**others), check=check)

    def start_backup(self, **others: Any) -> subprocess.Popen[str]:
        return module_process("backup", self.options(**others))

    def sql(self, statement: str) -> list[Any]:
        return self.server.sql(statement)

    @property
    def wal(self) -> Path:
        """The archive of the cluster."""
        [(identifier,)] = self.sql("SELECT system_identifier::text FROM pg_control_system()")
        return Path(wal_archive.directory_of(str(self.archive), identifier))

    def archived(self) -> list[str]:
        return [segment.name for segment in wal_archive.segments(str(self.wal))]

    def leftovers(self) -> list[str]:
        return self.repository.leftovers() if os.path.isdir(self.repository.directory) else []


@contextmanager
def backup_host(directory: Path, **settings: str) -> Iterator[BackupHost]:
    wished = {"archive_mode": "on", **settings}
    with ssh_server() as db1, ssh_server() as here, postgres_server(wished, user=db1.user) as server:
        server.directory.chmod(0o711)  # so that any account has a way to the socket
        for ssh in (db1, here):
            # The home directory of the account, in which it changes its own authorized_keys.
            account = pwd.getpwnam(ssh.user)
            for path in (ssh.directory, ssh.directory / "authorized_keys"):
                os.chown(path, account.pw_uid, account.pw_gid)
        here.authorize("")
        host = BackupHost(db1, here, server, directory)
        (host.uploads / "sub").mkdir(parents=True)
        for number in range(20):
            (host.uploads / "sub" / f"{number}.txt").write_text(f"submission {number}\n")
        host.sql("CREATE TABLE student AS SELECT g AS id, md5(g::text) AS name FROM generate_series(1, 20000) g")
        yield host
