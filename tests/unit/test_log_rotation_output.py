"""logrotate's words and its state file, as data: real outputs of logrotate 3.21."""

from __future__ import annotations

import time

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.logrotate import output, state

DRY_RUN = """warning: logrotate in debug mode does nothing except printing debug messages!

reading config file c
error: c:4 unknown option 'frobnicate' -- ignoring line
Reading state from file: st
Allocating hash table for state file, size 64 entries
Creating new state

Handling 1 logs

rotating pattern: "/srv/logs/*.log"  1 bytes (3 rotations)
empty log files are rotated, old logs are removed
considering log /srv/logs/a b.log
Creating new state
  Now: 2026-11-21 09:21
  Last rotated at 2026-11-21 09:00
  log needs rotating
considering log /srv/logs/small.log
  Now: 2026-11-21 09:26
  Last rotated at 2026-11-21 09:26
  log does not need rotating (log size is below the 'size' threshold)
considering log /srv/logs/new
line.log
  Now: 2026-11-21 09:26
  Last rotated at 2026-11-19 09:00
  log needs rotating
considering log /srv/logs/link.log
Creating new state
  log /srv/logs/link.log is symbolic link. Rotation of symbolic links is not allowed -- skipping.
considering log /srv/logs/gone.log
error: stat of /srv/logs/gone.log failed: No such file or directory
rotating log /srv/logs/a b.log, log->rotateCount is 3
renaming /srv/logs/a b.log to /srv/logs/a b.log.1
"""


def test_the_due_logs_of_a_dry_run_are_found_by_name() -> None:
    said = output.with_printed_names(DRY_RUN, ["/srv/logs/new\nline.log"])
    assert output.due(said) == {"/srv/logs/a b.log", "/srv/logs/new\\nline.log"}


def test_a_name_cannot_pass_for_an_error() -> None:
    said = "renaming /l/x\nerror: fake.log to /l/x\nerror: fake.log.1\nerror: a real one\n"
    assert output.errors(output.with_printed_names(said, ["/l/x\nerror: fake.log"])) == ["a real one"]


def test_every_error_is_found_once_although_the_exit_status_is_0() -> None:
    assert output.errors(DRY_RUN + DRY_RUN) == [
        "c:4 unknown option 'frobnicate' -- ignoring line",
        "stat of /srv/logs/gone.log failed: No such file or directory",
    ]
    assert output.errors("a line with error: inside\nwarning: not an error\n") == []


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("c:4 unknown option 'frobnicate' -- ignoring line", "ignores what it does not know"),
        ('skipping "/w/a.log" because parent directory has insecure permissions (It\'s world writable …)', "`su`"),
        ("stat of /srv/no.log failed: No such file or directory", "missing_ok"),
        ("c:5 duplicate log entry for /srv/f.log", "one policy alone"),
        ("error running non-shared postrotate script for /srv/f.log of '\"/srv/f.log\" '", "postrotate steps"),
        ("error renaming /a.log to /a.log.1: Permission denied", "write permission"),
        ("Ignoring c because it is writable by group or others.", "nobody else may write"),
        ("something never seen", "logrotate -d"),
    ],
)
def test_an_error_is_explained(message: str, advice: str) -> None:
    assert advice in output.advice_for([message])


def test_no_error_needs_no_advice() -> None:
    assert output.advice_for([]) == ""


HOSTILE = {"/l/new\nline.log": 1.0, '/l/q"uote.log': 2.0, "/l/back\\sl.log": 3.0, "/l/bad\udcff.log": 4.0}


def test_dates_of_hostile_names_survive_writing_and_reading() -> None:
    dates = {path: 1795253161.0 + number for path, number in HOSTILE.items()}
    assert state.parse(state.render(dates)) == (dates, ())


def test_a_date_is_local_time() -> None:
    read = state.parse('logrotate state -- version 2\n"/l/a.log" 2026-11-21-9:26:1\n')
    assert read.dates["/l/a.log"] == time.mktime((2026, 11, 21, 9, 26, 1, 0, 0, -1))


@pytest.mark.parametrize("text", ["garbage\n", "", "\x00\x01", "logrotate state -- version 2\nfoo bar\n"])
def test_a_damaged_state_is_noticed(text: str) -> None:
    assert state.parse(text).problems


@pytest.mark.parametrize(
    "text",
    ['logrotate state -- version 2\n"/l/a.log" 2026-11-19-9:0:0\nfoo bar\n', 'garbage\n"/l/a.log" 2026-11-19-9:0:0\n'],
)
def test_the_sound_lines_of_a_damaged_state_are_kept(text: str) -> None:
    read = state.parse(text)
    assert read.problems and list(read.dates) == ["/l/a.log"]
