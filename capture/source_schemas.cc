#include "capture/source_schemas.h"

#include "capture/pipeline/change_encoder.h"
#include "capture/pipeline/encoded_rows.h"
#include "capture/postgres/catalog.h"
#include "capture/postgres/preflight.h"
#include "capture/postgres/table_reader.h"
#include "capture/table_patterns.h"

namespace millrace {
namespace {

/// What a capture would read. Whether the server could be captured today is of no matter, only
/// whether its tables could.
Result<Preflight> look_for_tables(Catalog& catalog, const TablePatterns& patterns,
                                  const SourceSchemasQuestion& question,
                                  std::vector<std::string> outbox) {
  MILLRACE_ASSIGN_OR_RETURN(
      Preflight found,
      run_preflight(catalog,
                    {.patterns = patterns,
                     .slot = {},
                     // Tables that are named need not be in the publication yet.
                     .publication = patterns.given() ? std::string() : question.publication,
                     .reads_rows = false,
                     .outbox = std::move(outbox)}));
  MILLRACE_RETURN_IF_ERROR(found.require_no_problem("table"));
  MILLRACE_RETURN_IF_ERROR(found.require_no_problem("outbox"));
  return found;
}

}  // namespace

Result<SourceSchemas> read_source_schemas(const SourceSchemasQuestion& question) {
  MILLRACE_ASSIGN_OR_RETURN(const SourceAddress address, SourceAddress::parse(question.source));
  MILLRACE_ASSIGN_OR_RETURN(const TablePatterns patterns, TablePatterns::parse(question.tables));
  MILLRACE_ASSIGN_OR_RETURN(auto outbox, parse_table_names(question.outbox));
  Catalog catalog(address);
  MILLRACE_RETURN_IF_ERROR(catalog.execute("SET default_transaction_read_only = on"));
  MILLRACE_ASSIGN_OR_RETURN(const Preflight found,
                            look_for_tables(catalog, patterns, question, std::move(outbox)));

  // Learned as the initial snapshot learns them, so that nothing can tell them apart.
  const auto registry = SchemaRegistry::in_memory();
  EncodedRows none;
  ChangeEncoder encoder(*registry, catalog, none);
  for (const SourceTable& table : found.tables) {
    MILLRACE_ASSIGN_OR_RETURN(const auto shape, catalog.shape(table, question.publication));
    MILLRACE_RETURN_IF_ERROR(encoder.relation(relation_of(table, shape.columns), Lsn{}));
  }
  SourceSchemas schemas{.database = found.server.database, .tables = {}};
  MILLRACE_ASSIGN_OR_RETURN(schemas.tables, registry->all());
  return schemas;
}

}  // namespace millrace
