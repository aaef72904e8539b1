#include "tests/support/type_values.h"

namespace millrace::test {
namespace {

const std::string kBits64 = "('x' || substr(md5(random()::text), 1, 16))::bit(64)::bigint";
const std::string kDigits =
    "translate(md5(random()::text) || md5(random()::text), 'abcdef', '012345')";
const std::string kDouble = "(random() - 0.5) * power(10::float8, (random() * 40 - 20)::int)";
const std::string kPoint = "point(" + kDouble + ", " + kDouble + ")";
const std::string kTimestamp =
    "timestamp '2000-01-01' + ((random() - 0.02) * 9e18)::bigint * interval '1 microsecond'";
const std::string kBounds = "(array['[]', '[)', '(]', '()'])[1 + i % 4]";
const std::string kIp =
    "((random() * 255)::int || '.' || (random() * 255)::int || '.0.' || i % 256)";
const std::string kWord =
    "substr(translate(md5(random()::text), '0123456789', 'ghijklmnop'), 1, 6)";

/// `make` turns a number into a bound.
std::string ranges(const std::string& type, const std::string& make) {
  return type + "(" + make + " (i * 10 - 100), " + make + " (i * 10 - 95), " + kBounds + ")";
}
std::string multi(const std::string& type, const std::string& of_range, const std::string& make) {
  return type + "(" + of_range + "(" + make + " (i + 1), " + make + " (i + 3)), " + of_range + "(" +
         make + " (i + 7), NULL, '(]'))";
}

const std::string kOfInt = "0 +";
const std::string kOfNumeric = "0.10 *";
const std::string kOfDate = "date '1999-12-01' +";
const std::string kOfTimestamp = "timestamp '1999-12-31' + interval '1 s' *";
const std::string kOfTimestampTz = "timestamptz '1999-12-31' + interval '1 us' *";

std::vector<std::string> hard_texts() {
  return {"",
          " ",
          "  a  ",
          "NULL",
          "null",
          "\"",
          "\\",
          "\\\\x",
          "\\N",
          "\\.",
          "'",
          "it''s",
          "a\nb\r\n\tc",
          "\x01\x1f\x7f",
          "\u0085\u009b",
          "\v\f\b",
          "{}",
          "{a,b}",
          "(1,2)",
          "a,b;c:d",
          "$1 %s :x",
          "Grüße, 水, 🌊, \u202e\u2028",
          std::string(5000, 'x')};
}

std::map<std::string, TypeValues> all_values() {
  std::map<std::string, TypeValues> all = {
      {"bool", {{"t", "f"}, ""}},
      {"bytea",
       {{"\\x", "\\x00", "\\x5c275c5c", "\\x0001fffe"},
        "decode(repeat(md5(random()::text), i % 5), 'hex')"}},
      {"char", {{"", "a", "\\", "'", " ", "{", "\x7f"}, ""}},
      {"name", {{"", "pg_class", "a\"b", "Grüße, \\"}, kWord}},
      {"int8", {{"0", "-1", "9223372036854775807", "-9223372036854775808"}, kBits64}},
      {"int2", {{"0", "-1", "32767", "-32768"}, "(random() * 65535 - 32768)::int"}},
      {"int4",
       {{"0", "2147483647", "-2147483648"}, "(random() * 4294967295 - 2147483648)::bigint"}},
      {"int2vector", {{"", "1", "1 -2 32767"}, ""}},
      {"oidvector", {{"", "1 4294967295"}, ""}},
      {"text", {hard_texts(), random_text_sql(), 200}},
      {"varchar", {hard_texts(), random_text_sql(), 100}},
      {"bpchar", {hard_texts(), random_text_sql(), 100}},
      {"xml", {{"", "<a b=\"c\">\n&amp;</a>", "<?xml version=\"1.0\"?><a/>", "text"}, ""}},
      {"json",
       {{"null", "1e400", "-0.0", "\"\\ud83c\\udf0a\"", "\"\\u0000\"", "{}",
         " {\n\t\"b\" : 1,\r\n \"a\":[1, 2 ,{}]} ", "{\"a\":1,\"a\":2}", "\"水 \u2028\"",
         std::string(3000, '[') + std::string(3000, ']'), "123456789012345678901234567890"},
        "json_build_object('k', random(), 't', " + random_text_sql() + ")"}},
      {"jsonb",
       {{"null", "1e400", "true", "{\"b\":1,\"a\":[1,2,{}]}", "\"\\u2028\\u007f\"", "0.10",
         "-0.0e-5", std::string(3000, '[') + std::string(3000, ']')},
        "jsonb_build_object('k', random(), 't', " + random_text_sql() + ")"}},
      {"jsonpath", {{"$", "$.a[*] ? (@ > 1)", "strict $.\"a b\".**{2 to 3}"}, ""}},
      {"oid", {{"0", "4294967295"}, "(random() * 4294967295)::bigint"}},
      {"tid", {{"(0,0)", "(4294967295,65535)"}, "('(' || i || ',7)')::tid"}},
      {"xid", {{"0", "4294967295"}, ""}},
      {"cid", {{"0", "4294967295"}, ""}},
      {"xid8", {{"0", "18446744073709551615"}, ""}},
      {"pg_lsn", {{"0/0", "FFFFFFFF/FFFFFFFF"}, "('1/' || to_hex(i))::pg_lsn"}},
      {"float4",
       {{"0", "-0", "NaN", "Infinity", "-Infinity", "1e-45", "3.4028235e38", "0.1", "16777217"},
        "(" + kDouble + ")::float4",
        300}},
      {"float8",
       {{"0", "-0", "NaN", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308", "0.1",
         "1e23", "9007199254740993"},
        kDouble,
        300}},
      {"numeric",
       {{"0", "-0", "0.00", "1", "-1.50", "NaN", "Infinity", "-Infinity", "1e-16383", "1e400",
         "1" + std::string(131'071, '0'), "0." + std::string(16'382, '9') + "1", "10000", "9999",
         "0.0001", "0.00001", "99999999999999999999.999999999999999999"},
        "((CASE WHEN i % 2 = 0 THEN '-' ELSE '' END) || substr(" + kDigits +
            ", 1, i % 40) || '0.' || substr(" + kDigits + ", 1, i % 23) || '0')::numeric",
        300}},
      {"money",
       {{"0", "-12.34", "92233720368547758.07", "-92233720368547758.08"},
        "((" + kBits64 + " / 1000)::numeric / 100)::money"}},
      {"date",
       {{"2000-01-01", "1999-12-31", "2024-02-29", "0001-01-01", "0001-12-31 BC", "4714-11-24 BC",
         "5874897-12-31", "10000-01-01", "infinity", "-infinity", "0001-02-29 BC"},
        "date '2000-01-01' + (random() * 2147483492.0 - 2451545)::int"}},
      {"time",
       {{"00:00:00", "24:00:00", "23:59:59.999999", "00:00:00.000001"},
        "time '00:00' + random() * interval '24 hours'"}},
      {"timetz",
       {{"00:00:00+00", "24:00:00-15:59:59", "23:59:59.999999+15:59:59", "04:05:06.789+05:30",
         "01:02:03-00:30", "01:02:03+00:00:01", "01:02:03-00:00:59"},
        "(time '00:00' + random() * interval '24 hours')::text || '-' || to_char((random() * "
        "15)::int, 'FM00') || ':30'"}},
      {"timestamp",
       {{"2000-01-01", "1999-12-31 23:59:59.999999", "0044-03-15 12:00:00 BC",
         "4714-11-24 00:00:00 BC", "294276-12-31 23:59:59.999999", "infinity", "-infinity",
         "0001-12-31 23:59:59.5 BC"},
        kTimestamp,
        200}},
      {"timestamptz",
       {{"2000-01-01 00:00:00+00", "2026-01-01 00:00:00.000001+01", "4714-11-24 00:00:00+00 BC",
         "294276-12-31 23:59:59.999999+00", "infinity", "-infinity"},
        kTimestamp,
        200}},
      {"interval",
       {{"0", "1 year", "-1 mons", "1 day", "1 year 2 mons -3 days 04:05:06.789",
         "-1 years -2 mons +3 days -04:05:06.789", "-00:00:00.000001",
         "178956970 years 7 mons 2147483647 days 2562047788:00:54.775807",
         "-178956970 years -8 mons", "-2147483648 days", "100:00:00"},
        "((random() - 0.5) * 4e9)::bigint * interval '1 microsecond' * (1 + 1000 * (i % 3)) + "
        "((random() - 0.5) * 4000)::int * interval '1 day' + ((random() - 0.5) * 4000)::int * "
        "interval '1 month'"}},
      {"uuid", {{"00000000-0000-0000-0000-000000000000"}, "md5(random()::text)::uuid"}},
      {"bit", {{"0", "1"}, ""}},
      {"varbit",
       {{"", "0", "10101"}, "substr((" + kBits64 + "::bit(64))::text, 1, i % 64)::varbit"}},
      {"inet", {{"0.0.0.0/0", "127.0.0.1", "::1", "fe80::1/64", "::ffff:1.2.3.4"}, kIp + "::inet"}},
      {"cidr", {{"0.0.0.0/0", "10.0.0.0/8", "::/0", "2001:db8::/32"}, kIp + "::cidr"}},
      {"macaddr",
       {{"00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff"}, "substr(md5(random()::text), 1, 12)::macaddr"}},
      {"macaddr8", {{"00:00:00:00:00:00:00:00"}, "substr(md5(random()::text), 1, 16)::macaddr8"}},
      {"point", {{"(0,-0)", "(NaN,Infinity)", "(1e-300,0.1)"}, kPoint}},
      {"lseg", {{"[(0,0),(1,1)]"}, "lseg(" + kPoint + ", " + kPoint + ")"}},
      {"path", {{"((0,0),(1,1))", "[(0,0),(1,1),(2,0)]", "((1,2))"}, ""}},
      {"box", {{"((0,0),(1,1))"}, "box(" + kPoint + ", " + kPoint + ")"}},
      {"polygon", {{"((0,0),(1,1),(0.1,2))", "((1,2))"}, ""}},
      {"line", {{"{1,-2,3}", "{0,0.1,1e300}"}, ""}},
      {"circle", {{"<(0,0),1>", "<(0.1,1e-300),0>"}, "circle(" + kPoint + ", random())"}},
      {"tsvector",
       {{"", "'a':1 'b c':2A", "'it''s \\\\':16383C", "Grüße 水"},
        "to_tsvector('simple', " + kWord + " || ' ' || " + kWord + ")"}},
      {"tsquery",
       {{"", "'a' & !'b'", "'a' <3> ( 'b':*AB | 'it''s' )"},
        "to_tsquery('simple', " + kWord + ")"}},
      {"refcursor", {{"", "a\"b"}, ""}},
      {"txid_snapshot", {{"10:20:10,14,15", "10:20:"}, ""}},
      {"pg_snapshot", {{"10:20:10,14,15", "10:20:"}, ""}},
      {"aclitem", {{"postgres=r*w/postgres", "=r/postgres"}, ""}},
      {"regproc", {{"-", "now", "4294967295"}, ""}},
      {"regprocedure", {{"-", "abs(integer)", "4294967295"}, ""}},
      {"regoper", {{"0", "4294967295"}, ""}},
      {"regoperator", {{"0", "+(integer,integer)", "4294967295"}, ""}},
      {"regclass", {{"-", "pg_class", "information_schema.tables", "4294967295"}, ""}},
      {"regtype", {{"-", "integer", "numeric[]", "public.mood", "4294967295"}, ""}},
      {"regconfig", {{"-", "simple", "4294967295"}, ""}},
      {"regdictionary", {{"-", "simple", "4294967295"}, ""}},
      {"regnamespace", {{"-", "public", "4294967295"}, ""}},
      {"regrole", {{"-", "postgres", "4294967295"}, ""}},
      {"regcollation", {{"-", "\"C\"", "4294967295"}, ""}},
      {"int4range", {{"empty", "[1,10)", "(,)", "(,5)", "[5,)"}, ranges("int4range", kOfInt)}},
      {"int8range", {{"empty", "[-9223372036854775808,9223372036854775807)"}, ""}},
      {"numrange",
       {{"empty", "[1.5,2.50]", "(,)", "[NaN,)", "(-Infinity,Infinity)"},
        ranges("numrange", kOfNumeric)}},
      {"daterange",
       {{"empty", "[0044-03-15 BC,infinity)", "(,2026-01-01]"}, ranges("daterange", kOfDate)}},
      {"tsrange",
       {{"empty", "[-infinity,infinity]", "(\"0044-03-15 12:00:00 BC\",)"},
        ranges("tsrange", kOfTimestamp)}},
      {"tstzrange", {{"empty", "[2026-01-01,infinity)"}, ranges("tstzrange", kOfTimestampTz)}},
      {"int4multirange",
       {{"{}", "{[1,3),[5,8)}", "{(,)}"}, multi("int4multirange", "int4range", kOfInt)}},
      {"int8multirange", {{"{}", "{[1,3),[5,8)}"}, ""}},
      {"nummultirange",
       {{"{}", "{[1.5,2.50],(3,NaN]}"}, multi("nummultirange", "numrange", kOfNumeric)}},
      {"datemultirange", {{"{}"}, multi("datemultirange", "daterange", kOfDate)}},
      {"tsmultirange",
       {{"{}", "{[-infinity,infinity]}"}, multi("tsmultirange", "tsrange", kOfTimestamp)}},
      {"tstzmultirange", {{"{}"}, multi("tstzmultirange", "tstzrange", kOfTimestampTz)}},
      // information_schema's domains
      {"cardinal_number", {{"0", "2147483647"}, ""}},
      {"character_data", {{"", "it's"}, ""}},
      {"sql_identifier", {{"", "a\"b"}, ""}},
      {"time_stamp", {{"2026-01-01 00:00:00.12+00", "infinity"}, ""}},
      {"yes_or_no", {{"YES", "NO"}, ""}},
      // Debian's postgresql-contrib
      {"hstore",
       {{"", "\"a\"=>\"1\"", "\"a b\"=>NULL, \"\\\"\"=>\"\\\\\", \"\"=>\"\""},
        "hstore(" + kWord + ", " + random_text_sql() + ")"}},
      {"citext", {hard_texts(), random_text_sql()}},
      {"ltree", {{"", "Top.Science.Astronomy"}, "('a.' || " + kWord + ")::ltree"}},
      {"lquery", {{"Top.*{0,2}.sport*@.!football|tennis.Russ*|Spain", "*"}, ""}},
      {"ltxtquery", {{"Europe & Russia*@ & !Transportation"}, ""}},
      {"cube",
       {{"(1, 2, 3)", "(0),(1)", "()", "(-0.1, NaN),(0.1, Infinity)"},
        "cube(array[" + kDouble + ", " + kDouble + "])"}},
      {"seg", {{"5.0", "5(+-)0.3", "~1", "<3 .. 5.50", "10 ..", "1.230"}, ""}},
      {"ean13", {{"978-0-393-04002-9", "0123456789012!"}, ""}},
      {"isbn13", {{"978-0-393-04002-9"}, ""}},
      {"ismn13", {{"979-0-060-11561-5"}, ""}},
      {"issn13", {{"977-1436-452-00-8"}, ""}},
      {"isbn", {{"0-393-04002-X"}, ""}},
      {"ismn", {{"M-060-11561-5"}, ""}},
      {"issn", {{"1436-4522"}, ""}},
      {"upc", {{"220356483481"}, ""}},
      {"query_int", {{"1&(2|3)&!4", "-5"}, ""}},
      // Made by own_types_sql()
      {"mood",
       {{"sad", "o'k", "very \"happy\", {so}", "", "\\", "NULL"},
        "(enum_range(NULL::public.mood))[1 + i % 6]"}},
      {"pair",
       {{"(1,a)", "(,)", "(-5,\"x, \"\"y\"\" \\\\\")"},
        "(i, " + random_text_sql() + ")::public.pair"}},
      {"nested", {{"(,,)", "(\"(1,a)\",\"{sad,NULL}\",\"{\"\"(2,b)\"\",NULL}\")"}, ""}},
      {"positive", {{"1", "2147483647"}, "i"}},
      {"more_positive", {{"11", "2147483647"}, ""}},
      {"amount", {{"0.00", "-12.30", "NaN"}, "(random() * 1e6)::numeric(12, 2)"}},
      {"word", {{"", "it's"}, random_text_sql()}},
      {"short", {{"", "ab  "}, ""}},
      {"moody", {{"sad", ""}, ""}},
      {"some_numbers", {{"{}", "{1,NULL,3}", "[0:1]={1,2}", "{{1,2},{3,4}}"}, ""}},
      {"some_words", {{"{}", "{a,NULL,\"\",\"NULL\"}"}, ""}},
      {"good_pair", {{"(1,a)"}, ""}},
      {"textrange", {{"empty", "[a,b]", "[\"\",\"a\"\"b,\\\\\")"}, ""}},
      {"textmultirange", {{"{}", "{[a,b],(c,)}"}, ""}},
      {"geo", {hard_texts(), "md5(random()::text)"}},
      {"fixed", {{"1", "-7"}, "i::text"}},
  };
  return all;
}

}  // namespace

const std::map<std::string, TypeValues>& type_values() {
  static const std::map<std::string, TypeValues> values = all_values();
  return values;
}

const std::string& own_types_sql() {
  // geo is what a geometry of PostGIS is to capture: a base type that it knows nothing of, with
  // another delimiter.
  static const std::string sql = R"sql(
    CREATE TYPE mood AS ENUM ('sad', 'o''k', 'very "happy", {so}', '', E'\\', 'NULL');
    CREATE TYPE pair AS (a int, b text);
    CREATE TYPE nested AS (p pair, m mood[], l pair[]);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN more_positive AS positive CHECK (VALUE > 10);
    CREATE DOMAIN amount AS numeric(12, 2);
    CREATE DOMAIN word AS text;
    CREATE DOMAIN short AS char(4);
    CREATE DOMAIN moody AS mood;
    CREATE DOMAIN some_numbers AS int[];
    CREATE DOMAIN some_words AS text[] CHECK (cardinality(VALUE) < 10);
    CREATE DOMAIN good_pair AS pair CHECK ((VALUE).a > 0);
    CREATE TYPE textrange AS RANGE (subtype = text, multirange_type_name = textmultirange);
    CREATE TYPE geo;
    CREATE FUNCTION geo_in(cstring) RETURNS geo LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION geo_out(geo) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE FUNCTION geo_send(geo) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'textsend';
    CREATE TYPE geo (INPUT = geo_in, OUTPUT = geo_out, SEND = geo_send, LIKE = text, DELIMITER = ':');
    CREATE TYPE fixed;
    CREATE FUNCTION fixed_in(cstring) RETURNS fixed LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
    CREATE FUNCTION fixed_out(fixed) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
    CREATE TYPE fixed (INPUT = fixed_in, OUTPUT = fixed_out, LIKE = int4);
  )sql";
  return sql;
}

const std::string& random_text_sql() {
  static const std::string sql =
      "(SELECT coalesce(string_agg(substr(E'aZ0 "
      ",;{}()\"\\\\''NULL\\n\\t\\u00e4\\u2028\\u0085\\u007f\\u6c34\\U0001F30A', "
      "1 + (random() * 24)::int, 1 + (random() * 3)::int), ''), '') FROM generate_series(0, i % "
      "7))";
  return sql;
}

}  // namespace millrace::test
