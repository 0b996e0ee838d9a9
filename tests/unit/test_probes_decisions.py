"""What the probes decide, on numbers and on the texts that the system's own tools and files give."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.postgresql import LOGIN_OPTIONS
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes import (
    filesystems,
    host,
    http,
    postgresql_health,
    units,
)
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.redaction import redact
from ansible_collections.wellkept.maintenance.plugins.module_utils.probes.running import Probe, Running
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part

LONG = 120


def defaults(options: dict[str, dict[str, Any]], **given: Any) -> dict[str, Any]:
    return {**{name: option.get("default") for name, option in options.items()}, **given}


def status_of(part: Part, name: str) -> str:
    return next(str(check["status"]) for check in part.checks if check["name"] == name)


# --- running -----------------------------------------------------------------------------------------------------


def test_a_probe_that_raises_is_an_unknown_check_of_its_own_and_the_others_go_on() -> None:
    def broken(part: Part) -> None:
        raise ZeroDivisionError("password=hunter2")

    part = Part()
    running = Running([Probe("a", broken), Probe("b", lambda own: own.metric("b", 1, "count"))])
    assert running.wait(time.monotonic() + LONG)
    running.collect(part)
    assert [check["status"] for check in part.checks] == ["unknown"]
    assert part.checks[0]["observed"] == "ZeroDivisionError: password=***"
    assert part.metrics == {"b": {"value": 1, "unit": "count"}}


def test_expected_trouble_of_a_probe_is_a_failed_check() -> None:
    def troubled(part: Part) -> None:
        raise MaintenanceError("ask systemctl", expected="an answer", observed="none", advice="Look.")

    part = Part()
    running = Running([Probe("units", troubled)])
    running.wait(time.monotonic() + LONG)
    running.collect(part)
    assert (part.checks[0]["name"], part.checks[0]["status"]) == ("probe units: ask systemctl", "failed")


def test_what_does_not_finish_is_unknown_and_what_it_had_found_is_kept() -> None:
    half_way, over = threading.Event(), threading.Event()

    def hangs(part: Part) -> None:
        part.check("first half", "passed", expected="x", observed="x")
        half_way.set()
        over.wait()

    part = Part()
    running = Running([Probe("slow", hangs)])
    assert half_way.wait(LONG)
    assert not running.wait(time.monotonic() + 0.1)
    running.collect(part)
    over.set()
    assert {check["name"]: check["status"] for check in part.checks} == {
        "first half": "passed",
        "probe slow": "unknown",
    }


def test_slow_probes_do_not_add_up() -> None:
    all_at_work = threading.Barrier(10)
    running = Running([Probe(str(n), lambda part: all_at_work.wait() and None) for n in range(10)])
    assert running.wait(time.monotonic() + LONG), "none ends before all have begun"


# --- file systems ------------------------------------------------------------------------------------------------

MOUNTINFO = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw - devtmpfs devtmpfs rw,size=12334280k
25 24 0:23 / /dev/shm rw - tmpfs tmpfs rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,errors=remount-ro
28 27 254:0 /srv/data /data rw,relatime - ext4 /dev/vda rw
29 27 254:1 / /mnt/with\040space rw - xfs /dev/vdb rw
30 27 7:0 / /snap/core/1 ro,nodev - squashfs /dev/loop0 ro
31 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw,lowerdir=/a
32 27 254:2 / /mnt/readonly rw - ext4 /dev/vdc ro
33 27 0:60 / /run/user/1000 rw - tmpfs tmpfs rw
34 27 0:61 / /backup rw - nfs4 nas:/backup rw,vers=4.2
35 27 0:62 / /home rw - autofs systemd-1 rw
36 29 254:3 / /mnt/with\040space rw - ext4 /dev/vdd rw
"""


def points(content: bytes, exclude: tuple[str, ...] = ()) -> list[str]:
    return [mount.point for mount in filesystems.real(filesystems.parse_mountinfo(content), exclude)]


def test_real_file_systems_are_found_once_each() -> None:
    assert points(MOUNTINFO) == ["/", "/backup", "/dev/shm", "/mnt/with space"]
    devices = {m.point: m.device for m in filesystems.real(filesystems.parse_mountinfo(MOUNTINFO))}
    assert devices["/mnt/with space"] == "254:3", "the upper of two mounts at one point"


def test_a_containers_overlay_root_counts() -> None:
    content = b"1 0 0:99 / / rw - overlay overlay rw,lowerdir=/a\n2 1 254:0 /x /etc/hosts rw - ext4 /dev/vda rw\n"
    assert points(content) == ["/"]


def test_mount_points_can_be_left_out() -> None:
    assert points(MOUNTINFO, ("/mnt/*", "/dev/shm")) == ["/", "/backup"]
    assert points(MOUNTINFO, ("*",)) == []


