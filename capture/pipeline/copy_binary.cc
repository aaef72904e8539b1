#include "capture/pipeline/copy_binary.h"

#include "base/bytes.h"

// clang-format off
// The grammar, in network byte order:
//
//   copy    header row* trailer
//   header  "PGCOPY\n\377\r\n\0" u32(flags: what is above the low 16 bits must be understood)
//           u32(length) length * u8
//   row     i16(count) count * ( i32(-1: null) | i32(length) bytes )
//   trailer i16(-1)
// clang-format on
namespace millrace {
namespace {

using pgoutput::Field;
using pgoutput::FieldState;

constexpr std::string_view kSignature("PGCOPY\n\377\r\n\0", 11);
constexpr std::uint32_t kCriticalFlags = 0xffff0000;
constexpr std::uint32_t kNullLength = 0xffffffff;
constexpr std::size_t kKeptBytesMax = 1 << 20;  // room that one huge row made is given back
constexpr std::uint16_t kTrailer = 0xffff;

Error damaged(std::string what) {
  return Error(ErrorCode::kCorruption, "a binary COPY " + std::move(what));
}

}  // namespace

void CopyBinaryParser::feed(std::string_view bytes) {
  if (kept_.empty()) {
    rest_ = bytes;
    return;
  }
  kept_ += bytes;
  rest_ = kept_;
}

Result<const pgoutput::Tuple*> CopyBinaryParser::next(std::size_t columns) {
  if (!begun_) {
    MILLRACE_ASSIGN_OR_RETURN(const Step step, take_header());
    if (step == Step::kMore) return keep_rest();
    begun_ = true;
  }
  if (ended_) {
    if (!rest_.empty()) return damaged("goes on behind its end");
    return nullptr;
  }
  MILLRACE_ASSIGN_OR_RETURN(const Step step, take_row(columns));
  if (step == Step::kMore) return keep_rest();
  return ended_ ? next(columns) : &fields_;
}

/// What is left is the beginning of something whose rest is still to come.
Result<const pgoutput::Tuple*> CopyBinaryParser::keep_rest() {
  if (rest_.size() > kCopyRowBytesMax)
    return Error(ErrorCode::kUnsupported, "a row of a binary COPY is larger than a gibibyte");
  if (kept_.empty())
    kept_.assign(rest_);
  else
    kept_.erase(0, kept_.size() - rest_.size());
  if (kept_.empty() && kept_.capacity() > kKeptBytesMax) std::string().swap(kept_);
  rest_ = {};
  return nullptr;
}

Result<CopyBinaryParser::Step> CopyBinaryParser::take_header() {
  const std::string_view here = rest_.substr(0, kSignature.size());
  if (!kSignature.starts_with(here)) return damaged("does not begin as PostgreSQL's does");
  ByteReader in(rest_.substr(here.size()));
  const std::uint32_t flags = in.u32_be();
  const std::uint32_t extension = in.u32_be();
  if (in.failed()) return Step::kMore;
  if ((flags & kCriticalFlags) != 0) return damaged("has a flag that millrace does not know");
  if (extension > kCopyRowBytesMax) return damaged("has a header that can't be");
  in.bytes(extension);
  if (in.failed()) return Step::kMore;
  rest_.remove_prefix(rest_.size() - in.remaining());
  return Step::kDone;
}

Result<CopyBinaryParser::Step> CopyBinaryParser::take_row(std::size_t columns) {
  ByteReader in(rest_);
  const std::uint16_t count = in.u16_be();
  if (in.failed()) return Step::kMore;
  ended_ = count == kTrailer;
  if (!ended_ && count != columns)
    return damaged("has a row of " + std::to_string(count) + " fields, expected " +
                   std::to_string(columns));
  fields_.resize(ended_ ? 0 : columns);
  for (Field& field : fields_) {
    const std::uint32_t length = in.u32_be();
    if (length == kNullLength) {
      field = {FieldState::kNull, {}};
      continue;
    }
    if (length > kCopyRowBytesMax) return damaged("has a field of a length that can't be");
    field = {FieldState::kBinary, in.bytes(length)};
    if (in.failed()) return Step::kMore;
  }
  if (in.failed()) return Step::kMore;
  row_ = rest_.substr(0, rest_.size() - in.remaining());
  rest_.remove_prefix(row_.size());
  return Step::kDone;
}

Result<const pgoutput::Tuple*> CopyBinaryParser::parse(std::string_view row, std::size_t columns) {
  rest_ = row;
  MILLRACE_ASSIGN_OR_RETURN(const Step step, take_row(columns));
  if (step == Step::kMore || ended_ || !rest_.empty()) return damaged("has a row that was cut");
  return &fields_;
}

}  // namespace millrace
