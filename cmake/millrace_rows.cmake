# millrace_rows(target file.proto...)
#
# Makes a static library of the C++ messages that protoc generates from files that `millrace schema export` wrote. Link your
# program with it and include "<schema>.<table>.pb.h". A file may be written by the build itself (add_custom_command).
function(millrace_rows target)
  if(NOT ARGN)
    message(FATAL_ERROR "millrace_rows(${target}): name the .proto files that `millrace schema export` wrote")
  endif()
  if(TARGET ${target})
    message(FATAL_ERROR "millrace_rows(${target}): there is a target of this name already")
  endif()
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${target})
  get_property(import GLOBAL PROPERTY MILLRACE_PROTO_ROOT)
  file(MAKE_DIRECTORY ${out})
  set(sources)
  foreach(proto IN LISTS ARGN)
    get_filename_component(proto ${proto} ABSOLUTE)
    _millrace_check_rows(${target} ${proto})
    get_filename_component(folder ${proto} DIRECTORY)
    get_filename_component(name ${proto} NAME_WLE)
    if(${out}/${name}.pb.cc IN_LIST sources)
      message(FATAL_ERROR "millrace_rows(${target}): ${name}.proto is named twice")
    endif()
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

# Stops with a sentence where `proto` is not what millrace_rows() is for.
function(_millrace_check_rows target proto)
  get_source_file_property(made_by_build ${proto} GENERATED)
  if(made_by_build)
    return()
  endif()
  if(NOT EXISTS ${proto} OR IS_DIRECTORY ${proto})
    message(FATAL_ERROR "millrace_rows(${target}): there is no file ${proto}. `millrace schema export` writes one for each table")
  endif()
  file(STRINGS ${proto} first LIMIT_COUNT 1 ENCODING UTF-8)
  if(first MATCHES "^// The values that row messages of millrace refer to")
    message(FATAL_ERROR "millrace_rows(${target}): leave ${proto} out, millrace::proto has its messages already")
  endif()
  if(NOT first MATCHES "^// Table .* of its schema[.] Written by millrace")
    message(FATAL_ERROR "millrace_rows(${target}): ${proto} was not written by `millrace schema export`: its first line does not "
                        "name a table. Use protobuf_generate() or protoc for messages of your own")
  endif()
endfunction()
