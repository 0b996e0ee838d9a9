"""The HTML report in a real browser: it fits a phone, obeys nothing that a host has written, and prints in full."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.wellkept.maintenance.plugins.plugin_utils.report import html
from support import reports

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")

# Measures the report in a frame of a phone's or a desk's width, from outside: the report itself runs no script.
PROBE = """<!DOCTYPE html><title>probe</title>
<iframe id="f" src="report.html" style="width:%dpx;height:800px;border:0"></iframe>
<script>
document.getElementById("f").onload = function () {
  var page = this.contentDocument, root = page.documentElement, width = root.clientWidth;
  var wide = Array.from(page.querySelectorAll("body *")).filter(function (element) {
    var box = element.getBoundingClientRect();
    return box.width && box.right > width + 1 && !element.closest("svg, thead");
  }).map(function (element) { return element.tagName + "." + element.className; });
  document.title = JSON.stringify({
    width: width, scroll: root.scrollWidth, wide: wide.slice(0, 5), scripts: page.scripts.length,
    images: page.images.length, title: page.title, stolen: typeof this.contentWindow.stolen,
    text: page.body.innerText.length
  });
};
</script>
"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    made = {}
    for name, report in {
        "believable": reports.believable(),
        "hostile": reports.hostile(),
        "fleet": reports.large(hosts=10, activities=15, checks=5),
    }.items():
        made[name] = tmp_path_factory.mktemp(name) / "report.html"
        made[name].write_text(html.render(report), encoding="utf-8")
    yield made


def browse(directory: Path, *options: str, page: str) -> str:
    assert BROWSER
    profile = directory / "profile"
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--allow-file-access-from-files", "--no-first-run", f"--user-data-dir={profile}", *options,
        (directory / page).as_uri(),
    ]  # fmt: skip
    environment = {**os.environ, "HOME": str(directory)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env=environment)
    return done.stdout


def measured(page: Path, width: int) -> dict[str, object]:
    (page.parent / "probe.html").write_text(PROBE % width)
    found = browse(page.parent, "--dump-dom", "--virtual-time-budget=5000", page="probe.html")
    title = found.partition("<title>")[2].partition("</title>")[0]
    answer: dict[str, object] = json.loads(title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return answer


@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("name", ["believable", "hostile", "fleet"])
def test_nothing_has_to_be_scrolled_sideways(pages: dict[str, Path], name: str, width: int) -> None:
    found = measured(pages[name], width)
    assert found["scroll"] == found["width"], found
    assert found["wide"] == [], found
    assert int(str(found["text"])) > 500


def test_nothing_that_a_host_has_written_comes_to_life(pages: dict[str, Path]) -> None:
    found = measured(pages["hostile"], 1200)
    assert (found["scripts"], found["images"], found["stolen"]) == (0, 0, "undefined")


def test_paper_shows_what_the_screen_folds(pages: dict[str, Path]) -> None:
    if not shutil.which("pdftotext"):
        pytest.skip("no pdftotext on this machine: apt-get install poppler-utils")
    page = pages["believable"]
    printed = page.with_name("report.pdf")
    browse(page.parent, f"--print-to-pdf={printed}", "--no-pdf-header-footer", page="report.html")
    done = subprocess.run(["pdftotext", "-layout", printed, "-"], capture_output=True, text=True, check=True)
    text = " ".join(done.stdout.split())
    assert "1 of 7 activities failed" in text
    assert "1,284 files verified" in text, "a passed activity is folded on the screen, not on paper"
    assert "inode 5213 became 5290" in text
