#include "projections/change.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>

#include "base/bytes.h"

namespace millrace::projections::internal {

using google::protobuf::Message;

BadRow::BadRow(const google::protobuf::Descriptor& row)
    : std::runtime_error("its row is no " + row.full_name()) {}

WireRow::WireRow(const google::protobuf::Descriptor& row) {
  int largest = 0;
  for (int i = 0; i < row.field_count(); ++i) largest = std::max(largest, row.field(i)->number());
  fields_.resize(static_cast<std::size_t>(largest) + 1);
}

bool WireRow::assign(std::string_view bytes) {
  if (++row_ == 0) {  // once around
    for (Field& field : fields_) field.row = 0;
    row_ = 1;
  }
  Field other;  // one that the program does not know
  ByteReader in(bytes);
  while (in.remaining() > 0) {
    const std::uint64_t tag = in.varint();
    const std::uint64_t number = tag >> 3;
    if (number == 0) return false;
    Field& field = number < fields_.size() ? fields_[number] : other;
    switch (tag & 7) {
      case 0: field.number = in.varint(); break;
      case 1: field.number = in.u64_le(); break;
      case 2: field.bytes = in.bytes(in.varint()); break;
      case 5: field.number = in.u32_le(); break;
      default: return false;
    }
    field.row = row_;
    field.wire = static_cast<std::uint8_t>(tag & 7);
  }
  return !in.failed();
}

void set_field(Message& probe, const FieldDescriptor& field, bool to_default) {
  const auto& reflection = *probe.GetReflection();
  const int value = to_default ? 0 : 1;
  if (field.is_repeated()) return;  // rows have none
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.SetInt32(&probe, &field, value);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.SetInt64(&probe, &field, value);
    case FieldDescriptor::CPPTYPE_UINT32:
      return reflection.SetUInt32(&probe, &field, static_cast<std::uint32_t>(value));
    case FieldDescriptor::CPPTYPE_UINT64:
      return reflection.SetUInt64(&probe, &field, static_cast<std::uint64_t>(value));
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.SetDouble(&probe, &field, value);
    case FieldDescriptor::CPPTYPE_FLOAT:
      return reflection.SetFloat(&probe, &field, static_cast<float>(value));
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.SetBool(&probe, &field, !to_default);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.SetEnumValue(&probe, &field, value);
    case FieldDescriptor::CPPTYPE_STRING:
      return reflection.SetString(&probe, &field, to_default ? "" : "x");
    case FieldDescriptor::CPPTYPE_MESSAGE:
      if (!to_default) reflection.MutableMessage(&probe, &field);
      return;
  }
}

const FieldDescriptor& field_named(const google::protobuf::Descriptor& row, std::string_view name) {
  const FieldDescriptor* field = row.FindFieldByName(std::string(name));
  if (field == nullptr)
    throw std::invalid_argument("the message " + row.full_name() + " has no column '" +
                                std::string(name) + "'");
  return *field;
}

void throw_no_row(Op op) {
  throw std::logic_error(
      op == Op::kTruncate ? "a truncate has no row: ask change.is_truncate() before reading columns"
                          : "this change came without any row image");
}

void throw_no_field(const google::protobuf::Descriptor& row) {
  throw std::invalid_argument("a function of " + row.full_name() +
                              " was used as a column that is not the getter of one of its fields");
}

}  // namespace millrace::projections::internal
