#include "projections/relational/table_row.h"

#include <google/protobuf/descriptor.h>

#include <stdexcept>

namespace millrace::projections::internal {

Datum datum_of(const WireRow& row, const FieldDescriptor& field) {
  const WireRow::Field* wire = row.find(field);
  if (field.is_repeated() || field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE)
    throw std::invalid_argument(
        "column '" + field.name() +
        "' is a list or another message: give a function that makes a value of it");
  if (wire == nullptr) return {};
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return scalar_of<std::int32_t>(*wire, field);
    case FieldDescriptor::CPPTYPE_INT64: return scalar_of<std::int64_t>(*wire, field);
    case FieldDescriptor::CPPTYPE_UINT32: return scalar_of<std::uint32_t>(*wire, field);
    case FieldDescriptor::CPPTYPE_DOUBLE: return scalar_of<double>(*wire, field);
    case FieldDescriptor::CPPTYPE_FLOAT: return scalar_of<float>(*wire, field);
    case FieldDescriptor::CPPTYPE_BOOL: return scalar_of<bool>(*wire, field);
    default: break;
  }
  return is_bytes(field) ? Datum::blob(std::string(wire->bytes)) : Datum(wire->bytes);
}

}  // namespace millrace::projections::internal
