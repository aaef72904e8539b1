#include "eventstore/event_metadata.h"

#include "base/bytes.h"
#include "millrace/v1/event_metadata.pb.h"
#include "tests/support/store_fixture.h"

using namespace millrace;
using namespace millrace::test;

TEST_CASE("metadata of an event is the Protobuf message that it says it is",
          "[eventstore][metadata]") {
  const std::string any_bytes("\0\xff/", 3);
  const EventMetadata metadata{.event_id = any_bytes,
                               .correlation_id = "request 7",
                               .causation_id = "command 3",
                               .time = UnixMicros{-1},
                               .extra = "{}"};
  const std::string bytes = encode_metadata(metadata);
  CHECK(must(decode_metadata(bytes)) == metadata);
  v1::EventMetadata message;
  REQUIRE(message.ParseFromString(bytes));
  CHECK(message.event_id() == any_bytes);
  CHECK(message.correlation_id() == "request 7");
  CHECK(message.causation_id() == "command 3");
  CHECK(message.time() == -1);
  CHECK(message.extra() == "{}");
  CHECK(message.SerializeAsString() == bytes);
}

TEST_CASE("metadata that says nothing has no bytes", "[eventstore][metadata]") {
  CHECK(encode_metadata({}).empty());
  CHECK(must(decode_metadata({})) == EventMetadata{});
}

TEST_CASE("B28: metadata of a newer program is read past, and bytes that are none are refused",
          "[eventstore][metadata]") {
  // Field 9 as each of the wire types that there are, then field 2.
  const std::string newer = std::string("\x48\x01") + "\x49" + "12345678" + "\x4a\x02xy" + "\x4d" +
                            "1234" + "\x12\x01" + "c";
  CHECK(must(decode_metadata(newer)).correlation_id == "c");
  for (const std::string_view bytes :
       {std::string_view("\x0a"), std::string_view("\x0a\x05xy"), std::string_view("\x21short"),
        std::string_view("\x4b"),
        std::string_view("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01")}) {
    INFO(to_hex(bytes));
    const auto decoded = decode_metadata(bytes);
    REQUIRE_FALSE(decoded);
    CHECK(decoded.error().code() == ErrorCode::kCorruption);
  }
}
