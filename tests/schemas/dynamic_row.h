#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

#include "schemas/proto_file.h"
#include "tests/support/process.h"
#include "tests/support/temporary_directory.h"

namespace millrace::test {

/// The message of a table as a user's Protobuf library sees it: its exported .proto file, compiled
/// by the real protoc.
class DynamicRow {
 public:
  explicit DynamicRow(const TableSchema& schema) {
    const TemporaryDirectory directory;
    write(directory / std::string(kValuesProtoPath), values_proto_file());
    const std::string file = proto_file_name(schema), text = to_proto_file(schema, "shop");
    write(directory / file, text);
    const CommandResult compiled =
        run_command({"protoc", "--proto_path=" + directory.path().string(), "--include_imports",
                     "--descriptor_set_out=" + (directory / "set").string(), file});
    if (compiled.exit_code != 0)
      throw std::runtime_error("protoc refuses " + file + ": " + compiled.err + "\n" + text);
    google::protobuf::FileDescriptorSet set;
    std::ifstream in(directory / "set", std::ios::binary);
    if (!set.ParseFromIstream(&in)) throw std::runtime_error("protoc wrote no descriptors");
    for (const auto& proto : set.file())
      if (const auto* built = pool_.BuildFile(proto); built != nullptr && proto.name() == file)
        prototype_ = factory_.GetPrototype(built->message_type(0));
    if (prototype_ == nullptr) throw std::runtime_error("no message in " + file + "\n" + text);
  }

  const google::protobuf::Descriptor& descriptor() const { return *prototype_->GetDescriptor(); }

  /// `bytes` as text format; nothing where they are no such message.
  std::optional<std::string> parse(std::string_view bytes) const {
    const std::unique_ptr<google::protobuf::Message> message(prototype_->New());
    if (!message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
    return message->ShortDebugString();
  }

 private:
  static void write(const std::filesystem::path& path, const std::string& text) {
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
  }

  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_;
  const google::protobuf::Message* prototype_ = nullptr;
};

}  // namespace millrace::test
