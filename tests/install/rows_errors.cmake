# cmake -D TREE=FOLDER -D WORK=FOLDER -D GENERATOR=NAME -P rows_errors.cmake
#
# What millrace_rows() says where it is used wrongly: a sentence at configure time, not an error of a compiler.
set(rows ${TREE}/examples/shop/rows)
file(REMOVE_RECURSE ${WORK})
file(MAKE_DIRECTORY ${WORK})

# configure(CALLS RESULT SAID): a project of nothing but these calls.
function(configure calls result_out said_out)
  file(WRITE ${WORK}/CMakeLists.txt "cmake_minimum_required(VERSION 3.25)
project(rows LANGUAGES CXX)
add_library(millrace::proto INTERFACE IMPORTED)
add_executable(protobuf::protoc IMPORTED)
include(${TREE}/cmake/millrace_rows.cmake)
${calls}
")
  execute_process(COMMAND ${CMAKE_COMMAND} -S ${WORK} -B ${WORK}/build -G ${GENERATOR}
                  RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE said)
  string(REGEX REPLACE "[ \n]+" " " said "${said}")
  set(${result_out} ${result} PARENT_SCOPE)
  set(${said_out} "${said}" PARENT_SCOPE)
endfunction()

function(must_refuse calls wanted)
  configure("${calls}" result said)
  if(result EQUAL 0 OR NOT said MATCHES "${wanted}")
    message(SEND_ERROR "${calls}: exit code ${result}, expected ${wanted}, but it said: ${said}")
  endif()
endfunction()

must_refuse("millrace_rows(shop_rows)" "name the .proto files")
must_refuse("millrace_rows(shop_rows rows/missing.proto)"
            "no file .*/rows/missing.proto. `millrace schema export` writes one for each table")
must_refuse("millrace_rows(shop_rows ${rows})" "there is no file")
must_refuse("millrace_rows(shop_rows ${TREE}/schemas/proto/millrace/v1/change.proto)" "was not written by `millrace schema export`")
must_refuse("millrace_rows(shop_rows ${rows}/public.orders.proto ${rows}/public.orders.proto)" "public.orders.proto is named twice")
must_refuse("millrace_rows(shop_rows ${rows}/public.orders.proto)\nmillrace_rows(shop_rows ${rows}/public.products.proto)"
            "a target of this name")
file(WRITE ${WORK}/values.proto "// The values that row messages of millrace refer to; docs/rows.md says what they hold.\n")
must_refuse("millrace_rows(shop_rows values.proto)" "millrace::proto has its messages already")
file(WRITE ${WORK}/empty.proto "")
must_refuse("millrace_rows(shop_rows empty.proto)" "was not written by `millrace schema export`")

# One that the build writes can't be looked into.
configure("set_source_files_properties(\${CMAKE_CURRENT_BINARY_DIR}/made.proto PROPERTIES GENERATED ON)
add_custom_command(OUTPUT made.proto COMMAND true)
set_target_properties(protobuf::protoc PROPERTIES IMPORTED_LOCATION /bin/true)
millrace_rows(shop_rows ${rows}/public.orders.proto \${CMAKE_CURRENT_BINARY_DIR}/made.proto)" result said)
if(NOT result EQUAL 0)
  message(SEND_ERROR "a file that the build writes is refused: ${said}")
endif()
