#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>

#include "tests/cli/sample_store.h"

namespace millrace::test {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;

std::string read(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// The commands that `millrace help` lists: {"log", "tail"}, {"status"}.
std::vector<std::vector<std::string>> listed_commands() {
  const std::string help = millrace({"help"}).out;
  static const std::regex kLine("\n  millrace ([a-z]+)( [a-z]+)?  ");
  std::vector<std::vector<std::string>> commands;
  for (std::sregex_iterator match(help.begin(), help.end(), kLine), end; match != end; ++match) {
    commands.push_back({(*match)[1]});
    if ((*match)[2].matched) commands.back().push_back((*match)[2].str().substr(1));
  }
  return commands;
}

// With MILLRACE_UPDATE_DOCS set, the files are written instead (scripts/update-docs).
void check_golden(const std::string& name, const std::string& text, std::set<std::string>& names) {
  const fs::path path = fs::path(MILLRACE_SOURCE_DIR) / "docs/cli" / name;
  names.insert(name);
  if (std::getenv("MILLRACE_UPDATE_DOCS") != nullptr) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }
  INFO("docs/cli/" << name << " is not what --help says; run scripts/update-docs");
  CHECK(read(path) == text);
}

TEST_CASE("docs/cli holds the help of every command, and nothing else", "[cli][help]") {
  std::set<std::string> names;
  check_golden("millrace.txt", millrace({"--help"}).out, names);
  const auto commands = listed_commands();
  CHECK(commands.size() >= 9);
  for (std::vector<std::string> command : commands) {
    std::string name = "millrace";
    for (const std::string& word : command) name += "-" + word;
    command.emplace_back("--help");
    const CommandResult help = millrace(command);
    CHECK(help.exit_code == 0);
    CHECK(help.err.empty());
    check_golden(name + ".txt", help.out, names);
  }
  for (const auto& entry : fs::directory_iterator(fs::path(MILLRACE_SOURCE_DIR) / "docs/cli")) {
    INFO(entry.path());
    CHECK(names.count(entry.path().filename().string()) == 1);
  }
}

TEST_CASE("help comes in all the ways in which people ask for it", "[cli][help]") {
  const std::string general = millrace({"--help"}).out;
  CHECK(millrace({"help"}).out == general);
  CHECK(millrace({"-h"}).out == general);
  const std::string tail = millrace({"log", "tail", "--help"}).out;
  CHECK(millrace({"help", "log", "tail"}).out == tail);
  CHECK(millrace({"log", "tail", "-h"}).out == tail);
  CHECK(millrace({"log", "tail", "--store", "nowhere", "--help"}).out == tail);
  CHECK_THAT(millrace({"log", "--help"}).out, Contains("millrace log verify"));
  CHECK(millrace({"help", "log"}).out == millrace({"log", "--help"}).out);
}

TEST_CASE("wrong usage says in a line what is wrong, how to get help, and ends with 2",
          "[cli][usage]") {
  struct Case {
    std::vector<std::string> arguments;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{}, "millrace: which command?\n  Try 'millrace --help'.\n"},
      {{"frobnicate"}, "millrace: there is no command 'frobnicate'\n  Try 'millrace --help'.\n"},
      {{"log"}, "millrace log: which verb comes after it?\n  Try 'millrace log --help'.\n"},
      {{"log", "tial"},
       "millrace: there is no command 'log tial'; did you mean 'log tail'?\n"
       "  Try 'millrace --help'.\n"},
      {{"log", "tail"},
       "millrace log tail: --store is missing (or MILLRACE_STORE)\n"
       "  Try 'millrace log tail --help'.\n"},
      {{"log", "tail", "--stroe", "x"},
       "millrace log tail: there is no option '--stroe'; did you mean '--store'?\n"
       "  Try 'millrace log tail --help'.\n"},
      {{"log", "tail", "--store", ""},
       "millrace log tail: --store is empty\n  Try 'millrace log tail --help'.\n"},
      {{"status", "--store", "x", "y"},
       "millrace status: unexpected argument 'y'\n  Try 'millrace status --help'.\n"},
      {{"log", "tail", "--store", "x", "--limit", "-1"},
       "millrace log tail: --limit '-1' is not a whole number\n"
       "  Try 'millrace log tail --help'.\n"},
      {{"log", "tail", "--store", "x", "--from", "start"},
       "millrace log tail: --from 'start' is neither 'beginning', 'end', an offset nor a "
       "time like 2026-01-31T10:00:00Z\n"
       "  Try 'millrace log tail --help'.\n"},
      {{"status", "--store", "x", "--store", "y"},
       "millrace status: option '--store' is given more than once\n"
       "  Try 'millrace status --help'.\n"},
      {{"capture", "run", "--source", "x", "--store", "y", "--scrub-rate", "fast"},
       "millrace capture run: --scrub-rate is 'fast', not a quantity like 10GiB or 500MiB\n"
       "  Try 'millrace capture run --help'.\n"},
      {{"capture", "run", "--source", "x", "--store", "y", "--compaction-rate", "1MB"},
       "millrace capture run: --compaction-rate is '1MB', not a quantity like 10GiB or 500MiB\n"
       "  Try 'millrace capture run --help'.\n"},
      {{"capture", "run", "--source", "x", "--store", "y", "--snapshot", "maybe"},
       "millrace capture run: --snapshot 'maybe' is neither 'initial' nor 'never'\n"
       "  Try 'millrace capture run --help'.\n"},
      {{"status", "--store", "x", "--log-level", "loud"},
       "millrace status: unknown log level 'loud'\n"
       "  Use one of trace, debug, info, warn, error, off.\n"},
  };
  for (const Case& wrong : cases) {
    const CommandResult result = millrace(wrong.arguments);
    CHECK(result.err == wrong.message);
    CHECK(result.exit_code == 2);
    CHECK(result.out.empty());
  }
}

