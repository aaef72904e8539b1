#include "projections/change.h"

#include <google/protobuf/descriptor.h>

namespace millrace::projections::internal {

using google::protobuf::Message;

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

bool has_field(const Message& row, const FieldDescriptor& field) {
  return row.GetReflection()->HasField(row, &field);
}

bool is_bytes(const FieldDescriptor& field) { return field.type() == FieldDescriptor::TYPE_BYTES; }

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
