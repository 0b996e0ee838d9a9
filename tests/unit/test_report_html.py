"""The HTML report: whole, self-contained, harmless, and told to the reader in the right order."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import html, pictures, trends, write
from support import reports
from support.modules import COLLECTIONS

VOID = {"meta", "br", "wbr", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page: elements, identifiers, links, texts; fails where tags do not match."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def values(self, attribute: str) -> list[str]:
        return [value for _tag, name, value in self.attributes if name == attribute]


@pytest.fixture(scope="module")
def believable() -> str:
    return html.render(reports.believable())


@pytest.fixture(scope="module")
def hostile() -> str:
    return html.render(reports.hostile())


def test_it_is_one_file_that_loads_nothing_and_runs_nothing(believable: str) -> None:
    page = Page(believable)
    assert not {"script", "link", "iframe", "object", "img", "base", "form"} & set(page.tags)
    assert "@import" not in believable
    assert "url(http" not in believable
    links = page.values("href") + page.values("src") + page.values("xlink:href")
    assert links
    assert all(link.startswith("#") for link in links)


def test_every_link_leads_somewhere_and_no_identifier_occurs_twice(believable: str) -> None:
    page = Page(believable)
    identifiers = page.values("id")
    assert len(identifiers) == len(set(identifiers))
    assert {link[1:] for link in page.values("href") + page.values("xlink:href")} <= set(identifiers)
    assert {name for value in page.values("aria-labelledby") for name in value.split()} <= set(identifiers)


def test_the_verdict_comes_first_then_what_to_do(believable: str) -> None:
    text = Page(believable).text
    verdict = text.index("1 of 7 activities failed: restore test on learn1.")
    advice = text.index("Do not rely on this backup")
    assert verdict < text.index("What to do now") < advice < text.index("What was carried out")
    assert text.index("every table is the same") < text.index("clock offset"), (
        "what failed stands before what is unknown"
    )


def test_it_tells_everything_the_operator_asks_for(believable: str) -> None:
    text = Page(believable).text
    for said in (
        "database reindex",  # overdue
        "did not reach its end",  # interrupted
        "logrotate is not installed on web1: apt-get install logrotate",  # skipped, with the reason
        "18.2 MiB",  # before …
        "rotated, empty",  # … and after
        "29.9 MiB",  # an artifact's size
        "no host of this inventory runs Redis",
        "Approved by Ada",
        "CHG-123",
        "control1",
        reports.RUN_ID,
    ):
        assert said in text, said
    assert re.search(r"[0-9a-f]{64}", text), "the artifacts' hashes"
    assert "/var/backups/wellkept/learn1/20261121T020031Z" in "".join(Page(believable).texts), "a path can be copied"


def test_a_status_is_never_told_by_colour_alone(believable: str) -> None:
    marks = re.findall(r'<span class="mark[^"]*" data-sign="(.)">([^<]+)</span>', believable)
    assert len(marks) > 20
    words = {"✓": "passed", "✗": ("failed", "overdue"), "!": "warned", "?": "unknown"}
    for sign, word in marks:
        assert word.split()[-1] in words.get(sign, "skipped"), (sign, word)


def test_it_is_accessible(believable: str) -> None:
    page = Page(believable)
    assert page.values("lang") == ["en"]
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in itertools.pairwise(levels))
    assert page.tags.count("th") == len([1 for tag, name, _value in page.attributes if (tag, name) == ("th", "scope")])
    assert "@media print" in believable
    charts = [value for tag, name, value in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert len(charts) == 4
    assert all("measurements." in label or "hosts." in label for label in charts)


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_its_colours_can_be_read(believable: str, scheme: int) -> None:
    blocks = re.findall(r":root \{(.*?)\}", believable, flags=re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[scheme]))
    pairs = [(name, ground) for name in ("ink", "muted") for ground in ("paper", "card", "soft")]
    pairs += [(name, "card") for name in ("passed", "warned", "failed", "skipped", "unknown")]
    pairs += [(name, f"{name}-bg") for name in ("passed", "warned", "failed", "skipped", "unknown")]
    for ink, ground in pairs:
        assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for line in ("line1", "line2", "line3", "line4"):
        assert contrast(colours[line], colours["paper"]) >= 3, line


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_hostile_names_and_texts_are_shown_and_do_nothing(hostile: str) -> None:
    page = Page(hostile)
    assert not {"script", "img", "a:href"} & set(page.tags)
    assert not [name for _tag, name, _value in page.attributes if name.startswith("on")]
    assert "<script>alert('x')</script>" in page.text, "shown as it was written"
    assert "{{ 7*7 }}" in page.text, "not taken for a template"
    assert "</svg>" in page.text or "x^{" in page.text
    forbidden = [
        char for char in hostile if (ord(char) < 32 and char not in "\n\t") or char in "\u202e\u202a\u2066\x7f"
    ]
    assert not forbidden, "control characters and marks that turn the text around are shown, not obeyed"
    assert "␛[2J" in page.text
    assert "⟨U+202E⟩" in page.text
    hostile.encode()


def test_very_long_texts_are_cut_and_say_so(hostile: str) -> None:
    assert "more characters)" in Page(hostile).text
    assert not re.search(r"(very-long-){200}", hostile)


def test_what_passed_does_not_hide_what_failed() -> None:
    checks = [reports.check(f"number {number}") for number in range(20)]
    broken = reports.result("learn1", "backup", [*checks, reports.check("the one", "failed", "gone")])
    page = html.render(reports.report([broken], run={"verdict": "failed"}))
    shown, _tag, folded = page.partition("<summary>20 checks passed</summary>")
    assert "number 7" in Page(page).text
    assert "number 7" in folded
    assert "the one" in shown
    assert "number 7" not in shown


def test_check_mode_says_that_nothing_was_changed() -> None:
    would = reports.result(
        "learn1",
        "storage_cleanup",
        changes=[{"kind": "files", "name": "/srv/tmp", "before": 3, "after": 0}],
        check_mode=True,
    )
    text = Page(html.render(reports.report([would], run={"check_mode": True}))).text
    assert "nothing was changed; not evidence" in text
    assert "Would change" in text
    assert "done and verified" not in text


def test_a_run_without_anything_due_is_a_page_too() -> None:
    assert "Nothing was due." in Page(html.render(reports.report())).text


def test_what_was_due_and_left_no_result_is_named() -> None:
    report = reports.report(
        [reports.result("learn1", "backup")],
        run={"verdict": "failed"},
        missing=[{"host": "learn1", "activity": "restore_test"}],
    )
    text = Page(html.render(report)).text
    assert "1 activity that was due left no result." in text
    assert "restore test: learn1" in text


def test_the_ledgers_own_description_of_a_run_is_understood() -> None:
    run = reports.run(ended=reports.at(60), due={"backup": ["learn1"]}, teams={}, source="//c/wellkept")
    del run["finished"], run["scope"]
    text = Page(html.render({"run": run, "results": [reports.result("learn1", "backup")]})).text
    assert "Took 1 min" in text
    assert "1 activity on 1 host" in text


def test_equal_data_give_equal_pages(believable: str) -> None:
    assert html.render(reports.believable()) == believable


def drawn(given: list[dict[str, Any]]) -> str:
    """The picture of the only metric of *given*."""
    (chart,) = trends.charts_of(given)
    return str(pictures.picture(chart))


@pytest.mark.parametrize("count", [1, 2, 3, 200])
@pytest.mark.parametrize("unit", ["bytes", "seconds", "ratio", "count", "$x^{</svg>}$"])
def test_a_trend_is_drawn_whatever_its_length(count: int, unit: str) -> None:
    svg = drawn([reports.trend("learn1", "backup", "size", unit, [float(n + 1) for n in range(count)])])
    Page(svg)
    assert "var(--line1)" in svg
    assert "#0a01" not in svg, "every colour is the page's"


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0, 5.0], [-3.0, 4.0], [1e15, 1e15 + 1], [0.0004]])
def test_flat_negative_and_huge_values_are_drawn(values: list[float]) -> None:
    svg = drawn([reports.trend("h", "a", "m", "seconds", values)])
    assert "NaN" not in svg
    places = [float(place) for path in re.findall(r' d="([^"]*)"', svg) for place in re.findall(r"-?[\d.]+", path)]
    assert places
    assert all(-5 <= place <= 300 for place in places), "inside the picture"


def test_points_that_are_no_numbers_are_left_out() -> None:
    trend = reports.trend("h", "a", "m", "count", [1.0, float("nan"), float("inf")])
    trend["points"] += [["no time", 5.0], [reports.at(), None]]
    assert len(trends.charts_of([trend])[0]["lines"][0][1]) == 1
    assert trends.charts_of([{**trend, "points": [["no time", 1.0]]}]) == []


def test_axes_speak_human_units() -> None:
    assert "GiB" in drawn([reports.trend("h", "a", "m", "bytes", [3e9, 5e9])])
    assert " %" in drawn([reports.trend("h", "a", "m", "ratio", [0.2, 0.5])])
    load = drawn([reports.trend("h", "a", "load_per_core", "count", [0.2, 0.98])])
    files = drawn([reports.trend("h", "a", "rotated_files", "count", [0, 1])])
    assert "0.5" not in re.findall(r">([^<]+)</text>", files), "there are no half files"
    assert ">0.8<" in load or ">0.5<" in load, "small counts are not rounded to whole numbers"


def test_many_hosts_share_one_picture() -> None:
    fleet = [reports.trend(f"web{n}", "backup", "size", "bytes", [9e5 * n, 1e6 * n]) for n in range(1, 51)]
    charts = pictures.draw(fleet)["charts"]
    assert len(charts) == 1
    assert "50 hosts. Highest now 47.7 MiB on web50" in charts[0]["summary"]


def test_only_what_changes_visibly_is_drawn_and_the_rest_is_told() -> None:
    page = Page(
        html.render(
            reports.report(
                [reports.result("learn1", "health_check")],
                trends=[
                    reports.trend("learn1", "health_check", "process_count app", "count", [1, 1, 1]),
                    reports.trend("learn1", "health_check", "http_seconds app", "seconds", [0.002, 0.004]),
                    reports.trend("learn1", "health_check", "load_per_core", "count", [0.4, 0.98]),
                    reports.trend("learn1", "restore_test", "rto_seconds", "seconds", [18.4]),
                ],
            )
        )
    )
    drawings = [label for tag, name, label in page.attributes if (tag, name) == ("svg", "aria-label")]
    assert [label.partition(" of ")[0] for label in drawings] == ["load per core"]
    told = page.text.partition("Stayed the same")[2]
    assert "process count: app 1" in told
    assert "HTTP time: app 4 ms" in told
    assert "RTO 18.4 s" in told
    assert "0.98" in drawings[0], "a load is no percentage"


def test_what_matters_comes_first_and_a_page_has_not_too_many_pictures() -> None:
    many = [reports.trend("h", "a", f"thing_{number:02}", "count", [1, 100 - number]) for number in range(30)]
    disk = reports.trend("h", "health_check", "disk_used_ratio /", "ratio", [0.50, 0.53])
    shown = pictures.draw([*many, disk])
    assert shown["charts"][0]["metric"] == "disk_used_ratio /", "though it changed least"
    assert len(shown["charts"]) == pictures.MOST_PICTURES
    assert len(shown["others"]) == 31 - pictures.MOST_PICTURES, "the others are told in words"
    assert "Changed as well" in html.render(reports.report([reports.result("h", "a")], trends=[*many, disk]))


def test_details_of_hosts_come_before_trends(believable: str) -> None:
    text = Page(believable).text
    assert (
        text.index("What was carried out") < text.index("Host by host") < text.index("Trends") < text.index("The plan")
    )


def test_matplotlib_leaves_nothing_but_its_cache(tmp_path: Path) -> None:
    """Also where a process ends without its exit handlers, as Ansible's workers do."""
    program = (
        "import os, sys, json\n"
        "from pathlib import Path\n"
        "from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import write\n"
        "write(json.load(sys.stdin), Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None)\n"
        "assert 'MPLCONFIGDIR' not in os.environ\n"
        "os._exit(0)\n"
    )
    kept, others = tmp_path / "kept", tmp_path / "others"
    others.mkdir(mode=0o777)
    others.chmod(0o777)
    for arguments in ([], [str(kept)], [str(others)]):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "out"), *arguments],
            input=json.dumps(reports.believable()),
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(COLLECTIONS), "TMPDIR": str(tmp_path)},
            text=True,
            check=True,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "others", "out"]
    assert kept.stat().st_mode & 0o777 == 0o700
    assert list(kept.iterdir()), "what it knows of fonts is kept for the next report"
    assert not list(others.iterdir()), "not where somebody else can write"


