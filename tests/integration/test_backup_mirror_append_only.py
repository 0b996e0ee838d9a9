"""An account that can add files, and neither change nor remove one: what holds, and what only looks as if it did."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.append_only import prove
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.destination import Attempt, Pace
from ansible_collections.wellkept.maintenance.plugins.module_utils.mirror.directory import DirectoryConnection
from support.mirrors import SMALL, MirrorSite, SmallSite, contents, looks, receiving, ssh_mirror
from support.modules import COLLECTIONS, ROOT, checks_by_name
from support.ssh import SshServer, accounts_held, remove_account, ssh_server

CAN_ONLY_ADD = "the account at vault can only add"
# What plain OpenSSH can refuse; its server may then not even rename, so nothing can be put in place.
DENYLIST = "remove,rmdir,setstat,fsetstat,lsetstat,posix-rename,symlink,hardlink,copy-data"


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    """A server whose key runs the receiver for one directory."""
    with ssh_server() as server:
        (server.data / "vault").mkdir(mode=0o700)
        status = server.data.stat()
        os.chown(server.data / "vault", status.st_uid, status.st_gid)
        public = server.key_file.with_suffix(".pub").read_text().strip()
        server.authorize(public, receiving(str(server.data / "vault")))
        yield server


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    site = SmallSite(tmp_path)
    site.add(age=7200)
    return site


@pytest.fixture
def mirror(site: SmallSite, server: SshServer, request: pytest.FixtureRequest) -> MirrorSite:
    name = request.node.name
    mirror = ssh_mirror(site, server, "sftp", name, path=f"/{name}", append_only=True)
    mirror.there = server.data / "vault" / name
    return mirror


def passed(shown: dict[str, Any]) -> dict[str, Any]:
    assert not shown["failed"], shown["msg"]
    return checks_by_name(shown)


def test_everything_is_tried_and_refused_on_new_files_and_on_old_ones(mirror: MirrorSite, site: SmallSite) -> None:
    first = passed(mirror.mirror())
    assert first[CAN_ONLY_ADD]["observed"] == "all refused, and the probes are as they were written"
    for way in ("rename", "append", "overwrite", "truncate", "replace by another file", "delete", "by a command"):
        assert way in first[CAN_ONLY_ADD]["expected"]
    assert "sha256sum there" in first["copy at vault"]["observed"]
    before = looks(mirror.there)
    second = mirror.mirror()
    passed(second)
    after = looks(mirror.there)
    assert {name: after.get(name) for name in before if Path(name).is_file()} == {
        name: look for name, look in before.items() if Path(name).is_file()
    }
    assert not second["changed"]


def test_what_expired_here_stays_there_and_is_fetched_back(mirror: MirrorSite, site: SmallSite, tmp_path: Path) -> None:
    old = site.repository.backups()[0].label
    passed(mirror.mirror())
    site.add(age=60)
    site.expire(old)
    passed(mirror.mirror())
    passed(mirror.mirror(full=True))
    assert len(mirror.files()) == 2 * SMALL
    shutil.rmtree(site.root)
    shutil.rmtree(mirror.state)
    passed(mirror.fetch(tmp_path / "fetched"))
    assert len(contents(tmp_path / "fetched")) == 2 * SMALL


def test_damage_there_is_told_and_not_touched_and_mended_when_it_was_taken_away(mirror: MirrorSite) -> None:
    passed(mirror.mirror())
    victim = mirror.file("0.dump")
    whole = victim.read_bytes()
    victim.chmod(0o600)
    victim.write_bytes(whole[:-1])
    shown = mirror.mirror()
    assert "has 299 bytes instead of 300" in checks_by_name(shown)["copy at vault"]["observed"]
    assert victim.read_bytes() == whole[:-1]
    victim.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert "has another content than was sent" in mirror.mirror(full=True)["msg"]
    victim.unlink()
    shown = mirror.mirror()
    assert "is missing" in checks_by_name(shown)["copy at vault"]["observed"]
    assert victim.read_bytes() == whole
    passed(mirror.mirror(full=True))


def test_the_far_side_may_remove_what_is_old_if_we_were_told(mirror: MirrorSite, site: SmallSite) -> None:
    old = site.add(age=30 * 86400)
    passed(mirror.mirror())
    site.expire(old)
    passed(mirror.mirror())
    shutil.rmtree(next(mirror.there.rglob(old)))
    shown = mirror.mirror()
    assert "is missing, though nothing can be removed there" in shown["msg"]
    passed(mirror.mirror(destinations=[{**mirror.destination, "keep_within": "20d"}]))
    shown = mirror.mirror()
    passed(shown)


def test_a_changed_probe_is_told(mirror: MirrorSite) -> None:
    passed(mirror.mirror())
    probe = next((mirror.there / ".wellkept-mirror" / "probes").iterdir())
    probe.chmod(0o600)
    probe.write_bytes(probe.read_bytes().upper())
    assert "was changed since it was written" in checks_by_name(mirror.mirror())[CAN_ONLY_ADD]["observed"]


class OldMayGo(DirectoryConnection):
    """Where what is new is kept, and what is *old* may be removed: as by a rule of the far side about ages."""

    old = ""

    def attempts(self, name: str) -> list[Attempt]:
        def delete() -> None:
            if name != self.old:
                raise PermissionError(name)
            os.unlink(os.path.join(self.root, name))

        return [Attempt("delete", delete)]


def test_an_account_that_may_delete_what_is_old_is_found_out(tmp_path: Path) -> None:
    connection = OldMayGo(str(tmp_path), append_only=True, pace=Pace(0))
    first = prove(connection, connection.list(), str(tmp_path))
    assert (first.held, first.broken) == (["delete"], [])
    (probe,) = (name for name in connection.list() if "/probe-" in name)
    connection.old = probe
    second = prove(connection, connection.list(), str(tmp_path))
    assert (second.held, second.broken) == (["delete"], ["delete (an old file)"])


def test_an_account_with_a_shell_is_found_out(site: SmallSite) -> None:
    with ssh_server() as server:
        for kind in ("sftp", "rsync"):
            mirror = ssh_mirror(site, server, kind, kind, append_only=True)
            check = checks_by_name(mirror.mirror())[CAN_ONLY_ADD]
            assert check["status"] == "failed"
            assert "the account can delete" in check["observed"]
            for way in ("overwrite", "truncate", "delete", "delete by a command"):
                assert way in check["observed"]


def test_what_openssh_alone_can_refuse_is_not_enough_and_the_proof_says_so(site: SmallSite) -> None:
    """Its server can refuse to remove, but whoever may open a file for writing can overwrite one."""
    with ssh_server(config=[f"ForceCommand internal-sftp -P {DENYLIST}"]) as server:
        mirror = ssh_mirror(site, server, "sftp", append_only=True)
        check = checks_by_name(mirror.mirror())[CAN_ONLY_ADD]
        assert check["status"] == "failed"
        assert "overwrite" in check["observed"]
        assert "truncate by opening" in check["observed"]
        assert "; delete" not in check["observed"]


def test_rrsync_that_neither_deletes_nor_overwrites_holds(site: SmallSite) -> None:
    rrsync = shutil.which("rrsync")
    manual = subprocess.run(["grep", "-c", "no-overwrite", rrsync or "/dev/null"], capture_output=True, check=False)
    if manual.returncode:
        pytest.skip("this rrsync has no -no-overwrite: rsync 3.4 brings it")
    with ssh_server() as server:
        public = server.key_file.with_suffix(".pub").read_text().strip()
        options = f'restrict,command="{rrsync} -no-del -no-overwrite -no-lock {server.data}"'
        server.authorize(public, options)
        mirror = ssh_mirror(site, server, "rsync", path="/mirror", append_only=True)
        checks = passed(mirror.mirror())
        assert "(read back)" in checks["copy at vault"]["observed"]
        passed(mirror.mirror(full=True))


def test_the_receiver_refuses_what_no_client_of_ours_would_try(server: SshServer, tmp_path: Path) -> None:
    """Hostile requests of the program sftp, and of raw packets: see the unit tests for the latter."""
    (tmp_path / "evil").write_text("evil")
    vault = server.data / "vault"
    victim = vault / "victim"
    victim.write_text("precious")
    victim.chmod(0o644)
    os.symlink("/etc/passwd", vault / "link")
    for command in (
        "rm victim", "rename victim gone", f"put {tmp_path}/evil victim", f"put -a {tmp_path}/evil victim",
        f"put {tmp_path}/evil new", "symlink victim other", "ln victim other", "chmod 777 victim", "rmdir .",
        f"get ../../../etc/passwd {tmp_path}/out", f"get link {tmp_path}/out", "cp victim copy",
        "rename .wellkept-mirror elsewhere",
    ):  # fmt: skip
        done = server.sftp(command)
        assert done.returncode != 0, command
    assert victim.read_text() == "precious"
    assert not (tmp_path / "out").exists() or b"root:" not in (tmp_path / "out").read_bytes()
    assert sorted(path.name for path in vault.iterdir() if not path.name.startswith("test_")) == ["link", "victim"]
    for command in ("id", "rm victim", "sha256sum victim; rm victim", "scp -t victim", "rsync --server . ."):
        done = server.ssh(command)
        assert b"can only add files" in done.stderr
    # What looks like the command that hashes is taken for it, and for nothing else.
    done = server.ssh("rm victim && exec xargs -0 -r sha256sum -z --", stdin=b"victim\0")
    assert victim.exists()
    assert b"evil" not in done.stdout
    (vault / "link").unlink()
    victim.unlink()


def test_the_role_makes_such_an_account(site: SmallSite, tmp_path: Path) -> None:
    """The real role, with a real account: only its place is another."""
    if os.geteuid() != 0:
        pytest.skip("to make accounts takes root")
    with ssh_server(config=["Match User *-v", "AuthorizedKeysFile .ssh/authorized_keys"]) as server:
        name = f"{server.user}-v"
        public = server.key_file.with_suffix(".pub").read_text().strip()
        variables = {
            "backup_mirror_account_name": name,
            "backup_mirror_account_directory": str(server.directory / "vault"),
            "backup_mirror_account_keys": [public],
            "backup_mirror_account_receiver": str(server.directory / "lib" / "receiver.py"),
        }
        home = Path("/var/lib/wellkept-mirror") / name
        try:
            with accounts_held():
                play_role("backup_mirror_account", variables, tmp_path)
            mirror = ssh_mirror(site, server, "sftp", user=name, path="/", append_only=True)
            mirror.there = server.directory / "vault"
            passed(mirror.mirror())
            assert len(mirror.files()) == SMALL
            assert b"can only add files" in server.ssh("id", user=name).stderr
            assert "changed" not in play_role("backup_mirror_account", variables, tmp_path)
        finally:
            with contextlib.suppress(KeyError):
                remove_account(name)
            shutil.rmtree(home, ignore_errors=True)
            with contextlib.suppress(OSError):
                home.parent.rmdir()


def play_role(role: str, variables: dict[str, Any], directory: Path) -> str:
    """Carry out *role* on this host by ansible-playbook; returns what it said."""
    play = directory / "play.yml"
    role_name = f"wellkept.maintenance.{role}"
    play.write_text(
        json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "roles": [role_name]}])
    )
    (directory / "variables.json").write_text(json.dumps(variables))
    command = ["ansible-playbook", "-i", "localhost,", "-e", f"@{directory}/variables.json", str(play)]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "LC_ALL": "C.UTF-8",
    }
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
