#include "capture/daemon/publication_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <ranges>

#include "base/bytes.h"
#include "base/sql_text.h"
#include "capture/postgres/preflight.h"

namespace millrace {
namespace {

/// The stream stands still while an ALTER PUBLICATION waits.
constexpr const char* kLockTimeout = "SET LOCAL lock_timeout = '200ms'; ";
/// What was told once is told again rather than kept for ever.
constexpr std::size_t kToldMax = 10'000;

/// A line of a publication's definition: "public.orders (OID 16391, member 16402)".
struct Member {
  std::uint32_t oid = 0, member = 0;
  std::string table;
  std::string line;
};

/// Nothing of a line that is about something else.
std::optional<Member> member_of(const std::string& line) {
  const std::size_t at = line.rfind(" (OID ");
  if (at == line.npos) return std::nullopt;
  Member member{.table = line.substr(0, at), .line = line};
  if (std::sscanf(line.c_str() + at, " (OID %u, member %u)", &member.oid, &member.member) != 2)
    return std::nullopt;
  return member;
}

struct Definition {
  std::map<std::uint32_t, Member> members;  // by OID
  std::vector<std::string> others;

  explicit Definition(const std::vector<std::string>& lines) {
    for (const std::string& line : lines) {
      if (auto member = member_of(line))
        members.emplace(member->oid, *std::move(member));
      else
        others.push_back(line);
    }
  }
  const Member* with_oid(std::uint32_t oid) const {
    const auto found = members.find(oid);
    return found == members.end() ? nullptr : &found->second;
  }
  bool has_name(const std::string& table) const {
    return std::ranges::any_of(members,
                               [&](const auto& member) { return member.second.table == table; });
  }
};

const SourceTable* with_oid(const std::vector<SourceTable>& tables, std::uint32_t oid) {
  const auto found = std::find_if(tables.begin(), tables.end(),
                                  [&](const SourceTable& table) { return table.oid == oid; });
  return found == tables.end() ? nullptr : &*found;
}

}  // namespace

Result<bool> PublicationKeeper::explains(const std::vector<std::string>& definition,
                                         const PublicationInfo& now) {
  const std::optional<TablePatterns> kept = patterns_of(now);
  if (!kept || !now.plain) return false;
  const TablePatterns& wanted = options_.given ? *options_.given : *kept;
  const Definition before(definition), after(now.definition);
  if (before.others != after.others || lacks_outbox(definition, now)) return false;
  MILLRACE_ASSIGN_OR_RETURN(const auto all, catalog_.tables());
  const auto may_go = [&](const Member& member) {
    if (const Member* same = after.with_oid(member.oid)) return same->member == member.member;
    const SourceTable* table = with_oid(all, member.oid);
    return table == nullptr || !is_meant(*table, all, wanted);
  };
  // What a killed run with another --tables has added may come: it goes again. And one that was in
  // it before and came back has missed changes: may_go() has said so. What is gone just now will
  // have left at the next look.
  const auto may_come = [&](const Member& member) {
    if (before.with_oid(member.oid) != nullptr) return true;
    if (!reads_rows(now) && before.has_name(member.table)) return false;
    const SourceTable* table = with_oid(all, member.oid);
    return table == nullptr || is_meant(*table, all, wanted) ||
           (!took_over_ && is_meant(*table, all, *kept));
  };
  return std::ranges::all_of(before.members | std::views::values, may_go) &&
         std::ranges::all_of(after.members | std::views::values, may_come);
}

std::string PublicationKeeper::patterns(const PublicationInfo& now) const {
  return patterns_in_force(options_.given, now);
}

Result<bool> PublicationKeeper::bring_in_step(const std::vector<std::string>& definition,
                                              const PublicationInfo& now) {
  const std::optional<TablePatterns> kept = patterns_of(now);
  if (!options_.given && !kept) return false;
  const TablePatterns& wanted = options_.given ? *options_.given : *kept;
  MILLRACE_ASSIGN_OR_RETURN(const Step step, next_step(definition, now, wanted));
  const bool is_ours = kept && kept->text() == wanted.text();
  if ((step.come.empty() && step.go.empty() && is_ours) || !may_alter(now)) {
    took_over_ = took_over_ || is_ours;
    return false;
  }
  if (!is_ours && took_over_) {
    tell_once("publication " + printable(name_) +
              " is kept for other tables, since another capture was started with another --tables: "
              "this one does not alter it any more");
    return false;
  }
  bool altered = false;
  if (!is_ours || !step.go.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(const bool done, take_over(step.go, wanted));
    if (!done) return false;
    altered = !step.go.empty();
  }
  took_over_ = true;
  for (const SourceTable& table : step.come) {
    MILLRACE_ASSIGN_OR_RETURN(const bool done,
                              alter("ADD TABLE " + table.quoted(), "new: " + table.name()));
    altered = altered || done;
  }
  return altered;
}

/// Both at once: what the comment says tells a start after a crash who has dropped the tables.
Result<bool> PublicationKeeper::take_over(const std::vector<SourceTable>& go,
                                          const TablePatterns& wanted) {
  std::string tables, names;
  for (const SourceTable& table : go) {
    tables += (tables.empty() ? "DROP TABLE " : ", ") + table.quoted();
    names += (names.empty() ? "; no longer: " : ", ") + table.name();
  }
  return alter(tables, "kept for " + wanted.text() + names,
               "COMMENT ON PUBLICATION " + quote_identifier(name_) + " IS " +
                   quote_literal(publication_mark(wanted)) + "; ");
}

/// What is in it beyond `patterns` stays, unless they are other ones than before or it has another
/// name: somebody may have wanted it.
Result<PublicationKeeper::Step> PublicationKeeper::next_step(
    const std::vector<std::string>& definition, const PublicationInfo& now,
    const TablePatterns& patterns) {
  const std::optional<TablePatterns> kept = patterns_of(now);
  const Definition before(definition), after(now.definition);
  MILLRACE_ASSIGN_OR_RETURN(const auto all, catalog_.tables());
  MILLRACE_RETURN_IF_ERROR(tell_unpublishable(patterns));
  tell_partitions(all, now);
  std::set<std::uint32_t> published(now.table_oids.begin(), now.table_oids.end());
  for (const std::uint32_t oid : after.members | std::views::keys) published.insert(oid);
  std::set<std::uint32_t> by_partitions;  // roots
  for (const SourceTable& table : all)
    if (published.contains(table.oid)) by_partitions.insert(table.root_oid);
  Step step;
  for (const SourceTable& table : all) {
    if (is_named(options_.outbox, table.name())) continue;
    const bool meant = is_meant(table, all, patterns);
    if (meant && table.root_oid == 0 && !published.contains(table.oid) &&
        !by_partitions.contains(table.oid) && can_come(table, all, now))
      step.come.push_back(table);
    const Member* member = after.with_oid(table.oid);
    if (meant || member == nullptr) continue;
    const Member* known = before.with_oid(table.oid);
    const bool renamed =
        known != nullptr && known->member == member->member && known->line != member->line;
    if (renamed || (kept && is_meant(table, all, *kept))) step.go.push_back(table);
  }
  return step;
}

/// A table without identity in a publication would break the application's updates.
bool PublicationKeeper::can_come(const SourceTable& table, const std::vector<SourceTable>& all,
                                 const PublicationInfo& now) {
  const std::string who =
      "table " + printable(table.name()) + " matches --tables, but is not captured: ";
  const auto lacking = without_identity(table, all);
  if (!lacking.empty() && (now.updates || now.deletes)) {
    tell_once(who + "it has no replica identity. Give it a primary key, or ALTER TABLE " +
              lacking.front().quoted() + " REPLICA IDENTITY FULL;");
    return false;
  }
  if (!table.readable) {
    tell_once(who + "we may not read it. GRANT SELECT ON " + table.quoted() + " TO ...;");
    return false;
  }
  const std::string fix = " ALTER PUBLICATION " + quote_identifier(name_) + " ADD TABLE " +
                          table.quoted() + ";  -- as its owner";
  if (!may_alter(now)) {
    tell_once(who + "publication " + printable(name_) +
              " is without it, and capture alters only what it has made and owns, and what has no "
              "schemas, column lists or row filters." +
              fix);
    return false;
  }
  if (!table.owned) tell_once(who + "only its owner may publish it." + fix);
  return table.owned;
}

Result<void> PublicationKeeper::tell_unpublishable(const TablePatterns& patterns) {
  MILLRACE_ASSIGN_OR_RETURN(const auto tables, catalog_.unpublishable_tables());
  for (const UnpublishableTable& table : tables)
    if (patterns.match(table.schema_name, table.table_name))
      tell_once("table " + printable(category_of(table.schema_name, table.table_name)) +
                " matches --tables, but is not captured: it is " + table.what +
                ", which PostgreSQL does not replicate");
  return {};
}

void PublicationKeeper::tell_partitions(const std::vector<SourceTable>& all,
                                        const PublicationInfo& now) {
  // Published under its own name a partition has all of its rows wherever it belongs.
  const bool via_root = std::find(now.definition.begin(), now.definition.end(),
                                  "publish_via_partition_root") != now.definition.end();
  const auto is_published = [&](std::uint32_t oid) {
    return std::find(now.table_oids.begin(), now.table_oids.end(), oid) != now.table_oids.end();
  };
  std::map<std::uint32_t, std::uint32_t> roots;
  for (const SourceTable& table : all) {
    roots[table.oid] = table.root_oid;
    const auto before = roots_.find(table.oid);
    if (!via_root || before == roots_.end() || before->second == table.root_oid) continue;
    const std::string name = printable(table.name());
    if (const SourceTable* root = with_oid(all, table.root_oid); root && is_published(root->oid))
      tell_once("table " + name + " is now a partition of " + printable(root->name()) +
                ": the rows that it brought are in no event of that. `millrace capture resnapshot "
                "--tables " +
                printable(root->name()) + "` reads them");
    if (const SourceTable* root = with_oid(all, before->second); root && is_published(root->oid))
      tell_once("table " + name + " is no partition of " + printable(root->name()) +
                " any more: no event tells that the rows in it are gone from there. `millrace "
                "capture resync` takes them out");
  }
  roots_ = std::move(roots);
}

/// As TableSnapshots can.
bool PublicationKeeper::reads_rows(const PublicationInfo& now) const {
  return options_.reads_rows && now.updates;
}

/// Whether an outbox is not the member that it was.
bool PublicationKeeper::lacks_outbox(const std::vector<std::string>& definition,
                                     const PublicationInfo& now) const {
  return std::ranges::any_of(definition, [&](const std::string& line) {
    const auto member = member_of(line);
    return member && is_named(options_.outbox, member->table) &&
           std::ranges::find(now.definition, line) == now.definition.end();
  });
}

bool PublicationKeeper::may_alter(const PublicationInfo& now) {
  return made_by_capture(now) && now.plain && now.owned;
}

/// False if it could not be done now.
Result<bool> PublicationKeeper::alter(const std::string& change, const std::string& what,
                                      const std::string& more) {
  std::string statements = "BEGIN; " + std::string(kLockTimeout) + more;
  if (!change.empty())
    statements += "ALTER PUBLICATION " + quote_identifier(name_) + " " + change + "; ";
  auto done = catalog_.execute(statements + "COMMIT");
  if (!done && done.error().code() == ErrorCode::kUnavailable) return std::move(done).error();
  if (!done) {
    tell_once("publication " + printable(name_) + " could not be brought in step with --tables (" +
              printable(what, 2000) +
              "); it is tried again: " + printable(done.error().message(), 1000));
    return false;
  }
  spdlog::info("publication {} was brought in step with --tables: {}", printable(name_),
               printable(what, 2000));
  return true;
}

void PublicationKeeper::tell_once(const std::string& message) {
  if (told_.size() >= kToldMax) told_.clear();
  if (told_.insert(message).second) spdlog::warn("{}", message);
}

}  // namespace millrace
