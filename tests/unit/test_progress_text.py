"""What the operator reads about a run, line by line."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.progress_text import Teller, words_of_failure
from support.reports import HOSTILE, believable, check, result


@pytest.fixture
def teller() -> Teller:
    return Teller("utf-8", 100)


def data(*arguments: Any, **values: Any) -> dict[str, Any]:
    found: dict[str, Any] = result(*arguments, **values)["data"]
    return found


def test_a_passed_activity_is_one_line(teller: Teller) -> None:
    checks = [check(str(n)) for n in range(8)]
    assert teller.tick(data("learn1", "backup", checks)) == "✓ learn1 backup passed 8 checks, 4.1 s"


def test_the_modules_own_time_counts_where_it_is_known(teller: Teller) -> None:
    assert "210 ms" in teller.tick(data("learn1", "backup", module_seconds=0.21))


def test_changes_are_counted_and_in_check_mode_only_would_be(teller: Teller) -> None:
    changes = [{"kind": "file", "name": "a", "before": 1, "after": 2}]
    assert teller.tick(data("a", "backup", changes=changes)).endswith(", 1 change")
    assert teller.tick(data("a", "backup", changes=changes, check_mode=True)).endswith("would make 1 change")


def test_a_small_change_is_told_in_a_line_and_a_long_one_is_left_to_a_diff(teller: Teller) -> None:
    diff = {
        "before_header": "old exports",
        "after_header": "old exports",
        "before": "40 files\n",
        "after": "20 files\n",
    }
    assert teller.short_change(diff) == [("    old exports: 40 files → 20 files", "")]
    assert teller.short_change({**diff, "after": "one\ntwo\n"}) == []
    assert teller.short_change({"before": "a", "after": "b"}) == [], "a file's diff is Ansible's to show"
    assert teller.short_change({**diff, "after": "\x1b[2J"})[0][0].endswith("→ ␛[2J")


def test_the_same_reason_to_skip_is_told_once_for_all_hosts(teller: Teller) -> None:
    skipped = [data(f"web{n}", "log_rotation", [], outcome="skipped", reason="no logrotate") for n in range(50)]
    told = [text for text, _status in teller.summary(skipped)]
    assert told.count("    no logrotate") == 1
    assert "– log_rotation skipped on web0, web1, web2, web3, web4 and 45 more" in told  # noqa: RUF001


def test_what_failed_is_said_first(teller: Teller) -> None:
    checks = [check("a", "warned"), check("b", "failed", "91 %"), check("c")]
    assert teller.tick(data("a", "health_check", checks)).endswith(": b: 91 %; and 1 more")


def test_a_skipped_activity_says_why(teller: Teller) -> None:
    line = teller.tick(data("a", "log_rotation", [], outcome="skipped", reason="apt-get install logrotate"))
    assert line == "– a log_rotation skipped: apt-get install logrotate"  # noqa: RUF001


def test_a_line_stays_a_line_whatever_a_host_is_called(teller: Teller) -> None:
    line = teller.tick(data(HOSTILE, "backup", [check(HOSTILE, "failed", HOSTILE)]))
    assert "\n" not in line
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_a_table_is_shown_whole_however_many_lines_it_has(teller: Teller) -> None:
    table = "\n".join(f"activity {number}  passed" for number in range(500))
    assert teller.page(table) == table
    assert "\x1b" not in teller.page(f"{table}\n{HOSTILE}")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "ANSI_X3.4-1968"])
def test_other_encodings_get_signs_they_can_hold(encoding: str) -> None:
    teller = Teller(encoding, 80)
    results = [event["data"] for event in believable()["results"]]
    lines = [teller.tick(one) for one in results] + [text for text, _style in teller.summary(results)]
    "\n".join(lines).encode(encoding)
    assert any(line.startswith("ok learn1") for line in lines)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_summary_fits_its_width(width: int) -> None:
    teller = Teller("utf-8", width)
    results = [event["data"] for event in believable()["results"]]
    lines = [text for text, _style in teller.summary(results)]
    indented = [line for line in lines if line.startswith("    ")]
    assert max(map(len, indented)) <= width
    assert "To do: Renew the certificate" in "\n".join(lines)


def test_the_summary_has_a_table_with_a_word_for_every_outcome(teller: Teller) -> None:
    lines = [text for text, _style in teller.summary([event["data"] for event in believable()["results"]])]
    assert lines[1].split() == ["health_check", "log_rotation", "backup", "restore_test", "storage_cleanup"]
    assert lines[2].startswith("learn1  ! warned")
    assert "✗ failed" in lines[2]
    assert "– skipped" in lines[3]  # noqa: RUF001


def test_a_fleet_is_summed_up_by_activity(teller: Teller) -> None:
    results = [data(f"web{n}", "backup", [check("it", "failed" if n == 7 else "passed")]) for n in range(60)]
    lines = [text for text, _style in teller.summary(results)]
    assert lines[1] == "backup  ✓ 59 passed  ✗ 1 failed (web7)"
    assert len(lines) < 10


def test_an_advice_that_many_hosts_share_is_given_once(teller: Teller) -> None:
    results = [data(f"web{n}", "backup", [check("disk", "failed", advice="Grow it.")]) for n in range(60)]
    text = "\n".join(text for text, _style in teller.summary(results))
    assert text.count("To do: Grow it.") == 1
    assert "and 35 more hosts: see the report" in text


def test_closing_names_what_left_no_result_and_the_report(teller: Teller) -> None:
    summary = {
        "verdict": "failed",
        "message": "1 of what was due has no result",
        "missing": [{"host": "a", "activity": "backup"}],
        "reports": {"html": "/somewhere/report.html"},
    }
    text = "\n".join(line for line, _style in teller.closing(summary))
    assert "✗ The run failed. 1 of what was due has no result" in text
    assert "no result: backup on a" in text
    assert text.endswith("Report: /somewhere/report.html")


def test_everything_that_a_failed_task_said_is_said_once() -> None:
    answer = {"msg": "non-zero return code", "stderr": "no such file", "stdout": "no such file", "rc": 3}
    assert words_of_failure(answer) == ["non-zero return code", "no such file", "exit status 3"]
    assert words_of_failure({"msg": ["a", "b"]}) == ["['a', 'b']"]
    assert words_of_failure({"changed": False}) == []
