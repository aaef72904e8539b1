# cmake --install: the program, what users link (millrace::projections, millrace::service and what those stand on), the
# .proto files and a CMake package.
#
# A new folder that users link, or that one of these links, goes into `installed`, its headers into the lists below, and a
# library of somebody else's that it links into millraceConfig.cmake.in. The test `installed` tells what was forgotten.
include(CMakePackageConfigHelpers)

option(MILLRACE_INSTALL "Make the target `install`" ${PROJECT_IS_TOP_LEVEL})
if(NOT MILLRACE_INSTALL)
  return()
endif()

include(GNUInstallDirs)
set(headers include/millrace)  # below a folder of our own, since includes begin with names like base/
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/millrace)
set(protos_installed ${CMAKE_INSTALL_DATADIR}/millrace/proto)

install(TARGETS millrace RUNTIME)

set(installed options base eventstore proto schemas service projections sinks)
foreach(folder IN LISTS installed)
  set_target_properties(millrace_${folder} PROPERTIES EXPORT_NAME ${folder})
  install(TARGETS millrace_${folder} EXPORT millrace ARCHIVE)
endforeach()
install(EXPORT millrace NAMESPACE millrace:: FILE millraceTargets.cmake DESTINATION ${package})

# Headers at the top of a folder are its interface. Of the others, those that templates bring along.
foreach(folder base eventstore schemas projections projections/relational sinks)
  file(GLOB folder_headers CONFIGURE_DEPENDS ${folder}/*.h)
  install(FILES ${folder_headers} DESTINATION ${headers}/${folder})
endforeach()
install(FILES projections/sqlite/database.h DESTINATION ${headers}/projections/sqlite)
install(FILES service/shared_store.h service/store_server.h DESTINATION ${headers}/service)
install(DIRECTORY ${proto_out}/millrace DESTINATION ${headers} FILES_MATCHING PATTERN "*.pb.h" PATTERN "*.grpc.pb.h" EXCLUDE)
install(DIRECTORY ${proto_root}/millrace DESTINATION ${protos_installed} FILES_MATCHING PATTERN "*.proto")

configure_package_config_file(cmake/millraceConfig.cmake.in ${CMAKE_CURRENT_BINARY_DIR}/millraceConfig.cmake
                              INSTALL_DESTINATION ${package} PATH_VARS protos_installed)
write_basic_package_version_file(${CMAKE_CURRENT_BINARY_DIR}/millraceConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/millraceConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/millraceConfigVersion.cmake
              cmake/millrace_rows.cmake
        DESTINATION ${package})
