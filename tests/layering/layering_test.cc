#include "tests/layering/layering.h"

#include <fstream>

#include "tests/support/catch.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;
using Faults = std::vector<std::string>;

/// A tree with one file in it, and what is found wrong with it.
Faults faults_of(const std::string& file, const std::string& text) {
  const TemporaryDirectory root;
  fs::create_directories((root / file).parent_path());
  std::ofstream(root / file) << text;
  return layering_faults(root.path());
}

Faults faults_of_include(const std::string& file, const std::string& include) {
  return faults_of(file, "#include " + include + "\n");
}

TEST_CASE("the project's own files keep to the picture", "[layering]") {
  const Faults faults = layering_faults(MILLRACE_SOURCE_DIR);
  for (const std::string& fault : faults) UNSCOPED_INFO(fault);
  CHECK(faults.empty());
}

TEST_CASE("an include that points down is fine", "[layering]") {
  CHECK(faults_of_include("cli/a.cc", "\"capture/capture.h\"").empty());
  CHECK(faults_of_include("capture/a.cc", "\"eventstore/types.h\"").empty());
  CHECK(faults_of_include("capture/postgres/a.cc", "\"capture/pipeline/b.h\"").empty());
  CHECK(faults_of_include("capture/postgres/a.cc", "<libpq-fe.h>").empty());
  CHECK(faults_of_include("examples/shop/a.cc", "\"projections/projection.h\"").empty());
  CHECK(faults_of_include("examples/shop/a.cc", "\"public.orders.pb.h\"").empty());
  CHECK(faults_of_include("tests/a.cc", "\"eventstore/log/format.h\"").empty());
  CHECK(faults_of_include("cli/a.cc", "\"capture/pgoutput/message.h\"").empty());
}

TEST_CASE("an include that points up, aside or into a private folder is found", "[layering]") {
  CHECK(faults_of_include("eventstore/a.cc", "\"capture/capture.h\"") ==
        Faults{"eventstore/a.cc:1: includes capture/capture.h: eventstore may not know capture"});
  CHECK(faults_of_include("eventstore/a.cc", "\"schemas/lsn.h\"").size() == 1);
  CHECK(faults_of_include("projections/a.cc", "\"capture/capture.h\"").size() == 1);
  CHECK(faults_of_include("cli/a.cc", "\"eventstore/log/format.h\"").size() == 1);
  CHECK(faults_of_include("cli/a.cc", "\"tests/support/process.h\"").size() == 1);
  CHECK(faults_of_include("examples/a.cc", "\"capture/pgoutput/message.h\"").size() == 1);
  CHECK(faults_of_include("capture/pgoutput/a.cc", "\"eventstore/types.h\"").size() == 1);
  CHECK(faults_of_include("capture/pgoutput/a.cc", "\"capture/capture.h\"").size() == 1);
}

TEST_CASE("a library that another folder wraps is found", "[layering]") {
  CHECK(faults_of_include("capture/pipeline/a.cc", "<libpq-fe.h>").size() == 1);
  CHECK(faults_of_include("cli/a.cc", "<pqxx/pqxx>").size() == 1);
  CHECK(faults_of_include("eventstore/a.cc", "<google/protobuf/message.h>").size() == 1);
  CHECK(faults_of_include("eventstore/a.cc", "\"millrace/v1/change.pb.h\"").size() == 1);
}

TEST_CASE("an include by bare name is found", "[layering]") {
  CHECK(faults_of_include("cli/a.cc", "\"output.h\"").size() == 1);
}

TEST_CASE("an include of ours in angle brackets is found, and checked like any other",
          "[layering]") {
  CHECK(faults_of_include("cli/a.cc", "<capture/capture.h>") ==
        Faults{"cli/a.cc:1: includes <capture/capture.h>: ours are in quotes"});
  CHECK(faults_of_include("eventstore/a.cc", "<capture/capture.h>").size() == 2);
  CHECK(faults_of_include("base/a.cc", "<vector>").empty());
}

TEST_CASE("a source file that no rule is about is found", "[layering]") {
  CHECK(faults_of("network/server.cc", "") ==
        Faults{"network/server.cc: its folder is not in the picture"});
  CHECK(faults_of("a.h", "#pragma once\n").size() == 1);
  CHECK(faults_of("base/a.cpp", "").size() == 1);
  CHECK(faults_of("network/README.md", "").empty());
  CHECK(faults_of("build/dev/generated.cc", "").empty());
  CHECK(faults_of(".cache/a.cc", "").empty());
}

TEST_CASE("a header without #pragma once is found", "[layering]") {
  CHECK(faults_of("base/a.h", "int x();\n").size() == 1);
  CHECK(faults_of("base/a.h", "#pragma once\n").empty());
}

TEST_CASE("a source file that does not include its own header first is found", "[layering]") {
  const TemporaryDirectory root;
  fs::create_directories(root / "base");
  std::ofstream(root / "base/a.h") << "#pragma once\n";
  std::ofstream(root / "base/a.cc") << "#include <string>\n#include \"base/a.h\"\n";
  CHECK(layering_faults(root.path()).size() == 1);
  std::ofstream(root / "base/a.cc") << "#include \"base/a.h\"\n#include <string>\n";
  CHECK(layering_faults(root.path()).empty());
}

}  // namespace
}  // namespace millrace::test
