"""Directories of another host: what is copied over SSH is what a copy on the spot would be, or it is refused."""

from __future__ import annotations

import os
import pwd
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.files import copy_tree, tree_bytes
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.remote_files import RemoteFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.ssh.login import Login
from support.ssh import SshServer, ssh_server
from support.waiting import wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[SshServer]:
    with ssh_server() as running:
        yield running


@pytest.fixture
def there(server: SshServer) -> RemoteFiles:
    server.authorize(server.key_file.with_suffix(".pub").read_text().strip())
    remote = Login(server.host, server.port, server.user, str(server.key_file), str(server.known_hosts))
    return RemoteFiles(remote)


@pytest.fixture
def tree(server: SshServer, request: pytest.FixtureRequest) -> Path:
    """A directory of the account with all that a file system can hold."""
    root = server.data / request.node.name
    (root / "sub" / "empty").mkdir(parents=True)
    for number in range(50):
        (root / "sub" / f"{number}.txt").write_text(f"submission {number}\n" * number)
    (root / "large").write_bytes(os.urandom(5 << 20))
    (root / os.fsdecode(b"caf\xe9\n.txt")).write_text("a name that is no UTF-8")
    (root / "link").symlink_to("/etc/passwd")
    (root / "way out").symlink_to("../../..")
    os.mkfifo(root / "pipe")
    (root / "sub" / "0.txt").chmod(0o640)
    account = pwd.getpwnam(server.user)
    for path in (root, *root.rglob("*")):
        os.chown(path, account.pw_uid, account.pw_gid, follow_symlinks=False)
    return root


def content_of(directory: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None for p in directory.rglob("*")}


def test_a_copy_over_ssh_is_the_same_as_one_on_the_spot(there: RemoteFiles, tree: Path, tmp_path: Path) -> None:
    on_the_spot = copy_tree(str(tree), str(tmp_path / "local"))
    over_ssh = there.copy_tree(str(tree), str(tmp_path / "remote"))
    assert over_ssh == on_the_spot
    assert over_ssh.special == ["pipe"]
    assert content_of(tmp_path / "remote") == content_of(tmp_path / "local")
    assert all(not path.is_symlink() for path in (tmp_path / "remote").rglob("*"))
    assert there.tree_bytes(str(tree)) == tree_bytes(str(tree)) > 5 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what the account cannot read")
def test_what_the_account_cannot_read_is_told(there: RemoteFiles, tree: Path, tmp_path: Path) -> None:
    secret = tree / "sub" / "1.txt"
    secret.chmod(0o600)
    os.chown(secret, 0, 0)
    copied = there.copy_tree(str(tree), str(tmp_path / "copy"))
    assert copied.unreadable == ["sub/1.txt"]
    assert not (tmp_path / "copy" / "sub" / "1.txt").exists()


def test_a_directory_that_is_not_there_is_named_with_its_host(there: RemoteFiles, tmp_path: Path) -> None:
    for ask in (there.tree_bytes, lambda path: there.copy_tree(path, str(tmp_path / "copy"))):
        with pytest.raises(OSError, match="No such file") as caught:
            ask("/nowhere")
        assert caught.value.filename == f"{there.remote.host}:/nowhere"


def test_a_connection_that_breaks_is_told_and_leaves_no_copy_that_could_be_taken_for_whole(
    server: SshServer, there: RemoteFiles, tmp_path: Path
) -> None:
    root = server.data / "endless"
    root.mkdir()
    with (root / "sparse").open("wb") as stream:
        stream.truncate(64 << 30)
    copy = tmp_path / "copy" / "sparse"

    def cut() -> None:
        wait_until(lambda: copy.exists() and copy.stat().st_size, "the copy has begun")
        server.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    with pytest.raises(MaintenanceError, match=r"connection|closed|lost") as caught:
        there.copy_tree(str(root), str(copy.parent))
    cutting.join()
    assert caught.value.where == str(there.remote)
    copy.unlink()


@pytest.mark.parametrize(
    "frame, words",
    [
        ("b'F' + (9).to_bytes(8, 'big') + b'../../out'", "leads elsewhere"),
        ("b'F' + (4).to_bytes(8, 'big') + b'/out'", "leads elsewhere"),
        ("b'B' + (1 << 40).to_bytes(8, 'big') + b'x'", "login script"),
        ("b'Welcome to the host!'", "login script"),
        ("b'Q' + (1).to_bytes(8, 'big') + b'x'", "nobody knows"),
    ],
)
def test_a_host_that_sends_something_else_is_not_followed(
    server: SshServer, there: RemoteFiles, tmp_path: Path, frame: str, words: str
) -> None:
    program = tmp_path.name + ".py"
    (server.data / program).write_text(f"import sys; sys.stdout.buffer.write({frame})")
    key = server.key_file.with_suffix(".pub").read_text().strip()
    server.authorize(key, f'command="python3 {server.data / program}"')
    with pytest.raises(MaintenanceError, match="copy files") as caught:
        there.copy_tree("/srv", str(tmp_path / "a" / "b" / "copy"))
    assert words in caught.value.observed
    assert list(tmp_path.iterdir()) == []


def test_content_that_is_not_what_was_hashed_is_refused(server: SshServer, there: RemoteFiles, tmp_path: Path) -> None:
    entry = "{'kind': 'file', 'path': 'a', 'bytes': 1, 'sha256': '00'}"
    answer = f"dict(source='/srv', device=1, entries=[{entry}], special=[], other_file_systems=[], changing=[], "
    answer += "unreadable=[])"
    (server.data / "liar.py").write_text(
        "import json, sys\n"
        f"for letter, content in ((b'D', b''), (b'F', b'a'), (b'B', b'x'), (b'E', json.dumps({answer}).encode())):\n"
        "    sys.stdout.buffer.write(letter + len(content).to_bytes(8, 'big') + content)\n"
    )
    key = server.key_file.with_suffix(".pub").read_text().strip()
    server.authorize(key, f'command="python3 {server.data}/liar.py"')
    with pytest.raises(MaintenanceError, match="copy files") as caught:
        there.copy_tree("/srv", str(tmp_path / "copy"))
    assert "another SHA-256" in caught.value.observed
