"""The documents lead where they say, and know every activity."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.modules import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def documents() -> list[Path]:
    """Every Markdown file of the project; in a copy without Git's records, those that are there."""
    listed = subprocess.run(["git", "ls-files", "*.md"], cwd=ROOT, capture_output=True, text=True, check=False)
    found = [ROOT / name for name in listed.stdout.splitlines()]
    return found or [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/*.md"), *ROOT.glob("bench/*.md")]


def anchors(document: Path) -> set[str]:
    """The anchors of *document*'s headings: ``## Ways to start one`` → ``ways-to-start-one``."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    for link in LINK.findall(CODE.sub("", document.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _sign, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{link}: there is no {target}"
        assert not anchor or anchor in anchors(target), f"{link}: no such heading"


def test_the_readme_links_to_every_activity_and_to_what_to_read_on() -> None:
    links = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    activities = {path.parents[1].name for path in ROOT.glob("roles/*/meta/plan.yml")}
    assert activities
    assert {f"roles/{activity}/README.md" for activity in activities} <= links
    assert {"docs/plan.md", "docs/runs.md", "docs/report.png", "CONTRIBUTING.md"} <= links


def test_every_path_of_a_playbook_that_a_document_names_is_there() -> None:
    for document in documents():
        for path in re.findall(r"\bplaybooks/[\w/]+\.yml", document.read_text(encoding="utf-8")):
            known = path.replace("certificate_renewal", "log_rotation")  # the example of CONTRIBUTING.md
            assert (ROOT / known).exists(), f"{document.relative_to(ROOT)} names {path}"
