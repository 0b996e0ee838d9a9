"""Nothing that was a value in a statement is shown, whatever its spelling."""

from __future__ import annotations

import pytest
from ansible_collections.wellkept.maintenance.plugins.module_utils.query_review.text import shown_statement


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("SELECT * FROM student\n  WHERE id = $1", "SELECT * FROM student WHERE id = $1"),
        ("SELECT 'it''s s3cret', name FROM t", "SELECT ?, name FROM t"),
        ("SELECT 's3cret' INTO t", "SELECT ? INTO t"),
        ("SELECT E'it\\'s s3cret' FROM t", "SELECT ? FROM t"),
        ("SELECT U&'s3cret', N's3cret', B'101', x'ff'", "SELECT ?, …"),
        ("SELECT $tag$ s3cret $$ s3cret $tag$, $1", "SELECT ?, $1"),
        ("SELECT $$s3cret", "SELECT ?"),
        ("SELECT 's3cret", "SELECT ?"),
        ("/* s3cret /* s3cret */ s3cret */ SELECT 1 -- s3cret", "SELECT ?"),
        ("SELECT x.a1, -0x1F, 1_000, .5e-3 FROM t1", "SELECT x.a1, -?, ?, ? FROM t1"),
        ('SELECT "Odd ""name""" FROM "T"', 'SELECT "Odd ""name""" FROM "T"'),
        ("SELECT a FROM t WHERE b IN ($1, $2, $3, $4, $5)", "SELECT a FROM t WHERE b IN ($1, …)"),
        ("( SELECT 1 )", "( SELECT ? )"),
        ("WITH x AS (SELECT 2) SELECT * FROM x", "WITH x AS (SELECT ?) SELECT * FROM x"),
    ],
)
def test_values_and_comments_are_masked(text: str, shown: str) -> None:
    assert shown_statement(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ALTER ROLE app PASSWORD 's3cret'", "ALTER ROLE …"),
        ("/* s3cret */ create user s3cret with password 's3cret'", "CREATE USER …"),
        ("COPY (SELECT 's3cret') TO STDOUT", "COPY …"),
        ("VACUUM s3cret", "VACUUM …"),
        ("EXPLAIN SELECT 's3cret'", "EXPLAIN …"),
        ("PREPARE s3cret AS SELECT 's3cret'", "PREPARE …"),
        ("SET app.token = 's3cret'", "SET …"),
        ("s3cret TABLE", "a statement that is not shown"),
        ("", "a statement that is not shown"),
        ("<insufficient privilege>", "a statement that is not shown"),
    ],
)
def test_of_what_is_not_planned_only_the_command_is_told(text: str, shown: str) -> None:
    assert shown_statement(text) == shown


@pytest.mark.parametrize("text", ["SELECT 'it\\'s s3cret' FROM t", "SELECT 'a\\'' s3cret', 'b' FROM t"])
def test_where_a_backslash_makes_it_uncertain_what_is_a_string_nothing_more_is_shown(text: str) -> None:
    assert shown_statement(text) == "SELECT …"


def test_a_long_statement_is_shortened() -> None:
    shown = shown_statement(f"SELECT {', '.join(f'column_{number}' for number in range(100))} FROM t")
    assert len(shown) <= 160
    assert shown.endswith("…")
