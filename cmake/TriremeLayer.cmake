# trireme_layer(NAME [DEPENDS layer...] [LIBRARIES target...] [PRIVATE_LIBRARIES target...]
#               [WITHOUT file...])
#
# Makes the CMake target trireme_NAME of the folder it is called in: every *.cc but main.cc and the
# files WITHOUT which this build does, every *.h as a header set that must compile alone (target
# all_verify_interface_header_sets, run by ctest). A layer without sources yet is an INTERFACE target that only carries its dependencies.
function(trireme_layer name)
  cmake_parse_arguments(arg "" "" "DEPENDS;LIBRARIES;PRIVATE_LIBRARIES;WITHOUT" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "*.cc")
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.h")
  list(REMOVE_ITEM sources main.cc ${arg_WITHOUT})
  list(TRANSFORM arg_DEPENDS PREPEND trireme_)
  set(target trireme_${name})

  if(NOT sources)
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE ${arg_DEPENDS} ${arg_LIBRARIES})
    target_include_directories(${target} INTERFACE "${PROJECT_SOURCE_DIR}")
    set(visibility INTERFACE)
  else()
    add_library(${target} STATIC ${sources})
    target_link_libraries(${target} PUBLIC ${arg_DEPENDS} ${arg_LIBRARIES}
                          PRIVATE trireme_warnings ${arg_PRIVATE_LIBRARIES})
    target_include_directories(${target} PUBLIC "${PROJECT_SOURCE_DIR}")
    set(visibility PUBLIC)
  endif()
  if(headers)
    target_sources(${target} ${visibility} FILE_SET HEADERS BASE_DIRS "${PROJECT_SOURCE_DIR}"
                   FILES ${headers})
    set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  endif()
endfunction()
