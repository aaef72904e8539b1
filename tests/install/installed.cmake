# cmake -D BUILD=FOLDER -D WORK=FOLDER -D TREE=FOLDER -D GENERATOR=NAME -D COMPILER=PROGRAM [-D LAUNCHER=PROGRAM]
#       -P installed.cmake
#
# Installs what BUILD has built, and lets projects outside of the tree use the package: `consumer` beside this file and an
# example. Nothing of millrace is built anew.
foreach(argument BUILD WORK TREE GENERATOR COMPILER)
  if("${${argument}}" STREQUAL "")
    message(FATAL_ERROR "${argument} is missing")
  endif()
endforeach()

# must_say(REGEX COMMAND...): it succeeds and says that; an empty REGEX takes anything.
function(must_say wanted)
  list(JOIN ARGN " " line)
  message(STATUS ${line})
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE said ERROR_VARIABLE said)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit code ${result}:\n${said}")
  endif()
  if(NOT said MATCHES "${wanted}")
    message(FATAL_ERROR "expected ${wanted}, but it said:\n${said}")
  endif()
endfunction()

# --- what is there ---------------------------------------------------------------------------
file(REMOVE_RECURSE ${WORK})
must_say("" ${CMAKE_COMMAND} --install ${BUILD} --prefix ${WORK}/installed)
file(RENAME ${WORK}/installed ${WORK}/prefix) # nothing may depend on where it was installed to
set(include ${WORK}/prefix/include/millrace)
foreach(file bin/millrace include/millrace/projections/projections.h include/millrace/projections/testing.h
        include/millrace/millrace/v1/values.pb.h share/millrace/proto/millrace/v1/values.proto)
  if(NOT EXISTS ${WORK}/prefix/${file})
    message(FATAL_ERROR "${file} was not installed")
  endif()
endforeach()

file(GLOB_RECURSE headers RELATIVE ${include} ${include}/*.h)
foreach(header IN LISTS headers)
  file(STRINGS ${include}/${header} lines REGEX "^ *# *include *\"")
  foreach(line IN LISTS lines)
    string(REGEX REPLACE "[^\"]*\"([^\"]*)\".*" "\\1" included ${line})
    if(NOT EXISTS ${include}/${included})
      message(SEND_ERROR "${header} is installed, but includes ${included}, which is not")
    endif()
  endforeach()
endforeach()

file(GLOB cmake_files ${WORK}/prefix/lib*/cmake/millrace/*.cmake ${WORK}/prefix/lib*/*/cmake/millrace/*.cmake)
if(NOT cmake_files)
  message(FATAL_ERROR "no CMake package was installed")
endif()
foreach(file IN LISTS cmake_files)
  file(READ ${file} text)
  foreach(folder ${TREE} ${BUILD} ${WORK})
    string(FIND "${text}" "${folder}" at)
    if(NOT at EQUAL -1)
      message(SEND_ERROR "${file} names ${folder}")
    endif()
  endforeach()
endforeach()

# --- what uses it ----------------------------------------------------------------------------
function(build_outside source name)
  file(COPY ${source}/ DESTINATION ${WORK}/${name})
  must_say("" ${CMAKE_COMMAND} -S ${WORK}/${name} -B ${WORK}/${name}/build -G ${GENERATOR} -D CMAKE_PREFIX_PATH=${WORK}/prefix
           -D CMAKE_CXX_COMPILER=${COMPILER} -D CMAKE_CXX_COMPILER_LAUNCHER=${LAUNCHER}
           -D CMAKE_BUILD_TYPE=Debug -D CMAKE_CXX_FLAGS_DEBUG=-O0) # for speed
  must_say("" ${CMAKE_COMMAND} --build ${WORK}/${name}/build)
endfunction()

build_outside(${CMAKE_CURRENT_LIST_DIR}/consumer consumer)
must_say("100% tests passed" ${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/consumer/build --output-on-failure)

build_outside(${TREE}/examples/cart cart)
must_say("100% tests passed" ${CMAKE_CTEST_COMMAND} --test-dir ${WORK}/cart/build --output-on-failure)
must_say("" ${WORK}/cart/build/cart ${WORK}/store 9f3a add A-1 2 250)
must_say("ItemAdded" ${WORK}/prefix/bin/millrace stream read --store ${WORK}/store --stream cart/9f3a)

file(REMOVE_RECURSE ${WORK}) # the libraries are large
