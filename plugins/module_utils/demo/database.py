# Copyright: (c) 2026, The Wellkept team
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The demo platform's database: courses, students, enrolments, submissions and sessions, the same for the same seed.

All rows come from the hash of their number and the seed, made inside the server. Tables that a learning platform
updates all day (enrolments, submissions, sessions) are left bloated: autovacuum is off for them.
"""

from __future__ import annotations

import typing as t

from ..postgresql import connect, driver, query
from .layout import APPLICATION_ROLE, DATABASE, Layout

EXTENSIONS = ("amcheck", "pg_stat_statements", "pg_visibility", "pgstattuple")
TABLES = ("courses", "students", "enrolments", "submissions", "sessions")

SUBMISSION_FILES = 640
# Which submissions came with a file: every so-many-th.
SUBMISSIONS_PER_FILE = 150

_SCHEMA = """
CREATE TABLE courses (
    id int PRIMARY KEY, code text NOT NULL UNIQUE, title text NOT NULL, term text NOT NULL,
    capacity int NOT NULL CHECK (capacity > 0), starts_on date NOT NULL, description text NOT NULL);
CREATE TABLE students (
    id int PRIMARY KEY, email text NOT NULL UNIQUE, given_name text NOT NULL, family_name text NOT NULL,
    joined_at timestamptz NOT NULL, preferences json NOT NULL, labels text[] NOT NULL);
CREATE TABLE enrolments (
    id bigint PRIMARY KEY, student_id int NOT NULL, course_id int NOT NULL, enrolled_at timestamptz NOT NULL,
    progress numeric(5, 2) NOT NULL, last_seen_at timestamptz, UNIQUE (student_id, course_id))
    WITH (autovacuum_enabled = off);
CREATE TABLE submissions (
    id bigint PRIMARY KEY, enrolment_id bigint NOT NULL, assignment int NOT NULL, submitted_at timestamptz NOT NULL,
    graded_at timestamptz, grade numeric(4, 1), feedback text, file_name text UNIQUE, file_sha256 bytea, file_bytes int,
    UNIQUE (enrolment_id, assignment)) WITH (autovacuum_enabled = off);
CREATE TABLE sessions (
    id bigint PRIMARY KEY, token uuid NOT NULL UNIQUE, student_id int NOT NULL, created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL, data jsonb NOT NULL) WITH (autovacuum_enabled = off);
CREATE TABLE platform_build (seed bigint NOT NULL, tables int NOT NULL);
CREATE FUNCTION pick(seed bigint, kind int, i bigint, choices int) RETURNS int LANGUAGE sql IMMUTABLE AS
    'SELECT ((hashint8extended(i, seed * 1000 + kind) % choices + choices) % choices)::int';
