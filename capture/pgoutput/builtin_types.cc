#include "capture/pgoutput/builtin_types.h"

#include <algorithm>
#include <array>

namespace millrace::pgoutput {
namespace {

struct Entry {
  std::uint32_t oid;
  std::uint32_t array_oid;
  ValueKind kind;
};

using enum ValueKind;

/// From pg_type.dat of PostgreSQL 12 to 17, by OID. A test holds it against a real server.
constexpr Entry kTypes[] = {
    {16, 1000, kBool},           // bool
    {17, 1001, kBytes},          // bytea
    {18, 1002, kText},           // "char"
    {19, 1003, kText},           // name
    {20, 1016, kInt64},          // int8
    {21, 1005, kInt32},          // int2
    {22, 1006, kExactText},      // int2vector
    {23, 1007, kInt32},          // int4
    {24, 1008, kExactText},      // regproc
    {25, 1009, kText},           // text
    {26, 1028, kUInt32},         // oid
    {27, 1010, kExactText},      // tid
    {28, 1011, kExactText},      // xid
    {29, 1012, kExactText},      // cid
    {30, 1013, kExactText},      // oidvector
    {114, 199, kJson},           // json
    {142, 143, kText},           // xml
    {600, 1017, kExactText},     // point
    {601, 1018, kExactText},     // lseg
    {602, 1019, kExactText},     // path
    {603, 1020, kExactText},     // box
    {604, 1027, kExactText},     // polygon
    {628, 629, kExactText},      // line
    {650, 651, kExactText},      // cidr
    {700, 1021, kFloat},         // float4
    {701, 1022, kDouble},        // float8
    {718, 719, kExactText},      // circle
    {774, 775, kExactText},      // macaddr8
    {790, 791, kExactText},      // money
    {829, 1040, kExactText},     // macaddr
    {869, 1041, kExactText},     // inet
    {1033, 1034, kExactText},    // aclitem
    {1042, 1014, kText},         // bpchar
    {1043, 1015, kText},         // varchar
    {1082, 1182, kDate},         // date
    {1083, 1183, kTime},         // time
    {1114, 1115, kTimestamp},    // timestamp
    {1184, 1185, kTimestampTz},  // timestamptz
    {1186, 1187, kInterval},     // interval
    {1266, 1270, kTimeTz},       // timetz
    {1560, 1561, kExactText},    // bit
    {1562, 1563, kExactText},    // varbit
    {1700, 1231, kNumeric},      // numeric
    {1790, 2201, kExactText},    // refcursor
    {2202, 2207, kExactText},    // regprocedure
    {2203, 2208, kExactText},    // regoper
    {2204, 2209, kExactText},    // regoperator
    {2205, 2210, kExactText},    // regclass
    {2206, 2211, kExactText},    // regtype
    {2950, 2951, kUuid},         // uuid
    {2970, 2949, kExactText},    // txid_snapshot
    {3220, 3221, kExactText},    // pg_lsn
    {3614, 3643, kExactText},    // tsvector
    {3615, 3645, kExactText},    // tsquery
    {3734, 3735, kExactText},    // regconfig
    {3769, 3770, kExactText},    // regdictionary
    {3802, 3807, kJson},         // jsonb
    {3904, 3905, kExactText},    // int4range
    {3906, 3907, kExactText},    // numrange
    {3908, 3909, kExactText},    // tsrange
    {3910, 3911, kExactText},    // tstzrange
    {3912, 3913, kExactText},    // daterange
    {3926, 3927, kExactText},    // int8range
    {4072, 4073, kExactText},    // jsonpath
    {4089, 4090, kExactText},    // regnamespace
    {4096, 4097, kExactText},    // regrole
    {4191, 4192, kExactText},    // regcollation
    {4451, 6150, kExactText},    // int4multirange
    {4532, 6151, kExactText},    // nummultirange
    {4533, 6152, kExactText},    // tsmultirange
    {4534, 6153, kExactText},    // tstzmultirange
    {4535, 6155, kExactText},    // datemultirange
    {4536, 6157, kExactText},    // int8multirange
    {5038, 5039, kExactText},    // pg_snapshot
    {5069, 271, kExactText},     // xid8
};
static_assert(std::ranges::is_sorted(kTypes, {}, &Entry::oid));

}  // namespace

std::optional<BuiltinType> builtin_type(std::uint32_t oid) {
  const auto scalar = std::ranges::lower_bound(kTypes, oid, {}, &Entry::oid);
  if (scalar != std::end(kTypes) && scalar->oid == oid)
    return BuiltinType{.kind = scalar->kind, .array = false};
  const auto array = std::ranges::find(kTypes, oid, &Entry::array_oid);
  if (array != std::end(kTypes)) return BuiltinType{.kind = array->kind, .array = true};
  return std::nullopt;
}

std::uint32_t element_of_array(std::uint32_t oid) {
  const auto array = std::ranges::find(kTypes, oid, &Entry::array_oid);
  return array == std::end(kTypes) ? 0 : array->oid;
}

}  // namespace millrace::pgoutput
