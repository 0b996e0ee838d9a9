"""What the daily plan has done to the hosts, seen from outside, and what it has recorded of that."""

from __future__ import annotations

import time

ACTIVITIES = {"health_check", "storage_cleanup", "log_rotation", "cache_clearing"}
DAY = 86400


def test_each_release_is_what_it_is_called(host):
    release = host.check_output("hostname").removeprefix("debian")
    assert host.system_info.distribution == "debian"
    assert host.system_info.release.split(".")[0] == release
    assert host.check_output("ps -o comm= -p 1") == "systemd"


def test_services_are_back_after_the_reboot(host):
    assert host.run("systemctl is-system-running").stdout.strip() == "running"
    for unit in ("ssh", "rsyslog", "cron", "shop"):
        assert host.service(unit).is_running
    assert host.socket("tcp://127.0.0.1:8080").is_listening


def test_the_host_was_booted_after_it_was_maintained(host):
    booted = int(host.check_output("stat --format %Y /proc/1"))
    first_maintained = int(host.check_output("stat --format %W /var/lib/wellkept"))
    assert 0 < first_maintained < booted


def test_old_uploads_are_gone_and_young_ones_are_there(host):
    modified = host.check_output("find /srv/shop/uploads/tmp -name '*.part' -printf '%T@ '").split()
    assert len(modified) == 20
    assert min(float(moment) for moment in modified) > time.time() - 2 * DAY


def test_the_newest_exports_are_left(host):
    assert host.check_output("ls /srv/shop/exports").split() == ["orders-09.csv", "orders-10.csv", "orders-11.csv"]


def test_the_shop_writes_into_a_new_log(host):
    assert host.file("/srv/shop/log/access.log.1").size > 2_000_000
    assert host.file("/srv/shop/log/access.log").user == "shop"
    before = host.file("/srv/shop/log/access.log").size
    host.check_output("python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8080/page/2\").read()'")
    assert host.file("/srv/shop/log/access.log").size > before
    assert host.file("/srv/shop/log/access.log").size < 1_000_000


def test_the_distributions_own_log_rotation_was_left_alone(host):
    # The images leave manual pages out.
    changed = [
        line for line in host.run("dpkg --verify logrotate rsyslog").stdout.splitlines() if "missing" not in line
    ]
    assert changed == []
    assert not host.file("/var/log/syslog.1").exists


def test_the_cache_is_cleared_and_warmed_up(host):
    pages = host.check_output("find /srv/shop/cache/pages -type f -size +30k")
    assert pages == ""
    assert host.file("/srv/shop/cache/pages/page-1.html").exists
    assert host.file("/srv/shop/cache/pages").user == "shop"
    assert host.check_output("ls -A /srv/shop/cache") == "pages"


def test_what_maintenance_remembers_is_private(host):
    assert host.check_output("find /var/lib/wellkept -mindepth 1 -maxdepth 1 \\( ! -user root -o -perm /077 \\)") == ""


def test_nothing_is_left_running_or_lying_about(host):
    assert host.run("pgrep --full '[A]nsiballZ|ansible_collection[s]'").stdout == ""
    assert host.check_output("find /tmp /root -name '*ansible*' -not -path '/root/.ansible' | head") == ""


def test_every_run_did_all_that_was_due(runs):
    assert [run.check_mode for run in runs] == [True, False, False, False]
    for run in runs:
        assert {activity for _host, activity in run.results} == ACTIVITIES
        assert {host for host, _activity in run.results} == {"debian12", "debian13"}
        assert run.not_passed() == {}
        assert run.verdict == "passed"


def test_check_mode_foretold_what_the_first_run_did(runs):
    foretold, first = runs[:2]
    expected = [
        (host, name)
        for host in ("debian12", "debian13")
        for name in ("cache_clearing", "log_rotation", "storage_cleanup")
    ]
    assert foretold.changed == first.changed == expected


def test_later_runs_change_nothing_also_after_a_reboot(runs):
    assert [run.changed for run in runs[2:]] == [[], []]


def test_the_report_is_there_to_be_kept(artifacts):
    latest = artifacts / "reports" / "latest"
    assert {path.name for path in latest.iterdir()} >= {"report.html", "report.md", "report.json", "junit.xml"}
