#include "capture/check.h"

#include "capture/postgres/preflight.h"
#include "capture/postgres/replication.h"

namespace millrace {

Result<std::vector<Finding>> check_source(const CheckOptions& options) {
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress address, SourceAddress::parse(options.source));
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(options.tables));
  MILLRACE_RETURN_IF_ERROR(require_slot_name(options.slot));
  MILLRACE_ASSIGN_OR_RETURN(std::vector<std::string> outbox, parse_table_names(options.outbox));
  Catalog catalog(address);
  MILLRACE_ASSIGN_OR_RETURN(Preflight found,
                            run_preflight(catalog, {.patterns = patterns,
                                                    .slot = options.slot,
                                                    .publication = options.publication,
                                                    .tells_mended = true,
                                                    .outbox = std::move(outbox)}));
  return std::move(found.findings);
}

}  // namespace millrace
