"""Activities delegated to a backup host: they run there, and what they show is the database host's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.backup_host import backup_host
from support.roles import ActivityOnHost


def with_backup1(directory: Path, **variables: Any) -> tuple[str, str]:
    """The arguments for an inventory that also has a host backup1, which carries out nothing of its own."""
    path = directory / "backup1.yml"
    path.write_text(yaml.safe_dump({"all": {"hosts": {"backup1": variables}}}))
    return "-i", str(path)


def activity(name: str, directory: Path, **variables: Any) -> ActivityOnHost:
    plan = {name: {"hosts": "databases"}}
    return ActivityOnHost(name, directory, maintenance_plan=plan, backup_host="backup1", **variables)


@pytest.mark.parametrize("name", ["backup", "backup_verification", "restore_test"])
def test_a_backup_host_that_cannot_be_reached_is_named_in_the_result_of_the_database_host(
    tmp_path: Path, name: str
) -> None:
    on_host = activity(name, tmp_path)
    nobody = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    done = on_host.play(*with_backup1(tmp_path, **nobody))
    assert done.returncode != 0
    [check] = on_host.result()["checks"]
    assert check["name"] == "backup1 can be reached"
    assert check["status"] == "failed"


def test_a_backup_is_made_verified_and_restored_on_the_backup_host(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    there = with_backup1(tmp_path, ansible_connection="local", ansible_python_interpreter=sys.executable)
    with backup_host(tmp_path) as host:
        options = host.options()
        names = ("ssh", "bin_dir", "repository", "min_free_bytes", "files", "wal_archive", "wal_configure", "wal_ssh")
        variables = {f"backup_{name}": options[name] for name in names}
        variables |= {f"database_{name}": value for name, value in host.server.login().items()}
        variables |= {"restore_test_run_as": host.here.user, "restore_test_target": "newest"}
        variables["restore_test_scratch_dir"] = str(host.here.data / "scratch")
        for name in ("backup", "backup_verification", "restore_test"):
            on_host = activity(name, tmp_path, **variables)
            done = on_host.play(*there)
            assert done.returncode == 0, done.stdout + done.stderr
            result = on_host.result()
            assert result["host"] == "db1"
            assert not [check for check in result["checks"] if check["status"] == "failed"]
        assert (tmp_path / "state" / "locks" / "restore_test-db1.lock").exists()
        assert [backup.type for backup in host.repository.backups()] == ["full"]
        assert host.archived()
