#include "capture/pipeline/emptied_table.h"

#include "millrace/v1/change.pb.h"

namespace millrace {

std::string emptied_payload(std::uint32_t schema_version) {
  v1::Change change;
  change.set_op(v1::Change::TRUNCATE);
  change.set_schema(schema_version);
  return change.SerializeAsString();
}

}  // namespace millrace
