# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Statements as they may be shown to others: without any value, without comments, short.

pg_stat_statements replaces constants by ``$1`` only in statements that are planned, and not even in those when their
entry was thrown out while they ran. A password in ALTER ROLE stays as it was typed.
"""

from __future__ import annotations

import re
import typing as t

SHOWN_LENGTH = 160

_PLANNED = frozenset(("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "WITH", "VALUES", "TABLE"))
_OBJECTS = frozenset(
    ("AGGREGATE", "COLLATION", "CONNECTION", "CURSOR", "DATABASE", "DOMAIN", "EVENT", "EXTENSION", "FOREIGN",
     "FUNCTION", "GROUP", "INDEX", "MATERIALIZED", "OPERATOR", "OWNED", "POLICY", "PREPARED", "PROCEDURE",
     "PUBLICATION", "ROLE", "SCHEMA", "SEQUENCE", "SERVER", "STATISTICS", "SUBSCRIPTION", "SYSTEM", "TABLE",
     "TABLESPACE", "TRANSACTION", "TRIGGER", "TYPE", "UNIQUE", "USER", "VIEW")
)  # fmt: skip
_VERBS = frozenset(
    ("ABORT", "ALTER", "ANALYZE", "BEGIN", "CALL", "CHECKPOINT", "CLOSE", "CLUSTER", "COMMENT", "COMMIT", "COPY",
     "CREATE", "DEALLOCATE", "DECLARE", "DISCARD", "DO", "DROP", "END", "EXECUTE", "EXPLAIN", "FETCH", "GRANT",
     "IMPORT", "LISTEN", "LOAD", "LOCK", "MOVE", "NOTIFY", "PREPARE", "REASSIGN", "REFRESH", "REINDEX", "RELEASE",
     "RESET", "REVOKE", "ROLLBACK", "SAVEPOINT", "SECURITY", "SET", "SHOW", "START", "TRUNCATE", "UNLISTEN", "VACUUM")
)  # fmt: skip

_STRING = re.compile(r"(?:[uU]&|[bBxXnN])?'(?P<body>(?:[^']|'')*)(?P<end>'|\Z)")
_ESCAPE_STRING = re.compile(r"[eE]'(?:[^'\\]|\\.|'')*(?:'|\Z)", re.DOTALL)
_DOLLAR_STRING = re.compile(r"\$(?P<tag>(?:[^\W\d]\w*)?)\$.*?(?:\$(?P=tag)\$|\Z)", re.DOTALL)
_LINE_COMMENT = re.compile(r"--[^\n]*")
_QUOTED_NAME = re.compile(r'(?:[uU]&)?"(?:[^"]|"")*(?:"|\Z)')
_NAME = re.compile(r"[^\W\d][\w$]*")
_PARAMETER = re.compile(r"\$\d+")
_NUMBER = re.compile(r"\.?\d(?:[eE][+-]?\d|[\w.])*")
_LIST = re.compile(r"(\$\d+|\?)(?:\s*,\s*(?:\$\d+|\?)){3,}")


def shown_statement(text: str, length: int = SHOWN_LENGTH) -> str:
    """*text* in one short line that holds no value: ``SELECT * FROM student WHERE id = $1``.

    Only the command is told of statements that are not planned, and of those whose values cannot be told from the
    rest: ``ALTER ROLE …``.
    """
    masked = masked_values(text)
    line = " ".join((masked or "").split())
    words = re.findall(r"[A-Za-z]+", line[:200] or _without_leading_comments(text))
    if not words or masked is None or words[0].upper() not in _PLANNED:
        return _command(words)
    line = _LIST.sub(r"\1, …", line)
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def masked_values(text: str) -> t.Optional[str]:
    """*text* with ``?`` for strings and numbers, without comments; None when it is not certain what is a string."""
    shown: list[str] = []
    position = 0
    while position < len(text):
        end, words = _token(text, position)
        if words is None:
            return None
        shown.append(words)
        position = end
    return "".join(shown)


def _token(text: str, position: int) -> t.Tuple[int, t.Optional[str]]:
    """Where the token at *position* ends, and what is shown of it; None when it may be anything."""
    if text.startswith("/*", position):
        return _end_of_comment(text, position), " "
    for pattern, words in (
        (_LINE_COMMENT, " "),
        (_ESCAPE_STRING, "?"),
        (_DOLLAR_STRING, "?"),
        (_STRING, "?"),
        (_QUOTED_NAME, ""),
        (_NAME, ""),
        (_PARAMETER, ""),
        (_NUMBER, "?"),
    ):
        found = pattern.match(text, position)
        if found:
            # Whether \' ends a plain string depends on a setting of the session that sent it.
            if pattern is _STRING and re.search(r"\\(?:'|\Z)", found.group("body")):
                return found.end(), None
            return found.end(), words or found.group()
    return position + 1, text[position]


def _end_of_comment(text: str, position: int) -> int:
    depth = 0
    for found in re.finditer(r"/\*|\*/", text[position:]):
        depth += 1 if found.group() == "/*" else -1
        if depth == 0:
            return position + found.end()
    return len(text)


def _without_leading_comments(text: str) -> str:
    return re.sub(r"\A(?:\s+|--[^\n]*\n|/\*.*?\*/|\()*", "", text, flags=re.DOTALL)[:200]


def _command(words: t.Sequence[str]) -> str:
    """``ALTER ROLE …``, made of known words alone: the next one may be a name, or a value."""
    upper = [word.upper() for word in words[:2]]
    if not upper or upper[0] not in _VERBS | _PLANNED:
        return "a statement that is not shown"
    known = upper if len(upper) > 1 and upper[1] in _OBJECTS else upper[:1]
    return " ".join([*known, "…"])
