"""What a daily run costs on 1, 10 and 50 local hosts: wall and CPU seconds, against as many pings by Ansible alone.

    .venv/bin/python bench/fleet.py [--hosts 1,10,50] [--rounds 3]

Every host is the demo platform under another name with a state directory of its own, in check mode: so each makes one
real module execution for each activity. The pings are what Ansible itself costs for as many module executions: start of
the worker, transfer, start of Python. What is above them is Wellkept. CPU seconds are those of the control node and,
as the hosts are local, of the modules too.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT / "tests")]

import yaml  # noqa: E402
from support.checkout import DemoCheckout, demo_checkout  # noqa: E402

ACTIVITIES = 7


def fleet_inventory(checkout: DemoCheckout, count: int) -> Path:
    """The demo's inventory with *count* hosts instead of one."""
    source = checkout.directory / "inventories/demo"
    target = checkout.directory / f"inventories/fleet{count}"
    hosts = {
        f"host{number:02d}": {"maintenance_state_dir": f"{checkout.demo}/fleet/{number:02d}/state"}
        for number in range(count)
    }
    groups = {group: {"hosts": dict.fromkeys(hosts)} for group in ("databases", "app_servers")}
    target.mkdir(exist_ok=True)
    (target / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "children": groups}}))
    shutil.copytree(source / "group_vars", target / "group_vars", dirs_exist_ok=True)
    # As values, like any other inventory has them: the demo's own reads two files for every variable of every host.
    known = {
        "demo": json.loads((checkout.demo / "platform.json").read_text()),
        "demo_postgresql_password": (checkout.demo / "secrets/postgresql").read_text().strip(),
    }
    main = target / "group_vars/all/main.yml"
    main.write_text(yaml.safe_dump({**yaml.safe_load(main.read_text()), **known}))
    return target


def measured(checkout: DemoCheckout, *command: str) -> tuple[float, float]:
    """Wall and CPU seconds of *command*."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    done = checkout.run(*command, timeout=1800)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def pings(checkout: DemoCheckout) -> str:
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"ansible.builtin.ping": None}] * ACTIVITIES}
    path = checkout.directory / "pings.yml"
    path.write_text(yaml.safe_dump([play]))
    return str(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", default="1,10,50")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    print("| hosts | daily --check: wall s | CPU s a host | modules | pings: wall s | CPU s a host | wall ratio |")
    print("|---|---|---|---|---|---|---|")
    with demo_checkout() as checkout:
        assert checkout.play("daily").returncode == 0, "the demo is healthy before it is measured"
        ping_playbook = pings(checkout)
        for count in map(int, arguments.hosts.split(",")):
            inventory = str(fleet_inventory(checkout, count))
            daily, ping = [], []
            for _ in range(arguments.rounds):
                daily.append(measured(checkout, "ansible-playbook", "-i", inventory, "playbooks/daily.yml", "--check"))
                ping.append(measured(checkout, "ansible-playbook", "-i", inventory, ping_playbook))
            wall, cpu = (statistics.median(one[index] for one in daily) for index in (0, 1))
            ping_wall, ping_cpu = (statistics.median(one[index] for one in ping) for index in (0, 1))
            print(
                f"| {count} | {wall:.1f} | {cpu / count:.2f} | {ACTIVITIES * count} "
                f"| {ping_wall:.1f} | {ping_cpu / count:.2f} | {wall / ping_wall:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
