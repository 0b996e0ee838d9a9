"""How a report words what it knows."""

from __future__ import annotations

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import text, view
from support.reports import check, report, result


def headline(results: list[dict[str, object]], **run: object) -> str:
    return str(view.view_of(report(results, run=run))["headline"])


def test_done_and_verified_is_said_only_when_all_of_it_was() -> None:
    assert headline([result("a", "backup")]) == "Everything that was due was done and verified."
    skipped = result("a", "log_rotation", [], outcome="skipped", reason="no logrotate")
    for others in (
        [result("a", "backup", [check("it", "warned")])],
        [result("a", "backup", [check("it", "unknown")])],
        [skipped],
        [result("a", "backup", [check("it", "failed")])],
    ):
        said = headline([result("a", "health_check"), *others], verdict="warned")
        assert said != "Everything that was due was done and verified.", said
    assert headline([skipped], verdict="warned").startswith("Nothing was done")


def test_a_failed_run_never_sounds_good() -> None:
    assert "failed" in headline([result("a", "backup")], verdict="failed")


def test_the_headline_names_what_failed_and_where() -> None:
    failed = [result(f"web{n}", "health_check", [check("it", "failed")]) for n in range(9)]
    said = headline([*failed, result("a", "backup")], verdict="failed")
    assert said == "9 of 10 activities failed: health check on 9 hosts."
    one = [result("web1", "health_check", [check("it", "failed")]), result("web2", "backup", [check("it", "failed")])]
    assert headline(one, verdict="failed") == "2 of 2 activities failed: health check on web1 and backup on web2."


def test_the_same_finding_on_many_hosts_is_one_thing_to_do() -> None:
    results = [
        result(f"web{n}", "health_check", [check("disk", "failed", f"9{n} %", advice="Grow it.")]) for n in range(3)
    ]
    entries = view.todo(view.view_of(report(results))["grid"]["rows"][0]["cells"])
    assert len(entries) == 1
    todo = view.view_of(report(results))["todo"]
    assert [(entry["name"], [place["observed"] for place in entry["where"]]) for entry in todo] == [
        ("disk", ["90 %", "91 %", "92 %"])
    ]


def test_hosts_in_trouble_come_first() -> None:
    results = [result("a", "backup"), result("b", "backup", [check("it", "failed")]), result("c", "backup")]
    assert [entry["host"] for entry in view.view_of(report(results))["hosts"]] == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain ✓ ünïcode 日本", "plain ✓ ünïcode 日本"),
        ("a\r\nb\tc", "a\nb\tc"),
        ("\x1b[31mred\x00", "␛[31mred␀"),
        ("\u202egpj.exe", "⟨U+202E⟩gpj.exe"),
        ("\udc80", "\ufffd"),
        ("\x85", "⟨U+0085⟩"),
    ],
)
def test_unseemly_characters_are_shown_not_obeyed(given: str, shown: str) -> None:
    assert text.visible(given) == shown


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (1536, "bytes", "1.5 KiB"),
        (0.21, "seconds", "210 ms"),
        (-75, "seconds", "-1 min 15 s"),
        (0.125, "ratio", "12.5 %"),
        (200000, "count", "200,000"),
        (2.5, "count", "2.5"),
        (3, "kelvin", "3 kelvin"),
    ],
)
def test_numbers_are_told_in_human_units(value: float, unit: str, shown: str) -> None:
    assert text.quantity(value, unit) == shown


def test_moments_are_told_in_words_and_what_is_none_is_left_as_it_is() -> None:
    assert text.moment("2026-11-21T09:20:49.123Z") == "21 Nov 2026, 09:20 UTC"
    assert text.moment("2026-11-21T10:20:49+01:00") == "21 Nov 2026, 09:20 UTC"
    assert text.moment("soon") == "soon"
    assert text.moment("") == "never"


def test_enumerations_stay_short() -> None:
    assert text.enumeration(["a"]) == "a"
    assert text.enumeration(["a", "b"]) == "a and b"
    assert text.enumeration(["a", "b", "c"]) == "a, b and c"
    assert text.enumeration(list("abcdefgh"), 3) == "a, b, c and 5 more"
    assert text.enumeration([]) == ""