TEST_CASE("arguments are checked before anything is opened or made", "[cli][usage]") {
  const TemporaryDirectory directory;
  const std::string store = (directory / "store").string();
  CHECK(millrace({"capture", "run", "--source", "postgresql://localhost:1/x", "--store", store,
                  "--tables", "orders"})
            .exit_code == 2);
  CHECK_FALSE(fs::exists(store));
}

TEST_CASE("options come from the command line, else the environment, else the file",
          "[cli][config]") {
  const TemporaryDirectory directory;
  const auto file = directory / "millrace.ini";
  // A store that is not there: the error names the one that was taken.
  std::ofstream(file) << "# a comment\n; another\n\nstore = /nowhere/file\nlog-level=off\n";
  ProcessOptions environment;
  environment.env["MILLRACE_STORE"] = "/nowhere/environment";
  const std::vector<std::string> status{"status", "--config", file.string()};
  CHECK_THAT(millrace({"status", "--config", file.string()}).err, Contains("/nowhere/file"));
  CHECK_THAT(millrace({"status", "--config", file.string()}, environment).err,
             Contains("/nowhere/environment"));
  CHECK_THAT(
      millrace({"status", "--config", file.string(), "--store", "/nowhere/line"}, environment).err,
      Contains("/nowhere/line"));
  environment.env = {{"MILLRACE_CONFIG", file.string()}};
  CHECK_THAT(millrace({"status"}, environment).err, Contains("/nowhere/file"));
}

TEST_CASE("one file serves every command, but a key of none is an error with its place",
          "[cli][config]") {
  const TemporaryDirectory directory;
  const std::string file = (directory / "millrace.ini").string();
  std::ofstream(file) << "source = service=shop\nslot = a\nstore = /nowhere/file\n";
  CHECK_THAT(millrace({"status", "--config", file}).err, Contains("/nowhere/file"));

  const auto error_of = [&](const std::string& text) {
    std::ofstream(file, std::ios::trunc) << text;
    const CommandResult result = millrace({"status", "--config", file});
    CHECK(result.exit_code == 2);
    return result.err;
  };
  CHECK(error_of("store = x\n\nstroe = y\n") == "millrace status: " + file +
                                                    ":3: stroe: there is no such option\n"
                                                    "  Did you mean 'store'?\n");
  CHECK_THAT(error_of("[capture]\n"), Contains(file + ":1: expected 'option = value'"));
  CHECK_THAT(error_of("store =\n"), Contains(file + ":1: store: has no value"));
  CHECK_THAT(error_of("store = x\njson = maybe\n"), Contains(file) && Contains("json"));
  CHECK_THAT(error_of("store = x\nstore = y\n"), Contains(file) && Contains("store"));
}

TEST_CASE("a configuration file that can't be read is wrong usage, and is named", "[cli][config]") {
  const TemporaryDirectory directory;
  for (const std::string& file :
       {std::string("/nowhere/millrace.ini"), directory.path().string()}) {
    const CommandResult result = millrace({"status", "--config", file});
    CHECK(result.exit_code == 2);
    CHECK_THAT(result.err, Contains("--config") && Contains(file));
  }
}

TEST_CASE("F13: standard output that is full or closed is an error, not a crash", "[cli][output]") {
  const auto shell = [](const std::string& redirection) {
    return run_command({"sh", "-c", "\"$0\" --help " + redirection, MILLRACE_PROGRAM});
  };
  CHECK(shell("> /dev/full").exit_code == 1);
  CHECK_THAT(shell("> /dev/full").err, Contains("write to standard output"));
  CHECK(shell(">&-").exit_code == 0);
  CHECK(shell("2>&- >&-").exit_code == 0);
}

}  // namespace
}  // namespace millrace::test