"""

# Each with %(seed)s only.
_ROWS = (
    """
    INSERT INTO courses
    SELECT i, 'C' || lpad(i::text, 4, '0'),
        (ARRAY['Introduction to', 'Advanced', 'Applied', 'Seminar in', 'Foundations of'])[1 + pick(%(seed)s, 1, i, 5)]
        || ' ' || (ARRAY['Algebra', 'Botany', 'Chemistry', 'Didactics', 'Ethics', 'French', 'Geology', 'History',
        'Informatics', 'Law', 'Music', 'Optics', 'Physics', 'Statistics'])[1 + pick(%(seed)s, 2, i, 14)],
        (ARRAY['2025-2', '2026-1', '2026-2'])[1 + pick(%(seed)s, 3, i, 3)], 20 + pick(%(seed)s, 4, i, 300),
        date '2026-01-12' + 7 * pick(%(seed)s, 5, i, 40), repeat(md5((%(seed)s + i)::text) || ' ', 12)
    FROM generate_series(1, 240) i
    """,
    """
    INSERT INTO students
    SELECT i, 'student' || i || '@learning.example',
        (ARRAY['Amélie', 'Björn', 'Chloé', 'Dario', 'Élodie', 'Fatma', 'Gülay', 'Hugo', 'Inès', 'Jürg', 'Katja',
        'Łukasz', 'Noémi', 'Olena', 'Petra', 'Søren'])[1 + pick(%(seed)s, 11, i, 16)],
        (ARRAY['Müller', 'O''Brien', 'Rossi', 'Favre', 'Nguyễn', 'Şahin', 'Weber', 'Keller', 'Dubois', 'Novák',
        'Ivanova', 'Zürcher'])[1 + pick(%(seed)s, 12, i, 12)],
        timestamptz '2024-08-01 08:00+00' + pick(%(seed)s, 13, i, 60000000) * interval '1 second',
        json_build_object('language', (ARRAY['de', 'fr', 'it', 'en'])[1 + pick(%(seed)s, 14, i, 4)],
        'digest', pick(%(seed)s, 15, i, 2) = 1),
        ARRAY[(ARRAY['new', 'active', 'alumni'])[1 + pick(%(seed)s, 16, i, 3)], 'term-' || 1 + pick(%(seed)s, 17, i, 6)]
    FROM generate_series(1, 8000) i
    """,
    # 37 and 240 have no common divisor: the six courses of a student differ.
    """
    INSERT INTO enrolments
    SELECT i, s, 1 + (pick(%(seed)s, 21, s, 240) + 37 * (i %% 6)) %% 240,
        timestamptz '2026-01-05 06:00+00' + pick(%(seed)s, 22, i, 9000000) * interval '1 second', 0, NULL
    FROM (SELECT i, (1 + (i - 1) / 6)::int AS s FROM generate_series(1::bigint, 48000) i) numbered
    """,
    """
    INSERT INTO submissions (id, enrolment_id, assignment, submitted_at)
    SELECT i, 1 + (i - 1) / 2, 1 + (i - 1) %% 2,
        timestamptz '2026-05-01 06:00+00' + pick(%(seed)s, 31, i, 9000000) * interval '1 second'
    FROM generate_series(1::bigint, 96000) i
    """,
    """
    INSERT INTO sessions
    SELECT i, md5(%(seed)s || '/' || i)::uuid, 1 + pick(%(seed)s, 41, i, 8000), begun, begun + interval '8 hours',
        jsonb_build_object('pages', pick(%(seed)s, 42, i, 90), 'agent', md5(pick(%(seed)s, 43, i, 200)::text))
    FROM (SELECT i, timestamptz '2026-08-01 00:00+00' + i * interval '45 seconds' AS begun
        FROM generate_series(1::bigint, 170000) i) numbered
    """,
)

_INDEXES = """
CREATE INDEX enrolments_course ON enrolments (course_id);
CREATE INDEX enrolments_progress ON enrolments (progress, last_seen_at);
CREATE INDEX submissions_graded ON submissions (graded_at);
CREATE INDEX submissions_submitted ON submissions (submitted_at);
CREATE INDEX sessions_expiry ON sessions (expires_at);
CREATE INDEX sessions_student ON sessions (student_id);
ALTER TABLE enrolments ADD FOREIGN KEY (student_id) REFERENCES students, ADD FOREIGN KEY (course_id) REFERENCES courses;
ALTER TABLE submissions ADD FOREIGN KEY (enrolment_id) REFERENCES enrolments;
ALTER TABLE sessions ADD FOREIGN KEY (student_id) REFERENCES students ON DELETE CASCADE;
"""

# A term's life: progress, grades, logins that expire. It leaves about half of these tables and indexes empty.
_LIFE = (
    """
    UPDATE enrolments SET progress = pick(%(seed)s, 51, id, 10000) / 100.0,
        last_seen_at = enrolled_at + pick(%(seed)s, 52, id, 8000000) * interval '1 second'
    """,
    """
    UPDATE submissions SET graded_at = submitted_at + pick(%(seed)s, 53, id, 900000) * interval '1 second',
        grade = pick(%(seed)s, 54, id, 61) / 10.0, feedback = md5(pick(%(seed)s, 55, id, 400)::text)
    WHERE pick(%(seed)s, 56, id, 10) < 9
    """,
    "DELETE FROM sessions WHERE id < 40000 OR pick(%(seed)s, 57, id, 10) < 5",
    "UPDATE enrolments SET progress = least(100, progress + 1) WHERE pick(%(seed)s, 58, id, 10) < 5",
)

_RIGHTS = """
DROP FUNCTION pick;
GRANT USAGE ON SCHEMA public TO {role};
GRANT SELECT ON courses, students, enrolments, submissions TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON sessions TO {role};
"""


def is_loaded(layout: Layout, description: dict[str, t.Any]) -> bool:
    """Whether the database is there, complete, of this seed, and the application's role can log in."""
    with connect(layout.login(description, "postgres")) as connection:
        if not query(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)):
            return False
    with connect(layout.login(description)) as connection:
        if not query(connection, "SELECT to_regclass('public.platform_build') AS made")[0]["made"]:
            return False
        built = query(connection, "SELECT seed FROM platform_build")
    return [row["seed"] for row in built] == [description["seed"]]