def test_without_matplotlib_the_report_is_written_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr(pictures, "_matplotlib", missing)
    text = Page(html.render(reports.believable())).text
    assert "Matplotlib is not installed" in text
    assert "Now 143.7 MiB" in text, "the figures in words remain"


def test_a_fleet_is_rendered_in_seconds(tmp_path: Path) -> None:
    report = reports.large()
    began = time.process_time()  # others may keep the machine busy
    paths = write(report, tmp_path)
    seconds = time.process_time() - began
    print(f"{seconds:.1f} s of CPU")
    assert seconds < 20, f"50 hosts, 15 activities, 20 checks each took {seconds:.1f} s"
    source = paths["html"].read_text()
    assert len(source) < 8_000_000
    opened = re.findall(r"<details class=\"result\"[^>]* open>", source)
    assert len(opened) == 5, "what passed is folded, what failed is open"


def test_it_needs_no_display_and_no_home_and_loads_nothing_before_it_is_asked(tmp_path: Path) -> None:
    program = (
        "import sys, json\n"
        "from pathlib import Path\n"
        "from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import write\n"
        "assert not {'matplotlib', 'jinja2'} & set(sys.modules), 'loaded too early'\n"
        "write(json.load(sys.stdin), Path(sys.argv[1]))\n"
    )
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "out")],
        input=json.dumps(reports.believable()),
        env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(COLLECTIONS), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()
    assert not home.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "what Matplotlib keeps is gone"
