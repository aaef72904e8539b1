# millrace_rows(target file.proto...)
#
# Makes a static library of the C++ messages that protoc generates from files that `millrace schema export` wrote. Link your
# program with it and include "<schema>.<table>.pb.h".
function(millrace_rows target)
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${target})
  set(import ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../schemas/proto)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  foreach(proto IN LISTS ARGN)
    get_filename_component(proto ${proto} ABSOLUTE)
    get_filename_component(folder ${proto} DIRECTORY)
    get_filename_component(name ${proto} NAME_WLE)
    add_custom_command(
      OUTPUT ${out}/${name}.pb.cc ${out}/${name}.pb.h
      COMMAND protobuf::protoc --cpp_out=${out} -I ${folder} -I ${import} ${proto}
      DEPENDS ${proto} protobuf::protoc
      COMMENT "Generating row messages of ${name}"
      VERBATIM)
    list(APPEND sources ${out}/${name}.pb.cc)
  endforeach()
  add_library(${target} STATIC ${sources})
  target_include_directories(${target} SYSTEM PUBLIC ${out})
  target_link_libraries(${target} PUBLIC millrace::proto)
endfunction()
