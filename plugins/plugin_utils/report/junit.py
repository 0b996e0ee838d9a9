# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report as JUnit XML: a test suite for each host and activity, a test case for each check.

========  =============================================================================================
check     test case
========  =============================================================================================
passed    passed
warned    passed, with the finding in ``system-out``: a warning is a remark, not a refusal
failed    ``failure`` with expected, observed and advice
unknown   ``skipped``: it could not be checked, so it must not count as passed; nor did it fail
========  =============================================================================================

An activity that was skipped is one skipped test case with the reason; one that left no result is a failed one.
In check mode every suite says so in a property.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree as ET

from .text import ended, parse_time, seconds_between, seconds_taken

# What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def render(report: dict[str, Any]) -> str:
    """The XML document as text."""
    run = report["run"]
    root = ET.Element("testsuites", name=_legal(f"wellkept {run['cadence']} {run['id']}"))
    for event in report.get("results", []):
        root.append(_suite(event["data"]))
    for lost in report.get("missing", []):
        root.append(_lost(lost["host"], lost["activity"]))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    root.set("time", f"{seconds_between(run['started'], ended(run)) or 0:.3f}")
    ET.indent(root, " ")
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(data: dict[str, Any]) -> ET.Element:
    took = f"{seconds_taken(data):.3f}"
    suite = ET.Element("testsuite", name=_legal(f"{data['host']}/{data['activity']}"), hostname=_legal(data["host"]))
    started = parse_time(data["started"])
    suite.set("timestamp", started.isoformat(timespec="seconds") if started else "")
    suite.set("time", took)
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(data).items():
        ET.SubElement(properties, "property", name=name, value=_legal(value))
    class_name = _legal(f"{data['host']}.{data['activity']}")
    if data["outcome"] == "skipped":
        case = ET.SubElement(suite, "testcase", classname=class_name, name=data["activity"], time="0.000")
        ET.SubElement(case, "skipped", message=_legal(data["reason"]))
    for check in data["checks"]:
        suite.append(_case(check, class_name))
    suite.set("tests", str(len(suite.findall("testcase"))))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    return suite


def _lost(host: str, activity: str) -> ET.Element:
    """What was due and left no result: a failed test, for nobody knows whether it was done."""
    name = _legal(f"{host}/{activity}")
    suite = ET.Element("testsuite", name=name, hostname=_legal(host), tests="1", failures="1", errors="0", skipped="0")
    case = ET.SubElement(suite, "testcase", classname=_legal(f"{host}.{activity}"), name="a result was recorded")
    ET.SubElement(case, "failure", type="failed", message="was due, and left no result")
    return suite


def _properties(data: dict[str, Any]) -> dict[str, str]:
    return {
        "run": data["run"]["id"],
        "outcome": data["outcome"],
        "changed": "true" if data["changed"] else "false",
        "check_mode": "true" if data["run"]["check_mode"] else "false",
    }


def _case(check: dict[str, Any], class_name: str) -> ET.Element:
    # Checks are not timed one by one.
    case = ET.Element("testcase", classname=class_name, name=_legal(check["name"]), time="0.000")
    found = _legal(f"{check['observed']} (expected {check['expected']})")
    lines = [f"expected: {check['expected']}", f"observed: {check['observed']}"]
    if check["advice"]:
        lines.append(f"what to do: {check['advice']}")
    body = _legal("\n".join(lines))
    if check["status"] == "failed":
        ET.SubElement(case, "failure", type="failed", message=found).text = body
    elif check["status"] == "unknown":
        ET.SubElement(case, "skipped", message=f"unknown: {found}").text = body
    elif check["status"] == "warned":
        ET.SubElement(case, "system-out").text = f"warned\n{body}"
    return case


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