@pytest.mark.parametrize(
    ("used", "free", "least", "inodes", "disk_status", "inode_status"),
    [
        (0.50, 10 << 30, "0", 0.1, "passed", "passed"),
        (0.80, 10 << 30, "0", 0.80, "passed", "passed"),  # at the limit is not beyond it
        (0.81, 10 << 30, "0", 0.81, "warned", "warned"),
        (0.96, 10 << 30, "0", 0.96, "failed", "failed"),
        (0.50, 1 << 30, "2GiB", 0.1, "failed", "passed"),
        (0.96, 10 << 30, "2GiB", 1.0, "failed", "failed"),
    ],
)
def test_disk_limits(used: float, free: int, least: str, inodes: float, disk_status: str, inode_status: str) -> None:
    part = Part()
    options = defaults(filesystems.OPTIONS, min_free_bytes=least)
    filesystems.decide("/var", filesystems.Usage(used, free, 100 << 30, inodes), options, part)
    assert status_of(part, "disk use of /var") == disk_status
    assert status_of(part, "inode use of /var") == inode_status
    assert part.metrics["disk_used_ratio /var"] == {"value": used, "unit": "ratio"}


def test_file_systems_without_counted_inodes_have_no_inode_check() -> None:
    part = Part()
    filesystems.decide("/boot/efi", filesystems.Usage(0.1, 1, 2, None), defaults(filesystems.OPTIONS), part)
    assert [check["name"] for check in part.checks] == ["disk use of /boot/efi"]


# --- the host ----------------------------------------------------------------------------------------------------

MEMINFO = "MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: {} kB\nSwapTotal: 100 kB\nSwapFree: {} kB\nHugePages: 0\n"


def memory_of(tmp_path: Any, available: int, swap_free: int = 100, **cgroup: str) -> host.Memory:
    (tmp_path / "meminfo").write_text(MEMINFO.format(available, swap_free))
    for name, content in cgroup.items():
        (tmp_path / name.replace("_", ".", 1)).write_text(content)
    return host.measure_memory(str(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    ("available", "swap_free", "memory", "swap"),
    [(500, 100, "passed", "passed"), (90, 10, "warned", "warned"), (20, 0, "failed", "warned")],
)
def test_memory_limits(tmp_path: Any, available: int, swap_free: int, memory: str, swap: str) -> None:
    part = Part()
    host.decide_memory(memory_of(tmp_path, available, swap_free), defaults(host.OPTIONS), part)
    assert (status_of(part, "memory available"), status_of(part, "swap use")) == (memory, swap)


def test_a_containers_lower_limit_of_memory_counts_and_its_page_cache_is_available(tmp_path: Any) -> None:
    limited = memory_of(
        tmp_path, 900, memory_max="409600", memory_current="307200", memory_stat="anon 1\ninactive_file 102400\n"
    )
    assert limited == host.Memory(204800, 409600, 102400, 102400, True)
    (tmp_path / "memory.max").write_text("max\n")
    assert not host.measure_memory(str(tmp_path), str(tmp_path)).limited


def test_load_is_judged_by_core() -> None:
    for load, status in ((4.0, "passed"), (9.0, "warned"), (40.0, "failed")):
        part = Part()
        host.decide_load(load, 4, defaults(host.OPTIONS), part)
        assert status_of(part, "load per core") == status


TRACKING = "C0A80101,ntp1,2,1763714401.219,{},-0.000021,0.000044,-12.3,0.001,0.02,0.012,0.0008,64.4,{}\n"


@pytest.mark.parametrize(
    ("offset", "leap", "policy", "expected"),
    [
        ("0.000123", "Normal", "if_measurable", ["passed"]),
        ("-0.5", "Normal", "if_measurable", ["warned"]),
        ("-3600.0", "Normal", "if_measurable", ["failed"]),
        ("0.0", "Not synchronised", "if_measurable", ["failed"]),
    ],
)
def test_chronys_tracking_is_judged(offset: str, leap: str, policy: str, expected: list[str]) -> None:
    part = Part()
    clock = host.parse_tracking(TRACKING.format(offset, leap))
    host.decide_clock(clock, defaults(host.OPTIONS, clock=policy), part)
    assert [check["status"] for check in part.checks] == expected


def test_a_clock_that_cannot_be_measured_alarms_only_where_it_is_required() -> None:
    unmeasured = host.Clock(None, "kernel", "nobody keeps it")
    for policy, expected in (("if_measurable", []), ("required", ["unknown"])):
        part = Part()
        host.decide_clock(unmeasured, defaults(host.OPTIONS, clock=policy), part)
        assert [check["status"] for check in part.checks] == expected


def test_the_kernels_clock_can_be_asked() -> None:
    clock = host.kernel_clock()
    assert (clock.offset is None) == bool(clock.reason)
    assert clock.offset is None or clock.offset < 16


# --- systemd units -----------------------------------------------------------------------------------------------

SHOWN = """Type=notify
NRestarts=0
Result=success
ExecMainExitTimestamp=
Id=nginx.service
Names=nginx.service
LoadState=loaded
ActiveState=active
SubState=running

Type=notify
NRestarts=7
Result=exit-code
Id=shop.service
Names=shop.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart

Type=oneshot
NRestarts=0
Result=success
ExecMainExitTimestamp=Sat 2026-11-21 04:00:01 UTC
Id=dump.service
Names=dump.service
LoadState=loaded
ActiveState=inactive
SubState=dead

Id=absent.service
Names=absent.service
LoadState=not-found
ActiveState=inactive
SubState=dead

Type=notify
Result=success
Id=ssh.service
Names=ssh.service sshd.service
LoadState=loaded
ActiveState=reloading
SubState=reload

Result=exit-code
Type=oneshot
ExecMainExitTimestamp=Sat 2026-11-21 04:00:01 UTC
Id=broken.service
Names=broken.service
LoadState=loaded
ActiveState=failed
SubState=failed
"""


def test_units_are_judged_by_what_systemctl_shows() -> None:
    names = [units.full_name(name) for name in ("nginx", "shop", "dump", "absent", "sshd", "broken", "gone.timer")]
    found = units.by_name(names, units.parse_show(SHOWN))
    assert "gone.timer" not in found
    part = Part()
    for name, unit in found.items():
        units.decide(name, unit, part)
    assert {check["name"]: check["status"] for check in part.checks} == {
        "unit nginx.service": "passed",
        "unit shop.service": "failed",
        "unit dump.service": "passed",
        "unit absent.service": "failed",
        "unit sshd.service": "warned",
        "unit broken.service": "failed",
    }
    assert part.metrics["unit_restarts shop.service"]["value"] == 7


# --- HTTP, PostgreSQL --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("days", "warn", "fail", "status"),
    [
        (60.0, 30, 7, "passed"),
        (29.9, 30, 7, "warned"),
        (6.9, 30, 7, "failed"),
        (-0.1, -100, -100, "failed"),  # whatever the limits, expired is not good
    ],
)
def test_certificate_limits(days: float, warn: float, fail: float, status: str) -> None:
    part = Part()
    endpoint = {"name": "shop", "warn_certificate_days": warn, "fail_certificate_days": fail}
    http.decide_certificate(endpoint, days * 86400, part)
    assert status_of(part, "certificate of shop") == status


