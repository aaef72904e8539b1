INSERT INTO things SELECT i, 'thing ' || i, NULL, 'calm' FROM generate_series(1, 20) AS i;
----
UPDATE things SET note = repeat('large ', 600), feeling = 'cross' WHERE id IN (1, 2);
----
UPDATE things SET name = 'touched' WHERE id IN (1, 2, 3);
----
UPDATE things SET id = id + 1000 WHERE id IN (1, 4);
----
DELETE FROM things WHERE id IN (5, 6);
----
BEGIN;
INSERT INTO full_identity SELECT i, 'full ' || i, repeat('big ', 700) FROM generate_series(1, 3) AS i;
UPDATE full_identity SET name = 'touched' WHERE id = 1;
UPDATE full_identity SET id = 100, name = NULL WHERE id = 2;
DELETE FROM full_identity WHERE id = 3;
COMMIT;
----
BEGIN;
INSERT INTO indexed SELECT i, 'code ' || i, 'name, ' || i, '' FROM generate_series(1, 6) AS i;
UPDATE indexed SET name = NULL WHERE id = 1;
UPDATE indexed SET code = 'new code' WHERE id = 2;
DELETE FROM indexed WHERE id = 3;
COMMIT;
----
BEGIN;
INSERT INTO keyless VALUES (1, 'one'), (2, NULL), (NULL, NULL);
UPDATE keyless SET b = 'two' WHERE a = 2;
DELETE FROM keyless WHERE a = 1;
COMMIT;
----
INSERT INTO shop.types VALUES
  (1, true, 19.90, 0.1, '2026-01-01 00:00:00.000001+00', '2026-01-01', '6ba7b810-9dad-11d1-80b4-00c04fd430c8',
   '{"a": [1, 2]}', '\x00ff', '{a,"b c",NULL}', 'calm', '[1,5)'),
  (-9223372036854775808, false, 'NaN', 'Infinity', '-infinity', 'infinity', NULL, 'null', '', '{}', NULL, 'empty');
----
INSERT INTO unpublished VALUES ('nothing to see');
----
BEGIN;
INSERT INTO things VALUES (30, 'thirty', 'kept', NULL);
SAVEPOINT s;
INSERT INTO things VALUES (31, 'rolled back', NULL, NULL);
ROLLBACK TO s;
SELECT pg_logical_emit_message(true, 'note', 'in the transaction');
COMMIT;
----
BEGIN;
INSERT INTO things VALUES (32, 'rolled back', NULL, NULL);
ROLLBACK;
----
SELECT pg_logical_emit_message(false, 'note', 'in none');
----
SELECT pg_replication_origin_session_setup('other');
----
INSERT INTO things VALUES (40, 'from elsewhere', NULL, NULL);
----
SELECT pg_replication_origin_session_reset();
----
TRUNCATE keyless;
----
BEGIN;
INSERT INTO keyless VALUES (9, 'nine');
TRUNCATE keyless, indexed RESTART IDENTITY CASCADE;
INSERT INTO indexed VALUES (7, 'seven', 'after the truncate', NULL);
COMMIT;
----
BEGIN;
ALTER TABLE things ADD COLUMN extra int DEFAULT 5;
INSERT INTO things (id, name) VALUES (50, 'wider');
ALTER TABLE things DROP COLUMN feeling;
INSERT INTO things (id, name, extra) VALUES (51, 'narrower', 6);
COMMIT;
----
BEGIN;
INSERT INTO unpublished SELECT repeat('x', 100) FROM generate_series(1, 1200);
INSERT INTO things (id, name) VALUES (60, 'streamed');
UPDATE things SET name = 'streamed too' WHERE id = 60;
SAVEPOINT s;
INSERT INTO unpublished SELECT repeat('y', 100) FROM generate_series(1, 1200);
INSERT INTO things (id, name) VALUES (61, 'streamed, then rolled back');
INSERT INTO unpublished SELECT repeat('z', 100) FROM generate_series(1, 1200);
ROLLBACK TO s;
UPDATE full_identity SET name = 'streamed three' WHERE id = 1;
DELETE FROM things WHERE id = 7;
INSERT INTO shop.types (id, feeling) VALUES (2, 'cross');
SELECT pg_logical_emit_message(true, 'note', 'streamed');
TRUNCATE keyless;
INSERT INTO unpublished SELECT repeat('w', 100) FROM generate_series(1, 1200);
COMMIT;
----
BEGIN;
INSERT INTO things (id, name) VALUES (70, 'streamed, all rolled back');
INSERT INTO unpublished SELECT repeat('x', 100) FROM generate_series(1, 1200);
ROLLBACK;
----
INSERT INTO things SELECT i, 'more ' || i, 'n' FROM generate_series(80, 99) AS i;
----
UPDATE things SET name = 'last' WHERE id > 80;
