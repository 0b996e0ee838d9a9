"""What a daily run costs over SSH on 1, 10 and 20 hosts that run systemd: wall and CPU seconds of the control node.

    make bench-fleet
    .venv/bin/python bench/fleet_ssh.py [--hosts 1,10,20] [--rounds 3] [--release debian-13]

The hosts are containers on this machine, so they share its cores with the control node: wall seconds are an upper
bound. CPU seconds are those of ansible-playbook and its workers alone. Before it is measured, a daily run has done what
was due: what is measured is a healthy fleet, one module execution for each activity and host.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FLEET = ROOT / "scripts/hosts/fleet"
ACTIVITIES = ("health_check", "storage_cleanup", "log_rotation", "cache_clearing")
DATABASE_ACTIVITIES = ("backup", "backup_verification", "restore_test", "database_vacuum", "database_reindex")
DATABASE_ACTIVITIES += ("database_integrity", "query_review")

PREPARE = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {
                "ansible.builtin.shell": "mkdir -p /srv/app/log /srv/app/cache/pages /srv/app/tmp"
                " && seq 20000 >/srv/app/log/app.log && touch -d '9 days ago' /srv/app/tmp/{1..50}",
                "args": {"executable": "/bin/bash"},
            }
        ],
    }
]
SETTINGS = {
    "ansible_python_interpreter": "/usr/bin/python3",
    # No host of this fleet has a database.
    "maintenance_plan": {name: {"enabled": False} for name in DATABASE_ACTIVITIES},
    "health_check_units": ["ssh.service", "cron.service"],
    "health_check_tcp": [{"name": "ssh", "port": 22}],
    "health_check_filesystems": {"warn_used_ratio": 0.98, "fail_used_ratio": 0.999},
    "health_check_host": {"warn_load_per_core": 1000, "fail_load_per_core": 1000, "clock": "never"},
    "storage_cleanup_rules": [{"name": "old", "path": "/srv/app/tmp", "older_than": "7d"}],
    "log_rotation_policies": [{"name": "app", "paths": ["/srv/app/log/*.log"], "max_bytes": "10MiB"}],
    "cache_clearing_caches": [{"name": "pages", "path": "/srv/app/cache/pages", "clear_when": {"larger_than": "1MiB"}}],
}


def inventory(directory: Path, count: int) -> Path:
    """The first *count* hosts of the fleet, with a ledger of their own."""
    everything = json.loads((ROOT / ".cache/molecule/bench/inventory/addresses.yml").read_text())["all"]
    paths = {
        "maintenance_ledger": f"{directory}/{count}.db",
        "maintenance_report_dir": f"{directory}/reports{count}",
    }
    hosts = dict(list(everything["hosts"].items())[:count])
    path = directory / f"hosts{count}.json"
    path.write_text(json.dumps({"all": {"hosts": hosts, "vars": {**everything["vars"], **SETTINGS, **paths}}}))
    return path


def measured(*command: str) -> tuple[float, float]:
    """Wall and CPU seconds of *command*, which has to succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(hosts: Path, rounds: int, *arguments: str) -> tuple[float, float]:
    """The medians of some rounds."""
    command = ("ansible-playbook", "-i", str(hosts), "playbooks/daily.yml", *arguments)
    found = [measured(*command) for _round in range(rounds)]
    return statistics.median(wall for wall, _cpu in found), statistics.median(cpu for _wall, cpu in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="1,10,20")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--release", default="debian-13", choices=["debian-12", "debian-13"])
    arguments = parser.parse_args()
    counts = [int(count) for count in arguments.hosts.split(",")]
    try:
        subprocess.run(
            [FLEET, "up", "bench", *(f"host{number:02d}={arguments.release}" for number in range(max(counts)))],
            check=True,
        )
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch)
            (directory / "prepare.yml").write_text(json.dumps(PREPARE))
            everybody = str(inventory(directory, max(counts)))
            measured("ansible-playbook", "-i", everybody, str(directory / "prepare.yml"))
            measured("ansible-playbook", "-i", everybody, "playbooks/daily.yml")
            print("| hosts | modules | --check: wall s | CPU s | CPU s a host | daily: wall s | CPU s | CPU s a host |")
            print("|---|---|---|---|---|---|---|---|")
            for count in counts:
                hosts = inventory(directory, count)
                check, real = measure(hosts, arguments.rounds, "--check"), measure(hosts, arguments.rounds)
                row = [f"{count}", f"{count * len(ACTIVITIES)}"]
                for wall, cpu in (check, real):
                    row += [f"{wall:.1f}", f"{cpu:.1f}", f"{cpu / count:.2f}"]
                print(f"| {' | '.join(row)} |", flush=True)
    finally:
        subprocess.run([FLEET, "down", "bench"], check=True)


if __name__ == "__main__":
    main()
