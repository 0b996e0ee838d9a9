"""What is written for logrotate to read: nothing of it can be smuggled in."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.errors import MaintenanceError
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate.config import (
    patterns_of,
    policies_of,
    render,
    shell_quoted,
)

BARE: dict[str, Any] = {
    "name": "app",
    "paths": ["/srv/app/*.log"],
    "max_bytes": "10MiB",
    "frequency": None,
    "keep": 7,
    "max_age": "",
    "compress": True,
    "delay_compress": True,
    "create": None,
    "copy_truncate": False,
    "missing_ok": False,
    "not_if_empty": True,
    "shared_scripts": True,
    "su": None,
    "postrotate": [],
    "extra_directives": [],
}


def rendered(**options: Any) -> str:
    return render(policies_of([{**BARE, **options}]), "/state/postrotate")


def test_a_size_limit_alone_becomes_size_and_with_a_frequency_maxsize() -> None:
    assert "    size 10485760\n" in rendered()
    both = rendered(frequency="daily")
    assert "    daily\n    maxsize 10485760\n" in both
    assert "    size " not in both


def test_every_option_is_stated_and_none_left_to_a_default_of_the_distribution() -> None:
    text = rendered(compress=False, missing_ok=True, not_if_empty=False, max_age="36h", keep=3)
    for directive in ("rotate 3", "maxage 2", "nocompress", "create", "missingok", "ifempty"):
        assert f"    {directive}\n" in text
    assert "delaycompress" not in text


def test_paths_are_quoted_one_a_line() -> None:
    text = rendered(paths=["/srv/a b.log", '/srv/q"uote.log'])
    assert '"/srv/a b.log"\n"/srv/q\\"uote.log" {\n' in text


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("name", "a\n} /etc/shadow {"),
        ("name", "../up"),
        ("name", ""),
        ("paths", ["/srv/a\n/etc/passwd"]),
        ("paths", ["/srv/{a,b}.log"]),
        ("paths", ["/srv/a\\.log"]),
        ("paths", ["srv/a.log"]),
        ("paths", ["/srv/../etc/passwd"]),
        ("paths", []),
        ("max_bytes", "ten"),
        ("max_bytes", None),
        ("max_age", "soon"),
        ("keep", 0),
        ("create", {"mode": "0640", "owner": "root\n}", "group": "adm"}),
        ("create", {"mode": "rw-", "owner": None, "group": None}),
        ("create", {"mode": "0640", "owner": "root", "group": None}),
        ("su", {"user": "root root", "group": "adm"}),
        ("postrotate", [{"command": ["true", "a\nendscript"]}]),
        ("postrotate", [{"signal": "HUP; rm -rf /", "pid_file": "/run/app.pid"}]),
        ("postrotate", [{"signal": "HUP", "pid_file": "/run/a\nb"}]),
        ("extra_directives", ["shred\n}"]),
        ("extra_directives", ["postrotate"]),
        ("extra_directives", ["dateext"]),
        ("extra_directives", ["include /etc"]),
        ("extra_directives", [""]),
    ],
)
def test_a_value_that_could_break_out_is_refused_by_name(option: str, value: Any) -> None:
    with pytest.raises(MaintenanceError) as refused:
        rendered(**{option: value})
    assert refused.value.where.split(".")[0] == option
    assert "log_rotation_policies" in refused.value.advice


def test_two_policies_of_one_name_are_refused() -> None:
    with pytest.raises(MaintenanceError, match="'app'"):
        policies_of([BARE, BARE])


@pytest.mark.parametrize("text", ["plain", "a b", "it's", "'; touch /tmp/x; '", "$(id)", "endscript", "`x`", '"', ""])
def test_a_quoted_word_reaches_the_program_unchanged(text: str) -> None:
    shown = subprocess.run(["sh", "-c", f"printf %s {shell_quoted(text)}"], capture_output=True, text=True, check=True)
    assert shown.stdout == text


def test_no_line_of_a_script_can_end_it_early() -> None:
    text = rendered(postrotate=[{"command": ["endscript", "postrotate"]}])
    assert [line.strip() for line in text.splitlines()].count("endscript") == 1


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [("", 1, "no process id"), ("abc\n", 1, "no process id"), ("0\n", 1, "no process id"), ("-1\n", 1, "no process id"),
     ("1\n", 1, "no process id"), ("999999999\n", 1, ""), (None, 0, "nobody to tell")],
)  # fmt: skip
def test_a_pid_file_without_a_process_id_never_signals_anybody(
    tmp_path: Any, content: str | None, status: int, said: str
) -> None:
    pid_file = tmp_path / "app.pid"
    if content is not None:
        pid_file.write_text(content)
    policy = policies_of([{**BARE, "postrotate": [{"signal": "SIGHUP", "pid_file": str(pid_file)}]}])
    text = render(policy, str(tmp_path))
    script = text.split("postrotate\n", 1)[1].split("endscript", 1)[0]
    done = subprocess.run(["sh", "-c", script], check=False)
    assert (tmp_path / "app.status").read_text().strip() == str(done.returncode)
    assert (done.returncode == 0) == (status == 0)
    assert said in (tmp_path / "app.output").read_text()


def test_patterns_of_the_distributions_configuration_are_read_without_its_scripts() -> None:
    text = """
# a comment { with a brace
weekly
include /etc/logrotate.d
/var/log/wtmp {
    monthly
}
/var/log/a.log "/var/log/b c.log"
'/var/log/d.log' {
    daily
    postrotate
        if [ -f /run/x ]; then { kill -HUP 1; }; fi
        /usr/lib/helper { /not/a/log }
    endscript
}
/var/log/postgresql/*.log {
    su root root
}
"""
    assert patterns_of(text) == [
        "/var/log/wtmp", "/var/log/a.log", "/var/log/b c.log", "/var/log/d.log", "/var/log/postgresql/*.log",
    ]  # fmt: skip
