# trireme_layer(NAME [DEPENDS layer...] [LIBRARIES target...] [PRIVATE_LIBRARIES target...]
#               [WITHOUT file...] [PRECOMPILED])
#
# Makes the CMake target trireme_NAME of the folder it is called in: every *.cc but main.cc and the
# files WITHOUT which this build does, and with CUDA every cuda/*.cu. A layer without sources yet is an
# INTERFACE target that only carries its dependencies. PRECOMPILED: its sources come after LibTorch's
# precompiled headers.
#
# Every header must compile alone. One with a source of the same name does, because that source
# includes it first (tests/structure/layers_test.cc); the rest, in a PRECOMPILED layer all, are a header
# set of their own: target all_verify_interface_header_sets, run by ctest.
function(trireme_layer name)
  cmake_parse_arguments(arg "PRECOMPILED" "" "DEPENDS;LIBRARIES;PRIVATE_LIBRARIES;WITHOUT" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "*.cc")
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/*.h")
  list(REMOVE_ITEM sources main.cc ${arg_WITHOUT})
  if(TRIREME_CUDA_FOUND)
    file(GLOB kernels CONFIGURE_DEPENDS RELATIVE "${CMAKE_CURRENT_SOURCE_DIR}" "cuda/*.cu")
    list(APPEND sources ${kernels})
  endif()
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
  set(unproven "")
  foreach(header IN LISTS headers)
    string(REGEX REPLACE "h$" "cc" source "${header}")
    if(arg_PRECOMPILED OR NOT EXISTS "${source}")
      list(APPEND unproven "${header}")
    endif()
  endforeach()
  if(unproven)
    target_sources(${target} ${visibility} FILE_SET unproven TYPE HEADERS
                   BASE_DIRS "${PROJECT_SOURCE_DIR}" FILES ${unproven})
    set_target_properties(${target} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
  endif()
  if(arg_PRECOMPILED)
    trireme_precompiled(${target})
  endif()
endfunction()
