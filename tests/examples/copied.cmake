# cmake -D SOURCE=EXAMPLE -D WORK=FOLDER -D MILLRACE=TREE -D PROGRAM=NAME -D GENERATOR=NAME -P copied.cmake
#
# Does what a newcomer does: copies an example out of the tree, builds it against a clone of millrace (this one), and asks
# the program for its help.
foreach(argument SOURCE WORK MILLRACE PROGRAM GENERATOR)
  if("${${argument}}" STREQUAL "")
    message(FATAL_ERROR "${argument} is missing")
  endif()
endforeach()

file(REMOVE_RECURSE ${WORK}/source) # the build folder stays: a second run is a short one
file(COPY ${SOURCE}/ DESTINATION ${WORK}/source)

# With neither a clone nor an installed package it must say what is missing.
execute_process(
  COMMAND ${CMAKE_COMMAND} -S ${WORK}/source -B ${WORK}/nothing -G ${GENERATOR} -D CMAKE_DISABLE_FIND_PACKAGE_millrace=ON
  RESULT_VARIABLE result OUTPUT_QUIET ERROR_VARIABLE said)
file(REMOVE_RECURSE ${WORK}/nothing)
if(result EQUAL 0 OR NOT said MATCHES "MILLRACE_SOURCE_DIR=")
  message(FATAL_ERROR "without MILLRACE_SOURCE_DIR: exit code ${result}, ${said}")
endif()

function(run)
  execute_process(COMMAND ${ARGV} COMMAND_ECHO STDOUT RESULT_VARIABLE result)
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit code ${result}")
  endif()
endfunction()

run(${CMAKE_COMMAND} -S ${WORK}/source -B ${WORK}/build -G ${GENERATOR} -D MILLRACE_SOURCE_DIR=${MILLRACE})
run(${CMAKE_COMMAND} --build ${WORK}/build)
run(${WORK}/build/${PROGRAM} --help)