def load(layout: Layout, description: dict[str, t.Any], files: t.Iterable[tuple[int, str, str, int]]) -> None:
    """Create the database and its content; *files* are (submission, name, sha256 in hex, bytes).

    The content comes in one transaction that ends with the row that :func:`is_loaded` looks for.
    """
    sql = driver().sql
    role = sql.Identifier(APPLICATION_ROLE)
    with connect(layout.login(description, "postgres")) as connection:
        query(connection, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(DATABASE)))
        query(connection, sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        # Sent as the verifier that the server stores: pg_stat_statements and logs keep statements as they came.
        verifier = connection.pgconn.encrypt_password(
            layout.secret(APPLICATION_ROLE).encode(), APPLICATION_ROLE.encode(), b"scram-sha-256"
        )
        password = sql.Literal(verifier.decode())
        query(connection, sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} CONNECTION LIMIT 20").format(role, password))
        query(connection, sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
    with connect(layout.login(description), autocommit=False) as connection:
        _fill(connection, role, description["seed"], files)
    with connect(layout.login(description)) as connection:
        query(connection, "VACUUM (ANALYZE) courses, students, platform_build")
        # Of sessions only the room is left; the other two keep their dead rows.
        query(connection, "VACUUM (ANALYZE) sessions")
        query(connection, "ANALYZE enrolments, submissions")
        query(connection, "CHECKPOINT")


def _fill(connection: t.Any, role: t.Any, seed: int, files: t.Iterable[tuple[int, str, str, int]]) -> None:
    sql = driver().sql
    cursor = connection.cursor()
    cursor.execute("SET LOCAL synchronous_commit = off")
    for extension in EXTENSIONS:
        cursor.execute(sql.SQL("CREATE EXTENSION {}").format(sql.Identifier(extension)))
    cursor.execute(_SCHEMA)
    for statement in _ROWS:
        cursor.execute(statement, {"seed": seed})
    cursor.execute(_INDEXES)
    for statement in _LIFE:
        cursor.execute(statement, {"seed": seed})
    cursor.executemany(
        "UPDATE submissions SET file_name = %s, file_sha256 = decode(%s, 'hex'), file_bytes = %s WHERE id = %s",
        [(name, digest, size, submission) for submission, name, digest, size in files],
    )
    cursor.execute(sql.SQL(_RIGHTS).format(role=role))
    cursor.execute("INSERT INTO platform_build VALUES (%s, %s)", (seed, len(TABLES)))


def row_counts(layout: Layout, description: dict[str, t.Any]) -> dict[str, int]:
    sql = driver().sql
    with connect(layout.login(description)) as connection:
        return {
            table: query(connection, sql.SQL("SELECT count(*) AS rows FROM {}").format(sql.Identifier(table)))[0][
                "rows"
            ]
            for table in TABLES
        }
