"""The forms of a report that programs read: valid, true, and written whole."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import (
    FILE_NAMES,
    canonical_json,
    junit,
    markdown,
    prometheus,
    write,
)
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report.text import parse_time
from support import reports
from support.reports import at, check, report, result, status

SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z_]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (-?[0-9.e+]+|NaN)')
PLAIN = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\["\\n])*)"')


def parse(exposition: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """The samples of a text exposition, read as strictly as Prometheus does."""
    samples: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    typed: list[str] = []
    for line in exposition.rstrip("\n").split("\n"):
        if line.startswith("# TYPE "):
            typed.append(line.split()[2])
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, f"not a sample: {line!r}"
            assert match[1] == typed[-1], "samples of a family stand together, after their TYPE"
            labels = tuple(
                (name, re.sub(r'\\[\\"n]', lambda escaped: PLAIN[escaped.group()], value))
                for name, value in LABEL.findall(match[2])
            )
            assert (match[1], labels) not in samples, f"twice: {line}"
            samples[match[1], labels] = float(match[3])
    assert len(typed) == len(set(typed))
    return samples


def series(exposition: str, name: str) -> dict[tuple[str, ...], float]:
    return {
        tuple(value for _label, value in key[1]): value for key, value in parse(exposition).items() if key[0] == name
    }


def seconds(iso: str) -> float:
    moment = parse_time(iso)
    assert moment
    return moment.timestamp()


LAST_SUCCESS = "wellkept_activity_last_success_timestamp_seconds"


def test_prometheus_tells_when_each_activity_last_succeeded_also_of_those_not_in_this_run() -> None:
    text = prometheus.render(
        report(
            [result("learn1", "backup")],
            status=[
                status("backup", "learn1", finished=at(days=-1)),
                status("patching", "learn1", finished=at(days=-20)),
            ],
        )
    )
    found = series(text, LAST_SUCCESS)
    assert found["learn1", "backup"] == pytest.approx(seconds(at(5.1)), abs=0.01)
    assert found["learn1", "patching"] == pytest.approx(seconds(at(days=-20)), abs=0.01)


def test_prometheus_keeps_the_last_success_when_the_last_result_failed() -> None:
    entry = status("backup", "learn1", "failed", last_good=at(days=-3))
    text = prometheus.render(report([result("learn1", "backup", [check("it", "failed")])], status=[entry]))
    assert series(text, LAST_SUCCESS)["learn1", "backup"] == pytest.approx(seconds(at(days=-3)), abs=0.01)
    assert series(text, "wellkept_activity_outcome")["learn1", "backup", "failed"] == 1
    assert series(text, "wellkept_activity_outcome")["learn1", "backup", "passed"] == 0


def test_prometheus_invents_no_success() -> None:
    text = prometheus.render(
        report(status=[status("backup", "learn1", "failed"), status("patching", "learn1", "", finished="")])
    )
    assert not series(text, LAST_SUCCESS)


def test_prometheus_takes_no_rehearsal_for_evidence() -> None:
    rehearsal = result("learn1", "backup", check_mode=True)
    text = prometheus.render(report([rehearsal], run={"check_mode": True}))
    assert not series(text, LAST_SUCCESS)
    assert not series(text, "wellkept_activity_outcome")
    assert series(text, "wellkept_run_check_mode")["daily",] == 1


def test_prometheus_escapes_labels_and_can_be_parsed_whatever_a_host_is_called() -> None:
    host = 'a"b\\c\nd\x1b'
    text = prometheus.render(report([result(host, "backup")]))
    assert ('a"b\\c\nd␛', "backup") in series(text, LAST_SUCCESS)
    parse(prometheus.render(reports.hostile()))


def test_prometheus_tells_the_run() -> None:
    text = prometheus.render(reports.believable())
    assert series(text, "wellkept_run_duration_seconds")["daily",] == 96
    assert series(text, "wellkept_run_verdict")["daily", "failed"] == 1
    assert series(text, "wellkept_run_results")["daily", "skipped"] == 1
    assert series(text, "wellkept_activity_overdue")["learn1", "database_reindex"] == 1
    assert "# HELP wellkept_run_verdict " in text


def suites(text: str) -> dict[str, ET.Element]:
    return {str(suite.get("name")): suite for suite in ET.fromstring(text.encode())}


def test_junit_maps_each_status_as_documented() -> None:
    checks = [check("a"), check("b", "warned"), check("c", "failed", "9", "8", "Do it."), check("d", "unknown")]
    suite = suites(junit.render(report([result("learn1", "backup", checks)])))["learn1/backup"]
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert len(cases["a"]) == 0
    assert [child.tag for child in cases["b"]] == ["system-out"]
    failure = cases["c"].find("failure")
    assert failure is not None
    assert failure.get("message") == "9 (expected 8)"
    assert "Do it." in (failure.text or "")
    assert [child.tag for child in cases["d"]] == ["skipped"], "what could not be checked has not passed"
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")


def test_junit_has_a_case_for_what_was_skipped_and_for_what_left_no_result() -> None:
    skipped = result("learn1", "log_rotation", [], outcome="skipped", reason="logrotate is missing")
    text = junit.render(report([skipped], missing=[{"host": "learn1", "activity": "backup"}]))
    found = suites(text)
    assert found["learn1/log_rotation"].find("testcase/skipped").get("message") == "logrotate is missing"  # type: ignore[union-attr]
    assert found["learn1/backup"].find("testcase/failure") is not None
    root = ET.fromstring(text.encode())
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("2", "1", "1")


def test_junit_is_valid_xml_whatever_a_host_says() -> None:
    text = junit.render(reports.hostile())
    root = ET.fromstring(text.encode())
    assert "<script>" in str(root[0].get("hostname"))
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", text)


def test_json_is_the_input_in_one_form_only() -> None:
    given = reports.believable()
    text = canonical_json(given)
    assert json.loads(text) == given
    assert text == canonical_json(dict(reversed(list(given.items()))))
    assert '"run":' in text


def test_json_holds_no_number_that_others_cannot_read() -> None:
    text = canonical_json({"a": float("nan"), "b": [float("inf"), 1.5]})
    assert json.loads(text) == {"a": None, "b": [None, 1.5]}


def test_markdown_tells_the_same() -> None:
    text = markdown.render(reports.believable())
    assert text.startswith("# Daily maintenance, 21 Nov 2026, 02:00 UTC\n\n**1 of 7 activities failed")
    for said in ("## What to do now", "## Overdue", "## Trends", "| learn1 | ! warned |", "did not reach its end", "▁"):
        assert said in text, said
    assert "✓ 3 passed · ! 2 warned · ✗ 1 failed" in text
    assert "(restore test). Do not rely on this backup" in text
    assert text.index("What to do now") < text.index("What was carried out")


def test_markdown_shows_hostile_texts_as_they_are() -> None:
    from markdown_it import MarkdownIt

    text = markdown.render(reports.hostile())
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    for tag in ("<script", "<img", "<a "):
        assert tag not in shown, tag
    assert "&lt;script&gt;alert" in shown
    assert not re.search(r"<h1>no heading", shown)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202e]", text)
    widths = {line.count("|") for line in re.sub(r"\\\|", "", text).splitlines() if line.startswith("| ")}
    assert len(widths) <= 5, "no bar of a text has become the end of a cell"


def test_every_form_is_written_and_readable_by_others(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        paths = write(reports.believable(), tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert {form: path.name for form, path in paths.items()} == FILE_NAMES
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == sorted(FILE_NAMES.values())
    for path in paths.values():
        assert path.stat().st_mode & 0o777 == 0o644, "the node exporter runs as a user of its own"
        assert path.read_bytes()


def test_hostile_reports_are_written_too(tmp_path: Path) -> None:
    paths = write(reports.hostile(), tmp_path)
    assert json.loads(paths["json"].read_text())["results"]
    for path in paths.values():
        path.read_text(encoding="utf-8")


def test_a_reader_never_finds_half_a_file(tmp_path: Path) -> None:
    write(reports.believable(), tmp_path)
    whole = (tmp_path / "wellkept.prom").read_text()
    seen, stop = set(), threading.Event()

    def read() -> None:
        while not stop.is_set():
            found = [path.name for path in tmp_path.glob("*.prom")]
            seen.add((tuple(found), (tmp_path / "wellkept.prom").read_text() == whole))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _round in range(5):
            write({**reports.believable(), "trends": []}, tmp_path)
    finally:
        stop.set()
        reader.join()
    assert seen == {(("wellkept.prom",), True)}


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write(reports.believable(), tmp_path)
    old = (tmp_path / "report.html").read_text()
    broken = reports.believable()
    del broken["run"]["verdict"]
    with pytest.raises(KeyError):
        write(broken, tmp_path)
    assert (tmp_path / "report.html").read_text() == old
    assert len(list(tmp_path.iterdir())) == len(FILE_NAMES)
