CREATE TYPE mood AS ENUM ('calm', 'cross');
CREATE SCHEMA shop;
CREATE TABLE things (id int PRIMARY KEY, name text, note text, feeling mood);
ALTER TABLE things ALTER note SET STORAGE EXTERNAL;
CREATE TABLE full_identity (id int PRIMARY KEY, name text, note text);
ALTER TABLE full_identity REPLICA IDENTITY FULL;
ALTER TABLE full_identity ALTER note SET STORAGE EXTERNAL;
CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL UNIQUE, name text, note text);
ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code_key;
CREATE TABLE keyless (a int, b text);
ALTER TABLE keyless REPLICA IDENTITY FULL;
CREATE TABLE shop.types (
  id bigint PRIMARY KEY, b bool, n numeric(12, 2), f float8, t timestamptz, d date, u uuid, j jsonb, bytes bytea,
  list text[], feeling mood, span int4range);
CREATE TABLE unpublished (filler text);
CREATE PUBLICATION recorded FOR TABLE things, full_identity, indexed, keyless, shop.types;