@pytest.mark.parametrize(
    ("lag_bytes", "seconds", "status"),
    [(None, None, "passed"), (65 << 20, 0, "warned"), (0, 61, "warned"), (2 << 30, 0, "failed"), (-5, 601, "failed")],
)
def test_replication_lag_limits(lag_bytes: Any, seconds: Any, status: str) -> None:
    part = Part()
    postgresql_health.decide_lag("main", lag_bytes, seconds, defaults(postgresql_health.OPTIONS), part)
    assert status_of(part, "replication lag of PostgreSQL main") == status


def test_the_login_options_are_those_of_all_modules() -> None:
    own = {name: option for name, option in postgresql_health.OPTIONS.items() if name.startswith("login_")}
    assert own == LOGIN_OPTIONS


# --- secrets -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "login failed password=hunter2 for bob",
        'config {"password": "hunter2"}',
        "DB_PASSWORD='hunter2 '",
        "passwd: hunter2",
        "GET /x?access_token=hunter2&a=1",
        "api-key=hunter2",
        "Authorization: Basic hunter2",
        "authorization=Bearer hunter2",
        "Proxy-Authorization: hunter2",
        "Cookie: MoodleSession=hunter2; other=hunter2",
        "connect postgresql://app:hunter2@db1/shop failed",
        "redis://:hunter2@cache:6379",
        "sesskey=hunter2",
        "client_secret => 'hunter2'",
        "curl -H 'X: bearer hunter2'",
    ],
)
def test_obvious_secrets_are_not_shown(line: str) -> None:
    assert "hunter2" not in redact(line)
    assert "***" in redact(line)


def test_what_is_no_secret_stays_and_is_one_harmless_line() -> None:
    assert redact("ERROR disk full on /var (see http://host/path)") == "ERROR disk full on /var (see http://host/path)"
    assert redact("a\x1b[31mred\x00\nb\u202ec") == "a [31mred b c"
    assert len(redact("x" * 10_000)) == 200
    began = time.process_time()
    redact("a=" * 5_000_000)
    redact("password" * 500_000)
    assert time.process_time() - began < 10, "it takes 0.6 s, or hours where it tries everything"
