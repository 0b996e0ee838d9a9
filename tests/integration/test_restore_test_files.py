"""Rows and files of one point: what rows name is among the restored files, and what is not is named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.backup.stores.copied_files import CopiedFiles
from ansible_collections.wellkept.maintenance.plugins.module_utils.restore.file_rows import restore_files
from ansible_collections.wellkept.maintenance.plugins.module_utils.result import Part
from support.halting import halted_when, killed
from support.modules import checks_by_name, module_process, run_module
from support.postgresql import postgres_server
from support.restore import RestoreSite
from support.waiting import wait_until

FILES = 60
QUICK = {"amcheck": False, "restore_dump": False, "interval": "0s"}
SCHEMA = """
CREATE TABLE submission (id int PRIMARY KEY, path text, sha256 bytea, bytes int, mark int, sent timestamptz);
CREATE TABLE scrambled AS TABLE submission
"""


class Uploads:
    """A platform with files that its rows name, some that no row names, and a backup of both."""

    def __init__(self, site: RestoreSite, directory: Path) -> None:
        self.site = site
        self.directory = directory
        for number in range(FILES):
            path = directory / f"{number % 7}" / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            content = f"submission {number}\n".encode() * (number + 1)
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            row = f"{number}, '{path.relative_to(directory)}', '\\x{digest}', {len(content)}, {number % 6}, now()"
            site.server.sql(f"INSERT INTO submission VALUES ({row})")
        (directory / "3" / "forgotten.txt").write_text("no row names it")
        (directory / "a link").symlink_to("/etc")
        (directory / "closed").mkdir()
        (directory / "closed" / "x").write_text("x")
        (directory / "closed").chmod(0o500)
        # Somebody has exchanged the files of two rows, and forgotten a mark, before any backup was made.
        site.server.sql(
            "INSERT INTO scrambled SELECT id, (SELECT path FROM submission o WHERE o.id = CASE s.id WHEN 4 THEN 11 "
            "WHEN 11 THEN 4 ELSE s.id END), sha256, bytes, CASE WHEN id = 4 THEN 0 ELSE mark END FROM submission s"
        )

    def rule(self, query: str, root: str = "", name: str = "submissions") -> dict[str, str]:
        return {"name": name, "database": "postgres", "query": query, "root": root or str(self.directory)}

    def test(self, *rules: dict[str, str], **others: Any) -> dict[str, Any]:
        return self.site.test(**{**QUICK, "named_files": list(rules), **others})


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploads]:
    with postgres_server() as server:
        site = RestoreSite(server, tmp_path_factory.mktemp("restore"))
        server.sql(SCHEMA)
        made = Uploads(site, tmp_path_factory.mktemp("srv") / "uploads")
        options = {**site.options(), "files": [str(made.directory)], "dump": False, "min_free_bytes": "1MiB"}
        del options["run_as"]
        shown = run_module("backup", options)
        assert not shown["failed"], shown["msg"]
        yield made
        (made.directory / "closed").chmod(0o700)


def test_files_of_the_same_point_are_there_with_their_content(uploads: Uploads) -> None:
    uploads.directory.joinpath("3", "later.txt").write_text("written after the backup")
    victim = uploads.directory / "2" / "2.txt"
    kept = victim.read_bytes()
    victim.unlink()  # it is the restored files that count
    try:
        shown = uploads.test(
            uploads.rule("SELECT path, sha256, bytes FROM submission"),
            uploads.rule("SELECT path, encode(sha256, 'hex') FROM submission;", name="by text"),
            uploads.rule("SELECT '4/4.txt' FROM generate_series(1, 25000)", name="one file, many rows"),
            uploads.rule("SELECT '4.txt' UNION ALL SELECT NULL", f"{uploads.directory}/4", name="below"),
            uploads.rule(f"SELECT '{uploads.directory}/' || path, sha256 FROM submission", name="absolute"),
        )
    finally:
        victim.write_bytes(kept)
    assert not shown["failed"], shown["msg"]
    found = checks_by_name(shown)
    assert found["application files of the backup, from files"]["observed"].startswith(f"{FILES + 2} files")
    words = found["rows and files: submissions"]["observed"]
    assert words == f"{FILES} rows, all their files there; 2 files that no row names"
    assert "25000 rows" in found["rows and files: one file, many rows"]["observed"]
    assert "25000 without a hash" in found["rows and files: one file, many rows"]["observed"]
    assert "1 rows" in found["rows and files: below"]["observed"]
    assert shown["metrics"]["file_rows_compared"]["value"] == 3 * FILES + 25000 + 1
    assert shown["metrics"]["files_seconds"]["value"] > 0
    assert uploads.site.scratch_names() == []


FAULTS = {
    "missing": ("SELECT path || '.gone', sha256 FROM submission", f"of {FILES} rows {FILES} name what is not there"),
    "another content": ("SELECT path, sha256('x'::bytea) FROM submission WHERE id = 5", "5/5.txt has another content"),
    "another size": ("SELECT path, sha256, bytes + 1 FROM submission WHERE id = 5", "bytes instead of"),
    "out": ("SELECT '../../../../etc/passwd'", "leads out of"),
    "by a link": ("SELECT 'a link/passwd'", "lies behind a link"),
    "a link": ("SELECT 'a link'", "is no plain file"),
    "a directory": ("SELECT '3'", "is no plain file"),
    "no rows": ("SELECT path FROM submission WHERE false", "0 rows"),
    "bad query": ("SELECT nonsense", "nonsense"),
    "writing": ("DELETE FROM submission RETURNING path", "syntax error"),
    "scrambled before the backup": ("SELECT path, sha256 FROM scrambled", "2 name what is not there: 4/11.txt has"),
}


def test_what_rows_name_and_the_backup_lacks_is_named(uploads: Uploads) -> None:
    rules = [uploads.rule(query, name=name) for name, (query, _words) in FAULTS.items()]
    rules.append(uploads.rule("SELECT path FROM submission", "/srv/elsewhere", name="elsewhere"))
    shown = uploads.test(*rules)
    found = checks_by_name(shown)
    for name, (_query, words) in {**FAULTS, "elsewhere": ("", "no directory of this backup holds it")}.items():
        check = found[f"rows and files: {name}"]
        assert check["status"] == "failed", name
        assert words in check["observed"], (name, check["observed"])
    assert uploads.site.repository.proven() == [] or shown["changes"][-1]["after"] == "disproven and removed"
    assert uploads.site.scratch_names() == []


def test_files_that_are_not_as_recorded_fail_the_test(uploads: Uploads, tmp_path: Path) -> None:
    """Though their bytes were verified before: they could have changed on the way."""
    backup = uploads.site.repository.backups()[-1]
    copy = Path(backup.path("files", "0", "5", "5.txt"))
    content = copy.read_bytes()
    found = []
    for number, written in enumerate((content, content[:-1] + b"!")):
        copy.write_bytes(written)
        part = Part()
        restore_files(CopiedFiles({}), backup, str(tmp_path / str(number)), part)
        found.append(part.checks[0]["status"])
        (tmp_path / str(number) / str(uploads.directory).lstrip("/") / "closed").chmod(0o700)
    copy.write_bytes(content)
    assert found == ["passed", "failed"]


def test_a_source_scrambled_before_the_backup_is_found_by_what_the_application_asserts(uploads: Uploads) -> None:
    """Its bytes, counts and fingerprints all fit: only who knows what it should hold can see it."""
    ask = {"name": "sum of marks", "database": "postgres", "query": "SELECT sum(mark) FROM scrambled"}
    (total,) = uploads.site.server.sql("SELECT sum(mark) FROM submission")[0]
    old = {"name": "newest", "database": "postgres", "query": "SELECT max(sent) - interval '3 days' FROM submission"}
    empty = {"name": "not empty", "database": "postgres", "query": "SELECT count(*) FROM scrambled WHERE id < 0"}
    young = {**old, "name": "young", "query": "SELECT max(sent) FROM submission"}
    asked = [
        {**ask, "expected": str(total)}, {**old, "max_age": "2d"}, {**empty, "min": 1}, {**young, "max_age": "1h"},
        {**ask, "name": "bounds", "min": 1, "max": total},
    ]  # fmt: skip
    shown = uploads.test(assertions=asked)
    failed = {check["name"] for check in shown["checks"] if check["status"] == "failed"}
    wrong = {"sum of marks", "newest", "not empty"}
    assert failed == {f"assertion {name} in postgres" for name in wrong}, shown["msg"]
    assert "2 d" in shown["msg"]


def test_an_assertion_that_expects_nothing_or_nonsense_is_refused(uploads: Uploads) -> None:
    one = {"name": "x", "database": "postgres", "query": "SELECT 1"}
    for others in ({}, {"min": "many"}, {"max": "NaN"}, {"max_age": "soon"}):
        assert "assertions (x)" in uploads.test(assertions=[{**one, **others}])["msg"]
    assert "restore_files" in uploads.test(uploads.rule("SELECT 1"), restore_files=False)["msg"]


def test_killed_among_the_files_the_next_run_cleans_up(uploads: Uploads) -> None:
    site = uploads.site
    rule = uploads.rule("SELECT path, sha256 FROM submission, pg_sleep(0.2)")
    before = {path: path.stat().st_mtime_ns for path in uploads.directory.rglob("*") if path.is_file()}
    options = site.options(**QUICK, named_files=[rule])
    laid = "wellkept-scratch-*/files/**/closed/x"
    killed(halted_when(lambda: module_process("restore_test", options), lambda: list(site.scratch_dir.glob(laid))))
    wait_until(lambda: not site.servers(), "the scratch server to end")
    assert site.scratch_names()
    shown = uploads.test(uploads.rule("SELECT path, sha256 FROM submission"))
    assert not shown["failed"], shown["msg"]
    assert site.scratch_names() == []
    assert before == {path: path.stat().st_mtime_ns for path in before}
