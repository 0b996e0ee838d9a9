-- What the learning platform keeps: 240 courses, 4,000 students, 20,000 enrolments, 40,000 submissions.
CREATE TABLE courses (id int PRIMARY KEY, code text NOT NULL UNIQUE, title text NOT NULL);
CREATE TABLE students (id int PRIMARY KEY, email text NOT NULL UNIQUE, given_name text NOT NULL, family_name text NOT NULL);
CREATE TABLE enrolments (
    id bigint PRIMARY KEY, student_id int NOT NULL REFERENCES students, course_id int NOT NULL REFERENCES courses,
    progress numeric(5, 2) NOT NULL, UNIQUE (student_id, course_id));
CREATE TABLE submissions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, enrolment_id bigint NOT NULL REFERENCES enrolments,
    assignment int NOT NULL, submitted_at timestamptz NOT NULL, graded_at timestamptz, grade numeric(4, 1),
    UNIQUE (enrolment_id, assignment));
INSERT INTO courses SELECT i, 'C' || lpad(i::text, 4, '0'), 'Course No. ' || i FROM generate_series(1, 240) i;
INSERT INTO students
    SELECT i, 'student' || i || '@example.org', 'Given' || i % 97, 'Family' || i % 389 FROM generate_series(1, 4000) i;
INSERT INTO enrolments
    SELECT i, 1 + i % 4000, 1 + (i / 4000 * 53 + i) % 240, i % 101 FROM generate_series(0, 19999) i;
INSERT INTO submissions (enrolment_id, assignment, submitted_at, graded_at, grade)
    SELECT i / 2, i % 2, now() - i * interval '1 minute', now() - i * interval '30 seconds', i % 11
    FROM generate_series(0, 39999) i;
CREATE INDEX ON enrolments (course_id);
GRANT SELECT ON ALL TABLES IN SCHEMA public TO learning;
CREATE EXTENSION amcheck;
CREATE EXTENSION pg_stat_statements;
CREATE EXTENSION pgstattuple;
-- What years of use leave behind: indexes with more holes than keys, and rows that nobody has vacuumed.
CREATE TABLE visits (id bigint PRIMARY KEY, student_id int NOT NULL, page text NOT NULL);
INSERT INTO visits SELECT i, i * 7919 % 4000, 'page ' || i * 31 % 977 FROM generate_series(1, 300000::bigint) i;
CREATE INDEX visits_page_and_student ON visits (page, student_id, id);
VACUUM visits;
DELETE FROM visits WHERE id % 5 <> 0;
VACUUM (ANALYZE) visits;
CREATE TABLE sessions (id bigint PRIMARY KEY, student_id int NOT NULL, seen_at timestamptz NOT NULL);
INSERT INTO sessions SELECT i, i * 7919 % 4000, now() - i * interval '1 minute' FROM generate_series(1, 60000::bigint) i;
VACUUM (ANALYZE) sessions;
DELETE FROM sessions WHERE id % 2 = 0;
